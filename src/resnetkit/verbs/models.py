"""models: which networks there are, what they cost, and what they are made of, counted on the networks themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from resnetkit import models
from resnetkit.errors import UsageError
from resnetkit.files import write
from resnetkit.nn.cifar import WIDTH
from resnetkit.nn.resnet import ResNet
from resnetkit.nn.speaker import CosineHead
from resnetkit.weights.published import published

TERMS = "trained on ImageNet, whose terms are non-commercial research"
BYTES = 4  # of a float32
COUNTED = nn.Conv1d | nn.Conv2d | nn.Linear | CosineHead


@dataclass(frozen=True)
class Summary:
    """One variant.

    Attributes:
        name: of the variant.
        size: height and width of the input that the costs are for, px; 0 where it is no image.
        input: that input in words, "224 px".
        parameters: number of parameters.
        multiply_adds: of one input.
        weights_bytes: of the weights in float32.
        activation_bytes: of the largest input and output of a layer together, for one input in float32.
        accuracy: top-1 on ImageNet's validation images as published, 0..1, by the name of the weights.
        terms: of these weights; "" where there are none.
    """

    name: str
    size: int
    input: str
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
        output: shape [C, H, W], of texts and samples [C, L], or [K].
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


@dataclass(frozen=True)
class Example:
    """What a network of texts or sounds is counted on: options, the shape of its input, and that in words."""

    options: Mapping[str, Any]
    shape: tuple[int, ...]
    input: str


DEEP = Example({"num_classes": 2, "hidden": 0}, (1, 1_024), "1,024 bytes")
EXAMPLES = {
    models.WORDS: Example({"num_classes": 2, "num_tokens": 20_000}, (1, 64), "64 words"),
    **{name: DEEP for name in models.SEQUENCES if name.startswith("vdcnn")},
    models.WAVES: Example({"num_classes": 10}, (1, 1, 16_000), "16,000 samples"),
    models.SPEAKER: Example({"num_classes": 1_000, "mels": 64}, (1, 1, 64, 98), "1 s of 64 bands"),
}


def list_models() -> list[Summary]:
    """All variants with their costs and published weights: those of images, then those of texts and sounds."""
    return [_summary(name) for name in (*models.VARIANTS, *EXAMPLES)]


def describe_model(name: str, size: int | None = None, svg: str | Path | None = None) -> list[Stage]:
    """The stages of a variant.

    Args:
        name: of the variant.
        size: height and width of the input, px; its usual one by default, and always of networks of texts and sounds.
        svg: file for a drawing of them.

    Raises:
        UsageError: there is no such variant, or the size is too small.
        ResourceError: the drawing cannot be written.
    """
    if name in EXAMPLES:
        if size is not None:
            raise UsageError(f"{name} takes {EXAMPLES[name].input}, no images", fix="leave --size out")
        network, inputs = _on_paper(name)
        stages, told = list(_stages_in_a_row(network, inputs)), EXAMPLES[name].input
    else:
        size = size or usual_size(name)
        if not 8 <= size <= 4096:
            raise UsageError(f"size = {size}", fix="give 8 to 4096 pixels")
        network, _ = _on_paper(name)
        assert isinstance(network, ResNet)
        stages, told = list(_stages(network, size)), f"{size} x {size}"
    if svg is not None:
        write(Path(svg), drawing(f"{name}, {told}", stages))
    return stages


def usual_size(name: str) -> int:
    """Height and width in pixels of the images that a variant was made for."""
    return 32 if models.variant_named(name).width == WIDTH else 224


def _on_paper(name: str) -> tuple[models.Network, Tensor]:
    """The network without memory for its weights, and an input of its usual size."""
    with torch.device("meta"):
        if name not in EXAMPLES:
            network, size = models.build(name).eval(), usual_size(name)
            return network, torch.empty(1, network.in_channels, size, size)
        example = EXAMPLES[name]
        kind = torch.long if len(example.shape) == 2 else torch.float32
        return models.assembled(name, example.options).eval(), torch.empty(example.shape, dtype=kind)


def _summary(name: str) -> Summary:
    network, inputs = _on_paper(name)
    size = 0 if name in EXAMPLES else usual_size(name)
    layers = list(_layers(network, inputs))
    parameters = sum(p.numel() for p in network.parameters())
    known = {} if name in EXAMPLES else published(name)
    accuracy = {weights.name: weights.accuracy["accuracy"] for weights in known.values()}
    largest = BYTES * max(before + after for _, _, before, after in layers)
    work = sum(count for _, count, _, _ in layers)
    told = size, f"{size} px" if size else EXAMPLES[name].input
    return Summary(name, *told, parameters, work, BYTES * parameters, largest, accuracy, TERMS if accuracy else "")


def _layers(network: nn.Module, inputs: Tensor) -> Iterator[tuple[str, int, int, int]]:
    """Name, multiply-adds, and numbers of input and output, of each convolution and linear layer for one input."""
    found: list[tuple[str, int, int, int]] = []
    names = {module: name for name, module in network.named_modules()}

    def count(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        weight = module.get_parameter("weight")
        found.append((names[module], output.numel() * weight[0].numel(), inputs[0].numel(), output.numel()))

    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, COUNTED)]
    with torch.no_grad():
        network(inputs)
    for hook in hooks:
        hook.remove()
    yield from found


def _stages(network: ResNet, size: int) -> Iterator[Stage]:
    images = torch.empty(1, network.in_channels, size, size, device="meta")
    work = _work(network, images)
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


def _work(network: nn.Module, inputs: Tensor) -> dict[str, int]:
    """Multiply-adds of the stem, each stage and each layer of the head."""
    work: dict[str, int] = {}
    for name, count, _, _ in _layers(network, inputs):
        owner = name.partition(".")[0]
        owner = "stem" if owner == "conv1" else owner
        work[owner] = work.get(owner, 0) + count
    return work


def _stages_in_a_row(network: models.Network, inputs: Tensor) -> Iterator[Stage]:
    """Those of a network of texts, samples or voices; what its head has is one stage."""
    work, parts = _work(network, inputs), dict(network.named_children())
    features = network.forward_features(inputs)
    total, logits = sum(work.values()), network.forward_head(features)[1]
    stages = [name for name in parts if name.startswith("layer")]
    outputs = {name: tuple(features[f"C{number}"].shape[1:]) for number, name in enumerate(stages, 2)}
    stem = [parts[name] for name in ("embedding", "conv1", "bn1") if name in parts]
    length = inputs.shape[-1]
    for name in ("stem", *stages):
        blocks = stem if name == "stem" else list(parts[name].children())
        shape = outputs.get(name, outputs[stages[0]])
        stride, length = max(1, round(length / shape[-1])), shape[-1]
        kernels = _kernels(nn.ModuleList(stem) if name == "stem" else blocks[0])
        count = sum(p.numel() for block in blocks for p in block.parameters())
        number = 1 if name == "stem" else len(blocks)
        yield Stage(name, kernels, number, stride, shape, count, work[name], work[name] / total)
    rest = [part for name, part in parts.items() if name not in stages and part not in stem]
    count, adds = (
        sum(p.numel() for part in rest for p in part.parameters()),
        sum(work[n] for n in work if n not in (*stages, "stem")),
    )
    yield Stage("fc", "pooling, linear", 1, length, tuple(logits.shape[1:]), count, adds, adds / total)


def _kernels(block: nn.Module) -> str:
    kinds = nn.Conv1d | nn.Conv2d
    convolutions = [m for n, m in block.named_modules() if isinstance(m, kinds) and "downsample" not in n]
    return ", ".join("x".join(map(str, conv.kernel_size)) for conv in convolutions)


def summary_lines(summaries: Sequence[Summary]) -> Iterator[str]:
    """A table of variants."""
    head = "network             parameters  multiply-adds               at  weights  largest layer"
    yield f"{head}  published: top-1 on ImageNet"
    for row in summaries:
        known = ", ".join(f"{weights} {100 * top1:.2f} %" for weights, top1 in row.accuracy.items()) or "-"
        yield (
            f"{row.name:17} {row.parameters:12,} {row.multiply_adds / 1e9:12.2f} G {row.input:>16} "
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
