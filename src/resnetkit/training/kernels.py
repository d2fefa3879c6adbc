"""Training on a CPU by our own kernels, in place of torch's, wherever they are faster.

A convolution, its normalisation, the shortcut and ReLU are one unit. Where the normalisation goes by the batch, it, the
sum and ReLU pass over memory together; where its statistics are kept, it is a factor and a bias, and the convolution
does it and the rest as it writes its outputs. The network stays what it is: classes of its modules are exchanged,
their parameters and names are not touched.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resnetkit.kernels.layers import points
from resnetkit.kernels.library import GROUP, MOST, available
from resnetkit.nn.blocks import BasicBlock, Bottleneck
from resnetkit.nn.resnet import ResNet
from resnetkit.settings import Recipe
from resnetkit.training.device import Setup
from resnetkit.training.operations import LAST, Ending, convolve, convolve_small, has, normalise

# Multiplications saved for each weight, under which it takes longer to transform the weights: a batch of 8 at 7 x 7
WORTH = 6000
SMALL = 512  # places of a map to whose large weights matrix products come cheaper, see docs/results.md
LARGE = 256 * 256  # channels * filters
TINY = 4  # outputs of a map


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
    """Inside, the network runs on our kernels wherever these are faster.

    Args:
        network: is changed until the end.
        wanted: False: nothing is done.
    """
    chosen = [(each, type(each)) for each in network.modules() if type(each) in OWN] if wanted and available() else []
    for module, kind in chosen:
        module.__class__ = OWN[kind]
    try:
        yield
    finally:
        for module, kind in chosen:
            module.__class__ = kind


class OwnConv2d(nn.Conv2d):
    """A convolution that runs on our kernels where they have it, its input lies as they take it, and it pays."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if _fits(self) and _pays(self, input):
            return convolve(input, weight, stride=self.stride[0])
        if bias is None and _is_small(self, input):
            return convolve_small(input, weight, self.stride[0], 1)
        found: Tensor = super()._conv_forward(input, weight, bias)
        return found


class OwnBatchNorm2d(nn.BatchNorm2d):
    """A normalisation that stands alone, as that of a projection shortcut."""

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, H, W] to the same."""
        return _normalised(self, input, None, relu=False)


class OwnBasicBlock(BasicBlock):
    """The residual unit of two convolutions, as two units."""

    def forward(self, x: Tensor) -> Tensor:
        """As BasicBlock."""
        if not isinstance(self.drop, nn.Identity):
            return super().forward(x)
        shortcut = x if self.downsample is None else self.downsample(x)
        return _unit(self.conv2, self.bn2, _unit(self.conv1, self.bn1, x), shortcut)


class OwnBottleneck(Bottleneck):
    """The residual unit of three convolutions, as three units."""

    def forward(self, x: Tensor) -> Tensor:
        """As Bottleneck."""
        if not isinstance(self.drop, nn.Identity):
            return super().forward(x)
        shortcut = x if self.downsample is None else self.downsample(x)
        out = _unit(self.conv2, self.bn2, _unit(self.conv1, self.bn1, x))
        return _unit(self.conv3, self.bn3, out, shortcut)


class OwnResNet(ResNet):
    """A network whose stem is a unit."""

    def forward_stem(self, x: Tensor) -> Tensor:
        """As ResNet."""
        return self.maxpool(_unit(self.conv1, self.bn1, x))  # type: ignore[no-any-return]


OWN: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: OwnConv2d,
    nn.BatchNorm2d: OwnBatchNorm2d,
    BasicBlock: OwnBasicBlock,
    Bottleneck: OwnBottleneck,
    ResNet: OwnResNet,
}


def _unit(conv: nn.Module, norm: nn.Module, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
    """ReLU(norm(conv(x)) + shortcut)."""
    if type(conv) is OwnConv2d and type(norm) is OwnBatchNorm2d and _is_foldable(conv, norm):
        return _folded(conv, norm, x, shortcut)
    return _normalised(norm, conv(x), shortcut, relu=True)


def _is_foldable(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> bool:
    """Whether the norm goes by statistics that it has, and not by those of the batch, after a plain convolution.

    Not where a weight of it is zero: its gradient could not be told from that of the convolution.
    """
    kept = not norm.training and norm.track_running_stats and norm.affine
    return kept and conv.bias is None and conv.padding_mode == "zeros" and bool(norm.weight.all())


def _folded(conv: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor, shortcut: Tensor | None) -> Tensor:
    """The same where the norm's statistics are kept: it is a factor and a bias for what the convolution gives."""
    assert norm.running_var is not None and norm.running_mean is not None
    factor = norm.weight * (norm.running_var + norm.eps).rsqrt()
    bias = norm.bias - norm.running_mean * factor
    if _fits(conv) and _pays(conv, x):
        return convolve(x, conv.weight, Ending(factor, bias, shortcut), conv.stride[0])
    if _is_small(conv, x):
        out = convolve_small(x, conv.weight, conv.stride[0], 1) * factor[:, None, None] + bias[:, None, None]
    else:
        weight = conv.weight * factor[:, None, None, None]
        out = F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)
    return F.relu_(out if shortcut is None else out + shortcut)


def _normalised(norm: nn.Module, x: Tensor, shortcut: Tensor | None, *, relu: bool) -> Tensor:
    """ReLU(norm(x) + shortcut), in two passes over memory where the norm goes by the batch."""
    own = type(norm) is OwnBatchNorm2d and norm.training and norm.affine and norm.track_running_stats
    if not own or not _lies_well(x) or x.numel() <= x.shape[1]:
        out = nn.BatchNorm2d.forward(norm, x) if type(norm) is OwnBatchNorm2d else norm(x)
        out = out if shortcut is None else out + shortcut
        return F.relu_(out) if relu else out
    assert isinstance(norm, nn.BatchNorm2d)
    out, mean, variance = normalise(x, shortcut, norm.weight, norm.bias, epsilon=norm.eps, relu=relu)
    _keep_statistics(norm, mean, variance, x.numel() // x.shape[1])
    return out


@torch.no_grad()
def _keep_statistics(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, places: int) -> None:
    """Running mean and variance, as nn.BatchNorm2d keeps them: of the variance that without bias."""
    assert norm.num_batches_tracked is not None and norm.running_mean is not None and norm.running_var is not None
    norm.num_batches_tracked += 1
    share = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean, share)
    norm.running_var.lerp_(variance * (places / (places - 1)), share)


def _fits(conv: nn.Conv2d) -> bool:
    """Whether the kernels have a convolution."""
    if conv.bias is not None or conv.padding_mode != "zeros" or conv.dilation != (1, 1) or conv.groups != 1:
        return False
    if conv.stride[0] != conv.stride[1] or conv.padding != tuple(taps // 2 for taps in conv.kernel_size):
        return False
    widths = (conv.in_channels, conv.out_channels)
    return has(conv.kernel_size, conv.stride[0]) and all(not w % GROUP and w <= MOST for w in widths)


def _is_small(conv: nn.Conv2d, x: Tensor) -> bool:
    """Whether large weights meet a small map, where matrix products are faster than torch's convolution."""
    plain = conv.kernel_size == (3, 3) and conv.padding == (1, 1) and conv.dilation == (1, 1) and conv.groups == 1
    if not plain or conv.padding_mode != "zeros" or conv.in_channels * conv.out_channels < LARGE or not _lies_well(x):
        return False
    return x.shape[0] * x.shape[2] * x.shape[3] <= SMALL * conv.stride[0] * conv.stride[1]


def _pays(conv: nn.Conv2d, x: Tensor) -> bool:
    """Whether the kernels can take a tensor as it is, and are expected to be faster."""
    if conv.weight.dtype != torch.float32 or not _lies_well(x):
        return False
    n, _, height, width = x.shape
    if has((1, 1), 1):  # by matrix registers, where weights are prepared and each is used at least a few times
        return height * width > TINY * conv.stride[0] ** 2 or not _is_small(conv, x)
    saved: int = 18 * n * height * width - 2 * n * points(height) * points(width)
    return saved > WORTH


def _lies_well(x: Tensor) -> bool:
    """Whether a tensor is what the kernels take: float32 in channels_last with a multiple of 16 channels."""
    if x.ndim != 4 or x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
        return False
    return x.is_contiguous(memory_format=LAST) and x.shape[1] % GROUP == 0 and bool(x.numel())
