"""Which ranges a network's activations have, and which of its convolutions bear int8 the least; by torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from resnetkit.data.image import Pixels
from resnetkit.ops.quantization import REDUCED, WHOLE, Quantization, scale_and_zero, weight_levels
from resnetkit.runtime.graph import INPUT, AddRelu, AveragePool, Conv, Graph, Linear, MaxPool, Mean, Node
from resnetkit.runtime.machine import CPUINFO, instructions, text_of

if TYPE_CHECKING:
    from torch import Tensor

BATCH = 8  # images at once: all their activations are held
ENOUGH = ("avx512_vnni", "avx_vnni", "amx_int8", "neon")  # their products of bytes are added in 32 bits
Floats = NDArray[np.float32]
Advance = Callable[[int], None]


def largest_level(found: tuple[str, ...] | None) -> int:
    """Of weights, for a processor with these sets of instructions: larger ones would overflow without VNNI."""
    return REDUCED if found is not None and not set(found) & set(ENOUGH) else WHOLE


def quantization_for(
    graph: Graph, pixels: Pixels, normalise: Callable[[Pixels], Floats], advance: Advance
) -> Quantization:
    """Ranges for this machine's processor: the lowest and the highest value that any image has.

    Means over the images of each one's extremes, as NNCF takes them, moved the logits of a fine-tuned ResNet-34 over
    twice as far, and ranges of the least square error hardly less.

    Args:
        graph: the network.
        pixels: images like those that it will see [N, size, size, C].
        normalise: what makes the network's input of them.
        advance: called with the number of images done.
    """
    ranges: dict[str, tuple[float, float]] = {}
    for start in range(0, len(pixels), BATCH):
        part = pixels[start : start + BATCH]
        for name, values in _activations(graph, normalise(part)).items():
            low, high = ranges.get(name, (0.0, 0.0))
            ranges[name] = min(low, float(values.min())), max(high, float(values.max()))
        advance(start + len(part))
    return Quantization(ranges, largest_level(instructions(text_of(CPUINFO))))


def least_tolerant(graph: Graph, images: Floats, quantization: Quantization) -> list[str]:
    """Names of the convolutions, first the one that moves the logits most if it alone is computed in int8.

    Args:
        graph: the network.
        images: normalised [N, C, size, size].
        quantization: the ranges.
    """
    expected = _activations(graph, images)["logits"]
    moved: dict[str, float] = {}
    for node in (node for node in graph.nodes if isinstance(node, Conv)):
        found = _activations(graph, images, (node.name, quantization))["logits"]
        moved[node.name] = float((found - expected).square().mean())
    return sorted(moved, key=moved.__getitem__, reverse=True)


def _activations(graph: Graph, images: Floats, rounded: tuple[str, Quantization] | None = None) -> dict[str, Tensor]:
    """What every node gives for a batch; one convolution as it would be in int8, if named."""
    import torch

    found = {INPUT: torch.from_numpy(images)}
    with torch.inference_mode():
        for node in graph.nodes:
            if isinstance(node, Conv) and rounded is not None and node.name == rounded[0]:
                found[node.name] = _rounded(node, found[node.source], rounded[1])
            else:
                found[node.name] = _value(node, found)
    return found


def _value(node: Node, found: dict[str, Any]) -> Any:
    import torch
    import torch.nn.functional as F

    if isinstance(node, Conv):
        return _convolved(node, found[node.source], torch.from_numpy(node.weight))
    if isinstance(node, MaxPool):
        return F.max_pool2d(found[node.source], 3, 2, 1)
    if isinstance(node, AveragePool):
        return F.avg_pool2d(found[node.source], 2, 2, ceil_mode=True, count_include_pad=False)
    if isinstance(node, AddRelu):
        return (found[node.source] + found[node.other]).relu()
    if isinstance(node, Mean):
        return torch.cat([found[source].mean((2, 3)) for source in node.sources], 1)
    assert isinstance(node, Linear)
    return F.linear(found[node.source], torch.from_numpy(node.weight), torch.from_numpy(node.bias))


def _convolved(node: Conv, source: Any, weight: Any) -> Any:
    import torch
    import torch.nn.functional as F

    how = (node.stride, node.padding, node.dilation, node.groups)
    out = F.conv2d(source, weight, torch.from_numpy(node.bias), *how)
    return out.relu() if node.relu else out


def _rounded(node: Conv, source: Any, quantization: Quantization) -> Any:
    import torch

    scale, zero = scale_and_zero(*quantization.ranges[node.source])
    levels, scales = weight_levels(node.weight, quantization.most)
    weight = levels * scales[:, None, None, None]
    near = torch.fake_quantize_per_tensor_affine(source, float(scale), int(zero), 0, 255)
    return _convolved(node, near, torch.from_numpy(weight))
