"""Semantic segmentation around our backbones: FCN and DeepLabV3 as torchvision has them, and a U-Net decoder.

All take normalised images [N, C, H, W] and give logits of every pixel: {"out": [N, K, H, W]}, and "aux" where a second
head on an earlier stage helps to learn. FCN and DeepLabV3 have torchvision's names (`backbone`, `classifier`,
`aux_classifier`), so its checkpoints load.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.segmentation import FCN, DeepLabV3
from torchvision.models.segmentation.deeplabv3 import DeepLabHead
from torchvision.models.segmentation.fcn import FCNHead

from resnetkit.nn.backbone import dilate, freeze_norms, width_of, widths_of
from resnetkit.nn.blocks import conv3x3
from resnetkit.nn.resnet import ResNet

OUT, AUX = "out", "aux"


@dataclass(frozen=True)
class Options:
    """What is chosen of a segmenter beside its kind and its backbone.

    Attributes:
        dilated: stages, counted from the last, that keep the resolution of the one before (FCN and DeepLabV3).
        aux: whether FCN and DeepLabV3 have a second head on the last but one stage.
        width: channels of the U-Net's decoder at the resolution of the stem; twice as many at each level below.
        freeze_norms: keep the backbone's BatchNorm as it came: evaluation mode, and no gradients.
    """

    dilated: int = 2
    aux: bool = False
    width: int = 32
    freeze_norms: bool = False


class UNet(nn.Module):
    """Stages from the last to the stem, each enlarged and joined with the one before it (arXiv 1505.04597).

    Args:
        backbone: its features of all stages and of the stem are used.
        num_classes: K.
        width: channels at the resolution of the stem.
    """

    def __init__(self, backbone: ResNet, num_classes: int, width: int) -> None:
        super().__init__()
        layers = {"relu": "C1"} | {f"layer{i + 1}": name for i, name in enumerate(backbone.stages)}
        skips = [width_of(backbone.bn1), *widths_of(backbone)]
        self.backbone = IntermediateLayerGetter(backbone, layers)
        wide = [width * 2**level for level in range(len(skips) - 1)]
        below = [*wide[1:], skips[-1]]  # what each level gets from the one below it
        self.decoder = nn.ModuleList([Joint(*each) for each in zip(below, skips[:-1], wide, strict=True)])
        self.classifier = nn.Conv2d(width, num_classes, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Images [N, C, H, W] to {"out": logits [N, K, H, W]}."""
        *skips, x = self.backbone(images).values()
        for joint, skip in zip(reversed(self.decoder), reversed(skips), strict=True):
            x = joint(x, skip)
        x = F.interpolate(self.classifier(x), images.shape[-2:], mode="bilinear", align_corners=False)
        return {OUT: x}


class Joint(nn.Module):
    """A coarse map, enlarged, and a fine one, to one at the resolution of the fine one: two 3x3 convolutions."""

    def __init__(self, coarse: int, fine: int, planes: int) -> None:
        super().__init__()
        first = conv3x3(coarse + fine, planes), nn.BatchNorm2d(planes), nn.ReLU(inplace=True)
        self.convs = nn.Sequential(*first, conv3x3(planes, planes), nn.BatchNorm2d(planes), nn.ReLU(inplace=True))

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """[N, coarse, h, w] and [N, fine, H, W] to [N, planes, H, W]."""
        enlarged = F.interpolate(coarse, fine.shape[-2:], mode="nearest")
        joined: Tensor = self.convs(torch.cat([enlarged, fine], 1))
        return joined


def _body(backbone: ResNet, options: Options) -> tuple[nn.Module, list[int]]:
    """The dilated stages that the heads look at, and the widths of all."""
    widths = widths_of(backbone)
    last = len(widths)
    layers = {f"layer{last - 1}": AUX} if options.aux else {}
    return IntermediateLayerGetter(dilate(backbone, options.dilated), layers | {f"layer{last}": OUT}), widths


def _fcn(backbone: ResNet, num_classes: int, options: Options) -> nn.Module:
    body, widths = _body(backbone, options)
    network: nn.Module = FCN(body, FCNHead(widths[-1], num_classes), _aux(widths, num_classes, options))
    return network


def _deeplab(backbone: ResNet, num_classes: int, options: Options) -> nn.Module:
    body, widths = _body(backbone, options)
    network: nn.Module = DeepLabV3(body, DeepLabHead(widths[-1], num_classes), _aux(widths, num_classes, options))
    return network


def _aux(widths: Sequence[int], num_classes: int, options: Options) -> nn.Module | None:
    return FCNHead(widths[-2], num_classes) if options.aux else None


def _unet(backbone: ResNet, num_classes: int, options: Options) -> nn.Module:
    return UNet(backbone, num_classes, options.width)


SEGMENTERS: Mapping[str, Callable[[ResNet, int, Options], nn.Module]] = {
    "unet": _unet,
    "fcn": _fcn,
    "deeplabv3": _deeplab,
}


def segmenter(name: str, backbone: ResNet, num_classes: int, options: Options = Options()) -> nn.Module:  # noqa: B008
    """A network that gives every pixel a class, around a backbone, which becomes part of it.

    Args:
        name: a key of `SEGMENTERS`.
        backbone: with whatever weights it has; its pooling and its classifier are not used.
        num_classes: K.
        options: dilation, widths, what learns.

    Raises:
        KeyError: there is no such network.
    """
    if options.freeze_norms:
        freeze_norms(backbone)
    return SEGMENTERS[name](backbone, num_classes, options)
