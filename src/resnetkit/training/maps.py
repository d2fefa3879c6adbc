"""Stored feature maps: an array in a file, mapped into memory, for each view of some hundred images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CHUNK = 256  # images of a file, so that an interruption loses little
Half = NDArray[np.float16]


@dataclass(frozen=True)
class Maps:
    """Stored features of `images` images.

    Attributes:
        chunks: of each view, float16 [CHUNK or fewer, C, h, w] of images one after the other.
        images: number of images.
    """

    chunks: Sequence[Sequence[Half]]
    images: int

    @property
    def views(self) -> int:
        """Number of views of each image."""
        return len(self.chunks)

    def take(self, view: int, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """The features of some images in one view [n, C, h, w]."""
        chunks = self.chunks[view]
        return np.stack([chunks[row // CHUNK][row % CHUNK] for row in rows.tolist()]).astype(np.float32)
