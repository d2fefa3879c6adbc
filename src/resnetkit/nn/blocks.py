"""The two residual units of He et al. 2015 (arXiv 1512.03385), section 3.3: ReLU(F(x) + shortcut(x)).

F is the residual branch: two 3x3 convolutions (BasicBlock, ResNet-18 and -34) or 1x1, 3x3, 1x1 (Bottleneck, from
ResNet-50 on). The shortcut is the identity where shapes agree, and `downsample` where they do not. The stride stands
in the 3x3 convolution of the Bottleneck ("v1.5", as in torchvision), not in its first 1x1 as in the paper.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

Norm = Callable[[int], nn.Module]


@dataclass(frozen=True)
class Branch:
    """How the residual branch of a block is built, beside its width.

    Attributes:
        groups: groups of the 3x3 convolution (ResNeXt; Bottleneck only).
        base_width: channels of a group at 64 planes (Wide ResNet, ResNeXt; Bottleneck only).
        dilation: dilation of the 3x3 convolutions (Bottleneck only).
        norm: makes the normalisation layer of a number of channels.
        drop: chance that a training sample skips the branch (stochastic depth, arXiv 1603.09382), 0..1.
    """

    groups: int = 1
    base_width: int = 64
    dilation: int = 1
    norm: Norm = nn.BatchNorm2d
    drop: float = 0.0


def conv3x3(in_planes: int, out_planes: int, stride: int = 1, groups: int = 1, dilation: int = 1) -> nn.Conv2d:
    """3x3 convolution with padding, without bias: [N, in_planes, H, W] to [N, out_planes, ceil(H/stride), ...]."""
    return nn.Conv2d(
        in_planes, out_planes, 3, stride=stride, padding=dilation, groups=groups, bias=False, dilation=dilation
    )


def conv1x1(in_planes: int, out_planes: int, stride: int = 1) -> nn.Conv2d:
    """1x1 convolution without bias: [N, in_planes, H, W] to [N, out_planes, ceil(H/stride), ceil(W/stride)]."""
    return nn.Conv2d(in_planes, out_planes, 1, stride=stride, bias=False)


def _drop(chance: float) -> nn.Module:
    """What skips the branch of each sample with this chance in training."""
    if not chance:
        return nn.Identity()
    from torchvision.ops import StochasticDepth  # takes a second to import, and few networks have it

    dropped: nn.Module = StochasticDepth(chance, "row")
    return dropped


class PadShortcut(nn.Module):
    """Shortcut A of the paper: every stride-th pixel, and zeros for the channels that are not there; no parameters."""

    def __init__(self, in_planes: int, out_planes: int, stride: int) -> None:
        super().__init__()
        self.missing = out_planes - in_planes
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_planes, H, W] to [N, out_planes, ceil(H/stride), ceil(W/stride)]; half of the zeros on each side."""
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, self.missing // 2, self.missing - self.missing // 2))


class BasicBlock(nn.Module):
    """Residual unit of two 3x3 convolutions.

    Args:
        inplanes: channels that come in.
        planes: channels that go out.
        stride: stride of the first convolution.
        downsample: the shortcut; None is the identity.
        branch: norm and stochastic depth.

    Raises:
        ValueError: groups, base_width or dilation are not those of a BasicBlock.
    """

    expansion: ClassVar[int] = 1

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        branch: Branch = Branch(),  # noqa: B008  a frozen value
    ) -> None:
        super().__init__()
        if branch.groups != 1 or branch.base_width != 64 or branch.dilation != 1:
            raise ValueError("BasicBlock takes groups=1, width_per_group=64 and no dilation: use a Bottleneck network")
        self.conv1 = conv3x3(inplanes, planes, stride)
        self.bn1 = branch.norm(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = conv3x3(planes, planes)
        self.bn2 = branch.norm(planes)
        self.downsample = downsample
        self.drop = _drop(branch.drop)

    @property
    def last_norm(self) -> nn.Module:
        """The norm that ends the residual branch."""
        return self.bn2

    def forward(self, x: Tensor) -> Tensor:
        """ReLU(F(x) + shortcut(x)): [N, inplanes, H, W] to [N, planes, ceil(H/stride), ceil(W/stride)]."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.drop(self.bn2(self.conv2(out)))
        out += shortcut
        return self.relu(out)  # type: ignore[no-any-return]


class PlainBlock(BasicBlock):
    """A BasicBlock without its shortcut, ReLU(F(x)): for the plain networks that the paper compares with."""

    def forward(self, x: Tensor) -> Tensor:
        """ReLU(F(x)): [N, inplanes, H, W] to [N, planes, ceil(H/stride), ceil(W/stride)]."""
        out = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(out)))  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """Residual unit of 1x1, 3x3 and 1x1 convolutions, which first narrows and then widens to 4 * planes.

    Args:
        inplanes: channels that come in.
        planes: channels of the 3x3 convolution at base_width 64 and one group.
        stride: stride of the 3x3 convolution.
        downsample: the shortcut; None is the identity.
        branch: groups, width, dilation, norm and stochastic depth.
    """

    expansion: ClassVar[int] = 4

    def __init__(
        self,
        inplanes: int,
        planes: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        branch: Branch = Branch(),  # noqa: B008  a frozen value
    ) -> None:
        super().__init__()
        width = int(planes * (branch.base_width / 64.0)) * branch.groups
        self.conv1 = conv1x1(inplanes, width)
        self.bn1 = branch.norm(width)
        self.conv2 = conv3x3(width, width, stride, branch.groups, branch.dilation)
        self.bn2 = branch.norm(width)
        self.conv3 = conv1x1(width, planes * self.expansion)
        self.bn3 = branch.norm(planes * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample
        self.drop = _drop(branch.drop)

    @property
    def last_norm(self) -> nn.Module:
        """The norm that ends the residual branch."""
        return self.bn3

    def forward(self, x: Tensor) -> Tensor:
        """ReLU(F(x) + shortcut(x)): [N, inplanes, H, W] to [N, 4 * planes, ceil(H/stride), ceil(W/stride)]."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.drop(self.bn3(self.conv3(out)))
        out += shortcut
        return self.relu(out)  # type: ignore[no-any-return]
