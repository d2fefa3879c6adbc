"""3x3 convolutions of stride 1 on a CPU by our own kernels, forward and backward, in place of torch's.

The three passes are Winograd's: the gradient of the inputs is a convolution with the turned weights, and that of the
weights is the transpose of the forward pass (see kernels/cpp/winograd.h). The network stays what it is: the class of
its convolutions is exchanged, their parameters and names are not touched.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from resnetkit.kernels.layers import points
from resnetkit.kernels.library import GROUP, MOST, Convolution, Strides, Workers, available
from resnetkit.settings import Recipe
from resnetkit.training.device import Setup

LAST = torch.channels_last
# Multiplications saved for each weight, under which it takes longer to transform the weights: a batch of 8 at 7 x 7
WORTH = 7000


def kernels_wanted(recipe: Recipe, setup: Setup) -> bool:
    """Whether a training may use them; in memory other than channels_last they would be no faster, and are not used."""
    return recipe.train.kernels != "torch" and setup.kind == "cpu" and setup.precision == "f32"


def kernels_for(recipe: Recipe, setup: Setup) -> str:
    """What train.kernels says, or what "auto" is on this machine."""
    if recipe.train.kernels != "auto":
        return recipe.train.kernels
    return "own" if kernels_wanted(recipe, setup) and available() else "torch"


@contextmanager
def own_kernels(network: nn.Module, wanted: bool) -> Iterator[None]:
    """Inside, the network's convolutions run on our kernels wherever these are faster.

    Args:
        network: is changed until the end.
        wanted: False: nothing is done.
    """
    chosen = [module for module in network.modules() if _fits(module)] if wanted and available() else []
    for module in chosen:
        module.__class__ = OwnConv2d
    try:
        yield
    finally:
        for module in chosen:
            module.__class__ = nn.Conv2d


def _fits(module: nn.Module) -> bool:
    if type(module) is not nn.Conv2d or module.bias is not None or module.padding_mode != "zeros":
        return False
    shape = (module.kernel_size, module.stride, module.padding, module.dilation, module.groups)
    widths = (module.in_channels, module.out_channels)
    return bool(shape == ((3, 3), (1, 1), (1, 1), (1, 1), 1) and all(not w % GROUP and w <= MOST for w in widths))


class OwnConv2d(nn.Conv2d):
    """A 3x3 convolution of stride 1 that runs on our kernels where its input lies as they take it and it pays."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if bias is None and _pays(input, weight):
            return convolve(input, weight)
        found: Tensor = super()._conv_forward(input, weight, bias)
        return found


def _pays(x: Tensor, weight: Tensor) -> bool:
    """Whether the kernels can take a tensor as it is, and are expected to be faster."""
    if x.ndim != 4 or x.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return False
    if x.dtype != torch.float32 or weight.dtype != torch.float32 or not x.is_contiguous(memory_format=LAST):
        return False
    n, _, height, width = x.shape
    saved: int = 18 * n * height * width - 2 * n * points(height) * points(width)
    return saved > WORTH


def convolve(x: Tensor, weight: Tensor) -> Tensor:
    """A convolution [N, C, H, W] with [K, C, 3, 3], stride 1 and a border of zeros, to [N, K, H, W]; differentiable.

    Args:
        x: float32 on the CPU.
        weight: likewise; C and K are multiples of 16.

    Raises:
        ValueError: other shapes or types.
    """
    fits = x.ndim == 4 and weight.shape[1:] == (x.shape[1], 3, 3) and not (x.shape[1] % GROUP or len(weight) % GROUP)
    if not fits or {x.dtype, weight.dtype} != {torch.float32} or not x.numel() or max(weight.shape) > MOST:
        raise ValueError(f"no convolution for these kernels: {x.dtype} {tuple(x.shape)}, {tuple(weight.shape)}")
    found: Tensor = _Convolve.apply(x, weight)
    return found


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        x = x.contiguous(memory_format=LAST)
        ctx.save_for_backward(x, weight)
        return _convolved(x, weight, turned=False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=LAST)
        of_x = _convolved(gradient, weight, turned=True) if ctx.needs_input_grad[0] else None
        return of_x, _weight_gradient(x, gradient, weight) if ctx.needs_input_grad[1] else None


def _convolved(x: Tensor, weight: Tensor, *, turned: bool) -> Tensor:
    """A convolution; `turned`: from the outputs back to the inputs, with the taps in the other order."""
    weight = _evenly(weight)
    filter_, channel, _, tap = weight.stride()
    first, strides, filters = weight.data_ptr(), Strides(filter_, channel, tap), weight.shape[0]
    if turned:
        first += 8 * tap * weight.element_size()
        strides, filters = Strides(channel, filter_, -tap), weight.shape[1]
    out = torch.empty((len(x), filters, *x.shape[2:]), memory_format=LAST)
    conv = _describe(x, filters)
    conv.x, conv.y = x.data_ptr(), out.data_ptr()
    workers(torch.get_num_threads()).call("convolve", conv, first, strides)
    return out


def _weight_gradient(x: Tensor, gradient: Tensor, weight: Tensor) -> Tensor:
    found = torch.empty_like(_evenly(weight))
    conv = _describe(x, len(weight))
    conv.x, conv.y = x.data_ptr(), gradient.data_ptr()
    strides = Strides(found.stride(0), found.stride(1), found.stride(3))
    workers(torch.get_num_threads()).call("weight_gradient", conv, found.data_ptr(), strides)
    return found


def _evenly(weight: Tensor) -> Tensor:
    """Weights whose nine taps are evenly apart, as they are in both memory formats."""
    return weight if weight.stride(2) == 3 * weight.stride(3) else weight.contiguous()


def _describe(x: Tensor, filters: int) -> Convolution:
    n, channels, height, width = x.shape
    conv = Convolution(n, height, width, channels, filters)
    conv.kernel, conv.stride, conv.padding, conv.dilation, conv.groups = 3, 1, 1, 1, 1
    return conv


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
