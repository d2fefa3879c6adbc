"""What is predicted of the parts of an image, boxes or masks, and the scores of it; no torch.

A network answers on a canvas, into which the whole image is fitted (`Preprocess` with "letterbox"). `placed` leads that
answer back to the pixels of the upright image, where it is judged and given away.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnetkit.data.annotated import Boxed
from resnetkit.data.boxes import OUTLINES
from resnetkit.data.dataset import CODES, Dataset
from resnetkit.data.image import Preprocess, inside
from resnetkit.data.masks import Masked
from resnetkit.data.outlines import Outlined
from resnetkit.errors import DataError, printable
from resnetkit.ops.boxes import clip, without_area
from resnetkit.ops.intervals import Metric
from resnetkit.ops.matching import Found, Objects
from resnetkit.ops.regions import Region
from resnetkit.tasks import boxes, instances, masks
from resnetkit.tasks.boxes import Boxes
from resnetkit.tasks.masks import Mask
from resnetkit.tasks.task import IMAGE, Modality

Size = tuple[int, int]  # width and height of an upright image in pixels
Floats = NDArray[np.floating]
TIMED = 40  # images from which it is told how long the metrics of all take
NO_ID = -1  # of a class of the model that a data set of COCO's does not have


@dataclass(frozen=True)
class There:
    """What is there in an image: width and height in pixels, and objects or the class of each pixel [h, w].

    Of objects with masks also a function from a width and height to the pixels of each in an image of that size.
    """

    size: tuple[int, int]
    objects: Objects | None = None
    mask: NDArray[np.uint8] | None = None
    regions: Callable[[Size], tuple[Region, ...]] | None = None

    @property
    def truth(self) -> Objects | NDArray[np.uint8]:
        """What answers are judged by."""
        if self.objects is not None and self.regions is not None:
            return replace(self.objects, regions=self.regions(self.size))
        found = self.objects if self.objects is not None else self.mask
        assert found is not None, "there are objects or a mask"
        return found


@dataclass(frozen=True)
class Truths:
    """What is there in the images of a split, looked up by row; masks are read anew each time, for they are small."""

    dataset: Boxed | Masked

    def __len__(self) -> int:
        """Number of images."""
        return len(self.dataset)

    def __getitem__(self, rows: NDArray[np.intp]) -> list[There]:
        """What is in some of them."""
        return [self._there(row) for row in rows.tolist()]

    def _there(self, row: int) -> There:
        found = self.dataset
        if isinstance(found, Boxed):
            width, height = found.truth.sizes[found.targets[row]].tolist()
            regions = partial(found.regions, row) if isinstance(found, Outlined) else None
            return There((width, height), objects=found.objects(row), regions=regions)
        mask = found.mask(row)
        return There((mask.shape[1], mask.shape[0]), mask=mask)

    @property
    def counts(self) -> NDArray[np.int64]:
        """Boxes or pixels of each class [K]."""
        return np.asarray(np.sum([self.dataset.counts(split) for split in CODES], axis=0))


@dataclass(frozen=True)
class SceneTarget:
    """What is predicted of the parts of an image.

    Attributes:
        prepare: a data set to itself, if it has what is to be learnt; raises DataError where it has not.
        placed: what a network says of a canvas, the image's size, and how the canvas was made, to an answer.
        decode: an answer, class names, path, the image's size, and most boxes, to what a caller gets.
        judge: an answer, the truth and the number of classes, to what metrics need to know of an image.
        metrics: that of all images, and class names, to numbers with intervals.
        value: the headline alone, without an interval; None where nothing can be scored.
        row: that of one image, and class names, to its columns of predictions.csv.
        columns: their names.
        worst: how bad each answer is, the worst highest [n].
        headline: name of the metric that is shown first.
    """

    prepare: Callable[[Dataset], Dataset]
    placed: Callable[[Any, Size, Preprocess], Any]
    decode: Callable[[Any, Sequence[str], str, Size, int], Boxes | Mask]
    judge: Callable[[Any, Any, int], Any]
    metrics: Callable[[Sequence[Any], Sequence[str]], Mapping[str, Metric]]
    value: Callable[[Sequence[Any], int], float | None]
    row: Callable[[Any, Sequence[str]], dict[str, Any]]
    columns: tuple[str, ...]
    worst: Callable[[Sequence[Any], int], Floats]
    headline: str


@dataclass(frozen=True)
class SceneTask:
    """What is read times what is predicted of its parts."""

    modality: Modality
    target: SceneTarget


@dataclass(frozen=True)
class SceneScores:
    """Metrics of one model on one split.

    Attributes:
        split: "val", "test", or "all".
        classes: names.
        paths: of the images that could be read [n].
        judged: what metrics need to know of each.
        metrics: name to number with interval.
        target: what is predicted.
        failed: path and reason of each image that could not be read; they are in no metric.
    """

    split: str
    classes: tuple[str, ...]
    paths: tuple[str, ...]
    judged: tuple[Any, ...]
    metrics: Mapping[str, Metric]
    target: SceneTarget
    failed: tuple[tuple[str, str], ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Of predictions.csv."""
        return ("path", "split", *self.target.columns, "error")

    def as_dict(self) -> dict[str, Any]:
        """As metrics.json."""
        return {name: metric.as_dict() for name, metric in self.metrics.items()}

    def rows(self) -> Iterator[dict[str, Any]]:
        """As predictions.csv: one row an image, those that failed at the end."""
        for path, each in zip(self.paths, self.judged, strict=True):
            yield {"path": printable(path), "split": self.split, **self.target.row(each, self.classes)}
        for path, reason in self.failed:
            yield {"path": printable(path), "split": self.split, "error": reason}


def seconds_to_score(task: SceneTask, dataset: Dataset) -> float:
    """Seconds that metrics and their intervals take of the images that are scored at the end, told from some of them.

    These are given made answers: what is there, and three times as much that is not.
    """
    images = dataset.num_samples("test") or dataset.num_samples("val")
    rows = range(min(TIMED, len(dataset)))
    if not images or not rows:
        return 0.0
    judged = [_made(dataset, row) for row in rows]
    started = time.perf_counter()
    task.target.metrics(judged, dataset.classes)
    return (time.perf_counter() - started) * images / len(rows)


def _made(dataset: Dataset, row: int) -> Any:
    if not isinstance(dataset, Boxed):
        return np.eye(len(dataset.classes), dtype=np.int64)
    there = dataset.objects(row)
    wide = np.concatenate([(there.boxes[:, 2:] - there.boxes[:, :2]) * at for at in range(4)])
    corners = np.tile(there.boxes, (4, 1)) + np.tile(wide, 2)
    scores = np.random.default_rng(row).random(len(corners))
    return Found(corners, np.tile(there.labels, 4), scores), there


def score(
    task: SceneTask, split: str, classes: Sequence[str], paths: Sequence[str], judged: Sequence[Any | DataError]
) -> SceneScores:
    """Scores from what was judged of each image, or why it could not be read."""
    good = [i for i, each in enumerate(judged) if not isinstance(each, DataError)]
    failed = tuple((paths[i], each.what) for i, each in enumerate(judged) if isinstance(each, DataError))
    known = tuple(judged[i] for i in good)
    metrics = task.target.metrics(known, classes)
    return SceneScores(split, tuple(classes), tuple(paths[i] for i in good), known, metrics, task.target, failed)


def in_classes_of(dataset: Dataset, index: NDArray[np.int64], classes: tuple[str, ...]) -> Dataset:
    """Boxes or masks with the classes of a model.

    Args:
        dataset: of boxes or masks.
        index: the model's number of each class of the data set [K].
        classes: the model's.
    """
    if isinstance(dataset, Boxed):
        objects = dataset.truth.objects
        truth = replace(dataset.truth, objects=replace(objects, labels=index[objects.labels]))
        known = dict(zip(index.tolist(), dataset.category_ids, strict=False))
        ids = tuple(known.get(k, NO_ID) for k in range(len(classes))) if known else ()
        return replace(dataset, classes=classes, truth=truth, category_ids=ids)
    assert isinstance(dataset, Masked), "there are boxes or masks"
    marks = dataset.marks
    numbers = np.append(index, np.full(256 - len(index), masks.IGNORE)).astype(np.uint8)
    pixels = np.zeros((len(marks.pixels), len(classes)), np.int64)
    pixels[:, index] = marks.pixels
    return replace(dataset, classes=classes, marks=replace(marks, table=numbers[marks.table], pixels=pixels))


def _boxed(dataset: Dataset) -> Dataset:
    if not isinstance(dataset, Boxed):
        what = "holds no boxes in a form that is known, and boxes are to be found"
        raise DataError(what, path=dataset.root, fix="give COCO JSON, Pascal VOC or YOLO, or another --task")
    return dataset


def _outlined(dataset: Dataset) -> Dataset:
    if not isinstance(dataset, Outlined):
        what = "holds no objects with outlines, and their pixels are to be found"
        raise DataError(what, path=dataset.root, fix=f"{OUTLINES}, or another --task")
    return dataset


def _masked(dataset: Dataset) -> Dataset:
    if not isinstance(dataset, Masked):
        what = "holds no masks, and a class for every pixel is to be found"
        raise DataError(what, path=dataset.root, fix="give images and masks in two folders, or another --task")
    return dataset


def placed_boxes(found: Found, size: Size, preprocess: Preprocess) -> Found:
    """Boxes on a letterboxed canvas as boxes of the image, inside it; those that lay on a bar are gone."""
    moved = _moved(found.boxes, size, preprocess)
    there = clip(moved, size)
    kept = ~without_area(there)
    return Found(there[kept], found.labels[kept], found.scores[kept])


def placed_instances(found: Found, size: Size, preprocess: Preprocess) -> Found:
    """As `placed_boxes`, with the pixels of each object of the image."""
    assert found.parts is not None, "the network says them"
    moved = _moved(found.boxes, size, preprocess)
    kept = ~without_area(clip(moved, size))
    return instances.with_masks(placed_boxes(found, size, preprocess), found.parts[kept], moved[kept], size)


def _moved(corners: Floats, size: Size, preprocess: Preprocess) -> Floats:
    """Boxes of a canvas in pixels of the image."""
    left, top, across, down = inside(size, preprocess)
    moved = (corners - np.array([left, top] * 2)) * np.array([size[0] / across, size[1] / down] * 2)
    return np.asarray(moved, np.float64)


def placed_mask(logits: NDArray[np.float32], size: Size, preprocess: Preprocess) -> NDArray[np.uint8]:
    """Logits [K, H, W] of a letterboxed canvas as the class of each pixel of the image [h, w].

    One class after another is enlarged, so that memory does not grow with their number.
    """
    height, width = logits.shape[1:]
    left, top, across, down = inside(size, preprocess)
    # a network may answer at another resolution than it was asked
    part = width / preprocess.canvas[1], height / preprocess.canvas[0]
    box = (left * part[0], top * part[1], (left + across) * part[0], (top + down) * part[1])
    best = np.full(size[::-1], -np.inf, np.float32)
    indices = np.zeros(size[::-1], np.uint8)
    for k, channel in enumerate(logits):
        large = np.asarray(Image.fromarray(channel).resize(size, Image.Resampling.BILINEAR, box))
        indices[large > best] = k
        np.maximum(best, large, out=best)
    return indices


def _pairs(judged: Sequence[tuple[Found, Objects]]) -> tuple[list[Found], list[Objects]]:
    return [found for found, _ in judged], [there for _, there in judged]


def _box_row(judged: tuple[Found, Objects], classes: Sequence[str]) -> dict[str, Any]:
    found, there = judged
    wrong = int(boxes.mistakes(boxes.confusions([found], [there], len(classes)))[0])
    sure = int((found.scores >= boxes.SURE).sum())
    return {"objects": int((~there.crowds).sum()), "found": sure, "mistakes": wrong}


def _box_mistakes(judged: Sequence[tuple[Found, Objects]], num_classes: int) -> Floats:
    # one after the other: the matrices of many images of many classes would fill the memory
    each = (boxes.mistakes(boxes.confusions([found], [there], num_classes))[0] for found, there in judged)
    return np.fromiter(each, np.float64, len(judged))


def _mask_row(judged: NDArray[np.integer], classes: Sequence[str]) -> dict[str, Any]:
    share = float(masks.accuracies(judged[None])[0])
    return {"pixels": int(judged.sum()), "pixel_accuracy": "" if np.isnan(share) else round(share, 6)}


def _matrices(judged: Sequence[NDArray[np.integer]], num_classes: int) -> NDArray[np.integer]:
    return np.array(judged, np.int64).reshape(-1, num_classes, num_classes)


def _mask_mistakes(judged: Sequence[NDArray[np.integer]], num_classes: int) -> Floats:
    each = (masks.accuracies(matrix[None])[0] for matrix in judged)
    return 1 - np.nan_to_num(np.fromiter(each, np.float64, len(judged)), nan=1.0)


def _mask_value(judged: Sequence[NDArray[np.integer]], num_classes: int) -> float | None:
    return masks.headline(_matrices(judged, num_classes)) if len(judged) else None


BOXES = SceneTarget(
    prepare=_boxed,
    placed=placed_boxes,
    decode=boxes.decode,
    judge=lambda found, there, num_classes: (found, there),
    metrics=lambda judged, classes: boxes.metrics(*_pairs(judged), classes),
    value=lambda judged, num_classes: boxes.headline(*_pairs(judged), num_classes) if judged else None,
    row=_box_row,
    columns=("objects", "found", "mistakes"),
    worst=_box_mistakes,
    headline=boxes.HEADLINE,
)
MASKS = SceneTarget(
    prepare=_masked,
    placed=placed_mask,
    decode=lambda indices, classes, path, size, top: Mask(path, tuple(classes), indices),
    judge=masks.confusion,
    metrics=lambda judged, classes: masks.metrics(_matrices(judged, len(classes)), classes),
    value=_mask_value,
    row=_mask_row,
    columns=("pixels", "pixel_accuracy"),
    worst=_mask_mistakes,
    headline=masks.HEADLINE,
)
INSTANCES = replace(
    BOXES,
    prepare=_outlined,
    placed=placed_instances,
    decode=instances.decode,
    judge=instances.judge,
    metrics=lambda judged, classes: instances.metrics(*_pairs(judged), classes),
    headline=instances.HEADLINE,
)
SCENES = {
    "detect": SceneTask(IMAGE, BOXES),
    "segment": SceneTask(IMAGE, MASKS),
    "instances": SceneTask(IMAGE, INSTANCES),
}
