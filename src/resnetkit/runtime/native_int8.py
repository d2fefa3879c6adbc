"""The backend of our own kernels in int8: from the stem to the pooled features maps are levels of 8 bits; no torch.

A sum of a residual unit is made in float32 before it is rounded, so a unit rounds twice, or three times with a
projection. Pixels are levels as they are: the first convolution rounds its weights alone, in which normalising is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnetkit.data.image import Preprocess
from resnetkit.kernels import levels
from resnetkit.kernels.layers import Moves, Shape
from resnetkit.kernels.levels import After, LevelConv
from resnetkit.kernels.library import Workers
from resnetkit.ops.quantization import Quantization, scale_and_zero, weight_levels
from resnetkit.runtime.graph import INPUT, Conv, Graph, MaxPool
from resnetkit.runtime.native import Arrays, Network, Step, Work, float_step, halved, pixels_of, widths_of, works_of
from resnetkit.runtime.pipeline import num_threads

Ranges = Mapping[str, tuple[float, float]]
ROUNDED = " as levels"  # behind the name of an activation


@dataclass(frozen=True)
class Quantized:
    """A network of which some convolutions have weights of 8 bits.

    Attributes:
        graph: the weights of these convolutions are int8, those of the first one for pixels that are not normalised.
        scales: by their names, [filters]: weight = scale * level.
        ranges: name of an activation to its lowest and highest value.
    """

    graph: Graph
    scales: Mapping[str, NDArray[np.float32]]
    ranges: Ranges


def quantized(graph: Graph, quantization: Quantization | None, preprocess: Preprocess) -> Quantized:
    """A network with weights of 8 bits, but for those convolutions that stay float32 and those in groups.

    Args:
        graph: the network.
        quantization: ranges, and what stays float32; None: all does.
        preprocess: how pixels are normalised.
    """
    if quantization is None:
        return Quantized(graph, {}, {})
    scales: dict[str, NDArray[np.float32]] = {}
    nodes = []
    for node in graph.nodes:
        if isinstance(node, Conv) and node.name not in quantization.kept and node.groups == 1:
            channels = pixels_of(preprocess).scale[:, None, None] if node.source == INPUT else np.float32(1)
            rounded, scales[node.name] = weight_levels(node.weight * channels, quantization.most)
            node = replace(node, weight=rounded)  # type: ignore[arg-type]  # levels, which `scales` is for
        nodes.append(node)
    return Quantized(replace(graph, nodes=tuple(nodes)), scales, quantization.ranges)


def open_quantized(network: Quantized, preprocess: Preprocess, level: str = "") -> Network:
    """A network with the threads of this process.

    Args:
        network: it takes pixels.
        preprocess: how they are normalised.
        level: set of instructions; "" is the highest that this processor has.

    Raises:
        ValueError: there is no kernel for such a layer.
        ResourceError: the kernels were not compiled, or the processor has no such instructions.
    """
    plan = Plan(network, preprocess, Workers(num_threads(), level))
    return Network(network.graph, plan.steps(), True)


class Plan:
    """What is computed in which form: each layer gives floats if any that takes them needs them, and else levels.

    Args:
        network: it takes pixels.
        preprocess: how they are normalised.
        workers: threads and instructions.
    """

    def __init__(self, network: Quantized, preprocess: Preprocess, workers: Workers) -> None:
        self.scales, self.preprocess, self.workers = network.scales, preprocess, workers
        self.works = works_of(network.graph)
        self.widths = widths_of(network.graph)
        self.floats, self.levels = self._wanted(network.graph.outputs)
        self.ranges = dict(network.ranges)
        for work in self.works:
            if self._rounds(work) and isinstance(work.node, MaxPool):
                self.ranges[work.name] = self.ranges[work.node.source]  # their levels are the same

    def _wanted(self, outputs: Iterable[str]) -> tuple[set[str], set[str]]:
        """Names of what is needed as floats, and as levels, from the last layer to the first."""
        self.floats, self.levels = set(outputs), set()
        for work in reversed(self.works):
            (self.levels if self._rounds(work) else self.floats).update(work.sources)
        return self.floats, self.levels

    def _rounds(self, work: Work) -> bool:
        """Whether a layer takes levels."""
        if isinstance(work.node, MaxPool):
            return work.name not in self.floats
        return isinstance(work.node, Conv) and work.node.name in self.scales

    def steps(self) -> Iterator[Step]:
        """The layers in the order of the work, with conversions between them."""
        for work in self.works:
            whole = work.name in self.floats or not self._rounds(work)
            name = work.name if whole else work.name + ROUNDED
            if self._rounds(work):
                sources = tuple(source if source == INPUT else source + ROUNDED for source in work.sources)
                layer = self._pool if isinstance(work.node, MaxPool) else self._conv(work, whole)
                yield Step(name, sources, layer)
            else:
                yield float_step(work, self.workers, self.preprocess, self.widths)
            if whole and work.name in self.levels:
                yield self._conversion(work.name)

    def _conversion(self, name: str) -> Step:
        scale, zero = self._scale(name)

        def convert(given: list[NDArray[Any]], arrays: Arrays) -> NDArray[Any]:
            out = arrays.take(given[0].shape, np.uint8)
            return levels.to_levels(self.workers, given[0], scale, int(zero), out)

        return Step(name + ROUNDED, (name,), convert)

    def _pool(self, given: list[NDArray[Any]], arrays: Arrays) -> NDArray[Any]:
        return levels.max_levels(self.workers, given[0], arrays.take(halved(given[0].shape), np.uint8))

    def _conv(self, work: Work, whole: bool) -> Any:
        node = work.node
        assert isinstance(node, Conv)
        layer = self._layer(work, node, whole)
        kind = np.float32 if whole else np.uint8

        def run(given: list[NDArray[Any]], arrays: Arrays) -> NDArray[Any]:
            x, beside = given[0], given[1] if len(given) > 1 else None
            shape: Shape = layer.shape(x.shape)
            return layer(x, beside, arrays.take(shape, kind))

        return run

    def _layer(self, work: Work, node: Conv, whole: bool) -> LevelConv:
        """With what becomes of its sums told in levels of what it gives, all computed in float64."""
        scale, zeros = self._given(node)
        rounded: NDArray[Any] = node.weight
        each = scale * self.scales[node.name].astype(np.float64)
        bias = node.bias - each * np.einsum("kcij,c->k", rounded.astype(np.float64), zeros)
        step, zero = (1.0, 0.0) if whole else self._scale(work.name)
        share, besides = 0.0, 0.0
        if len(work.sources) > 1:
            other, level = self._scale(work.sources[1])
            share, besides = other / step, other * level / step
        bias = bias / step + zero - besides
        after = After(
            (each / step).astype(np.float32),
            bias.astype(np.float32),
            share,
            least=zero if work.relu else 0.0,
            relu=work.relu,
            floats=whole,
        )
        border = np.rint(zeros).clip(0, 255).astype(np.uint8)
        moves = Moves(node.stride, node.padding, node.dilation, node.groups)
        return LevelConv(self.workers, rounded, border, after, moves, exact=node.source == INPUT)

    def _given(self, node: Conv) -> tuple[float, NDArray[np.float64]]:
        """The scale of what a convolution takes, and the levels of zero [channels]: of pixels, those of the mean."""
        if node.source == INPUT:
            return 1.0, pixels_of(self.preprocess).mean.astype(np.float64)
        scale, zero = self._scale(node.source)
        return scale, np.full(node.weight.shape[1], zero)

    def _scale(self, name: str) -> tuple[float, float]:
        """Of an activation, and the level of its zero."""
        scale, zero = scale_and_zero(*self.ranges[name])
        return float(scale), float(zero)
