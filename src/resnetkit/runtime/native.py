"""The backend of our own kernels: a graph in float32, with convolutions for a whole batch; no torch."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnetkit.data.image import Preprocess
from resnetkit.errors import ResourceError
from resnetkit.kernels import layers
from resnetkit.kernels.layers import ConvLayer, Floats, Moves, Pixels, Shape
from resnetkit.kernels.library import Workers
from resnetkit.runtime.graph import INPUT, AddRelu, AveragePool, Conv, Graph, Linear, MaxPool, Mean, Node
from resnetkit.runtime.pipeline import num_threads

MOST = 64  # images at a time, so that memory does not grow with the batch
Make = Callable[[Shape], Floats]  # an array of a shape, to write to
Layer = Callable[[list[NDArray[Any]], Make], Floats]


@dataclass(frozen=True)
class Step:
    """A layer: the name of what it gives, the names of what it takes, and what computes it."""

    name: str
    sources: tuple[str, ...]
    layer: Layer


class Arrays:
    """Arrays that are written to again when what is in them has been used.

    Each has as many rows as the largest batch so far, and a smaller one uses the first of them: memory that is touched
    for the first time is slow, and the groups that a server answers are of all sizes.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.free: dict[Shape, list[Floats]] = {}
        self.whole: dict[int, Floats] = {}  # by where they lie in memory

    def take(self, shape: Shape) -> Floats:
        """One of a shape, with anything in it."""
        found = self.free.get(shape[1:])
        array = found.pop() if found else layers.empty((self.rows, *shape[1:]))
        self.whole[array.ctypes.data] = array
        return array[: shape[0]]

    def give(self, array: NDArray[Any]) -> None:
        """It is not needed any more."""
        whole = self.whole.pop(array.ctypes.data, None)
        if whole is not None:
            self.free.setdefault(whole.shape[1:], []).append(whole)


class Network:
    """A graph that our kernels run; that of a whole network gives what a Backend does.

    Args:
        graph: the network.
        preprocess: how it normalises pixels; None: it takes normalised images [N, C, H, W].
        workers: threads and instructions.
    """

    def __init__(self, graph: Graph, preprocess: Preprocess | None, workers: Workers) -> None:
        self.outputs = graph.outputs
        self.whole = preprocess is not None
        self.steps = list(_steps(graph, preprocess, workers))
        self.widths = _widths(graph)
        self.last = {source: step.name for step in self.steps for source in step.sources}
        self.arrays = Arrays(0)
        self.alone = threading.Lock()  # the arrays are one call's

    def __call__(self, batch: NDArray[Any]) -> tuple[Floats, ...]:
        """The outputs of a batch of pixels [N, size, size, C], or of normalised images [N, C, H, W]."""
        with self.alone:
            parts = [self._run(batch[start : start + MOST]) for start in range(0, len(batch), MOST)]
        return tuple(map(np.concatenate, zip(*parts, strict=True)))

    def _run(self, batch: NDArray[Any]) -> tuple[Floats, ...]:
        if len(batch) > self.arrays.rows:
            self.arrays = Arrays(len(batch))
        given = batch if self.whole else batch.transpose(0, 2, 3, 1)
        values: dict[str, NDArray[Any]] = {INPUT: np.ascontiguousarray(given)}
        try:
            for step in self.steps:
                self._step(step, values)
            return tuple(_plain(values[name], self.widths[name]) for name in self.outputs)
        finally:
            for value in values.values():
                self.arrays.give(value)

    def _step(self, step: Step, values: dict[str, NDArray[Any]]) -> None:
        """Add what a layer gives to the values, and take away what nobody needs any more."""
        values[step.name] = step.layer([values[name] for name in step.sources], self.arrays.take)
        for name in set(step.sources):
            if self.last[name] == step.name and name not in (INPUT, *self.outputs):
                self.arrays.give(values.pop(name))


def _plain(array: Floats, width: int) -> Floats:
    """A copy without the channels that were added: maps as [N, C, h, w]."""
    found = array[..., :width]
    return np.array(found if array.ndim == 2 else found.transpose(0, 3, 1, 2), order="C")


def _widths(graph: Graph) -> dict[str, int]:
    """Channels of every node."""
    found = {INPUT: graph.channels}
    for node in graph.nodes:
        if isinstance(node, Conv | Linear):
            found[node.name] = len(node.bias)
        elif isinstance(node, Mean):
            found[node.name] = sum(found[source] for source in node.sources)
        else:
            found[node.name] = found[node.source]
    return found


def _steps(graph: Graph, preprocess: Preprocess | None, workers: Workers) -> Iterator[Step]:
    """The layers in the order of the work; a sum is made by the convolution before it."""
    uses = Counter(source for node in graph.nodes for source in _sources(node))
    uses.update(graph.outputs)
    sums = {node.source for node in graph.nodes if isinstance(node, AddRelu) and uses[node.source] == 1}
    convolutions = {node.name: node for node in graph.nodes if isinstance(node, Conv)}
    widths = _widths(graph)
    for node in graph.nodes:
        if isinstance(node, Conv):
            if node.name not in sums:
                yield Step(node.name, (node.source,), _conv(node, workers, _ends(node, preprocess), node.relu))
        elif isinstance(node, AddRelu) and node.source in sums & convolutions.keys():
            conv = convolutions[node.source]
            yield Step(node.name, (conv.source, node.other), _conv(conv, workers, _ends(conv, preprocess), True))
        else:
            yield Step(node.name, _sources(node), _other(node, workers, widths))


def _sources(node: Node) -> tuple[str, ...]:
    if isinstance(node, Mean):
        return node.sources
    return (node.source, node.other) if isinstance(node, AddRelu) else (node.source,)


def _ends(node: Conv, preprocess: Preprocess | None) -> Pixels | None:
    """How the first convolution normalises what it is given; None for the others."""
    if preprocess is None or node.source != INPUT:
        return None
    mean = np.array(preprocess.mean, np.float32) * np.float32(255)
    return Pixels(mean, np.float32(1) / (np.array(preprocess.std, np.float32) * np.float32(255)))


def _conv(node: Conv, workers: Workers, pixels: Pixels | None, relu: bool) -> Layer:
    moves, exact = Moves(node.stride, node.padding, node.dilation, node.groups), node.source == INPUT
    layer = ConvLayer(workers, node.weight, node.bias, moves, relu=relu, pixels=pixels, exact=exact)

    def run(given: list[NDArray[Any]], make: Make) -> Floats:
        x, residual = given[0], given[1] if len(given) > 1 else None
        return layer(x, residual, make(layer.shape(x.shape)))

    return run


def _other(node: Node, workers: Workers, widths: dict[str, int]) -> Layer:
    if isinstance(node, MaxPool) and node.frames:
        raise ResourceError("our kernels take images, not spectra of sounds", fix="another --backend")
    if isinstance(node, MaxPool | AveragePool):
        pool = layers.max_pool if isinstance(node, MaxPool) else layers.mean_pool

        def halve(given: list[NDArray[Any]], make: Make) -> Floats:
            n, height, width, channels = given[0].shape
            return pool(workers, given[0], make((n, (height + 1) // 2, (width + 1) // 2, channels)))

        return halve
    if isinstance(node, AddRelu):
        return lambda given, make: layers.add_relu(workers, given[0], given[1], make(given[0].shape))
    if isinstance(node, Mean):
        return lambda given, make: _means(workers, given, [widths[source] for source in node.sources])
    assert isinstance(node, Linear)
    head = ConvLayer(workers, node.weight[:, :, None, None], node.bias, exact=True)
    return lambda given, make: head(given[0][:, None, None, :])[:, 0, 0, :]


def _means(workers: Workers, given: list[NDArray[Any]], widths: list[int]) -> Floats:
    """Side by side, without the channels that were added."""
    found = [layers.mean(workers, each)[:, :width] for each, width in zip(given, widths, strict=True)]
    return np.ascontiguousarray(np.concatenate(found, axis=1))


def open_network(graph: Graph, preprocess: Preprocess | None = None, level: str = "") -> Network:
    """A graph with the threads of this process.

    Args:
        graph: the network.
        preprocess: how it normalises pixels; None: it takes normalised images.
        level: set of instructions; "" is the highest that this processor has.

    Raises:
        ResourceError: the kernels were not compiled, or the processor has no such instructions.
    """
    return Network(graph, preprocess, Workers(num_threads(), level))
