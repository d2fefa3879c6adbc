"""Run lengths, beside pycocotools."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as theirs

from resnetkit.ops import rle

SHAPES = [(1, 1), (1, 7), (7, 1), (40, 60), (400, 300)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_as_pycocotools(shape: tuple[int, int], share: float) -> None:
    mask = np.random.default_rng(0).random(shape) < share
    text = rle.encode(mask)
    assert text == theirs.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    np.testing.assert_array_equal(rle.decode(text, *shape), mask)
    np.testing.assert_array_equal(rle.from_runs(rle.runs(mask), *shape), mask)


def test_long_runs() -> None:
    mask = np.zeros((3000, 4000), bool)
    mask[1000:2000, 100:3900] = True
    mask[5, 5] = True
    text = rle.encode(mask)
    assert text == theirs.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    np.testing.assert_array_equal(rle.decode(text, 3000, 4000), mask)


@pytest.mark.parametrize(
    ("text", "message"),
    [("\x00", "no digit"), ("5", "of 5 pixels"), ("o", "cut short"), ("oooooooooooooooo", "no digit")],
)
def test_damaged(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rle.decode(text, 2, 3)


def test_negative_runs_are_refused() -> None:
    with pytest.raises(ValueError, match="no mask"):
        rle.from_runs([8, -2], 2, 3)
