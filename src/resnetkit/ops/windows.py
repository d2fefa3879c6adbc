"""A large image seen through a window that slides over it, in memory that does not grow with its height."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Infer = Callable[[Array], NDArray[np.floating]]


def starts(length: int, window: int, overlap: float) -> list[int]:
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


def sliding(infer: Infer, image: Array, window: tuple[int, int], overlap: float = 0.25) -> NDArray[np.uint8]:
    """The class of every pixel of a large image; where windows overlap, that of the weighted mean of their logits.

    A window counts least at its edges, where it sees least around a pixel, so no seams appear.

    Args:
        infer: normalised images [1, C, h, w] to logits [1, K, h, w].
        image: normalised [C, H, W]; a smaller one than the window is filled up with its mean, 0.
        window: height and width of what `infer` takes.
        overlap: share of a window that the next one sees too, 0..1.

    Returns:
        Class indices [H, W].
    """
    height, width = image.shape[1:]
    missing = [max(0, w - have) for w, have in zip(window, (height, width), strict=True)]
    image = np.pad(image, ((0, 0), (0, missing[0]), (0, missing[1])))
    rows = [classes for band in _bands(infer, image, window, overlap) for classes in band]
    return np.stack(rows)[:height, :width]


def _bands(infer: Infer, image: Array, window: tuple[int, int], overlap: float) -> Iterator[NDArray[np.uint8]]:
    """Class indices of the rows that no later window sees, band by band."""
    tops, lefts = (starts(side, w, overlap) for side, w in zip(image.shape[1:], window, strict=True))
    share = (_ramp(window[0])[:, None] * _ramp(window[1])).astype(np.float32)
    sums: Array | None = None
    for top, after in zip(tops, [*tops[1:], image.shape[1]], strict=True):
        for left in lefts:
            part = np.ascontiguousarray(image[None, :, top : top + window[0], left : left + window[1]])
            logits = np.asarray(infer(part), np.float32)[0]
            if sums is None:
                sums = np.zeros((len(logits), window[0], image.shape[2]), np.float32)
            # the sum of the weights is the same for all classes: the largest sum is the largest mean
            sums[:, :, left : left + window[1]] += logits * share
        assert sums is not None
        done = after - top
        yield sums[:, :done].argmax(0).astype(np.uint8)
        sums[:, : window[0] - done] = sums[:, done:].copy()
        sums[:, window[0] - done :] = 0


def _ramp(length: int) -> NDArray[np.floating]:
    """Weights [length] that rise from the edges to the middle, nowhere 0."""
    return np.minimum(np.arange(1, length + 1), np.arange(length, 0, -1)) / math.ceil(length / 2)
