"""Probabilities that mean what they say: expected calibration error, conformal sets, and how strange an input is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from resnetkit.ops.intervals import Metric, weighted_bootstrap
from resnetkit.ops.metrics import softmax

Floats = NDArray[np.floating]
Spread = tuple[float, float]  # mean and deviation
Sets = Literal["lac", "aps"]
BINS = 15  # of confidence, as in arXiv 1706.04599
BLOCK = 4096  # rows of distances at a time


@dataclass(frozen=True)
class Calibration:
    """What was learnt from n held-out samples about how far a model may be believed.

    Attributes:
        temperature: logits are divided by it (arXiv 1706.04599).
        n: samples it was fitted on.
        sets: how sets of classes are made, "lac" or "aps".
        false_alarms: share of known inputs that are called novel.
        neighbours: k of the distance.
        before, after: expected calibration error on the samples, without and with the temperature.
        scores: conformal score of each sample, ascending [n]; none where a sample has several labels.
        energy: mean and deviation of one half of the samples.
        distance: of these to their k-th nearest other one, mean and deviation.
        strangeness: of each sample of the other half, ascending.
        bank: embeddings of unit length of the first half [m, D].
    """

    temperature: float
    n: int
    sets: Sets
    false_alarms: float
    neighbours: int
    before: Metric
    after: Metric
    energy: Spread
    distance: Spread
    scores: Floats
    strangeness: Floats
    bank: Floats

    def parts(self) -> tuple[dict[str, Any], dict[str, Floats]]:
        """As it is kept: values for model.json, and arrays; `calibration_from` takes both."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        arrays = {name: np.ascontiguousarray(value) for name, value in named.items() if isinstance(value, np.ndarray)}
        values = {name: value for name, value in named.items() if name not in arrays}
        return {n: v.as_dict() if isinstance(v, Metric) else v for n, v in values.items()}, arrays

    def possible(self, logits: Floats, coverage: float) -> NDArray[np.bool_]:
        """Which classes [n, K] are in the set that holds the true one with this probability.

        Args:
            logits: divided by the temperature [n, K].
            coverage: 0..1; the samples must be as many as `samples_for` says.
        """
        made = {"lac": lac_sets, "aps": aps_sets}[self.sets]
        return made(softmax(logits), conformal_quantile(self.scores, coverage))

    def novelty(self, logits: Floats, embeddings: Floats) -> Floats:
        """How strange inputs are [n], 0..1: 1 less the share of the samples, the input among them, that are as strange.

        Of inputs like the samples, at most a share a is at 1 - a or above (arXiv 2107.07511, sec. 4.4).

        Args:
            logits: divided by the temperature [n, K].
            embeddings: [n, D].
        """
        strange = self.strange(logits, embeddings)
        stranger = len(self.strangeness) - np.searchsorted(self.strangeness, strange, side="left")
        return np.asarray(1 - (1 + stranger) / (1 + len(self.strangeness)))

    def strange(self, logits: Floats, embeddings: Floats) -> Floats:
        """How many deviations energy or distance, whichever is more, lie above the mean of the first half [n]."""
        far = kth_distance(unit(embeddings), self.bank.astype(np.float32), self.neighbours)
        both = (energy(logits), self.energy), (far, self.distance)
        high, distant = ((values - mean) / max(deviation, 1e-9) for values, (mean, deviation) in both)
        return np.asarray(np.maximum(high, distant))

    def is_novel(self, novelty: Floats) -> NDArray[np.bool_]:
        """Which inputs are called novel, with the share of false alarms."""
        return np.asarray(novelty >= 1 - self.false_alarms - 1e-9)

    @property
    def knows_novelty(self) -> bool:
        """Whether there are samples enough for the share of false alarms."""
        return len(self.bank) > 0 and len(self.strangeness) >= samples_for(1 - self.false_alarms)

    def temperature_only(self) -> Calibration:
        """What holds for answers that were not made as those of the samples, as for mirrored ones: the temperature."""
        return replace(self, scores=np.zeros(0), strangeness=np.zeros(0), bank=self.bank[:0])


def calibration_from(values: Mapping[str, Any], arrays: Mapping[str, Floats]) -> Calibration:
    """What `Calibration.parts` gave.

    Raises:
        KeyError, TypeError, ValueError, OverflowError: something is missing, or is not what it should be.
    """
    found = Calibration(
        temperature=float(values["temperature"]),
        n=int(values["n"]),
        sets=values["sets"],
        false_alarms=float(values["false_alarms"]),
        neighbours=int(values["neighbours"]),
        before=Metric(**values["before"]),
        after=Metric(**values["after"]),
        energy=_spread(values["energy"]),
        distance=_spread(values["distance"]),
        **{name: np.asarray(arrays[name]) for name in ("scores", "strangeness", "bank")},
    )
    bank, ascending = found.bank, (found.scores, found.strangeness)
    if not 0 < found.temperature < math.inf or not 0 < found.false_alarms < 1 or found.sets not in ("lac", "aps"):
        raise ValueError("temperature, false_alarms or sets is out of its range")
    if any(each.ndim != 1 or each.dtype.kind != "f" or not (np.diff(each) >= 0).all() for each in ascending):
        raise ValueError("scores are not ascending numbers")
    if bank.ndim != 2 or bank.dtype.kind != "f" or not np.isfinite(bank).all():
        raise ValueError("the bank holds no embeddings")
    if len(bank) and not 1 <= found.neighbours < len(bank):
        raise ValueError(f"{found.neighbours} neighbours of {len(bank)} samples")
    return found


def _spread(values: Any) -> Spread:
    mean, deviation = (float(value) for value in values)
    if not (math.isfinite(mean) and 0 <= deviation < math.inf):
        raise ValueError("a mean or a deviation is out of its range")
    return mean, deviation


def calibration_error(confidence: Floats, correct: NDArray[np.bool_], weights: Floats) -> Floats:
    """Expected calibration error (arXiv 1706.04599, eq. 3) with 15 bins of equal width, for each weighting.

    Equal to torchmetrics' calibration_error(norm="l1", n_bins=15).

    Args:
        confidence: of what is said, 0..1 [n], or of each of several things [n, L].
        correct: whether it is true.
        weights: of the samples, B times [B, n].
    """
    several = confidence.reshape(len(confidence), -1)
    gaps = np.zeros((len(confidence), BINS), weights.dtype)
    rows = np.arange(len(confidence))[:, None]
    np.add.at(gaps, (rows, _bins(several)), correct.reshape(several.shape) - several)
    return np.asarray(np.abs(weights @ gaps).sum(1) / (weights.sum(1) * several.shape[1]))


def ece(confidence: Floats, correct: NDArray[np.bool_]) -> Metric:
    """`calibration_error` with its interval from resampling the samples."""

    def error(weights: Floats) -> Floats:
        return calibration_error(confidence, correct, weights)

    return weighted_bootstrap(error, len(confidence), centred=True)


def reliability(confidence: Floats, correct: NDArray[np.bool_]) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Mean confidence, share that is correct, and number of samples of each bin that has some, from low to high."""
    bins = _bins(confidence)
    counts = np.bincount(bins, minlength=BINS)
    used = counts > 0
    sums = [np.bincount(bins, values, minlength=BINS)[used] / counts[used] for values in (confidence, correct)]
    return sums[0], sums[1], counts[used]


def _bins(confidence: Floats) -> NDArray[np.int64]:
    return np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)


def lac_scores(probabilities: Floats, targets: NDArray[np.integer]) -> Floats:
    """One less the probability of the true class [n] (Sadinle, Lei, Wasserman 2019, JASA 114:223)."""
    return np.asarray(1 - probabilities[np.arange(len(targets)), targets])


def lac_sets(probabilities: Floats, quantile: float) -> NDArray[np.bool_]:
    """The classes [n, K] whose score is at most the quantile: the smallest sets on average; one may be empty."""
    return np.asarray(1 - probabilities <= quantile)


def aps_scores(probabilities: Floats, targets: NDArray[np.integer], drawn: Floats) -> Floats:
    """Sum of the probabilities from the highest down to the true class's [n], less a part of that (arXiv 2006.02544).

    `drawn` is that part, uniform in 0..1 [n]. Sets are made without drawing, so that one picture has one answer; they
    hold those of the paper, and so cover what those cover.
    """
    order = np.argsort(-probabilities, axis=1, kind="stable")
    sums = np.cumsum(np.take_along_axis(probabilities, order, 1), 1)
    rows = np.arange(len(targets))
    return np.asarray(sums[rows, (order == targets[:, None]).argmax(1)] - drawn * probabilities[rows, targets])


def aps_sets(probabilities: Floats, quantile: float) -> NDArray[np.bool_]:
    """The classes [n, K] from the most probable down to the one that brings the sum to the quantile; never empty."""
    order = np.argsort(-probabilities, axis=1, kind="stable")
    sums = np.cumsum(np.take_along_axis(probabilities, order, 1), 1)
    before = np.pad(sums[:, :-1], ((0, 0), (1, 0)))
    inside = np.zeros(probabilities.shape, np.bool_)
    np.put_along_axis(inside, order, before < quantile, 1)
    inside[np.arange(len(inside)), order[:, 0]] = True
    return inside


def conformal_quantile(scores: Floats, coverage: float) -> float:
    """The ceil((n + 1) coverage)-th smallest of n scores, infinite where there is none (arXiv 2107.07511, sec. 1)."""
    rank = math.ceil(round((len(scores) + 1) * coverage, 9))  # 20 * 0.95 is 19, whatever its last bit
    return float(np.sort(scores)[rank - 1]) if 1 <= rank <= len(scores) else math.inf


def samples_for(coverage: float) -> int:
    """Samples that it takes to promise a coverage, or a share of false alarms of 1 - coverage."""
    return math.ceil(round(coverage / (1 - coverage), 9))


def energy(logits: Floats) -> Floats:
    """Free energy [n] of logits [n, K]: high where none is high (arXiv 2010.03759, eq. 4)."""
    wide = logits.astype(np.float64)
    top = wide.max(-1)
    return np.asarray(-(top + np.log(np.exp(wide - top[:, None]).sum(-1))))


def unit(embeddings: Floats) -> NDArray[np.float32]:
    """Embeddings [..., D] of length one; those that are zero stay so."""
    lengths = np.linalg.norm(embeddings, axis=-1, keepdims=True)
    return np.asarray(embeddings / np.where(lengths > 0, lengths, 1), np.float32)


def kth_distance(embeddings: NDArray[np.float32], bank: NDArray[np.float32], k: int) -> Floats:
    """Euclidean distance [n] of each embedding [n, D] to its k-th nearest of a bank [m, D] (arXiv 2204.06507).

    All are of unit length; k is from 1 to m.
    """
    blocks = [embeddings[start : start + BLOCK] @ bank.T for start in range(0, len(embeddings), BLOCK)]
    nearest = [np.partition(products, -k, axis=1)[:, -k] for products in blocks]
    return np.sqrt(np.maximum(0, 2 - 2 * np.concatenate(nearest))) if nearest else np.zeros(0)
