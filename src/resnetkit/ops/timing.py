"""Times of many calls in a few numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Timing:
    """How long calls took.

    Attributes:
        images_per_second: median over the rounds.
        p50, p99: percentiles of a call's time, ms; of fewer than 100 calls p99 is the slowest.
        calls: number of calls.
    """

    images_per_second: float
    p50: float
    p99: float
    calls: int


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that at least this share of them, 0..1, does not exceed (nearest rank).

    Raises:
        ValueError: there is no value.
    """
    if not values:
        raise ValueError("there is no percentile of nothing")
    return float(np.percentile(values, 100 * share, method="inverted_cdf"))


def timing(rounds: Sequence[Sequence[float]], images: int) -> Timing:
    """Times of calls, in s, of some rounds of calls on as many images each.

    A round's rate is its images over its time. The median over the rounds is that of a typical one, whatever disturbed
    some of them.

    Raises:
        ValueError: a round holds no call.
    """
    if not all(rounds):
        raise ValueError("a round without calls")
    rates = [images * len(calls) / max(sum(calls), 1e-9) for calls in rounds]
    calls = [1e3 * seconds for each in rounds for seconds in each]
    return Timing(float(np.median(rates)), percentile(calls, 0.5), percentile(calls, 0.99), len(calls))
