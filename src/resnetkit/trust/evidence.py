"""Which training images are most like an image, in the eyes of the network: those with the nearest embeddings."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from resnetkit.data.dataset import Dataset, File
from resnetkit.ops.calibration import unit

Floats = NDArray[np.float32]
BLOCK = 65_536  # rows of the bank that are compared at a time


@dataclass(frozen=True)
class Neighbour:
    """A training image: its file, its label, and the cosine of the angle between its embedding and another, -1..1."""

    file: File
    label: str
    similarity: float


@dataclass(frozen=True)
class Bank:
    """Training images by their embeddings.

    Attributes:
        dataset: the images.
        rows: of those that could be read [n].
        embeddings: of these, of length one [n, D].
        text: the target of a sample and the class names to words.
    """

    dataset: Dataset
    rows: NDArray[np.intp]
    embeddings: Floats
    text: Callable[..., str]

    def neighbours(self, file: File, embedding: Floats, k: int) -> tuple[Neighbour, ...]:
        """The k images, without the file itself, whose embeddings are nearest to this one [D], nearest first."""
        order, similarities = nearest(embedding[None], self.embeddings, k + 1)
        found = [self._neighbour(row, value) for row, value in zip(self.rows[order[0]], similarities[0], strict=True)]
        itself = os.path.realpath(file)
        return tuple(each for each in found if os.path.realpath(each.file) != itself)[:k]

    def _neighbour(self, row: int, similarity: float) -> Neighbour:
        label = self.text(self.dataset.targets[row], self.dataset.classes)
        return Neighbour(self.dataset.files[int(row)], label, float(similarity))


def nearest(embeddings: Floats, bank: Floats, k: int) -> tuple[NDArray[np.intp], Floats]:
    """The rows of a bank most like each of some embeddings, by cosine similarity.

    Args:
        embeddings: of any length [m, D].
        bank: of length one [n, D]; compared in blocks, so that only [m, BLOCK] numbers are held.
        k: how many; of fewer rows, all.

    Returns:
        Rows [m, min(k, n)], the most alike first and of equal ones the first, and their similarities, -1..1.
    """
    queries = unit(embeddings)
    rows = np.zeros((len(queries), 0), np.intp)
    best = np.zeros((len(queries), 0), np.float32)
    for start in range(0, len(bank), BLOCK):
        block = bank[start : start + BLOCK]
        best = np.concatenate([best, np.clip(queries @ block.T, -1, 1)], 1)
        rows = np.concatenate([rows, np.broadcast_to(np.arange(start, start + len(block)), (len(rows), len(block)))], 1)
        order = np.argsort(-best, axis=1, kind="stable")[:, :k]
        rows, best = np.take_along_axis(rows, order, 1), np.take_along_axis(best, order, 1)
    return rows, best
