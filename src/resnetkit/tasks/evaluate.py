"""Scores: the metrics of one model on one split, with the answer for every sample and what could not be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnetkit.errors import DataError, printable
from resnetkit.ops.intervals import Metric
from resnetkit.ops.metrics import confusion, cross_entropy, softmax
from resnetkit.tasks.task import Task

PREDICTION_COLUMNS = ("path", "split", "target", "label", "score", "loss", "correct", "error")


@dataclass(frozen=True)
class Scores:
    """Metrics of one model on one split.

    Attributes:
        split: "val", "test", or "all".
        classes: names in the order of the logits.
        paths: of the samples that could be read [n].
        targets: class index [n].
        logits: [n, K].
        metrics: name to number with interval.
        failed: path and reason of each sample that could not be read; they are in no metric.
    """

    split: str
    classes: tuple[str, ...]
    paths: tuple[str, ...]
    targets: NDArray[np.int64]
    logits: NDArray[np.floating]
    metrics: Mapping[str, Metric]
    failed: tuple[tuple[str, str], ...] = ()

    @property
    def confusion(self) -> NDArray[np.integer]:
        """Confusion matrix [K, K]: row is the target, column the prediction."""
        return confusion(self.logits.argmax(-1), self.targets, len(self.classes))

    def as_dict(self) -> dict[str, Any]:
        """As metrics.json."""
        return {name: metric.as_dict() for name, metric in self.metrics.items()}

    def rows(self) -> Iterator[dict[str, Any]]:
        """As predictions.csv: one row a sample, those that failed at the end."""
        best, losses = self.logits.argmax(-1), cross_entropy(self.logits, self.targets)
        certainty = softmax(self.logits).max(-1) if len(best) else best
        for i, path in enumerate(self.paths):
            yield {
                "path": printable(path),
                "split": self.split,
                "target": self.classes[self.targets[i]],
                "label": self.classes[best[i]],
                "score": round(float(certainty[i]), 6),
                "loss": round(float(losses[i]), 6),
                "correct": int(best[i] == self.targets[i]),
            }
        for path, reason in self.failed:
            yield {"path": printable(path), "split": self.split, "error": reason}


def score(
    task: Task,
    split: str,
    classes: Sequence[str],
    paths: Sequence[str],
    targets: NDArray[np.int64],
    answers: Sequence[NDArray[np.floating] | DataError],
) -> Scores:
    """Scores from one answer a sample: its logits [K], or why it could not be read."""
    good = [i for i, answer in enumerate(answers) if not isinstance(answer, DataError)]
    failed = tuple((paths[i], a.what) for i, a in enumerate(answers) if isinstance(a, DataError))
    logits = np.array([answers[i] for i in good], np.float32).reshape(len(good), len(classes))
    metrics = task.target.metrics(logits, targets[good], classes)
    return Scores(split, tuple(classes), tuple(paths[i] for i in good), targets[good], logits, metrics, failed)
