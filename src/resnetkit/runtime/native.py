"""The backend of our own kernels: a graph in float32, with convolutions for a whole batch; no torch."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable
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
Layer = Callable[[list[NDArray[Any]], "Arrays"], NDArray[Any]]


@dataclass(frozen=True)
class Work:
    """A node of a graph with what is done of those after it: a convolution makes the sum that takes it alone.

    Attributes:
        name: of what it gives.
        sources: of what it takes; the second is added to what a convolution gives.
        node: the first of the nodes.
        relu: whether negative numbers become zero in the end.
    """

    name: str
    sources: tuple[str, ...]
    node: Node
    relu: bool = False


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
        self.free: dict[tuple[Shape, Any], list[NDArray[Any]]] = {}
        self.whole: dict[int, NDArray[Any]] = {}  # by where they lie in memory

    def take(self, shape: Shape, kind: Any = np.float32) -> NDArray[Any]:
        """One of a shape and a type, with anything in it."""
        found = self.free.get((shape[1:], np.dtype(kind)))
        array = found.pop() if found else layers.empty((self.rows, *shape[1:]), kind)
        self.whole[array.ctypes.data] = array
        return array[: shape[0]]

    def give(self, array: NDArray[Any]) -> None:
        """It is not needed any more."""
        whole = self.whole.pop(array.ctypes.data, None)
        if whole is not None:
            self.free.setdefault((whole.shape[1:], whole.dtype), []).append(whole)


class Network:
    """A graph that our kernels run; that of a whole network gives what a Backend does.

    Args:
        graph: the network.
        steps: what computes it.
        whole: it takes pixels [N, size, size, C]; else normalised images [N, C, H, W].
    """

    def __init__(self, graph: Graph, steps: Iterable[Step], whole: bool) -> None:
        self.outputs = graph.outputs
        self.whole = whole
        self.steps = list(steps)
        self.widths = widths_of(graph)
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
        values[step.name] = step.layer([values[name] for name in step.sources], self.arrays)
        for name in set(step.sources):
            if self.last[name] == step.name and name not in (INPUT, *self.outputs):
                self.arrays.give(values.pop(name))


def _plain(array: Floats, width: int) -> Floats:
    """A copy without the channels that were added: maps as [N, C, h, w]."""
    found = array[..., :width]
    return np.array(found if array.ndim == 2 else found.transpose(0, 3, 1, 2), order="C")


def widths_of(graph: Graph) -> dict[str, int]:
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


def works_of(graph: Graph) -> list[Work]:
    """What is to be done, in that order."""
    uses = Counter(source for node in graph.nodes for source in _sources(node))
    uses.update(graph.outputs)
    sums = {node.source for node in graph.nodes if isinstance(node, AddRelu) and uses[node.source] == 1}
    convolutions = {node.name: node for node in graph.nodes if isinstance(node, Conv)}
    inside = sums & convolutions.keys()
    return [_work(node, inside, convolutions) for node in graph.nodes if node.name not in inside]


def _work(node: Node, inside: set[str], convolutions: dict[str, Conv]) -> Work:
    if isinstance(node, AddRelu) and node.source in inside:
        conv = convolutions[node.source]
        return Work(node.name, (conv.source, node.other), conv, True)
    return Work(node.name, _sources(node), node, isinstance(node, Conv) and node.relu)


def _sources(node: Node) -> tuple[str, ...]:
    if isinstance(node, Mean):
        return node.sources
    return (node.source, node.other) if isinstance(node, AddRelu) else (node.source,)


def pixels_of(preprocess: Preprocess) -> Pixels:
    """How pixels are normalised, in the numbers of pixels."""
    mean = np.array(preprocess.mean, np.float32) * np.float32(255)
    return Pixels(mean, np.float32(1) / (np.array(preprocess.std, np.float32) * np.float32(255)))


def float_step(work: Work, workers: Workers, preprocess: Preprocess | None, widths: dict[str, int]) -> Step:
    """What computes a work in float32.

    Args:
        work: to do.
        workers: that do it.
        preprocess: how the first convolution normalises what it is given; None: it is normalised already.
        widths: channels of every node.

    Raises:
        ResourceError: there is no kernel for it.
    """
    node = work.node
    if isinstance(node, Conv):
        layer = _conv(work, node, workers, preprocess)
    elif isinstance(node, MaxPool | AveragePool):
        layer = _pool(node, workers)
    elif isinstance(node, AddRelu):
        layer = _add(workers)
    elif isinstance(node, Mean):
        layer = _mean(workers, [widths[source] for source in node.sources])
    elif isinstance(node, Linear):
        layer = _head(node, workers)
    else:
        raise ResourceError("our kernels take images, not sounds", fix="another --backend")
    return Step(work.name, work.sources, layer)


def _conv(work: Work, node: Conv, workers: Workers, preprocess: Preprocess | None) -> Layer:
    moves, first = Moves(node.stride, node.padding, node.dilation, node.groups), node.source == INPUT
    pixels = pixels_of(preprocess) if preprocess is not None and first else None
    layer = ConvLayer(workers, node.weight, node.bias, moves, relu=work.relu, pixels=pixels, exact=first)

    def run(given: list[NDArray[Any]], arrays: Arrays) -> Floats:
        x, residual = given[0], given[1] if len(given) > 1 else None
        return layer(x, residual, arrays.take(layer.shape(x.shape)))

    return run


def _pool(node: MaxPool | AveragePool, workers: Workers) -> Layer:
    if isinstance(node, MaxPool) and node.frames:
        raise ResourceError("our kernels take images, not spectra of sounds", fix="another --backend")
    pool = layers.max_pool if isinstance(node, MaxPool) else layers.mean_pool

    def halve(given: list[NDArray[Any]], arrays: Arrays) -> Floats:
        return pool(workers, given[0], arrays.take(halved(given[0].shape)))

    return halve


def halved(shape: Shape) -> Shape:
    """Of what a pool gives."""
    n, height, width, channels = shape
    return n, (height + 1) // 2, (width + 1) // 2, channels


def _add(workers: Workers) -> Layer:
    return lambda given, arrays: layers.add_relu(workers, given[0], given[1], arrays.take(given[0].shape))


def _mean(workers: Workers, widths: list[int]) -> Layer:
    return lambda given, arrays: _means(workers, given, widths)


def _head(node: Linear, workers: Workers) -> Layer:
    layer = ConvLayer(workers, node.weight[:, :, None, None], node.bias, exact=True)
    return lambda given, arrays: layer(given[0][:, None, None, :])[:, 0, 0, :]


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
    workers, widths = Workers(num_threads(), level), widths_of(graph)
    steps = [float_step(work, workers, preprocess, widths) for work in works_of(graph)]
    return Network(graph, steps, preprocess is not None)
