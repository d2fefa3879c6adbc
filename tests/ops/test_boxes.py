"""Formulas of boxes, beside torchvision's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision.ops
from PIL import Image

from resnetkit.data.image import TURNS
from resnetkit.ops import boxes as ops

RNG = np.random.default_rng(0)


def some(n: int) -> np.ndarray:
    corner, size = RNG.uniform(0, 50, (n, 2)), RNG.uniform(0, 30, (n, 2))
    return np.concatenate([corner, corner + size], 1)


def test_iou_is_torchvisions() -> None:
    a, b = some(20), some(30)
    theirs = torchvision.ops.box_iou(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    np.testing.assert_allclose(ops.iou(a, b), theirs, atol=1e-12)
    assert ops.iou(a, b[:0]).shape == (20, 0)
    point = np.array([[3.0, 3, 3, 3]])
    assert ops.iou(point, point) == 0
    pixel = np.array([[3.0, 3, 4, 4]])
    assert ops.iou(pixel, pixel) == 1


def test_there_and_back() -> None:
    boxes = some(9)
    np.testing.assert_allclose(ops.to_xyxy(ops.to_xywh(boxes)), boxes)
    assert ops.to_xywh(np.array([[1.0, 2, 4, 8]])).tolist() == [[1, 2, 3, 6]]
    assert ops.scale(np.array([[1.0, 2, 3, 4]]), 2, 10).tolist() == [[2, 20, 6, 40]]


def test_clip_and_area() -> None:
    boxes = np.array([[-5.0, 2, 70, 30], [3, 3, 3, 9], [9, 9, 3, 3], [3, 3, 4, 4]])
    assert ops.clip(boxes, (60, 20)).tolist()[0] == [0, 2, 60, 20]
    assert ops.without_area(boxes).tolist() == [False, True, True, False]
    assert ops.areas(boxes).tolist() == [75 * 28, 0, 0, 1]


@pytest.mark.parametrize("orientation", TURNS)
def test_turned_as_the_picture_is(orientation: int) -> None:
    picture = np.zeros((30, 50), np.uint8)
    picture[4:9, 11:31] = 255
    y, x = np.nonzero(np.asarray(Image.fromarray(picture).transpose(TURNS[orientation])))
    found = ops.turned(np.array([[11.0, 4, 31, 9]]), orientation, (50, 30))
    assert found.tolist() == [[x.min(), y.min(), x.max() + 1, y.max() + 1]]
