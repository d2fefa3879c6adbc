"""The target "one class of several": class names to indices, logits to predictions and metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from resnetkit.errors import DataError
from resnetkit.ops.intervals import Metric, bootstrap, wilson
from resnetkit.ops.metrics import confusion, correct_at, macro_f1, softmax, top_k

HEADLINE = "accuracy"


@dataclass(frozen=True)
class Prediction:
    """The answer for one input: the best classes and their scores, from the best down.

    Attributes:
        path: the input's path, "" for images and arrays in memory.
        labels: names of the best classes.
        scores: softmax of each, 0..1.
    """

    path: str
    labels: tuple[str, ...]
    scores: tuple[float, ...]

    @property
    def label(self) -> str:
        """Name of the best class."""
        return self.labels[0]

    @property
    def score(self) -> float:
        """Score of the best class, 0..1."""
        return self.scores[0]

    def row(self) -> dict[str, str | float]:
        """One flat row: path, label, score, and label_2, score_2, ... for the next ones."""
        row: dict[str, str | float] = {"path": self.path}
        for rank, (label, score) in enumerate(zip(self.labels, self.scores, strict=True), 1):
            suffix = "" if rank == 1 else f"_{rank}"
            row |= {f"label{suffix}": label, f"score{suffix}": round(score, 6)}
        return row


def encode(labels: Sequence[str], classes: Sequence[str]) -> NDArray[np.int64]:
    """Class index [n] of each label.

    Raises:
        DataError: a label that the classes do not have.
    """
    index = {name: i for i, name in enumerate(classes)}
    unknown = sorted(set(labels) - set(index))
    if unknown:
        known = ", ".join(classes[:10]) + (" ..." if len(classes) > 10 else "")
        raise DataError(f"the model does not know the class {unknown[0]!r}", fix=f"it knows {known}")
    return np.array([index[label] for label in labels], np.int64)


def decode(logits: NDArray[np.floating], classes: Sequence[str], path: str = "", top: int = 5) -> Prediction:
    """The `top` best classes of logits [K]."""
    scores = softmax(logits)
    best = top_k(logits[None], min(top, len(classes)))[0]
    return Prediction(path, tuple(classes[i] for i in best), tuple(float(scores[i]) for i in best))


def metrics(logits: NDArray[np.floating], targets: NDArray[np.integer], classes: Sequence[str]) -> Mapping[str, Metric]:
    """Accuracy, top-5 (from six classes on), macro-F1 and the recall of each class, each with n and interval."""
    n, num_classes = len(targets), len(classes)
    predicted = logits.argmax(-1) if n else np.zeros(0, np.int64)
    hits = predicted == targets
    scores = {HEADLINE: wilson(int(hits.sum()), n)}
    if num_classes > 5:
        scores["top5_accuracy"] = wilson(int(correct_at(logits, targets, 5).sum()) if n else 0, n)
    scores["macro_f1"] = bootstrap(lambda rows: macro_f1(confusion(predicted[rows], targets[rows], num_classes)), n)
    for index, name in enumerate(classes):
        of_class = targets == index
        scores[f"recall/{name}"] = wilson(int(hits[of_class].sum()), int(of_class.sum()))
    return scores
