"""Our own kernels as functions of torch, forward and backward, on float32 in channels_last on a CPU.

With AMX the three passes of a convolution are products of halves (see kernels/cpp/flat.h). Without it those of a 3x3
convolution are Winograd's: the gradient of the inputs is a convolution with the turned
weights, and that of the weights is the transpose of the forward pass (see kernels/cpp/winograd.h).
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from resnetkit.kernels.library import GROUP, MOST, Convolution, Norm, Strides, Workers

LAST = torch.channels_last


@dataclass(frozen=True)
class Ending:
    """What follows a convolution: ReLU(factor * convolution + bias + residual).

    Attributes:
        factor: [K], none of them zero.
        bias: [K].
        residual: like the outputs, or none.
    """

    factor: Tensor
    bias: Tensor
    residual: Tensor | None = None


def convolve(x: Tensor, weight: Tensor, ending: Ending | None = None, stride: int = 1) -> Tensor:
    """A convolution [N, C, H, W] with [K, C, k, k] and a border of k // 2 zeros, to [N, K, rows, columns].

    It is differentiable.

    Args:
        x: float32 on the CPU.
        weight: likewise; C and K are multiples of 16, k is 3; with AMX 1, 3, 5 or 7.
        ending: what follows.
        stride: 1; with AMX also 2.

    Raises:
        ValueError: other shapes or types.
    """
    sizes = x.ndim == 4 and weight.ndim == 4 and x.shape[1] == weight.shape[1] and max(weight.shape) <= MOST
    fits = sizes and not (x.shape[1] % GROUP or len(weight) % GROUP) and has(weight.shape[2:], stride)
    if not fits or {x.dtype, weight.dtype} != {torch.float32} or not x.numel():
        raise ValueError(f"no convolution for these kernels: {x.dtype} {tuple(x.shape)}, {tuple(weight.shape)}")
    if ending is None:
        found: Tensor = _Convolve.apply(x, weight, stride)
    else:
        found = _ConvolveRelu.apply(x, weight, ending.factor, ending.bias, ending.residual, stride)
    return found


def has(taps: Sequence[int], stride: int) -> bool:
    """Whether the kernels of this processor have convolutions of [rows, columns] of taps and a stride."""
    if workers(torch.get_num_threads()).level == "amx":
        return taps[0] == taps[1] and taps[0] in (1, 3, 5, 7) and stride in (1, 2)
    return (*taps, stride) == (3, 3, 1)


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        x = x.contiguous(memory_format=LAST)
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return _convolved(x, weight, stride)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=LAST)
        of_x = _input_gradient(x, gradient, weight, ctx.stride) if ctx.needs_input_grad[0] else None
        return of_x, _weight_gradient(x, gradient, weight, ctx.stride) if ctx.needs_input_grad[1] else None, None


class _ConvolveRelu(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, factor: Tensor, bias: Tensor, residual: Tensor | None, stride: int
    ) -> Tensor:
        x = x.contiguous(memory_format=LAST)
        out = _convolved(x, weight, stride, Ending(factor, bias, residual))
        ctx.save_for_backward(x, weight, factor, out)
        ctx.stride = stride
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, factor, out = ctx.saved_tensors
        of_residual = torch.empty_like(out) if ctx.needs_input_grad[4] else None
        before, of_bias = torch.empty_like(out), torch.empty_like(factor)
        gradient = gradient.contiguous(memory_format=LAST)
        norm = _places(out)
        norm.relu, norm.y, norm.gradient, norm.weight = 1, out.data_ptr(), gradient.data_ptr(), factor.data_ptr()
        norm.to_x, norm.to_residual, norm.to_bias = before.data_ptr(), _address(of_residual), of_bias.data_ptr()
        workers(torch.get_num_threads()).call("relu_backward", norm)
        of_x = _input_gradient(x, before, weight, ctx.stride) if ctx.needs_input_grad[0] else None
        if not (ctx.needs_input_grad[1] or ctx.needs_input_grad[2]):
            return of_x, None, None, of_bias, of_residual, None
        of_weight = _weight_gradient(x, before, weight, ctx.stride)
        # the outputs are factor * weight * x, so that both have the same product with their gradients
        product = torch.einsum("ki,ki->k", _rows(of_weight), _rows(_evenly(weight)))
        return of_x, of_weight, product / factor, of_bias, of_residual, None


def _convolved(x: Tensor, weight: Tensor, stride: int, ending: Ending | None = None) -> Tensor:
    weight = _evenly(weight)
    sides = [(side - 1) // stride + 1 for side in x.shape[2:]]
    out = torch.empty((len(x), len(weight), *sides), memory_format=LAST)
    conv = _describe(x, weight, stride)
    conv.x, conv.y = x.data_ptr(), out.data_ptr()
    if ending is not None:
        residual = None if ending.residual is None else ending.residual.contiguous(memory_format=LAST)
        conv.factor, conv.bias, conv.residual = ending.factor.data_ptr(), ending.bias.data_ptr(), _address(residual)
        conv.relu = 1
    workers(torch.get_num_threads()).call("convolve", conv, weight.data_ptr(), _strides(weight))
    return out


def _input_gradient(x: Tensor, gradient: Tensor, weight: Tensor, stride: int) -> Tensor:
    weight, found = _evenly(weight), torch.empty_like(x)
    conv = _describe(x, weight, stride)
    conv.y = gradient.data_ptr()
    given = (weight.data_ptr(), _strides(weight), found.data_ptr())
    workers(torch.get_num_threads()).call("input_gradient", conv, *given)
    return found


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _rows(weight: Tensor) -> Tensor:
    """Weights, of whichever memory format, as a row for each filter, without moving them."""
    last = weight.is_contiguous(memory_format=LAST)
    return (weight.permute(0, 2, 3, 1) if last else weight).flatten(1)


def _weight_gradient(x: Tensor, gradient: Tensor, weight: Tensor, stride: int) -> Tensor:
    found = torch.empty_like(_evenly(weight))
    conv = _describe(x, found, stride)
    conv.x, conv.y = x.data_ptr(), gradient.data_ptr()
    workers(torch.get_num_threads()).call("weight_gradient", conv, found.data_ptr(), _strides(found))
    return found


def _evenly(weight: Tensor) -> Tensor:
    """Weights whose taps are evenly apart, as they are in both memory formats."""
    return weight if weight.stride(2) == weight.shape[3] * weight.stride(3) else weight.contiguous()


def _strides(weight: Tensor) -> Strides:
    return Strides(weight.stride(0), weight.stride(1), weight.stride(3))


def _describe(x: Tensor, weight: Tensor, stride: int) -> Convolution:
    n, channels, height, width = x.shape
    conv = Convolution(n, height, width, channels, len(weight), weight.shape[2], stride)
    conv.padding, conv.dilation, conv.groups = weight.shape[2] // 2, 1, 1
    return conv


def convolve_small(x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """A convolution [N, C, H, W] with [K, C, k, k] to [N, K, rows, columns], as a matrix product for each tap.

    Of maps of a few pixels most taps see few of them, or none; and large weights are read once, as they lie.

    Args:
        x: float32 in channels_last on the CPU.
        weight: likewise, in either memory format.
        stride: of both axes.
        padding: of all sides, with zeros.
    """
    found: Tensor = _ConvolveSmall.apply(x, weight, stride, padding)
    return found


class _ConvolveSmall(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.taps = taps = Taps(tuple(x.shape[2:]), weight.shape[2], stride, padding)
        out = torch.zeros(len(x), *taps.outputs, len(weight))
        for tap, seen, given in taps:
            part = x.permute(0, 2, 3, 1)[seen]
            out[given] += part @ weight[:, :, *tap].t()
        return out.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        gradient, maps = gradient.permute(0, 2, 3, 1), x.permute(0, 2, 3, 1)
        of_x = torch.zeros(maps.shape) if ctx.needs_input_grad[0] else None
        of_weight = torch.empty_like(weight) if ctx.needs_input_grad[1] else None
        if of_weight is not None and len(ctx.taps) < weight[0, 0].numel():
            of_weight.zero_()
        for tap, seen, given in ctx.taps:
            part = gradient[given].reshape(-1, len(weight))
            if of_x is not None:
                of_x[seen] += (part @ weight[:, :, *tap]).view(of_x[seen].shape)
            if of_weight is not None:
                torch.mm(part.t(), maps[seen].reshape(-1, weight.shape[1]), out=of_weight[:, :, *tap])
        return None if of_x is None else of_x.permute(0, 3, 1, 2), of_weight, None, None


Slices = tuple[slice, slice, slice]


class Taps:
    """The taps of a square kernel that see pixels of a map: which pixels, and of which outputs.

    Args:
        sides: height and width of the map.
        kernel, stride, padding: of both axes.
    """

    def __init__(self, sides: tuple[int, ...], kernel: int, stride: int, padding: int) -> None:
        self.outputs = [(side + 2 * padding - kernel) // stride + 1 for side in sides]
        self.axes = [_seen(side, kernel, stride, padding) for side in sides]

    def __len__(self) -> int:
        """How many they are."""
        return len(self.axes[0]) * len(self.axes[1])

    def __iter__(self) -> Iterator[tuple[tuple[int, int], Slices, Slices]]:
        """Row and column of a tap, and slices [N, H, W] of inputs and outputs."""
        every = slice(None)
        for (row, rows_in, rows_out), (column, columns_in, columns_out) in product(*self.axes):
            yield (row, column), (every, rows_in, columns_in), (every, rows_out, columns_out)


def _seen(side: int, kernel: int, stride: int, padding: int) -> list[tuple[int, slice, slice]]:
    """Of one axis: each tap that sees something, the pixels, and their outputs."""
    found = []
    for tap in range(kernel):
        first = max(0, -((tap - padding) // stride))
        end = min((side + 2 * padding - kernel) // stride, (side - 1 + padding - tap) // stride) + 1
        if end > first:
            start = first * stride + tap - padding
            found.append((tap, slice(start, start + (end - first - 1) * stride + 1, stride), slice(first, end)))
    return found


def normalise(
    x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, *, epsilon: float, relu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Batch normalisation of [N, C, H, W] by its own mean and variance, plus `residual`, then ReLU; differentiable.

    Args:
        x: float32 in channels_last on the CPU; C is a multiple of 16.
        residual: like x; None: nothing is added.
        weight: [C].
        bias: [C].
        epsilon: is added to the variance.
        relu: whether negative outputs become zero at last.

    Returns:
        The outputs, like x, and mean and variance [C] of x, which have no gradients.
    """
    found: tuple[Tensor, Tensor, Tensor] = _Normalise.apply(x, residual, weight, bias, epsilon, relu)
    return found


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, epsilon: float, relu: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        out, mean, variance = torch.empty_like(x), torch.empty_like(weight), torch.empty_like(weight)
        residual = None if residual is None else residual.contiguous(memory_format=LAST)
        norm = _places(x)
        norm.relu, norm.epsilon, norm.x, norm.y = int(relu), epsilon, x.data_ptr(), out.data_ptr()
        norm.weight, norm.bias, norm.residual = weight.data_ptr(), bias.data_ptr(), _address(residual)
        norm.mean, norm.variance = mean.data_ptr(), variance.data_ptr()
        workers(torch.get_num_threads()).call("norm_forward", norm)
        ctx.save_for_backward(x, out if relu else None, weight, mean, variance)
        ctx.epsilon = epsilon
        ctx.mark_non_differentiable(mean, variance)
        return out, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, out, weight, mean, variance = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=LAST)
        of_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        of_residual = torch.empty_like(x) if ctx.needs_input_grad[1] else None
        of_weight, of_bias = torch.empty_like(weight), torch.empty_like(weight)
        norm = _places(x)
        norm.relu, norm.epsilon, norm.x, norm.y = int(out is not None), ctx.epsilon, x.data_ptr(), _address(out)
        norm.weight, norm.mean, norm.variance = weight.data_ptr(), mean.data_ptr(), variance.data_ptr()
        norm.gradient, norm.to_x, norm.to_residual = gradient.data_ptr(), _address(of_x), _address(of_residual)
        norm.to_weight, norm.to_bias = of_weight.data_ptr(), of_bias.data_ptr()
        workers(torch.get_num_threads()).call("norm_backward", norm)
        return of_x, of_residual, of_weight, of_bias, None, None


def _places(x: Tensor) -> Norm:
    return Norm(x.numel() // x.shape[1], x.shape[1])


@cache
def workers(threads: int, level: str = "") -> Workers:
    """Of this process: torch's own threads where it has GCC's OpenMP, since others would compete with them."""
    return Workers(threads, level, _team())


def _team() -> int:
    """The address of GOMP_parallel in the library that torch came with; 0 where there is none."""
    folder = Path(torch.__file__).parent
    for path in (*folder.glob("lib/libgomp*.so*"), *folder.parent.glob("torch.libs/libgomp*.so*")):
        try:
            return ctypes.cast(ctypes.CDLL(str(path)).GOMP_parallel, ctypes.c_void_p).value or 0
        except (OSError, AttributeError):
            continue
    return 0
