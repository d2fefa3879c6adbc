"""The target "objects with masks": boxes, and the pixels of each; average precision of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnetkit.ops import rle
from resnetkit.ops.intervals import Metric
from resnetkit.ops.matching import Found, Objects, Shared
from resnetkit.ops.regions import Region, common, encode
from resnetkit.tasks import boxes
from resnetkit.tasks.boxes import Boxes
from resnetkit.tasks.draw import painted

HEADLINE = "mask_AP50"
INSIDE = 0.5  # of what a network says of a pixel, from which it is the object's
Size = tuple[int, int]  # width and height in pixels


@dataclass(frozen=True)
class Instances(Boxes):
    """The answer for one image: as `Boxes`, with the pixels of each object.

    Attributes:
        masks: COCO's run lengths of each, in the upright image.
    """

    masks: tuple[str, ...] = ()

    def mask(self, number: int) -> NDArray[np.bool_]:
        """The pixels of an object in the upright image [h, w]."""
        return rle.decode(self.masks[number], self.size[1], self.size[0])

    def _run_lengths(self) -> list[dict[str, Any]]:
        return [{"size": [self.size[1], self.size[0]], "counts": text} for text in self.masks]

    def full_rows(self) -> list[dict[str, Any]]:
        """The rows with the pixels of each object as COCO's run lengths: `rle`, of size [height, width] and counts."""
        each: list[dict[str, Any] | None] = [*self._run_lengths()] or [None]
        return [{**row, "rle": lengths} for row, lengths in zip(self.rows(), each, strict=True)]

    def drawn(self, image: Image.Image, least: float, classes: Sequence[str]) -> Image.Image:
        """The image, at whatever scale, with the objects of a score from `least`, in the colours of their classes."""
        sure = [i for i, score in enumerate(self.scores) if score >= least]
        for i in reversed(sure):  # the surest on top
            image = painted(image, self.mask(i), classes.index(self.labels[i]))
        return super().drawn(image, least, classes)

    def coco(self, image_id: int, category_ids: Mapping[str, int]) -> list[dict[str, object]]:
        """As COCO's results have it: that of `Boxes`, and segmentation (run lengths)."""
        rows = super().coco(image_id, category_ids)
        return [{**row, "segmentation": each} for row, each in zip(rows, self._run_lengths(), strict=True)]


def with_masks(found: Found, parts: NDArray[np.floating], corners: NDArray[np.floating], size: Size) -> Found:
    """What was found, with what a network says of each object in its box as pixels of an image.

    Args:
        found: in the image.
        parts: 0..1 [n, s, s].
        corners: of the boxes in pixels of the image, over whose edge they may reach [n, 4].
        size: width and height of the image.
    """
    regions = tuple(pasted(part, box, size) for part, box in zip(parts, corners, strict=True))
    return replace(found, regions=regions, texts=tuple(encode(region, size[1], size[0]) for region in regions))


def pasted(part: NDArray[np.floating], box: NDArray[np.floating], size: Size) -> Region:
    """As torchvision's paste_masks_in_image: with a border of zeros, which the box is made larger by."""
    side = len(part)
    middle, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2 * (side + 2) / side
    left, top = (int(value) for value in np.trunc(middle - half))
    right, bottom = (int(value) for value in np.trunc(middle + half))
    width, height = max(1, right - left + 1), max(1, bottom - top + 1)
    x1, y1 = max(0, left), max(0, top)
    x2, y2 = max(x1, min(size[0], right + 1)), max(y1, min(size[1], bottom + 1))
    if x1 == x2 or y1 == y2:
        return Region(0, 0, np.zeros((0, 0), bool))
    padded = Image.fromarray(np.pad(np.asarray(part, np.float32), 1))
    scale = (side + 2) / width, (side + 2) / height
    seen = ((x1 - left) * scale[0], (y1 - top) * scale[1], (x2 - left) * scale[0], (y2 - top) * scale[1])
    # no antialiasing where a large mask becomes a small object: as torchvision's
    shown = padded.transform((x2 - x1, y2 - y1), Image.Transform.EXTENT, seen, Image.Resampling.BILINEAR)
    return Region(y1, x1, np.asarray(shown) > INSIDE)


def decode(found: Found, classes: Sequence[str], path: str, size: Size, top: int = 100) -> Instances:
    """The `top` best objects of an image; arguments as `boxes.decode`."""
    best = np.argsort(-found.scores, kind="stable")[:top].tolist()
    plain = boxes.decode(found, classes, path, size, top)
    masks = tuple(found.texts[i] for i in best)
    return Instances(plain.path, plain.size, plain.labels, plain.scores, plain.boxes, masks)


def judge(found: Found, there: Objects, num_classes: int) -> tuple[Found, Objects]:
    """Both with what metrics need to know of their masks, and without these, but for their run lengths."""
    areas = (np.array([float(region.area) for region in each.regions]) for each in (found, there))
    shared = Shared(common(found.regions, there.regions), *areas)
    return replace(found, regions=(), shared=shared), replace(there, regions=())


def metrics(found: Sequence[Found], there: Sequence[Objects], classes: Sequence[str]) -> Mapping[str, Metric]:
    """The metrics of `boxes.metrics` for masks and for boxes: `mask_AP50`, `box_AP50`, and so on."""
    plain = [replace(each, shared=None) for each in found]
    of_masks, of_boxes = (boxes.metrics(each, there, classes) for each in (found, plain))
    named = {f"mask_{name}": metric for name, metric in of_masks.items()}
    return named | {f"box_{name}": metric for name, metric in of_boxes.items()}
