"""report.html: one self-contained page, which opens from disk and asks no network for anything."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from resnetkit._version import __version__
from resnetkit.data.dataset import File
from resnetkit.data.image import thumbnail
from resnetkit.errors import DataError, printable
from resnetkit.files import write
from resnetkit.ops.intervals import Metric
from resnetkit.tasks.evaluate import Scores

WORST = 24
MATRIX_CLASSES = 40  # more would not be read
HEADINGS = {
    "recall": "Recall of each class",
    "AP": "Average precision of each label",
    "F1": "F1 of each label, where it is said at a score of 0.5 or more",
}
SPLIT_NAMES = {"train": "training", "test": "test", "val": "validation", "all": "given"}


@dataclass(frozen=True)
class Mistake:
    """One of the worst answers: the picture, what it is, what the model says and how sure it is (per cent)."""

    path: str
    target: str
    label: str
    score: float
    picture: str


def write_report(
    path: Path, scores: Scores, history: Sequence[Mapping[str, Any]], find: Callable[[str], File], recipe: str
) -> None:
    """Write the page.

    Args:
        path: of the page.
        scores: what is reported.
        history: rows of results.csv, may be empty.
        find: from a path of the scores to what its picture is read from.
        recipe: of the training as TOML, or "".
    """
    page = template("report.html.jinja").render(
        sentence=sentence(scores),
        doubts=doubts(scores, history),
        metrics=[(name, percent(metric)) for name, metric in scores.metrics.items() if "/" not in name],
        tables=_tables(scores),
        matrix=_matrix(scores),
        classes=scores.classes,
        mistakes=worst_mistakes(scores, find),
        failed=[(printable(name), reason) for name, reason in scores.failed],
        curves=curves(history, f"val_{scores.target.headline}") if len(history) > 1 else "",
        history=history,
        stages=stages(history, f"val_{scores.target.headline}"),
        recipe=recipe,
        version=__version__,
    )
    write(path, page)


def template(name: str) -> jinja2.Template:
    """A page of this folder, which escapes what is put into it."""
    text = (resources.files("resnetkit") / "trust" / name).read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(text)


def sentence(scores: Scores) -> str:
    """The result in a sentence."""
    accuracy = scores.metrics["accuracy"]
    if accuracy.value is None or accuracy.low is None or accuracy.high is None:
        return "Nothing was scored: there are no held-out images."
    hits = round(accuracy.value * accuracy.n)
    correctly = "with all their labels right" if scores.targets.ndim == 2 else "correctly"
    return (
        f"Of {accuracy.n:,} {SPLIT_NAMES[scores.split]} images the model names {hits:,} {correctly}: "
        f"{100 * accuracy.value:.1f} %, and with 95 % confidence between {100 * accuracy.low:.1f} "
        f"and {100 * accuracy.high:.1f} % on more images like these."
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


def _tables(scores: Scores) -> list[tuple[str, list[tuple[str, tuple[str, str, int]]]]]:
    """Heading, and class with value, interval and n, for each metric that every class has."""
    kinds = dict.fromkeys(name.partition("/")[0] for name in scores.metrics if "/" in name)
    return [
        (HEADINGS[kind], [(name, percent(scores.metrics[f"{kind}/{name}"])) for name in scores.classes])
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


def worst_mistakes(scores: Scores, find: Callable[[str], File]) -> list[Mistake]:
    """The wrong answers with the highest loss, worst first."""
    if not len(scores.targets):
        return []
    judged, correct = scores.judged, scores.correct
    wrong = [int(i) for i in np.argsort(-judged.losses) if not correct[i]][:WORST]
    return [
        Mistake(
            printable(scores.paths[i]),
            scores.target.text(scores.targets[i], scores.classes),
            scores.target.text(judged.said[i], scores.classes),
            100 * float(judged.scores[i]),
            picture(find(scores.paths[i])),
        )
        for i in wrong
    ]


def picture(file: File) -> str:
    """A thumbnail as the address of an image; "" where it cannot be read."""
    try:
        return "data:image/jpeg;base64," + base64.b64encode(thumbnail(file)).decode("ascii")
    except DataError:
        return ""  # the file went away since it was scored; its name is still told


def curves(history: Sequence[Mapping[str, Any]], score: str) -> str:
    """Losses, of which the calibrated one chooses the best epoch, and the first of the scores, by epoch, as an SVG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in history]
    for axis, names in ((left, ("train_loss", "val_loss", "val_calibrated_loss")), (right, (score,))):
        for name in names:
            values = [row.get(name) for row in history]
            if None not in values:
                axis.plot(epochs, values, marker="o", markersize=3, label=name.replace("_", " "))
        axis.set_xlabel("epoch")
        axis.grid(alpha=0.3)
        if axis.has_data():
            axis.legend(frameon=False)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return buffer.getvalue().partition("<svg")[1] + buffer.getvalue().partition("<svg")[2]
