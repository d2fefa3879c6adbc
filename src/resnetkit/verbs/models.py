"""models: which networks there are, what they cost, and what they are made of, counted on the networks themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import torch
from torch import nn

from resnetkit import models
from resnetkit.errors import UsageError
from resnetkit.files import write
from resnetkit.nn.cifar import WIDTH
from resnetkit.nn.resnet import ResNet
from resnetkit.weights.published import published

TERMS = "trained on ImageNet, whose terms are non-commercial research"
BYTES = 4  # of a float32


@dataclass(frozen=True)
class Summary:
    """One variant.

    Attributes:
        name: of the variant.
        size: height and width of the input that the costs are for, px.
        parameters: number of parameters.
        multiply_adds: of one image.
        weights_bytes: of the weights in float32.
        activation_bytes: of the largest input and output of a layer together, for one image in float32.
        accuracy: top-1 on ImageNet's validation images as published, 0..1, by the name of the weights.
        terms: of these weights; "" where there are none.
    """

    name: str
    size: int
    parameters: int
    multiply_adds: int
    weights_bytes: int
    activation_bytes: int
    accuracy: dict[str, float]
    terms: str


@dataclass(frozen=True)
class Stage:
    """A part of a network: its blocks, what comes out, and its share of the work.

    Attributes:
        name: stem, layer1, ..., fc.
        kernels: of a block's convolutions, as "3x3, 3x3", and how many blocks: 1 for stem and head.
        blocks: number of blocks.
        stride: by which it lowers the resolution.
        output: shape [C, H, W], or [K].
        parameters, multiply_adds: numbers.
        share: of the network's multiply-adds, 0..1.
    """

    name: str
    kernels: str
    blocks: int
    stride: int
    output: tuple[int, ...]
    parameters: int
    multiply_adds: int
    share: float


def list_models() -> list[Summary]:
    """All variants with their costs and published weights."""
    return [_summary(name) for name in models.VARIANTS]


def describe_model(name: str, size: int | None = None, svg: str | Path | None = None) -> list[Stage]:
    """The stages of a variant.

    Args:
        name: of the variant.
        size: height and width of the input, px; its usual one by default.
        svg: file for a drawing of them.

    Raises:
        UsageError: there is no such variant, or the size is too small.
        ResourceError: the drawing cannot be written.
    """
    size = size or usual_size(name)
    if not 8 <= size <= 4096:
        raise UsageError(f"size = {size}", fix="give 8 to 4096 pixels")
    stages = list(_stages(_on_paper(name), size))
    if svg is not None:
        write(Path(svg), drawing(f"{name}, {size} x {size}", stages))
    return stages


def usual_size(name: str) -> int:
    """Height and width in pixels of the images that a variant was made for."""
    return 32 if models.variant_named(name).width == WIDTH else 224


def _on_paper(name: str) -> ResNet:
    """The network without memory for its weights."""
    with torch.device("meta"):
        return models.build(name).eval()


def _summary(name: str) -> Summary:
    network, size = _on_paper(name), usual_size(name)
    layers = list(_layers(network, size))
    parameters = sum(p.numel() for p in network.parameters())
    accuracy = {weights.name: weights.accuracy["accuracy"] for weights in published(name).values()}
    largest = BYTES * max(before + after for _, _, before, after in layers)
    work = sum(count for _, count, _, _ in layers)
    return Summary(name, size, parameters, work, BYTES * parameters, largest, accuracy, TERMS if accuracy else "")


def _layers(network: ResNet, size: int) -> Iterator[tuple[str, int, int, int]]:
    """Name, multiply-adds, and numbers of input and output, of each convolution and the linear layer for one image."""
    found: list[tuple[str, int, int, int]] = []
    names = {module: name for name, module in network.named_modules()}

    def count(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        weight = module.get_parameter("weight")
        found.append((names[module], output.numel() * weight[0].numel(), inputs[0].numel(), output.numel()))

    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        network(torch.empty(1, network.in_channels, size, size, device="meta"))
    for hook in hooks:
        hook.remove()
    yield from found


def _stages(network: ResNet, size: int) -> Iterator[Stage]:
    work: dict[str, int] = {}
    for name, count, _, _ in _layers(network, size):
        owner = name.partition(".")[0]
        owner = "stem" if owner == "conv1" else owner
        work[owner] = work.get(owner, 0) + count
    images = torch.empty(1, network.in_channels, size, size, device="meta")
    features = network.forward_features(images)
    side, total = size, sum(work.values())
    parts: dict[str, nn.Module] = {"stem": nn.ModuleList([network.conv1, network.bn1])}
    parts |= {f"layer{i}": stage for i, stage in enumerate(network.stages.values(), 1)}
    shapes = [tuple(feature.shape[1:]) for feature in features.values()]
    stem = tuple(network.maxpool(network.conv1(images)).shape[1:])
    for (name, part), shape in zip(parts.items(), [stem, *shapes], strict=True):
        blocks = [part] if name == "stem" else list(part.children())
        parameters = sum(p.numel() for p in part.parameters())
        stride, side = max(1, round(side / shape[1])), shape[1]
        yield Stage(name, _kernels(blocks[0]), len(blocks), stride, shape, parameters, work[name], work[name] / total)
    fc = network.fc
    parameters = sum(p.numel() for p in fc.parameters())
    yield Stage("fc", "average, linear", 1, side, (fc.out_features,), parameters, work["fc"], work["fc"] / total)


def _kernels(block: nn.Module) -> str:
    convolutions = [m for n, m in block.named_modules() if isinstance(m, nn.Conv2d) and "downsample" not in n]
    return ", ".join(f"{conv.kernel_size[0]}x{conv.kernel_size[1]}" for conv in convolutions)


def summary_lines(summaries: Sequence[Summary]) -> Iterator[str]:
    """A table of variants."""
    yield "network             parameters  multiply-adds   at px  weights  largest layer  published: top-1 on ImageNet"
    for row in summaries:
        known = ", ".join(f"{weights} {100 * top1:.2f} %" for weights, top1 in row.accuracy.items()) or "-"
        yield (
            f"{row.name:17} {row.parameters:12,} {row.multiply_adds / 1e9:12.2f} G {row.size:7} "
            f"{row.weights_bytes / 1e6:5.0f} MB {row.activation_bytes / 1e6:11.1f} MB  {known}"
        )
    yield f"published weights: {TERMS}"


def stage_lines(stages: Sequence[Stage]) -> Iterator[str]:
    """A table of stages."""
    yield "stage   blocks  kernels          stride  output            parameters   multiply-adds  share"
    for stage in stages:
        output = " x ".join(map(str, stage.output))
        yield (
            f"{stage.name:7} {stage.blocks:6}  {stage.kernels:16} {stage.stride:6}  {output:16} "
            f"{stage.parameters:11,} {stage.multiply_adds:15,} {100 * stage.share:5.1f} %"
        )


def drawing(title: str, stages: Sequence[Stage]) -> str:
    """The stages as boxes from input to logits, an SVG for light and dark pages; heights follow the work."""
    top = max(stage.share for stage in stages)
    boxes = []
    for i, stage in enumerate(stages):
        height = 24 + 96 * stage.share / top
        x, y = 20 + 130 * i, 160 - height
        words = (
            stage.name,
            f"{stage.blocks} x [{stage.kernels}]" if stage.blocks > 1 else stage.kernels,
            " x ".join(str(n) for n in stage.output),
            f"{stage.parameters:,} parameters",
            f"{100 * stage.share:.0f} % of the work",
        )
        boxes.append(f'<rect x="{x}" y="{y:.0f}" width="110" height="{height:.0f}" rx="4"/>')
        boxes += [f'<text x="{x}" y="{180 + 16 * line}">{escape(word)}</text>' for line, word in enumerate(words)]
    width = 20 + 130 * len(stages)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} 260" role="img" aria-label="{escape(title)}">'
        "<style>text{font:11px sans-serif;fill:#222}rect{fill:#7aa6d8;stroke:#345}"
        "@media(prefers-color-scheme:dark){text{fill:#ddd}rect{fill:#3d6593;stroke:#9bd}}</style>"
        f'<text x="20" y="20">{escape(title)}</text>{"".join(boxes)}</svg>\n'
    )
