"""Verification: are two recordings of one speaker? Scores of pairs, and how well a threshold tells them apart."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from resnetkit.ops.intervals import Metric

Floats = NDArray[np.floating]
SCALE = 30.0  # of the cosines that are logits of a network for voices (arXiv 1801.05599, section 3)
EPSILON = 1e-7  # of the variance whose root such a network takes


def cosine(a: Floats, b: Floats) -> Floats:
    """Cosine of each pair of embeddings [n, D] and [n, D], -1..1; 0 where one of both is zero."""
    wide = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(wide[0], axis=-1) * np.linalg.norm(wide[1], axis=-1)
    products = (wide[0] * wide[1]).sum(-1)
    return np.asarray(np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0).clip(-1, 1))


def equal_error(scores: Floats, same: NDArray[np.bool_], weights: Floats | None = None) -> tuple[float, float]:
    """Equal error rate of pair scores, and the threshold at which it is reached.

    False alarms are pairs of two speakers at or above the threshold, misses pairs of one speaker below it; both rates
    are joined by straight lines from one threshold to the next, and where they meet is the rate, as in the NIST
    speaker recognition evaluations. Equal scores are one step.

    Args:
        scores: higher for more alike [n].
        same: whether the speaker is the same [n].
        weights: of the pairs [n], for resampling.

    Returns:
        The rate 0..1 and a score; NaN where pairs of one kind are missing.
    """
    drawn = np.ones(len(scores)) if weights is None else weights
    order = np.argsort(scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True)) if len(scores) else np.zeros(0, np.intp)
    positive, negative = drawn[order] * same[order], drawn[order] * ~same[order]
    if not (positive.sum() > 0 and negative.sum() > 0):
        return math.nan, math.nan
    misses = np.append(0.0, np.cumsum(positive)[ends] / positive.sum())
    alarms = np.append(1.0, 1 - np.cumsum(negative)[ends] / negative.sum())
    at = int(np.argmax(misses >= alarms))  # the first threshold behind the crossing; that of 0 misses is before it
    before, behind = alarms[at - 1] - misses[at - 1], misses[at] - alarms[at]
    share = before / (before + behind)
    rate = misses[at - 1] + share * (misses[at] - misses[at - 1])
    return float(rate), float(scores[order][ends[at - 1]])


def equal_error_rate(
    scores: Floats,
    same: NDArray[np.bool_],
    speakers: NDArray[np.integer] | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Metric:
    """Equal error rate with its 95 % interval from a bootstrap (Efron 1979), over pairs or over speakers.

    Pairs of one speaker are alike, so where the speakers are known they are what is drawn: a pair counts as often as
    the one speaker was drawn times as often as the other (the pigeonhole bootstrap, Owen 2007), and a pair of one
    speaker as often as that one was. With few speakers that is wide, as it should be.

    Args:
        scores: of the pairs, higher for more alike [n].
        same: whether the speaker is the same [n].
        speakers: number of each pair's two speakers [n, 2].
        resamples: number of resamples.
        seed: of the resampling.
    """
    rate, n = equal_error(scores, same)[0], len(scores)
    if math.isnan(rate):
        return Metric(None, n, None, None, "pairs of one kind are missing")
    rng = np.random.default_rng(seed)
    found = np.array([equal_error(scores, same, _drawn(rng, same, speakers))[0] for _ in range(resamples)])
    exists = found[~np.isnan(found)]
    whom = "pairs" if speakers is None else f"{len(np.unique(speakers)):,} speakers"
    if len(exists) < resamples / 2:
        return Metric(rate, n, None, None, f"no interval: {whom} are too few")
    low, high = np.quantile(exists, [0.025, 0.975])
    return Metric(rate, n, float(low), float(high), f"bootstrap, {resamples} resamples of {whom}")


def _drawn(rng: np.random.Generator, same: NDArray[np.bool_], speakers: NDArray[np.integer] | None) -> Floats:
    """How often each pair is drawn in one resample [n]."""
    if speakers is None:
        return np.bincount(rng.integers(0, len(same), len(same)), minlength=len(same)).astype(np.float64)
    known, index = np.unique(speakers, return_inverse=True)
    times = np.bincount(rng.integers(0, len(known), len(known)), minlength=len(known)).astype(np.float64)
    one, other = times[index.reshape(-1, 2)].T
    return np.asarray(np.where(same, one, one * other))
