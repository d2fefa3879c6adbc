"""Layers on numpy arrays [images, height, width, channels] whose channels are a multiple of 16, the last ones zeros.

So a network keeps its arrays in this form from the first convolution on, and no kernel has to think of odd channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnetkit.kernels.library import GROUP, MOST, Convolution, Strides, Workers

Floats = NDArray[np.float32]
Shape = tuple[int, ...]
# A pair of points costs the products of a tile, and its weights, which four times as large as those of a direct
# convolution, have to be read: that many multiplications a weight pay for the reading (measured, see docs/results.md).
WORTH = 1600
LINE = 64  # bytes of a cache line
INSIDE = 128 * 128  # channels * filters up to which weights stay in a cache


def padded(channels: int) -> int:
    """The next multiple of 16."""
    return -(-channels // GROUP) * GROUP


def empty(shape: Shape, kind: Any = np.float32) -> NDArray[Any]:
    """An array that starts where a cache line does."""
    size = int(np.prod(shape)) * np.dtype(kind).itemsize
    raw = np.empty(size + LINE, np.uint8)
    start = -raw.ctypes.data % LINE
    found: NDArray[Any] = raw[start : start + size].view(kind).reshape(shape)
    return found


def points(length: int) -> int:
    """Points of the tiles of four and three outputs that cover an axis, as tiles.h chooses them."""
    return min(6 * fours + 5 * max(0, -(-(length - 4 * fours) // 3)) for fours in range(-(-length // 4) + 1))


@dataclass(frozen=True)
class Pixels:
    """How uint8 becomes float32 in a first convolution: (pixel - mean) * scale, both [channels]."""

    mean: Floats
    scale: Floats

    def rows(self, width: int) -> tuple[Floats, Floats]:
        """Factors and summands for a row of pixels: pixel * factor + summand."""
        return np.tile(self.scale, width), np.tile(-self.mean * self.scale, width)


@dataclass(frozen=True)
class Moves:
    """How a kernel goes over an image, with a border of `padding` zeros; each group of channels has its filters."""

    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1


class ConvLayer:
    """A convolution with bias, and what follows it.

    Args:
        workers: what runs it.
        weight: [filters, channels / groups, k, k].
        bias: [filters].
        moves: of the kernel.
        relu: whether negative outputs become zero.
        pixels: it takes uint8 [n, h, w, channels], which it normalises.
        exact: it takes floats whose channels are not padded, as those of images.

    Raises:
        ValueError: a shape or a number that no convolution here has.
    """

    def __init__(
        self,
        workers: Workers,
        weight: Floats,
        bias: Floats,
        moves: Moves = Moves(),  # noqa: B008  a frozen value
        *,
        relu: bool = False,
        pixels: Pixels | None = None,
        exact: bool = False,
    ) -> None:
        if weight.ndim != 4 or weight.shape[2] != weight.shape[3] or bias.shape != weight.shape[:1]:
            raise ValueError(f"no weights and biases of a convolution: {weight.shape} and {bias.shape}")
        if not (0 < weight.shape[2] <= 7 and moves.stride > 0 and moves.padding >= 0 and moves.dilation > 0):
            raise ValueError("kernels are of 1 to 7 pixels, strides and dilations positive, paddings not negative")
        self.workers, self.pixels, self.relu = workers, pixels, relu
        weight, groups = whole_groups(weight, moves.groups)
        self.moves = replace(moves, groups=groups)
        filters, channels, self.kernel, _ = weight.shape
        exact = exact or pixels is not None
        channels *= groups
        self.filters, self.channels = padded(filters), channels if exact else padded(channels)
        if max(self.filters, self.channels) > MOST:
            raise ValueError(f"more than {MOST} channels")
        self.bias, self.weight = empty((self.filters,)), weight
        self.bias[:filters], self.bias[filters:] = bias, 0
        if groups == 1 and weight.shape[:2] != (self.filters, self.channels):
            self.weight = np.zeros((self.filters, self.channels, self.kernel, self.kernel), np.float32)
            self.weight[:filters, :channels] = weight
        self.weight = np.ascontiguousarray(self.weight, np.float32)
        may = self.kernel == 3 and self.moves == Moves(padding=1) and not exact and workers.level != "amx"
        self.may_transform = may and self.channels % GROUP == 0

    def shape(self, given: Shape) -> Shape:
        """Of the output for a shape of the input.

        Raises:
            ValueError: the input is none for this layer.
        """
        return output_shape(given, self.channels, self.filters, self.kernel, self.moves)

    def transforms(self, given: Shape) -> bool:
        """Whether Winograd's products are fewer than is lost by reading his larger weights."""
        return self.may_transform and pays(given, self.filters)

    def __call__(self, x: NDArray[Any], residual: Floats | None = None, out: Floats | None = None) -> Floats:
        """The outputs [n, rows, columns, filters], with `residual` of the same shape added before ReLU.

        Raises:
            ValueError: an array has another shape or type, or is not contiguous.
            MemoryError: there is none to compute in.
        """
        shape = self.shape(x.shape)
        out = empty(shape) if out is None else out
        check(x, x.shape, np.float32 if self.pixels is None else np.uint8)
        check(out, shape)
        if residual is not None:
            check(residual, shape)
        self._run(x, residual, out, self.transforms(x.shape))
        return out

    def _run(self, x: NDArray[Any], residual: Floats | None, out: Floats, transforms: bool, block: int = 0) -> None:
        conv = self._describe(x.shape)
        conv.weight = (self.transformed if transforms else self.packed).ctypes.data
        conv.bias, conv.y, conv.block = self.bias.ctypes.data, out.ctypes.data, block
        conv.residual = None if residual is None else residual.ctypes.data
        if self.pixels is None:
            conv.x = x.ctypes.data
        else:
            scale, shift = self.pixels.rows(x.shape[2])
            conv.pixels, conv.scale, conv.shift = x.ctypes.data, scale.ctypes.data, shift.ctypes.data
        self.workers.call("winograd" if transforms else "direct", conv)

    def _describe(self, given: Shape) -> Convolution:
        conv = Convolution(*given[:3], self.channels, self.filters)
        moves, conv.kernel, conv.relu = self.moves, self.kernel, int(self.relu)
        conv.stride, conv.padding, conv.dilation, conv.groups = (
            moves.stride,
            moves.padding,
            moves.dilation,
            moves.groups,
        )
        return conv

    @cached_property
    def packed(self) -> Floats:
        """The weights as `direct` takes them."""
        return self._prepared("pack", self.workers.packed(self._describe((1, 1, 1))))

    @cached_property
    def transformed(self) -> Floats:
        """The weights as `winograd` takes them."""
        return self._prepared("transform", 36 * (self.channels * self.filters + GROUP))

    def _prepared(self, how: str, size: int) -> Floats:
        found = empty((size,))
        strides = Strides(*(stride // 4 for stride in self.weight.strides[:2]), 1)
        self.workers.call(how, self._describe((1, 1, 1)), self.weight.ctypes.data, strides, found.ctypes.data)
        return found


def output_shape(given: Shape, channels: int, filters: int, kernel: int, moves: Moves) -> Shape:
    """Of a convolution's output for a shape of its input.

    Raises:
        ValueError: the input is none for it.
    """
    reach = moves.dilation * (kernel - 1) + 1
    sizes = [(side + 2 * moves.padding - reach) // moves.stride + 1 for side in given[1:3]]
    if len(given) != 4 or given[3] != channels or min(*sizes, *given[:1]) < 1:
        raise ValueError(f"an input of {given} for a convolution of {channels} channels")
    return given[0], sizes[0], sizes[1], filters


def pays(given: Shape, filters: int) -> bool:
    """Whether Winograd's products are fewer than is lost by reading his larger weights."""
    n, height, width, channels = given
    saved = 18 * n * height * width - 2 * n * points(height) * points(width)
    return saved > WORTH or (saved > 0 and channels * filters <= INSIDE)


def whole_groups(weight: Floats, groups: int) -> tuple[Floats, int]:
    """Weights of so many groups together that each has a multiple of 16 filters, with zeros between them; how many.

    Raises:
        ValueError: there is no such multiple.
    """
    filters, inside, kernel, _ = weight.shape
    if groups == 1:
        return weight, 1
    each = filters // groups
    some = next((m for m in range(1, groups + 1) if groups % m == 0 and m * each % GROUP == 0), 0)
    if not some or filters % groups or groups * inside % GROUP:
        raise ValueError(f"{groups} groups of {inside} channels and {each} filters")
    found = np.zeros((groups // some, some, each, some, inside, kernel, kernel), np.float32)
    for i in range(some):
        found[:, i, :, i] = weight.reshape(groups // some, some, each, inside, kernel, kernel)[:, i]
    return found.reshape(filters, some * inside, kernel, kernel), groups // some


def check(array: NDArray[Any], shape: Shape, dtype: Any = np.float32) -> None:
    """Refuse what a kernel would read or write wrongly.

    Raises:
        ValueError: it is.
    """
    if array.shape != shape or array.dtype != dtype or not array.flags.c_contiguous:
        raise ValueError(f"{array.dtype} {array.shape} where contiguous {np.dtype(dtype)} {shape} are needed")


def _simple(workers: Workers, name: str, x: Floats, shape: Callable[[int, int], Shape], out: Floats | None) -> Floats:
    if x.ndim != 4 or x.shape[3] % GROUP or not x.size:
        raise ValueError(f"no images with a multiple of {GROUP} channels: {x.shape}")
    n, height, width, channels = x.shape
    found = (n, *shape(height, width), channels)
    out = empty(found) if out is None else out
    check(x, x.shape)
    check(out, found)
    conv = Convolution(n, height, width, channels, channels)
    conv.x, conv.y = x.ctypes.data, out.ctypes.data
    workers.call(name, conv)
    return out


def max_pool(workers: Workers, x: Floats, out: Floats | None = None) -> Floats:
    """The largest of 3 x 3, every second pixel; ValueError for arrays of other shapes and types, as below."""
    return _simple(workers, "max_pool", x, _halved, out)


def mean_pool(workers: Workers, x: Floats, out: Floats | None = None) -> Floats:
    """The mean of 2 x 2, every second pixel, of what there is of them at the border."""
    return _simple(workers, "mean_pool", x, _halved, out)


def mean(workers: Workers, x: Floats, out: Floats | None = None) -> Floats:
    """The mean of all pixels [n, channels]."""
    return _simple(workers, "mean", x, lambda height, width: (), out)


def add_relu(workers: Workers, x: Floats, residual: Floats, out: Floats | None = None) -> Floats:
    """ReLU of the sum of two arrays; ValueError if their shapes or types are not the same."""
    out = empty(x.shape) if out is None else out
    check(residual, x.shape)
    check(x, x.shape)
    check(out, x.shape)
    conv = Convolution(*x.shape, x.shape[3])
    conv.x, conv.residual, conv.y = x.ctypes.data, residual.ctypes.data, out.ctypes.data
    workers.call("add_relu", conv)
    return out


def _halved(height: int, width: int) -> Shape:
    return (height + 1) // 2, (width + 1) // 2
