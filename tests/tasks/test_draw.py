"""Answers drawn over images."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from resnetkit.tasks import draw

GREY = Image.new("RGB", (120, 80), (128, 128, 128))


def test_colours_are_apart() -> None:
    colours = {draw.colour(k) for k in range(60)}
    assert len(colours) == 60
    assert len(draw.palette()) == 768


def test_boxes() -> None:
    boxes = [(10.0, 40.0, 60.0, 70.0), (0.0, 0.0, 120.0, 80.0), (100.0, 20.0, 101.0, 21.0), (50.2, 50.2, 50.4, 50.9)]
    drawn = np.asarray(draw.draw_boxes(GREY, boxes, ["cat 0.93", "dog", "", "emu"], [draw.colour(k) for k in range(4)]))
    assert tuple(drawn[55, 10]) == draw.colour(0)  # the left side of the first
    assert tuple(drawn[55, 59]) == draw.colour(0)
    assert tuple(drawn[79, 60]) == draw.colour(1)
    assert tuple(drawn[20, 100]) == draw.colour(2)
    assert tuple(drawn[60, 30]) == (128, 128, 128)
    assert (np.asarray(GREY) == 128).all()


def test_masks() -> None:
    indices = np.full((80, 120), 255, np.uint8)
    indices[:, 60:] = 1
    drawn = np.asarray(draw.draw_mask(GREY, indices, ["sky", "road"]))
    assert tuple(drawn[70, 10]) == (128, 128, 128)
    np.testing.assert_allclose(drawn[70, 100], (np.array(draw.colour(1)) + 128) / 2, atol=1)
    with pytest.raises(ValueError, match=r"a mask of \(120, 40\) does not fit"):
        draw.draw_mask(GREY, indices[:40], [])
