"""Numbers as eight bits: real = scale (level - zero) (Jacob et al. 2018, arXiv 1712.05877, equation 1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WHOLE, REDUCED = 127, 63  # the largest level of a weight


@dataclass(frozen=True)
class Quantization:
    """How a network is computed in int8.

    Attributes:
        ranges: name of an activation to its lowest and highest value.
        most: the largest level of a weight: 127, or 63 for processors that add two products of bytes in 16 bits, where
            larger ones overflow (those without VNNI).
        kept: convolutions that stay float32.
    """

    ranges: Mapping[str, tuple[float, float]]
    most: int = WHOLE
    kept: frozenset[str] = frozenset()


def scale_and_zero(low: float, high: float) -> tuple[np.float32, np.uint8]:
    """Of the 256 levels for values from `low` to `high`; 0 is a level, as padding and ReLU make exact zeros."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / 255 or 1.0
    return np.float32(scale), np.uint8(round(-low / scale))


def weight_levels(weight: NDArray[np.floating], most: int = WHOLE) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Weights [K, ...] as levels from -most to most, and the scale of each output [K].

    Symmetric, a scale for each output (Krishnamoorthi 2018, arXiv 1806.08342, section 3.1.2).
    """
    largest = np.abs(weight).reshape(len(weight), -1).max(1)
    scales = np.where(largest > 0, largest / most, 1.0).astype(np.float32)
    levels = np.rint(weight / scales.reshape(-1, *[1] * (weight.ndim - 1)))
    return levels.clip(-most, most).astype(np.int8), scales
