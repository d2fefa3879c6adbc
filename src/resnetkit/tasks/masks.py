"""The target "a class for every pixel": the mask of an image, and mIoU, Dice and accuracy with intervals."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnetkit.ops.intervals import Metric, weighted_bootstraps
from resnetkit.ops.rle import encode
from resnetkit.tasks.draw import overlaid, palette

HEADLINE = "mIoU"
IGNORE = 255
Floats = NDArray[np.floating]
Indices = NDArray[np.uint8]


@dataclass(frozen=True)
class Mask:
    """The answer for one image.

    Attributes:
        path: the image's path, "" for images and arrays in memory.
        classes: names.
        indices: class index of each pixel of the upright image [h, w].
    """

    path: str
    classes: tuple[str, ...]
    indices: Indices

    @property
    def shares(self) -> dict[str, float]:
        """Share of the pixels of each class that is there, 0..1, the largest first."""
        counts = np.bincount(self.indices.ravel(), minlength=len(self.classes))
        order = np.argsort(-counts, kind="stable")
        return {self.classes[k]: float(counts[k] / self.indices.size) for k in order.tolist() if counts[k]}

    def rows(self) -> list[dict[str, str | float]]:
        """One flat row a class that is there, the largest first: path, width, height, label, share of the pixels."""
        height, width = self.indices.shape
        size: dict[str, str | float] = {"path": self.path, "width": width, "height": height}
        return [{**size, "label": label, "share": round(share, 6)} for label, share in self.shares.items()]

    def full_rows(self) -> list[dict[str, Any]]:
        """The rows with the pixels of their class as COCO's run lengths: `rle`, of size [height, width] and counts."""
        size, numbers = list(self.indices.shape), {name: k for k, name in enumerate(self.classes)}
        return [
            {**row, "rle": {"size": size, "counts": encode(self.indices == numbers[str(row["label"])])}}
            for row in self.rows()
        ]

    def drawn(self, image: Image.Image, least: float, classes: Sequence[str]) -> Image.Image:
        """The image, at whatever scale, under the colours of its classes."""
        return overlaid(image, self.indices)

    def png(self) -> bytes:
        """The indices as a PNG with a palette: any viewer shows colours, any program reads the indices."""
        image = Image.fromarray(self.indices).convert("L")
        image.putpalette(palette())
        buffer = io.BytesIO()
        image.save(buffer, "PNG", optimize=True)
        return buffer.getvalue()

    def coco(self, image_id: int, category_ids: Mapping[str, int]) -> list[dict[str, object]]:
        """As COCO's results have it: image_id, category_id and segmentation (run lengths) of each class there is."""
        height, width = self.indices.shape
        return [
            {
                "image_id": image_id,
                "category_id": category_ids[self.classes[k]],
                "segmentation": {"size": [height, width], "counts": encode(self.indices == k)},
            }
            for k in np.unique(self.indices).tolist()
            if k < len(self.classes)
        ]


def confusion(said: Indices, target: Indices, num_classes: int) -> NDArray[np.int64]:
    """Pixels of one image by target (row) and answer (column) [K, K]; those without a target are left out.

    Args:
        said: class indices [h, w].
        target: class indices, or `IGNORE` [h, w].
        num_classes: K.
    """
    counted = target != IGNORE
    flat = target[counted].astype(np.int64) * num_classes + said[counted]
    return np.bincount(flat, minlength=num_classes**2).reshape(num_classes, num_classes)


def metrics(matrices: NDArray[np.integer], classes: Sequence[str]) -> Mapping[str, Metric]:
    """mIoU, mean Dice, pixel accuracy, and IoU and Dice of each class, with a bootstrap over images.

    IoU is TP / (TP + FP + FN) over the pixels of all images, Dice 2 TP / (2 TP + FP + FN). A class that no image has is
    in no mean, and null: not 0, nor 1.

    Args:
        matrices: `confusion` of each image [n, K, K].
        classes: names.
    """
    n, k = len(matrices), len(classes)
    flat = np.asarray(matrices, np.float64).reshape(n, k * k)

    def all_of(drawn: Floats) -> Floats:
        pooled = (drawn.astype(np.float64) @ flat).reshape(-1, k, k)
        iou, dice, accuracy = overlap(pooled)
        return np.concatenate([np.stack([_mean(iou), _mean(dice), accuracy], 1), iou, dice], 1)

    names = ["mIoU", "dice", "pixel_accuracy", *(f"{kind}/{name}" for kind in ("IoU", "dice") for name in classes)]
    reasons = ["no pixels with a class"] * 3 + ["no pixels of this class"] * (2 * k)
    return dict(zip(names, weighted_bootstraps(all_of, n, reasons), strict=True))


def overlap(pooled: Floats) -> tuple[Floats, Floats, Floats]:
    """IoU [B, K], Dice [B, K] and pixel accuracy [B] of confusion matrices [B, K, K]; NaN for classes not there."""
    hits, there, said = np.diagonal(pooled, axis1=1, axis2=2), pooled.sum(2), pooled.sum(1)
    total = pooled.sum((1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        missing = there == 0
        iou = np.where(missing, np.nan, hits / (there + said - hits))
        dice = np.where(missing, np.nan, 2 * hits / (there + said))
        return iou, dice, np.where(total == 0, np.nan, hits.sum(1) / total)


def _mean(values: Floats) -> Floats:
    """Mean [B] over the classes [B, K] that exist; NaN where none does."""
    exists = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(exists, values, 0).sum(1) / exists.sum(1))


def headline(matrices: NDArray[np.integer]) -> float | None:
    """The mean IoU alone, without an interval; None where no pixel has a class."""
    iou, _, _ = overlap(np.asarray(matrices, np.float64).sum(0, keepdims=True))
    value = float(_mean(iou)[0])
    return None if np.isnan(value) else value


def accuracies(matrices: NDArray[np.integer]) -> Floats:
    """Share of the pixels of each image that are right [n]: the worst images have the lowest; NaN without pixels."""
    _, _, accuracy = overlap(np.asarray(matrices, np.float64))
    return accuracy
