"""What a run or an evaluation of boxes or masks leaves behind: metrics, predictions, COCO results, and report.html."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnetkit import run
from resnetkit._version import __version__
from resnetkit.checkpoint import Meta, told_of
from resnetkit.data.annotated import Boxed
from resnetkit.data.dataset import Dataset, File
from resnetkit.data.image import picture
from resnetkit.data.masks import Masked
from resnetkit.data.tree import SPLITS
from resnetkit.errors import DataError, printable
from resnetkit.files import write
from resnetkit.ops.boxes import scale
from resnetkit.ops.matching import MOST, Objects, curve, matches
from resnetkit.tasks import boxes
from resnetkit.tasks.boxes import SURE, Boxes
from resnetkit.tasks.draw import colour, draw_boxes, overlaid, painted
from resnetkit.tasks.scenes import NO_ID, SceneScores, There, Truths
from resnetkit.trust.figures import curves, precision_curves
from resnetkit.trust.page import jpeg_url, template
from resnetkit.trust.report import MATRIX_CLASSES, SPLIT_NAMES, percent, tables

WORST = 8
SIDE = 480  # px of a picture
CURVES = 20  # classes; more would not be told apart
HEADINGS = {
    "mask_AP50": "Average precision of the masks of each class at an overlap of 0.5",
    "mask_AP": "Average precision of the masks of each class, over overlaps of 0.5 to 0.95",
    "box_AP50": "Average precision of the boxes of each class at an overlap of 0.5",
    "box_AP": "Average precision of the boxes of each class, over overlaps of 0.5 to 0.95",
    "AP50": "Average precision of each class at an overlap of 0.5",
    "AP": "Average precision of each class, over overlaps of 0.5 to 0.95",
    "IoU": "Intersection over union of each class",
    "dice": "Dice of each class",
}
Answered = Callable[[Sequence[File]], Iterable[Any]]  # files to a Boxes or a Mask each, or a DataError


@dataclass(frozen=True)
class SceneStory:
    """What a report tells of.

    Attributes:
        scores: what is reported.
        dataset: the images of all splits.
        meta: of the model.
        history: rows of results.csv, may be empty.
        recipe: of the training as TOML, or "".
        answered: what the model says of files.
    """

    scores: SceneScores
    dataset: Dataset
    meta: Meta
    history: Sequence[Mapping[str, Any]]
    recipe: str
    answered: Answered


@dataclass(frozen=True)
class Pair:
    """An image with what is there and with what is said, as data URIs, and its numbers in words."""

    path: str
    words: str
    there: str
    said: str


def write_scene_scores(folder: Path, story: SceneStory) -> None:
    """metrics.json, predictions.csv, report.html, and for boxes coco_results.json, of a run or an evaluation."""
    scores = story.scores
    run.write_json(folder / "metrics.json", scores.as_dict())
    write(folder / "predictions.csv", run.as_csv(scores.columns, scores.rows()))
    if isinstance(story.dataset, Boxed):
        run.write_json(folder / "coco_results.json", coco_results(story.dataset, scores))
    write(folder / "report.html", _page(story))


def coco_results(dataset: Boxed, scores: SceneScores) -> list[dict[str, object]]:
    """As COCO's results have it, with the ids of the data, or else the row of an image and of a class from 1.

    Boxes of classes that the data does not have are in no row.
    """
    numbers = dataset.category_ids or tuple(range(1, len(dataset.classes) + 1))
    ids = dict(zip(dataset.classes, numbers, strict=True))
    rows = {name: int(dataset.truth.ids[target]) for name, target in zip(dataset.names, dataset.targets, strict=True)}
    each_size = zip(dataset.names, dataset.truth.sizes[dataset.targets].tolist(), strict=True)
    sizes = {name: (width, height) for name, (width, height) in each_size}
    found = zip(scores.paths, scores.judged, strict=True)
    each = ((path, scores.target.decode(said, scores.classes, path, sizes[path], MOST)) for path, (said, _) in found)
    all_rows = (row for path, one in each if isinstance(one, Boxes) for row in one.coco(rows[path], ids))
    return [row for row in all_rows if row["category_id"] != NO_ID]


def _page(story: SceneStory) -> str:
    scores, history = story.scores, story.history
    headline = f"val_{scores.target.headline}"
    matrix = _matrix(scores)
    boxed = isinstance(story.dataset, Boxed)
    caption = "Rows are what is there, columns what the model says"
    caption += (
        f" at a score of {SURE} or more; the last column has what it misses, the last row what it invents."
        if boxed
        else ", in per cent of a row."
    )
    return template("scene_report.html.jinja").render(
        sentence=sentence(scores),
        noun="images",
        doubts=_doubts(scores),
        metrics=[(name, percent(metric)) for name, metric in scores.metrics.items() if "/" not in name],
        stages=[],
        curves=curves(history, headline) if len(history) > 1 else "",
        tables=tables(scores, HEADINGS),
        precision=_precision(scores) if boxed else "",
        matrix=matrix,
        caption=caption,
        columns=[*scores.classes, "nothing"] if boxed else scores.classes,
        pictures=list(_worst(story)),
        failed=[(printable(name), reason) for name, reason in scores.failed],
        data=_data_card(story.dataset),
        classes=scores.classes,
        ignored=[(finding.what, finding.count) for finding in _findings(story.dataset)],
        meta=story.meta,
        prepared=told_of(story.meta),
        calibration=None,
        recipe=story.recipe,
        version=__version__,
    )


def sentence(scores: SceneScores) -> str:
    """The result in a sentence."""
    name = scores.target.headline
    metric = scores.metrics.get(name)
    if metric is None or metric.value is None or metric.low is None or metric.high is None:
        return "Nothing was scored: there is nothing to be found in held-out images."
    return (
        f"On {len(scores.paths):,} {SPLIT_NAMES[scores.split]} images the model reaches {name} {metric.value:.3f}, and "
        f"with 95 % confidence between {metric.low:.3f} and {metric.high:.3f} on more images like these."
    )


def _doubts(scores: SceneScores) -> list[str]:
    metric = scores.metrics.get(scores.target.headline)
    if metric is not None and metric.value is not None and metric.value < 0.01:
        return ["The model finds next to nothing: it has learnt too little, or the images are shown too small."]
    return []


def _precision(scores: SceneScores) -> str:
    found, there = [pair[0] for pair in scores.judged], [pair[1] for pair in scores.judged]
    each = {}
    for k, name in enumerate(scores.classes[:CURVES]):
        _, precision, recall = curve(matches(found, there, k))
        if len(recall):
            each[name] = (recall, precision)
    return precision_curves(each) if each else ""


def _matrix(scores: SceneScores) -> list[tuple[str, list[tuple[str, float]]]]:
    """Rows of the confusion matrix: name, and words and share of the row for each column; [] if it is too large."""
    if not scores.judged or len(scores.classes) > MATRIX_CLASSES:
        return []
    k = len(scores.classes)
    pairs = isinstance(scores.judged[0], tuple)
    if pairs:
        matrix = np.zeros((k + 1, k + 1), np.int64)
        for found, there in scores.judged:
            matrix += boxes.confusions([found], [there], k)[0]
    else:
        matrix = np.sum(scores.judged, axis=0)
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    words = [[str(n or "") for n in row] for row in matrix.tolist()] if pairs else _percents(shares)
    names = [*scores.classes, "nothing"] if pairs else list(scores.classes)
    return [(name, list(zip(w, s.tolist(), strict=True))) for name, w, s in zip(names, words, shares, strict=True)]


def _percents(shares: NDArray[np.floating]) -> list[list[str]]:
    return [[f"{100 * share:.0f}" if share >= 0.005 else "" for share in row] for row in shares.tolist()]


def _worst(story: SceneStory) -> Iterable[Pair]:
    scores, dataset = story.scores, story.dataset
    if not scores.judged or not isinstance(dataset, Boxed | Masked):
        return
    order = np.argsort(-scores.target.worst(scores.judged, len(scores.classes)), kind="stable")[:WORST].tolist()
    names = {name: row for row, name in enumerate(dataset.names)}
    rows = [names[scores.paths[i]] for i in order]
    answers = story.answered([dataset.files[row] for row in rows])
    for i, row, answer in zip(order, rows, answers, strict=True):
        if isinstance(answer, DataError):
            continue
        told = scores.target.row(scores.judged[i], scores.classes)
        words = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in told.items())
        image = picture(dataset.files[row], SIDE)
        there = Truths(dataset)[np.array([row])][0]
        known, said = _drawn_truth(image, there, scores.classes), answer.drawn(image, SURE, scores.classes)
        yield Pair(printable(scores.paths[i]), words, jpeg_url(known), jpeg_url(said))


def _drawn_truth(image: Image.Image, there: There, classes: Sequence[str]) -> Image.Image:
    """An image, at whatever scale, with what is there."""
    if there.mask is not None:
        return overlaid(image, there.mask)
    assert there.objects is not None, "there are objects or a mask"
    found: Objects = there.objects
    regions = there.regions((image.width, image.height)) if there.regions else ()
    for region, k in zip(regions, found.labels.tolist(), strict=False):
        image = painted(image, region.dense(image.height, image.width), k)
    moved = scale(found.boxes, image.width / there.size[0], image.height / there.size[1])
    return draw_boxes(image, moved.tolist(), [classes[k] for k in found.labels], [colour(int(k)) for k in found.labels])


def _data_card(dataset: Dataset) -> tuple[list[str], list[tuple[str, list[int]]]]:
    """Names of the splits, and images, and boxes or pixels of each class, in each of them."""
    names = [name for name in SPLITS if dataset.num_samples(name)]
    counts = [dataset.counts(name).tolist() for name in names]
    rows = [("images", [dataset.num_samples(name) for name in names])]
    return names, rows + [(name, list(each)) for name, each in zip(dataset.classes, zip(*counts), strict=False)]  # noqa: B905


def _findings(dataset: Dataset) -> Sequence[Any]:
    return dataset.findings if isinstance(dataset, Boxed | Masked) else ()
