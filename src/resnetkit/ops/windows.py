"""A large image seen through a window that slides over it, in memory that does not grow with its height."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Logits = NDArray[np.floating]
Infer = Callable[[Pixels], Sequence[Logits]]

OVERLAP = 0.25  # of two windows beside each other, at least, as a share of one
AT_ONCE = 8  # windows that are inferred together


def starts(length: int, window: int, overlap: float = OVERLAP) -> list[int]:
    """Where windows begin along a side, evenly, so that the last one ends where the side does.

    Args:
        length: of the side, in pixels.
        window: length of a window.
        overlap: share of a window, 0..1, that the next one sees too, at least.
    """
    if length <= window:
        return [0]
    count = 1 + math.ceil((length - window) / max(1.0, window * (1 - overlap)))
    return [round(at * (length - window) / (count - 1)) for at in range(count)]


def middle(array: Pixels, most: tuple[int, ...]) -> Pixels:
    """The middle of an array [h, w, ...], of this height and width at most: a view of it."""
    top, left = (max(0, (side - m) // 2) for side, m in zip(array.shape[:2], most, strict=True))
    return array[top : top + most[0], left : left + most[1]]


def sliding(infer: Infer, image: Pixels, window: tuple[int, int], overlap: float = OVERLAP) -> NDArray[np.uint8]:
    """The class of every pixel of a large image; where windows overlap, that of the weighted mean of their logits.

    A window counts least at its edges, where it sees least around a pixel, so no seams appear.

    Args:
        infer: windows [n, h, w, C] to logits [K, h, w] of each.
        image: [H, W, C], at least as large as the window.
        window: height and width of what `infer` takes.
        overlap: share of a window that the next one sees too, 0..1.

    Returns:
        Class indices [H, W].
    """
    height, width = image.shape[:2]
    tops = starts(height, window[0], overlap)
    share = (_ramp(window[0])[:, None] * _ramp(window[1])).astype(np.float32)
    classes = np.empty((height, width), np.uint8)
    sums = np.zeros((0, window[0], width), np.float32)  # of the rows that windows see now; of no class yet
    for top, after in zip(tops, [*tops[1:], height], strict=True):
        for left, logits in _row(infer, image[top : top + window[0]], window[1], overlap):
            sums = sums if len(sums) else np.zeros((len(logits), *sums.shape[1:]), np.float32)
            # the sum of the weights is the same for all classes: the largest sum is the largest mean
            sums[:, :, left : left + window[1]] += logits * share
        done = after - top
        classes[top:after] = sums[:, :done].argmax(0)  # no later window sees these rows
        sums[:, : window[0] - done] = sums[:, done:].copy()
        sums[:, window[0] - done :] = 0
    return classes


def _row(infer: Infer, strip: Pixels, width: int, overlap: float) -> Iterator[tuple[int, Logits]]:
    """The windows of a strip of an image [h, W, C]: where each begins, and its logits."""
    lefts = starts(strip.shape[1], width, overlap)
    for some in (lefts[at : at + AT_ONCE] for at in range(0, len(lefts), AT_ONCE)):
        yield from zip(some, infer(np.stack([strip[:, left : left + width] for left in some])), strict=True)


def _ramp(length: int) -> NDArray[np.floating]:
    """Weights [length] that rise from the edges to the middle, nowhere 0."""
    return np.minimum(np.arange(1, length + 1), np.arange(length, 0, -1)) / math.ceil(length / 2)
