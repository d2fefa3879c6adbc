"""Batches as a pure function of (seed, step, process): decoded once where memory allows.

The order of an epoch comes from (seed, epoch), the augmentation of a batch from (seed, step, process); so a training
can start at any step, and the number of threads changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from resnetkit.data import image
from resnetkit.data.image import Preprocess
from resnetkit.errors import DataError
from resnetkit.recipe import Recipe
from resnetkit.runtime.pipeline import num_threads, read_ahead
from resnetkit.training.augment import STORE_RATIO, generator
from resnetkit.training.objective import Objective, preprocess_of

Squares = NDArray[np.uint8]


@dataclass(frozen=True)
class Pixels:
    """The training images.

    Attributes:
        store: rows [n] to their pixels [n, S, S, C].
        aspects: width / height of each original [n].
    """

    store: Callable[[NDArray[np.intp]], Squares]
    aspects: NDArray[np.float64]


@dataclass(frozen=True)
class Batch:
    """What a step learns from.

    Attributes:
        step: number of the step, from 0.
        images: float32 [n, C, H, W].
        targets: float32 [n, K].
        rows: which samples they were [n].
        total: samples of this step over all processes.
    """

    step: int
    images: Tensor
    targets: Tensor
    rows: NDArray[np.intp]
    total: int


def store_preprocess(recipe: Recipe) -> Preprocess:
    """How training images are stored: squashed squares, somewhat larger than what the network sees."""
    preprocess = preprocess_of(recipe)
    side = math.ceil(preprocess.size * STORE_RATIO)
    return Preprocess(
        size=side, resize="squash", interpolation=preprocess.interpolation, mean=preprocess.mean, std=preprocess.std
    )


def open_pixels(
    paths: Sequence[Path], preprocess: Preprocess, cache_gb: float, progress: Callable[[int], None]
) -> Pixels:
    """Decode every image once; keep the pixels in memory if they fit, and decode them anew at each use if not.

    Args:
        paths: of the images.
        preprocess: to squares: `store_preprocess` for training, the model's own for evaluation.
        cache_gb: memory for the pixels, 10^9 bytes.
        progress: called with the number of images done.

    Raises:
        DataError: images cannot be read; the first ten are named.
    """

    def read(path: Path) -> tuple[Squares, float]:
        upright = image.decode(path, preprocess)
        return image.pixels(upright, preprocess), upright.width / upright.height

    def decoded(rows: NDArray[np.intp]) -> Squares:
        with ThreadPoolExecutor(num_threads()) as pool:
            return np.stack([square for square, _ in pool.map(read, [paths[row] for row in rows])])

    shape = (len(paths), preprocess.size, preprocess.size, preprocess.channels)
    squares = np.empty(shape, np.uint8) if math.prod(shape) <= cache_gb * 1e9 else None
    aspects = np.ones(len(paths))
    failed: list[DataError] = []
    for row, (_, result) in enumerate(read_ahead(paths, read, 4 * num_threads())):
        if isinstance(result, DataError):
            failed.append(result)
            continue
        aspects[row] = result[1]
        if squares is not None:
            squares[row] = result[0]
        progress(row + 1)
    _refuse_unreadable(failed, len(paths))
    return Pixels(decoded if squares is None else lambda rows: squares[rows], aspects)


def _refuse_unreadable(failed: Sequence[DataError], n: int) -> None:
    if len(failed) == 1:
        raise failed[0]
    if failed:
        listed = "; ".join(f"{error.path}: {error.what}" for error in failed[:10])
        more = f"; and {len(failed) - 10} more" if len(failed) > 10 else ""
        raise DataError(f"{len(failed)} of {n} images cannot be read: {listed}{more}", fix="remove or replace them")


def num_batches(n: int, batch_size: int, world: int = 1) -> int:
    """Steps of an epoch: the batches are of nearly equal size, and each process has two samples at least of each.

    No sample is left out, and no batch of one reaches BatchNorm: of 65 samples, batches of 32 are 22, 22 and 21.
    """
    return max(1, min(math.ceil(n / batch_size), n // (2 * world)))


def rows_of(step: int, n: int, batch_size: int, seed: int, world: int = 1) -> NDArray[np.intp]:
    """Rows of a step over all processes, in the order of (seed, epoch)."""
    steps = num_batches(n, batch_size, world)
    order = np.random.default_rng([seed, step // steps, n]).permutation(n)
    return np.array_split(order, steps)[step % steps]


@dataclass(frozen=True)
class Loader:
    """All that a batch follows from, beside its step.

    Attributes:
        pixels, targets: the training images and their class indices [n].
        num_classes: K.
        recipe, objective: settings and functions of the task.
        rank, world: number of this process, and of processes.
    """

    pixels: Pixels
    targets: NDArray[np.int64]
    num_classes: int
    recipe: Recipe
    objective: Objective
    rank: int = 0
    world: int = 1

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch."""
        return num_batches(len(self.targets), self.recipe.train.batch_size, self.world)

    def batch(self, step: int) -> Batch:
        """The batch of a step."""
        train = self.recipe.train
        everyone = rows_of(step, len(self.targets), train.batch_size, train.seed, self.world)
        rows = np.array_split(everyone, self.world)[self.rank]
        rng = generator(train.seed, step, self.rank)
        collated = self.objective.collate(self.pixels.store(rows), self.targets[rows], self.num_classes)
        images, targets = self.objective.augment(collated, self.pixels.aspects[rows], self.recipe, rng)
        return Batch(step, images, targets, rows, len(everyone))

    def batches(self, start: int, stop: int, *, ahead: bool) -> Iterator[Batch]:
        """Batches of the steps from start up to stop.

        Args:
            start: first step.
            stop: step after the last one.
            ahead: prepare the next batch in a thread while the caller works, for training on a GPU. On a CPU it
                would take turns with those of the network, which then wait for each other at every layer.
        """
        if not ahead:
            yield from map(self.batch, range(start, stop))
            return
        with ThreadPoolExecutor(1) as pool:
            coming: Future[Batch] | None = pool.submit(self.batch, start) if start < stop else None
            for step in range(start, stop):
                assert coming is not None
                batch = coming.result()
                coming = pool.submit(self.batch, step + 1) if step + 1 < stop else None
                yield batch
