"""Layers on levels of 8 bits, uint8 [images, height, width, channels] as in `layers`.

Every processor gives the same, but for the 3 x 3 convolutions of those that cannot add up products of bytes.

real = scale (level - zero), see `ops.quantization`: what a layer is told is in levels of what it gives, so that it
knows nothing of scales.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnetkit.kernels.layers import Floats, Moves, Shape, check, empty, output_shape, padded, pays
from resnetkit.kernels.library import GROUP, MOST, Convolution, Strides, Workers

Levels = NDArray[np.uint8]
BATCH = 16  # images for which Winograd's products have to pay
MOST_TERMS = (2**31 - 1) // (255 * 128)  # of a sum of products that 32 bits hold


@dataclass(frozen=True)
class After:
    """What becomes of a sum: sum * factor + bias + share * what is added; as the nearest level, or as a float.

    Attributes:
        factor: [filters].
        bias: [filters].
        share: of a level of what is added.
        least: the lowest level; above 0 where that of zero is, and negative numbers become zero.
        relu: of floats, whether negative ones become zero.
        floats: whether floats are given.
    """

    factor: Floats
    bias: Floats
    share: float = 0.0
    least: float = 0.0
    relu: bool = False
    floats: bool = False


class LevelConv:
    """A convolution of levels with weights of 8 bits.

    Args:
        workers: what runs it.
        weight: [filters, channels, k, k], int8.
        border: [channels], the levels around an image.
        after: what becomes of its sums.
        moves: of the kernel; one group.
        exact: it takes levels whose channels are not padded, as those of pixels.

    Raises:
        ValueError: a shape or a number that no convolution here has.
    """

    def __init__(
        self,
        workers: Workers,
        weight: NDArray[np.int8],
        border: Levels,
        after: After,
        moves: Moves = Moves(),  # noqa: B008  a frozen value
        *,
        exact: bool = False,
    ) -> None:
        if weight.ndim != 4 or weight.dtype != np.int8 or weight.shape[2] != weight.shape[3]:
            raise ValueError(f"no weights of a convolution: {weight.dtype} {weight.shape}")
        filters, channels, self.kernel, _ = weight.shape
        check(border, (channels,), np.uint8)
        check(after.factor, (filters,))
        check(after.bias, (filters,))
        if not (0 < self.kernel <= 7 and moves.stride > 0 and moves.padding >= 0 and moves.dilation > 0):
            raise ValueError("kernels are of 1 to 7 pixels, strides and dilations positive, paddings not negative")
        if moves.groups != 1 or (moves.dilation != 1 and exact):
            raise ValueError("of one group, and of pixels without dilation")
        if after.least not in range(256) or not _largest(weight, after) < 2.0**31:
            raise ValueError("what becomes of the sums is none of 256 levels, or nothing near them")
        self.filters, self.channels = padded(filters), channels if exact else padded(channels)
        if max(self.filters, self.channels) > MOST or self.channels * self.kernel**2 > MOST_TERMS:
            raise ValueError(f"more than {MOST} channels, or {MOST_TERMS} terms of a sum")
        self.workers, self.moves, self.after = workers, moves, after
        self.may_transform = self.kernel == 3 and moves == Moves(padding=1) and not exact and not border.any()
        self.border = _filled((self.channels,), border)
        self.factor, self.bias = _filled((self.filters,), after.factor), _filled((self.filters,), after.bias)
        self.weight = _filled((self.filters, self.channels, self.kernel, self.kernel), weight)

    def shape(self, given: Shape) -> Shape:
        """Of the output for a shape of the input.

        Raises:
            ValueError: the input is none for this layer.
        """
        return output_shape(given, self.channels, self.filters, self.kernel, self.moves)

    def transforms(self, given: Shape) -> bool:
        """Whether it goes by Winograd's products, for whose weights levels are rounded once more.

        As it would pay for a batch, whatever its size: an image's answer does not depend on those beside it.
        """
        return self.may_transform and not self.workers.multiplies_bytes and pays((BATCH, *given[1:]), self.filters)

    def __call__(self, x: Levels, beside: Levels | None = None, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """The outputs [n, rows, columns, filters], uint8 or float32, with `beside` of the same shape added.

        Raises:
            ValueError: an array has another shape or type, or is not contiguous.
            MemoryError: there is none to compute in.
        """
        shape, kind = self.shape(x.shape), np.float32 if self.after.floats else np.uint8
        out = empty(shape, kind) if out is None else out
        check(x, x.shape, np.uint8)
        check(out, shape, kind)
        if beside is not None:
            check(beside, shape, np.uint8)
        self._run(x, beside, out, self.transforms(x.shape))
        return out

    def _run(self, x: Levels, beside: Levels | None, out: NDArray[Any], transforms: bool) -> None:
        conv = self._describe(x.shape)
        conv.weight = (self.transformed if transforms else self.packed).ctypes.data
        conv.levels, conv.border = x.ctypes.data, self.border.ctypes.data
        conv.factor, conv.bias = self.factor.ctypes.data, self.bias.ctypes.data
        conv.beside = None if beside is None else beside.ctypes.data
        conv.share, conv.least, conv.relu = self.after.share, self.after.least, int(self.after.relu)
        if self.after.floats:
            conv.y = out.ctypes.data
        else:
            conv.to = out.ctypes.data
        self.workers.call("winograd_bytes" if transforms else "direct_bytes", conv)

    def _describe(self, given: Shape) -> Convolution:
        moves = self.moves
        sizes = (*given[:3], self.channels, self.filters, self.kernel)
        return Convolution(*sizes, moves.stride, moves.padding, moves.dilation, 1)

    @cached_property
    def packed(self) -> Floats:
        """The weights as the kernel takes them."""
        conv = self._describe((1, 1, 1))
        found = empty((self.workers.packed_bytes(conv),))
        self.workers.call("pack_bytes", conv, self.weight.ctypes.data, found.ctypes.data)
        return found

    @cached_property
    def transformed(self) -> Floats:
        """The weights as Winograd's convolution takes them."""
        conv, weight = self._describe((1, 1, 1)), self.weight.astype(np.float32)
        whole = empty((36 * (self.channels * self.filters + GROUP),))
        strides = Strides(*(stride // 4 for stride in weight.strides[:2]), 1)
        self.workers.call("transform", conv, weight.ctypes.data, strides, whole.ctypes.data)
        found = empty((18 * self.filters * (self.channels + 2),))
        self.workers.call("round_transformed", conv, whole.ctypes.data, found.ctypes.data)
        return found


def _largest(weight: NDArray[np.int8], after: After) -> float:
    """No output is larger; not a number where something is none."""
    sums = 255.0 * 128 * weight[0].size
    with np.errstate(invalid="ignore"):
        return float(sums * np.abs(after.factor).max() + np.abs(after.bias).max() + 255 * abs(after.share))


def _filled(shape: Shape, array: NDArray[Any]) -> NDArray[Any]:
    """An array with zeros behind it."""
    if array.shape == shape:
        return np.ascontiguousarray(array)
    found = np.zeros(shape, array.dtype)
    found[tuple(slice(side) for side in array.shape)] = array
    return found


def max_levels(workers: Workers, x: Levels, out: Levels | None = None) -> Levels:
    """The largest of 3 x 3, every second pixel; ValueError for arrays of other shapes and types, as below."""
    conv = _described(x, np.uint8)
    n, height, width, channels = x.shape
    shape = (n, (height + 1) // 2, (width + 1) // 2, channels)
    found: Levels = empty(shape, np.uint8) if out is None else out
    check(found, shape, np.uint8)
    conv.levels, conv.to = x.ctypes.data, found.ctypes.data
    workers.call("max_levels", conv)
    return found


def to_levels(workers: Workers, x: Floats, scale: float, zero: int, out: Levels | None = None) -> Levels:
    """The nearest levels of floats."""
    conv = _described(x, np.float32)
    found: Levels = empty(x.shape, np.uint8) if out is None else out
    check(found, x.shape, np.uint8)
    conv.x, conv.to, conv.share, conv.least = x.ctypes.data, found.ctypes.data, 1 / scale, zero
    workers.call("to_levels", conv)
    return found


def to_floats(workers: Workers, x: Levels, scale: float, zero: int, out: Floats | None = None) -> Floats:
    """The floats that levels stand for."""
    conv = _described(x, np.uint8)
    found = empty(x.shape) if out is None else out
    check(found, x.shape)
    conv.levels, conv.y, conv.share, conv.least = x.ctypes.data, found.ctypes.data, scale, zero
    workers.call("to_floats", conv)
    return found


def _described(x: NDArray[Any], kind: Any) -> Convolution:
    if x.ndim != 4 or x.shape[3] % GROUP or not x.size:
        raise ValueError(f"no images with a multiple of {GROUP} channels: {x.shape}")
    check(x, x.shape, kind)
    return Convolution(*x.shape, x.shape[3])
