"""Two models on the same samples: is the difference real, and how many samples would tell."""

from __future__ import annotations

import math

from resnetkit.ops.intervals import Z95

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
