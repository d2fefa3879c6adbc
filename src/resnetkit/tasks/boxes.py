"""The target "objects with boxes": what is found in an image, and average precision with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnetkit.ops.boxes import scale, to_xywh
from resnetkit.ops.intervals import Metric, weighted_bootstraps
from resnetkit.ops.matching import ANY_SIZE, AT_50, AT_75, SIZES, Found, Objects, average_precision, confusion, matches
from resnetkit.tasks.draw import colour, draw_boxes

HEADLINE = "AP50"
SURE = 0.5  # score from which a box counts where one has to say yes or no
Floats = NDArray[np.floating]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Boxes:
    """The answer for one image: boxes from the highest score down.

    Attributes:
        path: the image's path, "" for images and arrays in memory.
        size: width and height of the upright image in pixels.
        labels: name of each box's class.
        scores: of each, 0..1.
        boxes: xyxy in pixels of the upright image.
    """

    path: str
    size: tuple[int, int]
    labels: tuple[str, ...]
    scores: tuple[float, ...]
    boxes: tuple[Box, ...]

    def __len__(self) -> int:
        return len(self.boxes)

    def rows(self) -> list[dict[str, str | float | None]]:
        """One flat row a box: path, label, score, x1, y1, x2, y2; one row of nothing where none was found."""
        if not self.boxes:
            return [{"path": self.path, "label": ""} | dict.fromkeys(("score", "x1", "y1", "x2", "y2"))]
        rows: list[dict[str, str | float | None]] = []
        for label, score, box in zip(self.labels, self.scores, self.boxes, strict=True):
            corners = {name: round(value, 2) for name, value in zip(("x1", "y1", "x2", "y2"), box, strict=True)}
            rows.append({"path": self.path, "label": label, "score": round(score, 6), **corners})
        return rows

    def full_rows(self) -> list[dict[str, Any]]:
        """The rows with all that JSON can hold of an answer."""
        return [*self.rows()]

    def drawn(self, image: Image.Image, least: float, classes: Sequence[str]) -> Image.Image:
        """The image, at whatever scale, with the boxes of a score from `least`, in the colours of their classes."""
        sure = [i for i, score in enumerate(self.scores) if score >= least]
        moved = scale(
            np.array(self.boxes, np.float64).reshape(-1, 4), image.width / self.size[0], image.height / self.size[1]
        )
        texts = [f"{self.labels[i]} {self.scores[i]:.2f}" for i in sure]
        return draw_boxes(image, moved[sure].tolist(), texts, [colour(classes.index(self.labels[i])) for i in sure])

    def coco(self, image_id: int, category_ids: Mapping[str, int]) -> list[dict[str, object]]:
        """As COCO's results have it: image_id, category_id, bbox (x, y, width, height) and score of each box."""
        corners = to_xywh(np.array(self.boxes, np.float64).reshape(-1, 4))
        return [
            {"image_id": image_id, "category_id": category_ids[label], "bbox": box, "score": score}
            for label, score, box in zip(self.labels, self.scores, corners.round(2).tolist(), strict=True)
        ]


def decode(found: Found, classes: Sequence[str], path: str, size: tuple[int, int], top: int = 100) -> Boxes:
    """The `top` best boxes of an image.

    Args:
        found: in pixels of the upright image.
        classes: names.
        path: of the image.
        size: width and height of the upright image.
        top: number of boxes, at most.
    """
    best = np.argsort(-found.scores, kind="stable")[:top]
    boxes = [(float(a), float(b), float(c), float(d)) for a, b, c, d in found.boxes[best]]
    labels = tuple(classes[k] for k in found.labels[best].tolist())
    return Boxes(path, size, labels, tuple(found.scores[best].tolist()), tuple(boxes))


def metrics(found: Sequence[Found], there: Sequence[Objects], classes: Sequence[str]) -> Mapping[str, Metric]:
    """Average precision and recall with COCO's rules, over classes and of each, with a bootstrap over images.

    AP is the mean over IoU 0.50 to 0.95, AP50 and AP75 are at one; AR is the mean of the highest recalls, of 100 boxes
    a class and image. `AP_small` is of boxes up to 32 x 32 pixels, `AP_large` of those from 96 x 96. A class that no
    image has is in no mean, and null.

    Args:
        found: of each image.
        there: of the same images.
        classes: names.
    """
    n = len(found)
    each = [matches(found, there, k) for k in range(len(classes))]

    def means(drawn: Floats) -> Floats:
        precision, recall = (np.stack(all_) for all_ in zip(*(average_precision(m, drawn) for m in each), strict=True))
        classwise = precision[:, :, AT_50].T, precision.mean(2).T  # [B, K]
        overall = [
            _mean(precision.mean(2)),
            _mean(precision[:, :, AT_50]),
            _mean(precision[:, :, AT_75]),
            _mean(recall.mean(2)),
        ]
        return np.concatenate([np.stack(overall, 1), *classwise], 1)

    names = ["AP", "AP50", "AP75", "AR", *(f"{kind}/{name}" for kind in ("AP50", "AP") for name in classes)]
    reasons = ["no boxes"] * 4 + ["no boxes of this class"] * (2 * len(classes))
    of_all = dict(zip(names, weighted_bootstraps(means, n, reasons) if classes else [], strict=False))
    return of_all | {f"AP_{name}": _of_size(found, there, len(classes), name) for name in SIZES}


def _of_size(found: Sequence[Found], there: Sequence[Objects], num_classes: int, size: str) -> Metric:
    each = [matches(found, there, k, SIZES[size]) for k in range(num_classes)]

    def mean(drawn: Floats) -> Floats:
        return _mean(np.stack([average_precision(m, drawn)[0].mean(1) for m in each]))[:, None]

    return weighted_bootstraps(mean, len(found) if each else 0, [f"no {size} boxes"])[0]


def _mean(values: Floats) -> Floats:
    """Mean [B] over the classes [K, B] that exist; NaN where none does."""
    exists = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(exists, values, 0).sum(0) / exists.sum(0))


def headline(found: Sequence[Found], there: Sequence[Objects], num_classes: int) -> float | None:
    """AP50 alone, without an interval: what a training looks at after each epoch; None without boxes."""
    once = np.ones((1, len(found)))
    each = [average_precision(matches(found, there, k, ANY_SIZE), once)[0][:, AT_50] for k in range(num_classes)]
    value = float(_mean(np.stack(each))[0]) if each else np.nan
    return None if np.isnan(value) else value


def confusions(found: Sequence[Found], there: Sequence[Objects], num_classes: int) -> NDArray[np.int64]:
    """What each image's boxes are taken for, at `SURE` [n, K + 1, K + 1]; the last row and column are nothing."""
    each = [confusion(f, t, num_classes, SURE) for f, t in zip(found, there, strict=True)]
    return np.array(each, np.int64).reshape(-1, num_classes + 1, num_classes + 1)


def mistakes(matrices: NDArray[np.int64]) -> NDArray[np.int64]:
    """Boxes that were missed, invented or called something else, of each image [n]: the worst have most."""
    return np.asarray(matrices.sum((1, 2)) - np.trace(matrices, axis1=1, axis2=2))
