"""Boxes as arrays [n, 4]: x1, y1, x2, y2 in pixels (xyxy), or x1, y1, width, height (xywh); area is not counted in
whole pixels, so a box from 3 to 4 is one pixel wide.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.floating]


def to_xywh(boxes: Boxes) -> Boxes:
    """Corners to corner and size."""
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)


def to_xyxy(boxes: Boxes) -> Boxes:
    """Corner and size to corners."""
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)


def areas(boxes: Boxes) -> Boxes:
    """Square pixels [n] of boxes xyxy; 0 where the corners are the wrong way round."""
    return np.asarray(np.clip(boxes[:, 2] - boxes[:, 0], 0, None) * np.clip(boxes[:, 3] - boxes[:, 1], 0, None))


def without_area(boxes: Boxes) -> NDArray[np.bool_]:
    """Whether each box xyxy has no width or no height [n]."""
    return np.asarray(~((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])))


def clip(boxes: Boxes, size: tuple[float, float]) -> Boxes:
    """Boxes xyxy inside an image of this width and height."""
    return np.clip(boxes, 0, np.array([*size, *size], boxes.dtype))


def scale(boxes: Boxes, across: float, down: float) -> Boxes:
    """Boxes in an image that is this many times as wide and as high."""
    return boxes * np.array([across, down, across, down], boxes.dtype)


def overlaps(a: Boxes, b: Boxes) -> Boxes:
    """Square pixels that each of a and each of b have in common [n, m]."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    return np.asarray(np.clip(high - low, 0, None).prod(2))


def iou(a: Boxes, b: Boxes) -> Boxes:
    """Intersection over union of each of a and each of b [n, m], 0..1; 0 where both are without area."""
    common = overlaps(a, b)
    union = areas(a)[:, None] + areas(b)[None, :] - common
    return np.asarray(common / np.where(union > 0, union, 1))


def turned(boxes: Boxes, orientation: int, size: tuple[float, float]) -> Boxes:
    """Boxes of a stored picture in the upright one.

    Args:
        boxes: xyxy.
        orientation: EXIF's, 1..8.
        size: width and height of the stored picture.
    """
    x1, y1, x2, y2 = boxes.T
    if orientation in (2, 3, 7, 8):
        x1, x2 = size[0] - x2, size[0] - x1
    if orientation in (3, 4, 6, 7):
        y1, y2 = size[1] - y2, size[1] - y1
    lying = orientation >= 5
    return np.stack([y1, x1, y2, x2] if lying else [x1, y1, x2, y2], 1)
