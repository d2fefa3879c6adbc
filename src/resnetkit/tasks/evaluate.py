"""Scores: the metrics of one model on one split, with the answer for every sample and what could not be read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnetkit.errors import DataError, printable
from resnetkit.ops.intervals import Metric
from resnetkit.ops.metrics import confusion
from resnetkit.tasks.classes import Judged
from resnetkit.tasks.task import Target, Task

PREDICTION_COLUMNS = ("path", "split", "target", "label", "score", "loss", "correct", "error")


@dataclass(frozen=True)
class Scores:
    """Metrics of one model on one split.

    Attributes:
        split: "val", "test", or "all".
        classes: names in the order of the logits.
        paths: of the samples that could be read [n].
        targets: class index [n], or whether each label is present [n, K].
        logits: [n, K].
        metrics: name to number with interval.
        target: what is predicted.
        failed: path and reason of each sample that could not be read; they are in no metric.
    """

    split: str
    classes: tuple[str, ...]
    paths: tuple[str, ...]
    targets: NDArray[np.integer]
    logits: NDArray[np.floating]
    metrics: Mapping[str, Metric]
    target: Target
    failed: tuple[tuple[str, str], ...] = ()

    @cached_property
    def judged(self) -> Judged:
        """What is said of each sample, how surely, and its loss."""
        return self.target.judge(self.logits, self.targets)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether all that is said of each sample is true [n]."""
        same = self.judged.said == self.targets
        return np.asarray(same if same.ndim == 1 else same.all(1))

    @property
    def confusion(self) -> NDArray[np.integer] | None:
        """Confusion matrix [K, K]: row is the target, column the prediction; None where a sample has several labels."""
        return confusion(self.judged.said, self.targets, len(self.classes)) if self.targets.ndim == 1 else None

    def as_dict(self) -> dict[str, Any]:
        """As metrics.json."""
        return {name: metric.as_dict() for name, metric in self.metrics.items()}

    def rows(self) -> Iterator[dict[str, Any]]:
        """As predictions.csv: one row a sample, those that failed at the end."""
        judged, correct = self.judged, self.correct
        for i, path in enumerate(self.paths):
            yield {
                "path": printable(path),
                "split": self.split,
                "target": self.target.text(self.targets[i], self.classes),
                "label": self.target.text(judged.said[i], self.classes),
                "score": round(float(judged.scores[i]), 6),
                "loss": round(float(judged.losses[i]), 6),
                "correct": int(correct[i]),
            }
        for path, reason in self.failed:
            yield {"path": printable(path), "split": self.split, "error": reason}


def score(
    task: Task,
    split: str,
    classes: Sequence[str],
    paths: Sequence[str],
    targets: NDArray[np.integer],
    answers: Sequence[NDArray[np.floating] | DataError],
) -> Scores:
    """Scores from one answer a sample: its logits [K], or why it could not be read."""
    good = [i for i, answer in enumerate(answers) if not isinstance(answer, DataError)]
    failed = tuple((paths[i], a.what) for i, a in enumerate(answers) if isinstance(a, DataError))
    logits = np.array([answers[i] for i in good], np.float32).reshape(len(good), len(classes))
    metrics = task.target.metrics(logits, targets[good], classes)
    read = tuple(paths[i] for i in good)
    return Scores(split, tuple(classes), read, targets[good], logits, metrics, task.target, failed)


def calibrated_loss(target: Target, logits: NDArray[np.floating], targets: NDArray[np.integer]) -> float:
    """Mean loss with all logits scaled by the factor that suits them best; NaN without samples.

    What tells whether a network has become better: of few samples it tells more than their accuracy, and the factor
    (1 / temperature, arXiv 1706.04599) takes out that a network is too sure, which it becomes while it learns. It is 2
    at most: where all answers are right it would grow without end.

    Args:
        target: what is predicted.
        logits: [n, K].
        targets: class indices [n], or which labels are present [n, K].

    Returns:
        Nats, of the mean over the samples.
    """
    from scipy.optimize import minimize_scalar

    if not len(targets):
        return math.nan

    def loss(log_factor: float) -> float:
        return float(target.judge(logits * math.exp(log_factor), targets).losses.mean())

    found = minimize_scalar(loss, bounds=(-4, math.log(2)), method="bounded", options={"xatol": 0.01})
    return min(float(found.fun), loss(0.0))
