"""Batches as a pure function of (seed, step), of which each process takes its share.

The order of an epoch comes from (seed, epoch), the augmentation of a batch from (seed, step); so a training can start
at any step, and neither threads nor workers nor processes change a pixel.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from resnetkit.recipe import Recipe, replace
from resnetkit.training.augment import Draws, draws
from resnetkit.training.maps import Maps
from resnetkit.training.objective import Objective, preprocess_of
from resnetkit.training.pixels import Pixels

FETCHED = 2  # steps whose images are being fetched while those of the step before them are changed
T = TypeVar("T")


@dataclass(frozen=True)
class Batch:
    """What a step learns from.

    Attributes:
        step: number of the step, from 0.
        images: float32 [n, C, H, W].
        targets: float32 [n, K], or whatever else the loss of the task takes.
        rows: which samples they were [n].
        total: samples of this step over all processes.
    """

    step: int
    images: Tensor
    targets: Any
    rows: NDArray[np.intp]
    total: int


def num_batches(n: int, batch_size: int, world: int = 1) -> int:
    """Steps of an epoch: the batches are of nearly equal size, and each process has two samples at least of each.

    No sample is left out, and no batch of one reaches BatchNorm: of 65 samples, batches of 32 are 22, 22 and 21.
    """
    return max(1, min(math.ceil(n / batch_size), n // (2 * world)))


def share_of(total: int, rank: int, world: int) -> slice:
    """The samples of a step that are those of one process, as even as can be."""
    return slice(total * rank // world, total * (rank + 1) // world)


def rows_of(step: int, n: int, batch_size: int, seed: int, world: int = 1) -> NDArray[np.intp]:
    """Rows of a step over all processes, in the order of (seed, epoch)."""
    steps = num_batches(n, batch_size, world)
    order = np.random.default_rng([seed, step // steps, n]).permutation(n)
    return np.array_split(order, steps)[step % steps]


def size_at(progress: float, first: int, last: int) -> int:
    """Height and width in pixels at a share 0..1 of the steps: from `first` to `last` in steps of 16.

    The last third is learnt at the last size, at which the network will be used: its head and norms have to fit the
    objects as large as they will appear there (FixRes, arXiv 1906.06423; progressive sizes as in EfficientNetV2,
    arXiv 2104.00298, section 4).
    """
    risen = min(1.0, 1.5 * progress)
    return min(last, first + 16 * int((last - first) / 16 * risen)) if risen < 1 else last


def share_of_work(recipe: Recipe) -> float:
    """Mean number of pixels of an image in training, as a share of those at the last size."""
    if not recipe.image.start_size:
        return 1.0
    size, first = preprocess_of(recipe).size, recipe.image.start_size
    return sum(size_at(i / 100, first, size) ** 2 for i in range(100)) / (100 * size**2)


@lru_cache(maxsize=2)
def _at_size(recipe: Recipe, size: int) -> Recipe:
    return replace(recipe, {"image.size": size})


class Targets(Protocol):
    """What the samples are to be: an array, or a table of more than numbers, looked up by row."""

    def __len__(self) -> int:
        """Number of samples."""
        ...

    def __getitem__(self, rows: NDArray[np.intp], /) -> Any:
        """Those of some rows."""
        ...


@dataclass(frozen=True)
class Loader:
    """All that a batch follows from, beside its step.

    Attributes:
        pixels, targets: the training images and their class indices [n] or labels [n, K], or what is in them.
        num_classes: K.
        recipe, objective: settings and functions of the task.
        rank, world: number of this process, and of processes.
        device: where images are changed.
        maps: stored features that are learnt from instead of the pixels, in each epoch those of another view.
    """

    pixels: Pixels
    targets: Targets
    num_classes: int
    recipe: Recipe
    objective: Objective
    rank: int = 0
    world: int = 1
    device: str = "cpu"
    maps: Maps | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch."""
        return num_batches(len(self.targets), self.recipe.train.batch_size, self.world)

    def batch(self, step: int) -> Batch:
        """The batch of a step."""
        return self._begun(step)()

    def _begun(self, step: int) -> Callable[[], Batch]:
        """Begin to fetch the images of a step; gives a function that makes the batch of them."""
        train = self.recipe.train
        everyone = rows_of(step, len(self.targets), train.batch_size, train.seed, self.world)
        part = share_of(len(everyone), self.rank, self.world)
        rows = everyone[part]
        if self.maps is not None:
            return partial(self._of_maps, self.maps, (step, rows), draws(train.seed, step, len(everyone), part))
        squares = self.pixels.start(rows)

        def batch() -> Batch:
            rng = draws(train.seed, step, len(everyone), part, self.device)
            pixels, targets = self.objective.collate(squares(), self.targets[rows], self.num_classes)
            seen = self.objective.augment(pixels, targets, self.pixels.aspects[rows], self._recipe_at(step), rng)
            return Batch(step, *self.objective.blend(*seen, self.recipe, rng), rows, len(everyone))

        return batch

    def _recipe_at(self, step: int) -> Recipe:
        """The recipe with the size of images at a step."""
        first = self.recipe.image.start_size
        if not (first and self.recipe.train.epochs):
            return self.recipe
        last = preprocess_of(self.recipe).size
        return _at_size(self.recipe, size_at(step / (self.recipe.train.epochs * self.steps_per_epoch), first, last))

    def _of_maps(self, maps: Maps, which: tuple[int, NDArray[np.intp]], rng: Draws) -> Batch:
        step, rows = which
        stored = maps.take(step // self.steps_per_epoch % maps.views, rows)
        features, targets = self.objective.collate(stored, self.targets[rows], self.num_classes)
        return Batch(step, *self.objective.blend(features, targets, self.recipe, rng), rows, rng.total)

    def batches(self, start: int, stop: int, *, hands: int = 0) -> Iterator[Batch]:
        """Batches of the steps from start up to stop; the images of the next two are being fetched meanwhile.

        Args:
            start: first step.
            stop: step after the last one.
            hands: threads that make the next ones while the caller works, see `Setup.hands`.
        """
        return made(_begun_early(self._begun(step) for step in range(start, stop)), hands)


def _begun_early(begun: Iterable[T]) -> Iterator[T]:
    """The same works in the same order, but FETCHED more have been begun when one is given."""
    waiting: deque[T] = deque()
    for work in begun:
        waiting.append(work)
        if len(waiting) > FETCHED:
            yield waiting.popleft()
    yield from waiting


def made(works: Iterable[Callable[[], T]], hands: int) -> Iterator[T]:
    """What works give, in their order, while so many threads do the next ones; without threads each when it is due."""
    if not hands:
        yield from (work() for work in works)
        return
    coming = iter(works)
    with ThreadPoolExecutor(hands) as pool:
        waiting = deque(pool.submit(work) for work in islice(coming, hands))
        while waiting:
            first = waiting.popleft().result()
            waiting.extend(pool.submit(work) for work in islice(coming, 1))
            yield first
