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


@pytest.mark.parametrize("size", [(37, 53), (16, 16), (9, 40), (5, 5), (120, 16)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
def test_a_function_of_pixels_is_seen_whole(size: tuple[int, int], overlap: float) -> None:
    image = np.random.default_rng(0).standard_normal((3, *size)).astype(np.float32)
    shapes = set()

    def infer(batch: np.ndarray) -> np.ndarray:
        shapes.add(batch.shape)
        return batch[:, [2, 0, 1]] * 2

    got = windows.sliding(infer, image, (16, 16), overlap)
    assert shapes == {(1, 3, 16, 16)}
    np.testing.assert_array_equal(got, image[[2, 0, 1]].argmax(0))


def test_edges_count_least() -> None:
    """A network that errs at the edges of its window is right where another window sees the middle."""

    def infer(batch: np.ndarray) -> np.ndarray:
        logits = np.zeros((1, 2, 16, 16), np.float32)
        logits[:, 0] = 1
        logits[:, 1, :2] = logits[:, 1, -2:] = logits[:, 1, :, :2] = logits[:, 1, :, -2:] = 2
        return logits

    got = windows.sliding(infer, np.zeros((3, 64, 64), np.float32), (16, 16), 0.5)
    assert (got[2:-2, 2:-2] == 0).all()
    assert (got[0] == 1).all()


def test_a_photo_in_bounded_memory() -> None:
    import tracemalloc

    image = np.zeros((1, 3000, 400), np.float32)
    tracemalloc.start()
    windows.sliding(lambda batch: np.repeat(batch, 20, 1), image, (256, 256))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6  # all logits would be 96 MB
