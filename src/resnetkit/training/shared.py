"""One batch's random numbers, of which each process takes those of its samples: a generator for functions of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnetkit.training.augment import Draws

Size = int | Sequence[int]


class Shared:
    """As `np.random.Generator`, for arrays whose first dimension is that of the samples.

    Every number is drawn for the whole batch of a step, in every process, and those of this process are given: so the
    number of processes changes nothing, and in one process it is the generator itself.
    """

    def __init__(self, draws: Draws) -> None:
        self._draws = draws

    def random(self, size: Size) -> NDArray[np.float64]:
        """Numbers in 0..1."""
        return self._mine(self._draws.rng.random(self._whole(size)))

    def uniform(self, low: float, high: float, size: Size) -> NDArray[np.float64]:
        """Numbers in low..high."""
        return self._mine(self._draws.rng.uniform(low, high, self._whole(size)))

    def integers(self, low: int, high: int, size: Size) -> NDArray[np.int64]:
        """Integers in low..high-1."""
        return self._mine(self._draws.rng.integers(low, high, self._whole(size)))

    def standard_normal(self, size: Size, dtype: Any = np.float64) -> NDArray[Any]:
        """Numbers of the normal law."""
        return self._mine(self._draws.rng.standard_normal(self._whole(size), dtype))

    def _whole(self, size: Size) -> tuple[int, ...]:
        return (self._draws.total, *(() if isinstance(size, int) else tuple(size)[1:]))

    def _mine(self, drawn: NDArray[Any]) -> NDArray[Any]:
        return drawn[self._draws.part]


Rng = np.random.Generator | Shared
