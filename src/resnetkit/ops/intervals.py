"""95 % intervals: Wilson's for a share and what follows from one, the percentile bootstrap for everything else."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

Z95 = 1.959963984540054
Array = NDArray[np.floating]


@dataclass(frozen=True)
class Metric:
    """A number with its uncertainty: value, number of samples, 95 % interval and how it was found.

    `value`, `low` and `high` are None where the number does not exist (no samples); `method` then says why.
    """

    value: float | None
    n: int
    low: float | None
    high: float | None
    method: str

    def as_dict(self) -> dict[str, float | int | str | None]:
        """As it stands in metrics.json."""
        return asdict(self)


def wilson(successes: float, n: int) -> Metric:
    """Share of successes with Wilson's score interval (Wilson 1927, JASA 22:209, without continuity correction)."""
    if n == 0:
        return Metric(None, 0, None, None, "no samples")
    share = successes / n
    z2 = Z95 * Z95
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # at the ends the formula gives 0 and 1 but for rounding
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return Metric(share, n, low, high, "wilson")


def bootstrap(
    statistic: Callable[[NDArray[np.intp]], float],
    n: int,
    *,
    groups: NDArray[np.integer] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Metric:
    """A statistic of n samples with its percentile bootstrap interval (Efron 1979).

    Args:
        statistic: of an array of sample indices [n].
        n: number of samples.
        groups: that each sample belongs to [n]: whole groups are drawn, as samples of one are alike.
        resamples: number of resamples.
        seed: of the resampling, so that a report can be made again.
    """
    if n == 0:
        return Metric(None, 0, None, None, "no samples")
    rng = np.random.default_rng(seed)
    if groups is None:
        values = [statistic(rng.integers(0, n, n)) for _ in range(resamples)]
    else:
        members = np.split(np.argsort(groups, kind="stable"), np.flatnonzero(np.diff(np.sort(groups))) + 1)
        drawn = rng.integers(0, len(members), (resamples, len(members)))
        values = [statistic(np.concatenate([members[group] for group in row])) for row in drawn]
    low, high = np.quantile(values, [0.025, 0.975])
    method = f"bootstrap, {resamples} resamples" + (f" of {len(members):,} groups" if groups is not None else "")
    return Metric(float(statistic(np.arange(n))), n, float(low), float(high), method)


def weighted_bootstrap(
    statistic: Callable[[Array], Array],
    n: int,
    *,
    resamples: int = 1000,
    seed: int = 0,
    at_once: int = 2**22,
    centred: bool = False,
) -> Metric:
    """As `bootstrap`, many resamples at a time.

    Args:
        statistic: of the number of times that each sample was drawn [B, n]: B values, NaN where it does not exist.
        n: number of samples.
        resamples: number of resamples.
        seed: of the resampling, so that a report can be made again.
        at_once: numbers in an array of draws, at most, so that any n fits in memory.
        centred: of a sum of absolute values, which resampling makes larger: the interval lies around the value.
    """
    value = float(statistic(np.ones((1, n)))[0]) if n else math.nan
    if math.isnan(value):
        return Metric(None, n, None, None, "no samples" if n == 0 else "no positives")
    rng = np.random.default_rng(seed)
    step = max(1, at_once // n)
    parts = [statistic(_draws(rng, min(step, resamples - done), n)) for done in range(0, resamples, step)]
    found = np.concatenate(parts)
    low, high = np.nanquantile(found, [0.025, 0.975])
    if centred:
        low, high = np.maximum(0, np.array([low, high]) - (np.nanmean(found) - value))
    return Metric(value, n, float(low), float(high), f"bootstrap, {resamples} resamples")


def _draws(rng: np.random.Generator, count: int, n: int) -> NDArray[np.float32]:
    """How often each of n samples is drawn in `count` draws of n [count, n]."""
    rows = rng.integers(0, n, (count, n)) + np.arange(count)[:, None] * n
    return np.bincount(rows.ravel(), minlength=count * n).reshape(count, n).astype(np.float32)


def weighted_bootstraps(
    statistics: Callable[[Array], Array],
    n: int,
    reasons: Sequence[str],
    *,
    resamples: int = 1000,
    seed: int = 0,
    at_once: int = 2**22,
) -> list[Metric]:
    """As `weighted_bootstrap`, of several statistics of the same resamples.

    Args:
        statistics: of the number of times that each sample was drawn [B, n]: [B, M], NaN where one does not exist.
        n: number of samples.
        reasons: why each of the M does not exist, where it does not.
        resamples: number of resamples.
        seed: of the resampling.
        at_once: numbers in an array of draws, at most.
    """
    if not n:
        return [Metric(None, 0, None, None, "no samples") for _ in reasons]
    values = statistics(np.ones((1, n)))[0]
    rng = np.random.default_rng(seed)
    step = max(1, at_once // n)
    drawn = [statistics(_draws(rng, min(step, resamples - done), n)) for done in range(0, resamples, step)]
    found = np.concatenate(drawn)
    method = f"bootstrap, {resamples} resamples"

    def metric(at: int) -> Metric:
        if math.isnan(values[at]):
            return Metric(None, n, None, None, reasons[at])
        low, high = np.nanquantile(found[:, at], [0.025, 0.975])
        return Metric(float(values[at]), n, float(low), float(high), method)

    return [metric(at) for at in range(len(reasons))]
