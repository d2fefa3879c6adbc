"""report.html: one self-contained page, which opens from disk and asks no network for anything."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from resnetkit._version import __version__
from resnetkit.checkpoint import Meta, told_of
from resnetkit.data.dataset import Dataset
from resnetkit.data.tree import SPLITS
from resnetkit.errors import printable
from resnetkit.files import write
from resnetkit.ops.calibration import Calibration, samples_for
from resnetkit.ops.intervals import Metric, wilson
from resnetkit.ops.metrics import sigmoid
from resnetkit.tasks.evaluate import Scores
from resnetkit.tasks.scenes import SceneScores
from resnetkit.trust.figures import curves, reliability_diagram
from resnetkit.trust.gallery import Overlays, kinds, least_sure, shown, suspects, worst
from resnetkit.trust.page import template
from resnetkit.trust.senses import SENSES

MATRIX_CLASSES = 40  # more would not be read
CARD_CLASSES = 100
COVERAGES = (0.9, 0.95)
HEADINGS = {
    "recall": "Recall of each class",
    "AP": "Average precision of each label",
    "F1": "F1 of each label, where it is said at a score of 0.5 or more",
}
SPLIT_NAMES = {"train": "training", "test": "test", "val": "validation", "all": "given"}


@dataclass(frozen=True)
class Story:
    """What a report tells of.

    Attributes:
        scores: what is reported.
        dataset: the samples of all splits.
        meta: of the model, if there is one.
        calibration: of the model, if it has one.
        history: rows of results.csv, may be empty.
        recipe: of the training as TOML, or "".
        overlays: draws what the model looked at, or None.
    """

    scores: Scores
    dataset: Dataset
    meta: Meta | None = None
    calibration: Calibration | None = None
    history: Sequence[Mapping[str, Any]] = ()
    recipe: str = ""
    overlays: Overlays | None = None


def write_report(path: Path, story: Story) -> None:
    """Write the page."""
    scores, history, find = story.scores, story.history, story.dataset.file_named
    headline = f"val_{scores.target.headline}"
    galleries = [("Worst mistakes", worst), ("Least sure", least_sure), ("Probably given a wrong label", suspects)]
    senses = SENSES[story.dataset.noun]
    found = kinds(scores, find, senses) if _matrix(scores) else []
    page = template("report.html.jinja").render(
        sentence=sentence(scores, story.dataset.noun),
        noun=story.dataset.noun,
        doubts=doubts(scores, history),
        metrics=[(name, percent(metric)) for name, metric in scores.metrics.items() if "/" not in name],
        tables=tables(scores, HEADINGS),
        matrix=_matrix(scores),
        kinds=found,
        opened={(kind.row, kind.column) for kind in found},
        classes=scores.classes,
        galleries=[(name, shown(scores, choose(scores), find, story.overlays, senses)) for name, choose in galleries],
        failed=[(printable(name), reason) for name, reason in scores.failed],
        curves=curves(history, headline) if len(history) > 1 else "",
        stages=stages(history, headline),
        reliability=_reliability(scores),
        sets=sets(scores, story.calibration),
        calibration=story.calibration,
        data=data_card(story.dataset),
        ignored=story.dataset.ignored,
        meta=story.meta,
        prepared=told_of(story.meta) if story.meta else {},
        recipe=story.recipe,
        version=__version__,
    )
    write(path, page)


def sentence(scores: Scores, noun: str = "images") -> str:
    """The result in a sentence."""
    accuracy = scores.metrics["accuracy"]
    if accuracy.value is None or accuracy.low is None or accuracy.high is None:
        return f"Nothing was scored: there are no held-out {noun}."
    hits = round(accuracy.value * accuracy.n)
    correctly = "with all their labels right" if scores.targets.ndim == 2 else "correctly"
    return (
        f"Of {accuracy.n:,} {SPLIT_NAMES[scores.split]} {noun} the model names {hits:,} {correctly}: "
        f"{100 * accuracy.value:.1f} %, and with 95 % confidence between {100 * accuracy.low:.1f} "
        f"and {100 * accuracy.high:.1f} % on more {noun} like these."
    )


def doubts(scores: Scores, history: Sequence[Mapping[str, Any]]) -> list[str]:
    """What looks wrong about a run although it ended well, in a sentence each."""
    found = []
    said = scores.judged.said
    if len(np.unique(scores.targets, axis=0)) > 1 and len(np.unique(said, axis=0)) == 1:
        only = scores.target.text(said[0], scores.classes)
        found.append(f"The model gives one answer to every image: {only}. It has learnt nothing that tells them apart.")
    # a head on frozen features is fitted without augmentation: its loss compares with none
    losses = [float(row["train_loss"]) for row in history if row.get("stage") == history[-1].get("stage")]
    if len(losses) > 1 and losses[-1] > losses[0]:
        found.append(
            f"The training loss has risen, from {losses[0]:.3g} in the first epoch to {losses[-1]:.3g} in the last: "
            "the learning rate is too high for this data (optim.lr)."
        )
    return found


def stages(history: Sequence[Mapping[str, Any]], score: str) -> list[tuple[str, int, float, str, bool]]:
    """Name, epochs, seconds, score (per cent) of its best epoch, and whether the model is of it, of each stage.

    Args:
        history: rows of results.csv.
        score: its column with a share 0..1.
    """
    kept = max((row["epoch"] for row in history if row.get("best")), default=0)
    found = []
    for name in dict.fromkeys(str(row["stage"]) for row in history if "stage" in row):
        rows = [row for row in history if row.get("stage") == name]
        losses = [math.inf if row["val_calibrated_loss"] is None else row["val_calibrated_loss"] for row in rows]
        value = rows[losses.index(min(losses))][score]
        told = "-" if value is None else f"{100 * value:.1f} %"
        epochs = [row["epoch"] for row in rows]
        found.append((name, sum(map(bool, epochs)), float(rows[-1]["seconds"]), told, kept in epochs))
    return found


def tables(
    scores: Scores | SceneScores, headings: Mapping[str, str]
) -> list[tuple[str, list[tuple[str, tuple[str, str, int]]]]]:
    """Heading, and class with value, interval and n, for each metric that every class has."""
    kinds = dict.fromkeys(name.partition("/")[0] for name in scores.metrics if "/" in name)
    return [
        (headings[kind], [(name, percent(scores.metrics[f"{kind}/{name}"])) for name in scores.classes])
        for kind in kinds
    ]


def percent(metric: Metric) -> tuple[str, str, int]:
    """Value, interval and n for the screen."""
    if metric.value is None or metric.low is None or metric.high is None:
        return "-", metric.method, metric.n
    return f"{100 * metric.value:.1f} %", f"{100 * metric.low:.1f} to {100 * metric.high:.1f} %", metric.n


def _matrix(scores: Scores) -> list[tuple[str, list[tuple[int, float]]]]:
    """Rows of the confusion matrix: class, and count and share of the row for each prediction; [] if too large."""
    matrix = scores.confusion
    if matrix is None or len(scores.classes) > MATRIX_CLASSES or not len(scores.targets):
        return []
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    rows = zip(scores.classes, matrix.tolist(), shares.tolist(), strict=True)
    return [(name, list(zip(counts, parts, strict=True))) for name, counts, parts in rows]


def _reliability(scores: Scores) -> str:
    """The reliability diagram, or "" without samples."""
    if not len(scores.targets):
        return ""
    if scores.targets.ndim == 2:
        return reliability_diagram(sigmoid(scores.logits).ravel(), scores.targets.astype(bool).ravel())
    return reliability_diagram(scores.judged.scores, scores.correct)


def sets(scores: Scores, calibration: Calibration | None) -> list[tuple[float, tuple[str, str, int], float, float]]:
    """For each coverage that can be promised: what was kept, mean classes in a set, and share of sets of one class.

    Empty where the samples are those of the calibration, which would keep any promise.
    """
    if calibration is None or scores.split == "val" or not len(scores.targets) or not len(calibration.scores):
        return []
    found = []
    for coverage in COVERAGES:
        if samples_for(coverage) > len(calibration.scores):
            continue
        inside = calibration.possible(scores.logits, coverage)
        held = int(inside[np.arange(len(inside)), scores.targets].sum())
        sizes = inside.sum(1)
        found.append((coverage, percent(wilson(held, len(inside))), float(sizes.mean()), float((sizes == 1).mean())))
    return found


def data_card(dataset: Dataset) -> tuple[list[str], list[tuple[str, list[int]]]]:
    """Names of the splits, and the number of images of each class in each of them; all classes together come first."""
    names = [name for name in SPLITS if dataset.num_samples(name)] if dataset.has_splits else []
    parts = [dataset.select(name) for name in names] or [dataset]
    counts = [
        part.targets.sum(0) if part.several else np.bincount(part.targets, minlength=len(dataset.classes))
        for part in parts
    ]
    rows = [("all", [len(part) for part in parts])]
    each = zip(dataset.classes[:CARD_CLASSES], *(count.tolist() for count in counts), strict=False)
    return names or [dataset.noun], rows + [(name, list(numbers)) for name, *numbers in each]
