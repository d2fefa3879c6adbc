"""Stored feature maps: an array in a file, mapped into memory, for each view of some hundred images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

CHUNK = 256  # images of a file, so that an interruption loses little
MOST_OPENED = 200
Half = NDArray[np.float16]


@dataclass(frozen=True)
class Maps:
    """Stored features of `images` images.

    Attributes:
        chunks: of each view, float16 [CHUNK or fewer, C, h, w] of images one after the other, or the files of these.
        images: number of images.
        opened: files that are mapped now; not too many, since each takes a file descriptor.
    """

    chunks: Sequence[Sequence[Half | Path]]
    images: int
    opened: dict[Path, Half] = field(default_factory=dict, repr=False, compare=False)

    @property
    def views(self) -> int:
        """Number of views of each image."""
        return len(self.chunks)

    def take(self, view: int, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """The features of some images in one view [n, C, h, w]."""
        return np.stack([self.chunk(view, row // CHUNK)[row % CHUNK] for row in rows.tolist()]).astype(np.float32)

    def chunk(self, view: int, number: int) -> Half:
        """The features of some images that follow each other."""
        found = self.chunks[view][number]
        if not isinstance(found, Path):
            return found
        mapped = self.opened.get(found)  # other threads may clear them at any time
        if mapped is None:
            if len(self.opened) >= MOST_OPENED:
                self.opened.clear()
            self.opened[found] = mapped = np.load(found, mmap_mode="r")
        return mapped
