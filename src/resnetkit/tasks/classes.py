"""The target "one class of several": class names to indices, logits to predictions and metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from resnetkit.data.dataset import SEPARATOR, Dataset
from resnetkit.errors import DataError
from resnetkit.ops.calibration import ece
from resnetkit.ops.intervals import Metric, bootstrap, wilson
from resnetkit.ops.metrics import confusion, correct_at, cross_entropy, macro_f1, softmax, top_k

HEADLINE = "accuracy"


@dataclass(frozen=True)
class Prediction:
    """The answer for one input: the best classes and their scores, from the best down.

    Attributes:
        path: the input's path, "" for images and arrays in memory.
        labels: names of the best classes.
        scores: of each, 0..1: softmax, or sigmoid where an input has several labels.
        present: where an input has several labels, those with a score of 0.5 or more; None elsewhere.
        possible: the classes among which the true one is with the coverage that was asked for; None if none was.
        uncertain: whether the set at that coverage, or at 95 %, is not of one class; None where that cannot be told.
        novelty: share 0..1 of the validation images that look less strange than this input; None without them.
        novel: whether that is more than all but the share of false alarms that the model was calibrated for.
    """

    path: str
    labels: tuple[str, ...]
    scores: tuple[float, ...]
    present: tuple[str, ...] | None = None
    possible: tuple[str, ...] | None = None
    uncertain: bool | None = None
    novelty: float | None = None
    novel: bool | None = None

    @property
    def label(self) -> str:
        """Name of the best class."""
        return self.labels[0]

    @property
    def score(self) -> float:
        """Score of the best class, 0..1."""
        return self.scores[0]

    def rows(self) -> list[dict[str, str | float]]:
        """The one row of `row`, as answers of several rows have it."""
        return [self.row()]

    def row(self) -> dict[str, str | float]:
        """One flat row: path, label, score, label_2, score_2, ... for the next ones, and what else is known.

        `labels` if several may be; `set`, `uncertain`, `novelty`, `novel` of a calibrated model.
        """
        row: dict[str, str | float] = {"path": self.path}
        if self.present is not None:
            row["labels"] = SEPARATOR.join(self.present)
        for rank, (label, score) in enumerate(zip(self.labels, self.scores, strict=True), 1):
            suffix = "" if rank == 1 else f"_{rank}"
            row |= {f"label{suffix}": label, f"score{suffix}": round(score, 6)}
        if self.possible is not None:
            row["set"] = SEPARATOR.join(self.possible)
        if self.uncertain is not None:
            row["uncertain"] = int(self.uncertain)
        if self.novelty is not None and self.novel is not None:
            row |= {"novelty": round(self.novelty, 4), "novel": int(self.novel)}
        return row


@dataclass(frozen=True)
class Judged:
    """Answers beside the truth.

    Attributes:
        said: what is predicted, in the form of the targets [n] or [n, K].
        scores: how sure that is, 0..1 [n].
        losses: of each sample [n].
    """

    said: NDArray[np.integer]
    scores: NDArray[np.floating]
    losses: NDArray[np.floating]


def prepare(dataset: Dataset) -> Dataset:
    """A data set of one class an image.

    Raises:
        DataError: it has several labels an image.
    """
    if dataset.several:
        fix = "give one label an image, or train with --task multilabel"
        raise DataError("has several labels an image, and one is to be predicted", path=dataset.root, fix=fix)
    return dataset


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


def judge(logits: NDArray[np.floating], targets: NDArray[np.integer]) -> Judged:
    """The best class [n], its softmax [n], and the cross-entropy [n]."""
    scores = softmax(logits).max(-1) if len(logits) else np.zeros(0)
    return Judged(logits.argmax(-1), scores, cross_entropy(logits, targets))


def text(target: np.integer, classes: Sequence[str]) -> str:
    """The class of a sample."""
    return classes[int(target)]


def metrics(logits: NDArray[np.floating], targets: NDArray[np.integer], classes: Sequence[str]) -> Mapping[str, Metric]:
    """Accuracy, top-5 (from six classes on), ECE, macro-F1 and the recall of each class, each with n and interval."""
    n, num_classes = len(targets), len(classes)
    predicted = logits.argmax(-1) if n else np.zeros(0, np.int64)
    hits = predicted == targets
    scores = {HEADLINE: wilson(int(hits.sum()), n)}
    if num_classes > 5:
        scores["top5_accuracy"] = wilson(int(correct_at(logits, targets, 5).sum()) if n else 0, n)
    scores["macro_f1"] = bootstrap(lambda rows: macro_f1(confusion(predicted[rows], targets[rows], num_classes)), n)
    scores["ece"] = ece(softmax(logits).max(-1) if n else np.zeros(0), hits)
    for index, name in enumerate(classes):
        of_class = targets == index
        scores[f"recall/{name}"] = wilson(int(hits[of_class].sum()), int(of_class.sum()))
    return scores
