"""ResNet (He et al. 2015, arXiv 1512.03385, table 1), with the tensor names that every checkpoint of the field has.

stem (conv1 bn1 relu maxpool) -> layer1 .. layer4 -> avgpool -> fc. A stage halves the resolution (layer1 aside) and
doubles the width. With the standard stem, an input of [N, 3, 224, 224] gives these features:

    name  from    shape, BasicBlock / Bottleneck       stride
    C2    layer1  [N,  64, 56, 56] / [N,  256, 56, 56]   4
    C3    layer2  [N, 128, 28, 28] / [N,  512, 28, 28]   8
    C4    layer3  [N, 256, 14, 14] / [N, 1024, 14, 14]  16
    C5    layer4  [N, 512,  7,  7] / [N, 2048,  7,  7]  32

The CIFAR networks of section 4.2 are the same with three stages of 16, 32 and 64 channels (see `nn.cifar`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from resnetkit.nn.blocks import BasicBlock, Bottleneck, Branch, Norm, PadShortcut, PlainBlock, conv1x1, conv3x3

Shortcut = Literal["A", "B", "C", "D"]
Stem = Literal["imagenet", "small", "deep", "spectrum"]
Pool = Literal["last", "all"]


class ResNet(nn.Module):
    """A residual network for images: [N, in_channels, H, W] to logits [N, num_classes].

    Args:
        block: BasicBlock or Bottleneck.
        layers: number of blocks of each stage, [3, 4, 6, 3] for ResNet-34; three or four stages.
        num_classes: number of logits.
        zero_init_residual: start each residual branch at zero, so that every unit starts as the identity
            (arXiv 1706.02677, section 5.1).
        groups, width_per_group: of the 3x3 convolutions (ResNeXt arXiv 1611.05431, Wide ResNet arXiv 1605.07146).
        replace_stride_with_dilation: for layer2, layer3, layer4: keep the resolution and dilate instead.
        norm_layer: makes the normalisation layer of a number of channels; BatchNorm2d by default.
        in_channels: channels of the input.
        shortcut: A pads with zeros, B projects where shapes change, C projects everywhere (section 4.1 of the paper);
            D is B that averages 2x2 pixels first, where B's stride skips three of four (arXiv 1812.01187, figure 2c).
        width: channels of the stem and the first stage; each next stage has twice as many.
        stem: "imagenet" is 7x7 stride 2 and max-pool; "small" is 3x3 stride 1 without pooling, for images under 64 px;
            "deep" has three 3x3 for the 7x7 (arXiv 1812.01187, figure 2b); "spectrum" is "imagenet" whose max-pool
            halves the bands [H] of a spectrum and not its frames [W].
        pool: stages whose pooled features are the embedding: the last, or all of them side by side (after Head2Toe,
            arXiv 2201.03529).
        stochastic_depth: chance to skip the last block's branch in training, rising linearly from the first block.

    Raises:
        ValueError: an argument out of its range.
    """

    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential

    def __init__(
        self,
        block: type[BasicBlock | Bottleneck],
        layers: Sequence[int],
        num_classes: int = 1000,
        zero_init_residual: bool = False,
        *,
        groups: int = 1,
        width_per_group: int = 64,
        replace_stride_with_dilation: Sequence[bool] = (False, False, False),
        norm_layer: Norm | None = None,
        in_channels: int = 3,
        shortcut: Shortcut = "B",
        width: int = 64,
        stem: Stem = "imagenet",
        pool: Pool = "last",
        stochastic_depth: float = 0.0,
    ) -> None:
        super().__init__()
        _check(layers, replace_stride_with_dilation, (shortcut, stem, pool), stochastic_depth)
        norm = norm_layer or nn.BatchNorm2d
        self.inplanes = width
        self.dilation = 1
        self.shortcut = shortcut
        self.pool = pool
        self.conv1 = _stem(stem, in_channels, width, norm)
        self.bn1 = norm(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = _pooling(stem)
        branch = Branch(groups, width_per_group, 1, norm)
        drops = iter(stochastic_depth * i / max(1, sum(layers) - 1) for i in range(sum(layers)))
        dilate = [False, *replace_stride_with_dilation]
        for stage, blocks in enumerate(layers):
            stage_drops = [next(drops) for _ in range(blocks)]
            planes, stride = width * 2**stage, 1 if stage == 0 else 2
            setattr(
                self, f"layer{stage + 1}", self._make_stage(block, planes, stride, dilate[stage], branch, stage_drops)
            )
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        widths = [width * 2**stage * block.expansion for stage in range(len(layers))]
        self.fc = nn.Linear(sum(widths) if pool == "all" else widths[-1], num_classes)
        initialise(self, zero_init_residual)

    def _make_stage(
        self,
        block: type[BasicBlock | Bottleneck],
        planes: int,
        stride: int,
        dilate: bool,
        branch: Branch,
        drops: Sequence[float],
    ) -> nn.Sequential:
        """One stage: the first block changes resolution and width, the others keep them."""
        first = replace(branch, dilation=self.dilation)
        if dilate:
            self.dilation *= stride
            stride = 1
        rest = replace(branch, dilation=self.dilation)
        blocks = []
        for index, drop in enumerate(drops):
            step = stride if index == 0 else 1
            out = planes * block.expansion
            plain = issubclass(block, PlainBlock)
            downsample = None if plain else self._shortcut(self.inplanes, out, step, branch.norm)
            built = replace(rest if index else first, drop=drop)
            blocks.append(block(self.inplanes, planes, step, downsample, built))
            self.inplanes = out
        return nn.Sequential(*blocks)

    def _shortcut(self, inplanes: int, outplanes: int, stride: int, norm: Norm) -> nn.Module | None:
        """The shortcut of a block; None is the identity."""
        agrees = stride == 1 and inplanes == outplanes
        if agrees and self.shortcut != "C":
            return None
        if self.shortcut == "A":
            return PadShortcut(inplanes, outplanes, stride)
        if self.shortcut == "D":
            pool = nn.Identity() if stride == 1 else nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False)
            return nn.Sequential(pool, conv1x1(inplanes, outplanes), norm(outplanes))
        return nn.Sequential(conv1x1(inplanes, outplanes, stride), norm(outplanes))

    @property
    def in_channels(self) -> int:
        """Channels of the input."""
        return next(self.conv1.parameters()).shape[1]

    @property
    def stages(self) -> dict[str, nn.Sequential]:
        """The stages by the name of their features: C2, C3, ... for layer1, layer2, ..."""
        found = (getattr(self, f"layer{i + 1}", None) for i in range(4))
        return {f"C{i + 2}": stage for i, stage in enumerate(found) if stage is not None}

    def forward_stem(self, x: Tensor) -> Tensor:
        """Images [N, in_channels, H, W] to what the first stage takes: [N, width, H/4, W/4], rounded up.

        [N, width, H, W] where the stem is small, and [N, width, H/4, W/2] where it is that of spectra.
        """
        return self.maxpool(self.relu(self.bn1(self.conv1(x))))  # type: ignore[no-any-return]

    def forward_features(self, x: Tensor) -> dict[str, Tensor]:
        """Feature maps of the stages, C2 .. C5; shapes in the module's docstring."""
        x = self.forward_stem(x)
        features = {}
        for name, stage in self.stages.items():
            features[name] = x = stage(x)
        return features

    def forward_head(self, features: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The stages' features to the embedding [N, D] and the logits [N, num_classes]."""
        maps = list(features.values())
        embedding = pooled(self.avgpool, maps if self.pool == "all" else maps[-1:])
        return embedding, self.fc(embedding)

    def forward(self, x: Tensor) -> Tensor:
        """Images [N, in_channels, H, W] to logits [N, num_classes]."""
        return self.forward_head(self.forward_features(x))[1]


def pooled(avgpool: nn.Module, maps: Sequence[Tensor]) -> Tensor:
    """Maps [N, C, H, W] of one or more stages to their means side by side [N, sum of C]."""
    return torch.cat([torch.flatten(avgpool(each), 1) for each in maps], 1)


def _stem(stem: Stem, in_channels: int, width: int, norm: Norm) -> nn.Module:
    """The convolutions before the first norm: [N, in_channels, H, W] to [N, width, H, W], or half of H and W."""
    if stem == "small":
        return conv3x3(in_channels, width)
    if stem in ("imagenet", "spectrum"):
        return nn.Conv2d(in_channels, width, 7, stride=2, padding=3, bias=False)
    half = width // 2
    first = conv3x3(in_channels, half, 2), norm(half), nn.ReLU(inplace=True)
    second = conv3x3(half, half), norm(half), nn.ReLU(inplace=True)
    return nn.Sequential(*first, *second, conv3x3(half, width))


def _pooling(stem: Stem) -> nn.Module:
    """What follows the first convolutions and their norm."""
    if stem == "small":
        return nn.Identity()
    return nn.MaxPool2d(kernel_size=3, stride=(2, 1) if stem == "spectrum" else 2, padding=1)


def _check(
    layers: Sequence[int], dilate: Sequence[bool], choices: tuple[str, str, str], stochastic_depth: float
) -> None:
    shortcut, stem, pool = choices
    if len(layers) not in (3, 4) or min(layers) < 1:
        raise ValueError(f"layers must be three or four numbers of blocks, not {list(layers)}")
    if len(dilate) != 3:
        raise ValueError(f"replace_stride_with_dilation must have three elements, not {list(dilate)}")
    if shortcut not in ("A", "B", "C", "D"):
        raise ValueError(f'shortcut must be "A", "B", "C" or "D", not {shortcut!r}')
    if stem not in get_args(Stem):
        raise ValueError(f'stem must be "imagenet", "small", "deep" or "spectrum", not {stem!r}')
    if pool not in ("last", "all"):
        raise ValueError(f'pool must be "last" or "all", not {pool!r}')
    if not 0 <= stochastic_depth < 1:
        raise ValueError(f"stochastic_depth must be in [0, 1), not {stochastic_depth}")


def initialise(network: nn.Module, zero_init_residual: bool) -> None:
    """Kaiming for convolutions (arXiv 1502.01852, fan_out, ReLU), ones and zeros for norms; on demand zero branches."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
    if not zero_init_residual:
        return
    for module in network.modules():
        if isinstance(module, BasicBlock | Bottleneck):
            weight = module.last_norm.weight
            if isinstance(weight, Tensor):
                nn.init.zeros_(weight)
