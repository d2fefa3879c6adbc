"""Variant name and weights to network: the residual family of torchvision and two of timm, one builder a variant.

Parameters and multiply-adds at 224 x 224 with 1,000 classes:

    variant             parameters     multiply-adds
    resnet18            11,689,512         1.81 G
    resnet34            21,797,672         3.66 G
    resnet50            25,557,032         4.09 G
    resnet101           44,549,160         7.80 G
    resnet152           60,192,808        11.51 G
    resnext50_32x4d     25,028,904         4.23 G
    resnext101_32x8d    88,791,336        16.41 G
    resnext101_64x4d    83,455,272        15.46 G
    wide_resnet50_2     68,883,240        11.40 G
    wide_resnet101_2   126,886,696        22.75 G
    resnet34d           21,816,904         3.90 G
    resnet50d           25,576,264         4.33 G

and of the CIFAR networks at 32 x 32 with 10 classes (`nn.cifar`):

    resnet20               269,722         0.04 G
    resnet32               464,154         0.07 G
    resnet44               658,586         0.10 G
    resnet56               853,018         0.13 G
    resnet110            1,727,962         0.25 G

plain18, plain34, plain20, plain32, plain44, plain56 and plain110 are these without their shortcuts, for comparison.

Of texts: words (`nn.sequence.TextResNet`), vdcnn9, vdcnn17, vdcnn29, vdcnn49. Of sounds, beside those above with one
channel: wave34 (`WaveResNet`, of samples) and speaker34 (`nn.speaker.SpeakerResNet`, of log-mel spectra).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypedDict, Unpack

from torch import nn

from resnetkit.errors import UsageError
from resnetkit.nn.blocks import BasicBlock, Bottleneck, Norm, PlainBlock
from resnetkit.nn.cifar import WIDTH, cifar_layers
from resnetkit.nn.grow import grow as deeper
from resnetkit.nn.resnet import Pool, ResNet, Shortcut, Stem
from resnetkit.nn.sequence import VDCNN, VDCNN_LAYERS, TextResNet, WaveResNet, vdcnn
from resnetkit.nn.speaker import SpeakerResNet
from resnetkit.weights.fit import fit
from resnetkit.weights.known import known_weights


class ResNetOptions(TypedDict, total=False):
    """Keyword arguments of ResNet, see there."""

    num_classes: int
    zero_init_residual: bool
    groups: int
    width_per_group: int
    replace_stride_with_dilation: Sequence[bool]
    norm_layer: Norm | None
    in_channels: int
    shortcut: Shortcut
    width: int
    stem: Stem
    pool: Pool
    stochastic_depth: float


class Options(ResNetOptions, total=False):
    """Keyword arguments of a builder: those of ResNet, and the weights.

    `weights` is a published name (IMAGENET1K_V1), the path of a .safetensors or .pth file, or hf://owner/name.
    """

    weights: str | Path | None


@dataclass(frozen=True)
class Variant:
    """One member of the family: its block, its depth, and what differs from the plain network."""

    block: type[BasicBlock | Bottleneck]
    layers: tuple[int, ...]
    groups: int = 1
    width_per_group: int = 64
    width: int = 64
    stem: Stem = "imagenet"
    shortcut: Shortcut = "B"

    @property
    def convolution(self) -> tuple[int, int]:
        """Groups and channels of a 3x3 convolution in the first stage."""
        return self.convolution_at(self.width)

    def convolution_at(self, width: int) -> tuple[int, int]:
        """The same of a network of another width."""
        return self.groups, self.groups * (width * self.width_per_group // 64)


def _cifar(depth: int, block: type[BasicBlock] = BasicBlock) -> Variant:
    return Variant(block, cifar_layers(depth), width=WIDTH, stem="small", shortcut="A")


VARIANTS = {
    "resnet18": Variant(BasicBlock, (2, 2, 2, 2)),
    "resnet34": Variant(BasicBlock, (3, 4, 6, 3)),
    "resnet50": Variant(Bottleneck, (3, 4, 6, 3)),
    "resnet101": Variant(Bottleneck, (3, 4, 23, 3)),
    "resnet152": Variant(Bottleneck, (3, 8, 36, 3)),
    "resnext50_32x4d": Variant(Bottleneck, (3, 4, 6, 3), 32, 4),
    "resnext101_32x8d": Variant(Bottleneck, (3, 4, 23, 3), 32, 8),
    "resnext101_64x4d": Variant(Bottleneck, (3, 4, 23, 3), 64, 4),
    "wide_resnet50_2": Variant(Bottleneck, (3, 4, 6, 3), 1, 128),
    "wide_resnet101_2": Variant(Bottleneck, (3, 4, 23, 3), 1, 128),
    "resnet34d": Variant(BasicBlock, (3, 4, 6, 3), stem="deep", shortcut="D"),
    "resnet50d": Variant(Bottleneck, (3, 4, 6, 3), stem="deep", shortcut="D"),
    "resnet20": _cifar(20),
    "resnet32": _cifar(32),
    "resnet44": _cifar(44),
    "resnet56": _cifar(56),
    "resnet110": _cifar(110),
    "plain18": Variant(PlainBlock, (2, 2, 2, 2)),
    "plain34": Variant(PlainBlock, (3, 4, 6, 3)),
    "plain20": _cifar(20, PlainBlock),
    "plain32": _cifar(32, PlainBlock),
    "plain44": _cifar(44, PlainBlock),
    "plain56": _cifar(56, PlainBlock),
    "plain110": _cifar(110, PlainBlock),
}
Network = ResNet | VDCNN | TextResNet | WaveResNet
WORDS, WAVES, SPEAKER = "words", "wave34", "speaker34"
SEQUENCES: dict[str, Callable[..., Network]] = {
    WORDS: TextResNet,
    **{f"vdcnn{depth}": partial(vdcnn, depth) for depth in VDCNN_LAYERS},
    WAVES: WaveResNet,
    SPEAKER: SpeakerResNet,
}
PUBLISHED = tuple(name for name, plan in VARIANTS.items() if plan.stem == "imagenet" and plan.block is not PlainBlock)


def variant_named(name: str) -> Variant:
    """The variant of this name.

    Raises:
        UsageError: there is none.
    """
    if name not in VARIANTS:
        raise UsageError(f"there is no model {name!r}", fix=f"one of {', '.join(VARIANTS)}")
    return VARIANTS[name]


def build(variant: str, **options: Unpack[ResNetOptions]) -> ResNet:
    """A network with fresh weights.

    Raises:
        UsageError: there is no such variant, or an option is out of its range.
    """
    plan = variant_named(variant)
    options.setdefault("groups", plan.groups)
    options.setdefault("width_per_group", plan.width_per_group)
    options.setdefault("width", plan.width)
    options.setdefault("stem", plan.stem)
    options.setdefault("shortcut", plan.shortcut)
    options.setdefault("num_classes", 10 if plan.width == WIDTH else 1000)
    try:
        return ResNet(plan.block, plan.layers, **options)
    except ValueError as error:
        raise UsageError(str(error)) from error


def of_texts() -> tuple[str, ...]:
    """Names of the networks that take tokens."""
    return tuple(name for name in SEQUENCES if name not in (WAVES, SPEAKER))


def of_sounds() -> tuple[str, ...]:
    """Names of the networks that take a spectrum of one channel, or samples."""
    return (*VARIANTS, WAVES, SPEAKER)


def assembled(variant: str, options: Mapping[str, Any]) -> Network:
    """A network with fresh weights, of images, sounds or texts; its options are those of model.json.

    Raises:
        UsageError: there is no such variant, or an option is unknown or out of its range.
    """
    if variant not in SEQUENCES:
        return build(variant, **options)
    try:
        return SEQUENCES[variant](**options)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{variant}: {error}") from error


def with_weights(
    variant: str, weights: str | Path | None, *, progress: bool = True, **options: Unpack[ResNetOptions]
) -> ResNet:
    """A network with the weights named, or fresh ones for None; says what was loaded.

    Raises:
        UsageError: as `build`, or the variant has no weights of this name.
        ModelError, NetworkError: the weights cannot be had, or are those of another architecture.
    """
    network = build(variant, **options)
    if weights is not None:
        state, source = known_weights(variant, weights, progress=progress)
        fit(network, state, source)
    return network


def with_head(backbone: ResNet, head: str, num_classes: int, options: Mapping[str, Any]) -> nn.Module:
    """A network that finds boxes or masks, around a backbone, which becomes part of it.

    Args:
        backbone: with whatever weights it has; its pooling and its classifier are not used.
        head: "fcos", "retinanet", "fasterrcnn" or "maskrcnn"; "unet", "fcn" or "deeplabv3".
        num_classes: K.
        options: of `nn.detection.Options` or `nn.segmentation.Options`.

    Raises:
        UsageError: there is no such head, or an option is out of its range.
    """
    from resnetkit.nn import detection, segmentation  # torchvision's networks take a second to import

    try:
        if head in detection.DETECTORS:
            return detection.detector(head, backbone, num_classes, detection.Options(**options))
        return segmentation.segmenter(head, backbone, num_classes, segmentation.Options(**options))
    except KeyError as error:
        known = ", ".join([*detection.DETECTORS, *segmentation.SEGMENTERS])
        raise UsageError(f"there is no head {head!r}", fix=f"one of {known}") from error
    except (ValueError, TypeError) as error:
        raise UsageError(f"{head}: {error}") from error


def grow(network: nn.Module, variant: str) -> ResNet:
    """A trained network as the start of a deeper variant (resnet18 -> resnet34, 50 -> 101 -> 152): the same logits.

    Raises:
        UsageError: there is no such variant, or the network cannot become one without losing what it knows.
    """
    plan = variant_named(variant)
    if not isinstance(network, ResNet):
        raise UsageError(f"a {type(network).__name__} cannot grow", fix="only residual networks can")
    first = network.layer1[0]
    conv = first.get_submodule("conv2")
    if type(first) is not plan.block:
        kind = type(first).__name__
        raise UsageError(f"a network of {kind} cannot grow into {variant}", fix="choose one of its kind")
    if isinstance(conv, nn.Conv2d) and (conv.groups, conv.out_channels) != plan.convolution:
        raise UsageError(f"a network of another width cannot grow into {variant}", fix="choose one of its kind")
    try:
        return deeper(network, plan.layers)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _build(variant: str, pretrained: bool, progress: bool, options: Options) -> ResNet:
    weights = options.pop("weights", None) or ("IMAGENET1K_V1" if pretrained else None)
    return with_weights(variant, weights, progress=progress, **options)  # type: ignore[misc]  # the weights are out


def resnet18(pretrained: bool = False, progress: bool = True, **options: Unpack[Options]) -> ResNet:
    """ResNet-18; `pretrained` loads IMAGENET1K_V1 (with a progress bar), `weights` names others."""
    return _build("resnet18", pretrained, progress, options)


def resnet34(pretrained: bool = False, progress: bool = True, **options: Unpack[Options]) -> ResNet:
    """ResNet-34; `pretrained` loads IMAGENET1K_V1 (with a progress bar), `weights` names others."""
    return _build("resnet34", pretrained, progress, options)


def resnet50(pretrained: bool = False, progress: bool = True, **options: Unpack[Options]) -> ResNet:
    """ResNet-50; `pretrained` loads IMAGENET1K_V1 (with a progress bar), `weights` names others."""
    return _build("resnet50", pretrained, progress, options)


def resnet101(pretrained: bool = False, progress: bool = True, **options: Unpack[Options]) -> ResNet:
    """ResNet-101; `pretrained` loads IMAGENET1K_V1 (with a progress bar), `weights` names others."""
    return _build("resnet101", pretrained, progress, options)


def resnet152(pretrained: bool = False, progress: bool = True, **options: Unpack[Options]) -> ResNet:
    """ResNet-152; `pretrained` loads IMAGENET1K_V1 (with a progress bar), `weights` names others."""
    return _build("resnet152", pretrained, progress, options)


def resnext50_32x4d(pretrained: bool = False, progress: bool = True, **options: Unpack[Options]) -> ResNet:
    """ResNeXt-50, 32 groups of width 4 (arXiv 1611.05431)."""
    return _build("resnext50_32x4d", pretrained, progress, options)


def resnext101_32x8d(pretrained: bool = False, progress: bool = True, **options: Unpack[Options]) -> ResNet:
    """ResNeXt-101, 32 groups of width 8 (arXiv 1611.05431)."""
    return _build("resnext101_32x8d", pretrained, progress, options)


def resnext101_64x4d(pretrained: bool = False, progress: bool = True, **options: Unpack[Options]) -> ResNet:
    """ResNeXt-101, 64 groups of width 4 (arXiv 1611.05431)."""
    return _build("resnext101_64x4d", pretrained, progress, options)


def wide_resnet50_2(pretrained: bool = False, progress: bool = True, **options: Unpack[Options]) -> ResNet:
    """Wide ResNet-50-2: the 3x3 convolutions twice as wide (arXiv 1605.07146)."""
    return _build("wide_resnet50_2", pretrained, progress, options)


def wide_resnet101_2(pretrained: bool = False, progress: bool = True, **options: Unpack[Options]) -> ResNet:
    """Wide ResNet-101-2: the 3x3 convolutions twice as wide (arXiv 1605.07146)."""
    return _build("wide_resnet101_2", pretrained, progress, options)


def resnet34d(pretrained: bool = False, progress: bool = True, **options: Unpack[Options]) -> ResNet:
    """ResNet-34-D (arXiv 1812.01187); torchvision has no weights for it, `weights` takes timm's."""
    return _build("resnet34d", pretrained, progress, options)


def resnet50d(pretrained: bool = False, progress: bool = True, **options: Unpack[Options]) -> ResNet:
    """ResNet-50-D (arXiv 1812.01187); torchvision has no weights for it, `weights` takes timm's."""
    return _build("resnet50d", pretrained, progress, options)


def resnet20(pretrained: bool = False, progress: bool = True, **options: Unpack[Options]) -> ResNet:
    """ResNet-20 for CIFAR (section 4.2 of the paper); there are no published weights, `weights` takes a file."""
    return _build("resnet20", pretrained, progress, options)


def resnet32(pretrained: bool = False, progress: bool = True, **options: Unpack[Options]) -> ResNet:
    """ResNet-32 for CIFAR (section 4.2 of the paper); there are no published weights, `weights` takes a file."""
    return _build("resnet32", pretrained, progress, options)


def resnet44(pretrained: bool = False, progress: bool = True, **options: Unpack[Options]) -> ResNet:
    """ResNet-44 for CIFAR (section 4.2 of the paper); there are no published weights, `weights` takes a file."""
    return _build("resnet44", pretrained, progress, options)


def resnet56(pretrained: bool = False, progress: bool = True, **options: Unpack[Options]) -> ResNet:
    """ResNet-56 for CIFAR (section 4.2 of the paper); there are no published weights, `weights` takes a file."""
    return _build("resnet56", pretrained, progress, options)


def resnet110(pretrained: bool = False, progress: bool = True, **options: Unpack[Options]) -> ResNet:
    """ResNet-110 for CIFAR (section 4.2 of the paper); there are no published weights, `weights` takes a file."""
    return _build("resnet110", pretrained, progress, options)
