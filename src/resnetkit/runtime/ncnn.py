"""A graph as ncnn's two files: layers as text, weights as bytes; ncnn itself is not needed to write them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from resnetkit.errors import ResourceError
from resnetkit.runtime.graph import INPUT, AddRelu, AveragePool, Conv, Graph, Linear, MaxPool, Mean, Node

MAGIC = 7767517  # of the text
RAW = b"\0\0\0\0"  # before a weight: float32, as it is


@dataclass(frozen=True)
class Layer:
    """A line of the text: kind, name, what it takes, what it gives, its numbered parameters, and its weights."""

    kind: str
    name: str
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    parameters: tuple[tuple[int, int], ...] = ()
    weights: bytes = b""

    def line(self) -> str:
        """As it stands in the file."""
        counts = f"{len(self.sources)} {len(self.targets)}"
        numbered = " ".join(f"{key}={value}" for key, value in self.parameters)
        return " ".join((f"{self.kind:20} {self.name:20} {counts}", *self.sources, *self.targets, numbered)).rstrip()


def ncnn_files(graph: Graph) -> tuple[str, bytes]:
    """The .param and the .bin, from `image` [C, size, size] to the graph's outputs, named by `blobs_of`."""
    layers = [_input(graph), *(x for node in graph.nodes for x in _layers(node))]
    layers = list(_split(layers, graph.outputs))
    blobs = sum(len(layer.targets) for layer in layers)
    lines = [str(MAGIC), f"{len(layers)} {blobs}", *(layer.line() for layer in layers)]
    return "\n".join(lines) + "\n", b"".join(layer.weights for layer in layers)


def blobs_of(graph: Graph) -> tuple[str, ...]:
    """What the graph's outputs are called: `logits`, and `embedding_2of2`, whose first half goes into the logits."""
    uses = Counter(source for node in graph.nodes for layer in _layers(node) for source in layer.sources)
    return tuple(f"{name}_{uses[name] + 1}of{uses[name] + 1}" if uses[name] else name for name in graph.outputs)


def _input(graph: Graph) -> Layer:
    """With width, height and channels, which ncnn itself does not compare with what it is given."""
    return Layer("Input", INPUT, (), (INPUT,), ((0, graph.shape[1]), (1, graph.shape[0]), (2, graph.channels)))


def _layers(node: Node) -> Iterator[Layer]:
    if isinstance(node, Conv):
        yield _conv(node)
    elif isinstance(node, MaxPool):
        how = ((0, 0), (1, 3), (2, 1 if node.frames else 2), (3, 1), (5, 1), (12, 2))  # 12: its step from band to band
        yield Layer("Pooling", node.name, (node.source,), (node.name,), how)
    elif isinstance(node, AveragePool):
        yield Layer("Pooling", node.name, (node.source,), (node.name,), ((0, 1), (1, 2), (2, 2), (5, 0), (6, 0)))
    elif isinstance(node, AddRelu):
        yield Layer("BinaryOp", f"{node.name}_sum", (node.source, node.other), (f"{node.name}_sum",), ((0, 0),))
        yield Layer("ReLU", node.name, (f"{node.name}_sum",), (node.name,))
    elif isinstance(node, Mean):
        means = tuple(f"mean{i}" for i in range(len(node.sources)))
        for source, mean in zip(node.sources, means, strict=True):
            yield Layer("Pooling", mean, (source,), (mean,), ((0, 1), (4, 1)))
        yield Layer("Concat", node.name, means, (node.name,), ((0, 0),))
    elif isinstance(node, Linear):
        yield _linear(node)
    else:
        raise ResourceError("ncnn has no layers for voices", fix="another --backend")


def _conv(node: Conv) -> Layer:
    out, _, kernel, _ = node.weight.shape
    sizes = ((0, out), (1, kernel), (2, node.dilation), (3, node.stride), (4, node.padding))
    rest = ((5, 1), (6, node.weight.size), *(((7, node.groups),) if node.groups > 1 else ()), (9, int(node.relu)))
    kind = "ConvolutionDepthWise" if node.groups > 1 else "Convolution"
    return Layer(kind, node.name, (node.source,), (node.name,), (*sizes, *rest), _bytes(node))


def _linear(node: Linear) -> Layer:
    sizes = ((0, len(node.bias)), (1, 1), (2, node.weight.size))
    return Layer("InnerProduct", node.name, (node.source,), (node.name,), sizes, _bytes(node))


def _bytes(node: Conv | Linear) -> bytes:
    return RAW + node.weight.astype("<f4").tobytes() + node.bias.astype("<f4").tobytes()


def _split(layers: list[Layer], outputs: tuple[str, ...]) -> Iterator[Layer]:
    """With a Split after what several layers take, as ncnn gives each of its blobs to one layer only."""
    uses = Counter(source for layer in layers for source in layer.sources)
    uses.update(outputs)
    taken: Counter[str] = Counter()

    def own(source: str) -> str:
        taken[source] += 1
        return f"{source}_{taken[source]}of{uses[source]}" if uses[source] > 1 else source

    for layer in layers:
        yield Layer(
            layer.kind, layer.name, tuple(map(own, layer.sources)), layer.targets, layer.parameters, layer.weights
        )
        for name in layer.targets:
            if uses[name] > 1:
                yield Layer(
                    "Split", f"split_{name}", (name,), tuple(f"{name}_{i + 1}of{uses[name]}" for i in range(uses[name]))
                )
