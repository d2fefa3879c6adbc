"""Metrics as pure functions of logits and of class indices, or of which labels are present."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]


def softmax(logits: Floats) -> Floats:
    """Scores of logits [..., K], computed in float64 from the largest down, so that nothing overflows."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    exponent = np.exp(shifted)
    return np.asarray(exponent / exponent.sum(-1, keepdims=True))


def cross_entropy(logits: Floats, targets: Ints) -> Floats:
    """Negative log likelihood [n] of class indices [n] under logits [n, K], in nats."""
    wide = logits.astype(np.float64)
    top = wide.max(-1)
    total = top + np.log(np.exp(wide - top[:, None]).sum(-1))
    return np.asarray(total - wide[np.arange(len(targets)), targets])


def top_k(logits: Floats, k: int) -> Ints:
    """Class indices [n, k] from the highest logit down; equal logits in class order."""
    return np.argsort(-logits, axis=-1, kind="stable")[:, :k]


def correct_at(logits: Floats, targets: Ints, k: int) -> NDArray[np.bool_]:
    """Whether the target [n] is among the k highest logits [n, K]."""
    return np.asarray((top_k(logits, k) == targets[:, None]).any(-1))


def confusion(predicted: Ints, targets: Ints, num_classes: int) -> Ints:
    """Confusion matrix [K, K]: row is the target, column the prediction."""
    flat = np.bincount(targets * num_classes + predicted, minlength=num_classes * num_classes)
    return flat.reshape(num_classes, num_classes)


def macro_f1(matrix: Ints) -> float:
    """Mean of F1 = 2 TP / (2 TP + FP + FN) over the classes that occur as target or prediction in a confusion matrix.

    Equal to scikit-learn's f1_score(average="macro").
    """
    hits = np.diag(matrix).astype(np.float64)
    occurrences = matrix.sum(0) + matrix.sum(1)
    present = occurrences > 0
    return float(np.mean(2 * hits[present] / occurrences[present])) if present.any() else 0.0


def sigmoid(logits: Floats) -> Floats:
    """Scores 0..1 of logits, each by itself, in float64."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits.astype(np.float64))))


def binary_cross_entropy(logits: Floats, present: Ints) -> Floats:
    """Negative log likelihood [n] of labels being present or not [n, K] under logits [n, K]: nats, sum over K."""
    wide = logits.astype(np.float64)
    return np.asarray((np.maximum(wide, 0) - wide * present + np.log1p(np.exp(-np.abs(wide)))).sum(-1))


def average_precision(logits: Floats, present: NDArray[np.bool_], weights: Floats) -> Floats:
    """Area under the steps of precision over recall, for each weighting of the samples; equal logits are one step.

    Equal to scikit-learn's average_precision_score.

    Args:
        logits: of one label [n].
        present: whether it is there [n].
        weights: of the samples, B times [B, n].

    Returns:
        [B]; NaN where no weight is on a sample that has the label.
    """
    order = np.argsort(-logits, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(logits[order]) != 0, True))  # the last one of each logit
    drawn = weights[:, order]
    seen = np.cumsum(drawn, 1)[:, ends]
    found = np.cumsum(drawn * present[order], 1)[:, ends]
    gained = np.diff(found, axis=1, prepend=0)
    total = found[:, -1]
    with np.errstate(invalid="ignore"):
        return np.asarray((gained * found / np.maximum(seen, 1)).sum(1) / total)


def relative_difference(ours: Floats, theirs: Floats) -> float:
    """Max |ours - theirs| / max |ours|; infinite where a number is not finite or the shapes differ."""
    if ours.shape != theirs.shape or not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        return float("inf")
    return float(np.abs(ours - theirs).max() / max(np.abs(ours).max(), np.finfo(np.float32).tiny))
