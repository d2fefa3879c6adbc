"""Is one of two models better? Both answer the same samples, so they are compared sample by sample."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnetkit.errors import printable
from resnetkit.ops.intervals import Metric, bootstrap, weighted_bootstrap
from resnetkit.ops.metrics import confusion, macro_f1
from resnetkit.ops.paired import mcnemar, samples_needed, sign_flips
from resnetkit.tasks.evaluate import Scores

SURE = 0.05  # p-value under which a difference is called real
FLIPPED_COLUMNS = ("path", "target", "label_a", "label_b", "change")


@dataclass(frozen=True)
class Comparison:
    """Two models on the same samples.

    Attributes:
        a, b: scores of both on the samples that both could read, in one order and with the same classes.
        differences: metric to B's value less A's, with an interval from resampling the samples of both together.
        only_a, only_b: samples that only this one has right.
        p: two-sided p-value of McNemar's exact test; of groups, that of swapping the models in whole groups.
        needed: samples that would tell such a difference; None where both have equally many right.
        groups: how many groups of samples there are, where they are given: alike samples count as one witness.
    """

    a: Scores
    b: Scores
    differences: Mapping[str, Metric]
    only_a: int
    only_b: int
    p: float
    needed: int | None
    groups: int | None = None

    @property
    def verdict(self) -> str:
        """Which is better, or that one cannot tell and what would."""
        n = len(self.a.paths)
        if self.p < SURE:
            return f"{'B' if self.only_b > self.only_a else 'A'} is better"
        if self.needed is None:
            return f"cannot tell with n = {n:,}: both have equally many right"
        # an accident of these samples may be larger than what is there
        more = f"about {max(self.needed, n + 1):,} images would be needed"
        return f"cannot tell with n = {n:,}; {more} if the difference is what it seems"

    def rows(self) -> Iterator[dict[str, Any]]:
        """A row for each sample on which one of them is wrong and the other right."""
        a, b = self.a, self.b
        for i in np.flatnonzero(a.correct != b.correct):
            yield {
                "path": printable(a.paths[i]),
                "target": a.target.text(a.targets[i], a.classes),
                "label_a": a.target.text(a.judged.said[i], a.classes),
                "label_b": b.target.text(b.judged.said[i], b.classes),
                "change": "better" if b.correct[i] else "worse",
            }

    def of_classes(self) -> dict[str, dict[str, int]]:
        """Each class with its number of samples and how many of them each model has right."""
        targets = self.a.targets
        present = [targets[:, i] > 0 if targets.ndim == 2 else targets == i for i in range(len(self.a.classes))]
        return {
            name: {"n": int(rows.sum()), "a": int(self.a.correct[rows].sum()), "b": int(self.b.correct[rows].sum())}
            for name, rows in zip(self.a.classes, present, strict=True)
        }

    def as_dict(self) -> dict[str, Any]:
        """As comparison.json."""
        return {
            "verdict": self.verdict,
            "n": len(self.a.paths),
            "groups": self.groups,
            "only_a_right": self.only_a,
            "only_b_right": self.only_b,
            "p": self.p,
            "images_needed": self.needed,
            "b_less_a": {name: metric.as_dict() for name, metric in self.differences.items()},
            "classes": self.of_classes(),
        }


def compare(a: Scores, b: Scores, groups: NDArray[np.integer] | None = None) -> Comparison:
    """Compare two models.

    Args:
        a: scores.
        b: those of the same samples in one order, with the same classes.
        groups: that each sample belongs to [n], where samples of one group are alike.
    """
    assert a.paths == b.paths and a.classes == b.classes
    only_a, only_b = int((a.correct & ~b.correct).sum()), int((b.correct & ~a.correct).sum())
    n = len(a.paths)
    differences = {
        "accuracy": _mean_of(b.correct.astype(float) - a.correct, groups),
        "log_loss": _mean_of(b.judged.losses - a.judged.losses, groups),
    }
    if a.targets.ndim == 1:

        def f1(scores: Scores, rows: NDArray[np.intp]) -> float:
            return macro_f1(confusion(scores.judged.said[rows], scores.targets[rows], len(scores.classes)))

        differences["macro_f1"] = bootstrap(lambda rows: f1(b, rows) - f1(a, rows), n, groups=groups)
    needed = samples_needed(only_a, only_b, n)
    if groups is None:
        return Comparison(a, b, differences, only_a, only_b, mcnemar(only_a, only_b), needed)
    each = np.bincount(groups, b.correct.astype(float) - a.correct).round().astype(np.int64)
    # so many times the samples as if each were a witness of its own (the design effect)
    alike = float((each**2).sum()) / max(1, only_a + only_b)
    more = None if needed is None else math.ceil(needed * max(1.0, alike))
    return Comparison(a, b, differences, only_a, only_b, sign_flips(each), more, len(np.unique(groups)))


def _mean_of(differences: NDArray[np.floating], groups: NDArray[np.integer] | None) -> Metric:
    """Mean over the samples, which are drawn again, or their groups are."""
    n = len(differences)
    if groups is not None:
        return bootstrap(lambda rows: float(differences[rows].mean()), n, groups=groups)
    return weighted_bootstrap(lambda drawn: np.asarray(drawn @ differences) / n, n)
