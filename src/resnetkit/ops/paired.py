"""Two models on the same samples: is the difference real, and how many samples would tell."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from resnetkit.ops.intervals import Z95, Metric

AT_ONCE = 2**21  # signs that are drawn at a time
Z80 = 0.8416212335729143  # quantile of a power of 80 %


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p-value of McNemar's test (1947): of the samples that one model alone has right, half are each's.

    Args:
        only_a: samples that A has right and B wrong.
        only_b: the other way round.
    """
    from scipy.stats import binomtest

    total = only_a + only_b
    return float(binomtest(only_b, total).pvalue) if total else 1.0


def sign_flips(differences: NDArray[np.integer], draws: int = 10_000) -> float:
    """Two-sided p-value of a permutation test of paired groups: A and B are swapped in whole groups.

    Exact for up to 12 groups that differ, else from seeded draws. Of groups of one sample it is McNemar's exact test.

    Args:
        differences: samples of each group that B alone has right, less those that A alone has [G].
        draws: of signs, where there are too many to try all.
    """
    some = differences[differences != 0].astype(np.int64)
    if len(some) <= 12:
        signs = 1 - 2 * ((np.arange(2 ** len(some))[:, None] >> np.arange(len(some))) & 1)
        return float((np.abs(signs @ some) >= abs(some.sum())).mean())
    rng, as_far = np.random.default_rng(0), 0
    step = max(1, AT_ONCE // len(some))
    for start in range(0, draws, step):
        drawn = rng.integers(0, 2, (min(step, draws - start), len(some)), np.int8) * 2.0 - 1
        as_far += int((np.abs(drawn @ some) >= abs(some.sum())).sum())
    return (1 + as_far) / (1 + draws)


def samples_needed(only_a: int, only_b: int, n: int) -> int | None:
    """Samples on which such a difference is found at 5 % with a power of 80 % (Connor 1987, Biometrics 43:207).

    None where the models have equally many right: no number would do.

    Args:
        only_a: samples that A has right and B wrong.
        only_b: the other way round.
        n: samples that both have answered.
    """
    share, difference = (only_a + only_b) / max(1, n), abs(only_b - only_a) / max(1, n)
    if not difference:
        return None
    root = Z95 * math.sqrt(share) + Z80 * math.sqrt(share - difference**2)
    return math.ceil((root / difference) ** 2)


def share_lost(only_a: int, only_b: int, n: int) -> Metric:
    """How much smaller B's share of right samples is than A's; the interval holds where both hardly differ, too.

    Bonett & Price 2012, British Journal of Mathematical and Statistical Psychology 65:229, equation 4.

    Args:
        only_a: samples that A has right and B wrong.
        only_b: the other way round.
        n: samples that both have answered.
    """
    if n == 0:
        return Metric(None, 0, None, None, "no samples")
    a, b = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
    half = Z95 * math.sqrt((a + b - (a - b) ** 2) / (n + 2))
    return Metric((only_a - only_b) / n, n, a - b - half, a - b + half, "bonett-price")
