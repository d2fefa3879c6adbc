"""A window that slides over a large image."""

from __future__ import annotations

import numpy as np
import pytest

from resnetkit.ops import windows


@pytest.mark.parametrize(
    ("length", "window", "overlap"), [(10, 10, 0.25), (7, 10, 0.25), (11, 10, 0.25), (999, 64, 0.5)]
)
def test_starts_cover_the_side(length: int, window: int, overlap: float) -> None:
    starts = windows.starts(length, window, overlap)
    seen = np.zeros(max(length, window), bool)
    for start in starts:
        seen[start : start + window] = True
    assert seen.all() and starts[0] == 0
    assert starts[-1] + window == max(length, window)
    assert all(b - a <= max(1, window * (1 - overlap)) + 1 for a, b in zip(starts, starts[1:], strict=False))


@pytest.mark.parametrize("size", [(37, 53), (16, 16), (17, 400), (120, 16)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
def test_a_function_of_pixels_is_seen_whole(size: tuple[int, int], overlap: float) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    shapes = set()

    def infer(batch: np.ndarray) -> np.ndarray:
        shapes.add(batch.shape[1:])
        assert len(batch) <= windows.AT_ONCE
        return batch[..., [2, 0, 1]].astype(np.float32).transpose(0, 3, 1, 2) * 2

    got = windows.sliding(infer, image, (16, 16), overlap)
    assert shapes == {(16, 16, 3)}
    np.testing.assert_array_equal(got, image[..., [2, 0, 1]].argmax(2))


def test_edges_count_least() -> None:
    """A network that errs at the edges of its window is right where another window sees the middle."""

    def infer(batch: np.ndarray) -> np.ndarray:
        logits = np.zeros((len(batch), 2, 16, 16), np.float32)
        logits[:, 0] = 1
        logits[:, 1, :2] = logits[:, 1, -2:] = logits[:, 1, :, :2] = logits[:, 1, :, -2:] = 2
        return logits

    got = windows.sliding(infer, np.zeros((64, 64, 3), np.uint8), (16, 16), 0.5)
    assert (got[2:-2, 2:-2] == 0).all()
    assert (got[0] == 1).all()


def test_a_photo_in_bounded_memory() -> None:
    import tracemalloc

    image = np.zeros((3000, 400, 1), np.uint8)
    tracemalloc.start()
    windows.sliding(lambda batch: np.zeros((len(batch), 20, 256, 256), np.float32), image, (256, 256))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6  # all logits would be 96 MB


@pytest.mark.parametrize(("side", "most"), [(10, 4), (9, 4), (4, 9), (5, 5)])
def test_the_middle(side: int, most: int) -> None:
    part = windows.middle(np.arange(side)[:, None].repeat(3, 1), (most, 3))[:, 0]
    assert len(part) == min(side, most) and abs(part[0] - (side - 1 - part[-1])) <= 1
