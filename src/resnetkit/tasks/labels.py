"""The target "several labels, or none, of several": a label is present where its sigmoid is 0.5 or more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from resnetkit.data.dataset import SEPARATOR, Dataset, several_labels, split_labels
from resnetkit.ops.calibration import ece
from resnetkit.ops.intervals import Metric, weighted_bootstrap, wilson
from resnetkit.ops.metrics import average_precision, binary_cross_entropy, sigmoid, top_k
from resnetkit.tasks import classes as single
from resnetkit.tasks.classes import Judged, Prediction

HEADLINE = "mAP"
NONE = "no label"
Present = NDArray[np.integer]


def encode(labels: Sequence[str], classes: Sequence[str]) -> NDArray[np.int8]:
    """Whether each class [n, K] is among the labels, "cat|dog", of each sample.

    Raises:
        DataError: a label that the classes do not have.
    """
    present = np.zeros((len(labels), len(classes)), np.int8)
    for row, text in zip(present, labels, strict=True):
        row[single.encode(split_labels(text), classes)] = 1
    return present


def decode(logits: NDArray[np.floating], classes: Sequence[str], path: str = "", top: int = 5) -> Prediction:
    """The labels that are present in logits [K], and the `top` highest scores whether they are present or not."""
    scores = sigmoid(logits)
    best = top_k(logits[None], min(top, len(classes)))[0]
    found = Prediction(path, tuple(classes[i] for i in best), tuple(float(scores[i]) for i in best))
    return replace(found, present=tuple(classes[i] for i in np.flatnonzero(logits >= 0).tolist()))


def judge(logits: NDArray[np.floating], targets: Present) -> Judged:
    """What is said to be present [n, K], the certainty of the least certain label [n], and the loss [n]."""
    sure = sigmoid(np.abs(logits)).min(-1) if logits.size else np.zeros(len(logits))
    return Judged((logits >= 0).astype(np.int8), sure, binary_cross_entropy(logits, targets))


def text(target: NDArray[np.integer], classes: Sequence[str]) -> str:
    """The labels of a sample [K] in words."""
    return SEPARATOR.join(classes[i] for i in np.flatnonzero(target).tolist()) or NONE


def metrics(logits: NDArray[np.floating], targets: Present, classes: Sequence[str]) -> Mapping[str, Metric]:
    """Mean average precision, macro-F1, accuracy (all labels of an image right), ECE, and each label's AP and F1.

    The means are over the labels that some image has. Their intervals are from a bootstrap over images, which keeps
    that labels go together; those of single labels follow from Wilson's (docs/decisions/007-several-labels.md).
    """
    has, said = targets.astype(bool), logits >= 0
    n, known = len(has), np.flatnonzero(has.any(0))
    scores = {
        HEADLINE: weighted_bootstrap(lambda drawn: _mean_ap(logits[:, known], has[:, known], drawn), n),
        "macro_f1": weighted_bootstrap(lambda drawn: _mean_f1(said[:, known], has[:, known], drawn), n),
        single.HEADLINE: wilson(int((said == has).all(1).sum()), n),
        "ece": ece(sigmoid(logits), has),
    }
    for index, name in enumerate(classes):
        scores[f"AP/{name}"] = _ap(logits[:, index], has[:, index])
    for index, name in enumerate(classes):
        scores[f"F1/{name}"] = _f1(said[:, index], has[:, index])
    return scores


def _mean(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Mean [B] of what exists of [K, B]; NaN where nothing does."""
    exists = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(exists, values, 0).sum(0) / exists.sum(0))


def _mean_ap(logits: NDArray[np.floating], has: NDArray[np.bool_], drawn: NDArray[np.floating]) -> NDArray[np.floating]:
    each = [average_precision(logits[:, k], has[:, k], drawn) for k in range(has.shape[1])]
    return _mean(np.array(each).reshape(-1, len(drawn)))


def _mean_f1(said: NDArray[np.bool_], has: NDArray[np.bool_], drawn: NDArray[np.floating]) -> NDArray[np.floating]:
    hits, positives = (drawn @ each.astype(drawn.dtype) for each in (said & has, has))
    either = positives + drawn @ said.astype(drawn.dtype)
    return _mean(np.where(positives > 0, 2 * hits / np.maximum(either, 1), np.nan).T)


def _ap(logits: NDArray[np.floating], has: NDArray[np.bool_]) -> Metric:
    """Average precision as a share of the n images that have the label (Boyd et al. 2013, ECML, with Wilson's form)."""
    n = int(has.sum())
    if n == 0:
        return _without_positives(len(has))
    value = float(average_precision(logits, has, np.ones((1, len(has))))[0])
    return replace(wilson(value * n, n), value=value, method="wilson, n with the label")


def _f1(said: NDArray[np.bool_], has: NDArray[np.bool_]) -> Metric:
    """F1 = 2 J / (1 + J), where J is the share of hits among the n images that have the label or are said to."""
    if not has.any():
        return _without_positives(len(has))
    share = wilson(int((said & has).sum()), int((said | has).sum()))
    value, low, high = (2 * j / (1 + j) for j in (share.value or 0.0, share.low or 0.0, share.high or 0.0))
    return Metric(value, share.n, low, high, "wilson, n with the label or said to be")


def _without_positives(n: int) -> Metric:
    return Metric(None, n, None, None, "no image has this label" if n else "no samples")


def prepare(dataset: Dataset) -> Dataset:
    """A data set of several labels an image; where each has one class, that is its label, or several: "cat|dog"."""
    return dataset if dataset.several else several_labels(dataset)
