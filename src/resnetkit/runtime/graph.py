"""A network as a list of a few kinds of nodes, made from the tensors of a model folder; no torch.

What runs networks elsewhere (ONNX Runtime, OpenVINO, ncnn) is given this list. BatchNorm is folded into the convolution
before it (y = s (Wx) + b, s = gamma / sqrt(var + eps)), and the padding shortcut is a convolution with ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnetkit.checkpoint import Checkpoint
from resnetkit.errors import ModelError, UsageError
from resnetkit.ops.verification import SCALE
from resnetkit.runtime.choice import NO_GRAPH
from resnetkit.tasks.task import SOUND, TEXT, task_named

Floats = NDArray[np.float32]
EPS = 1e-5  # of every BatchNorm of the family
LEAST = 1e-12  # length of a vector that is divided by it
INPUT = "image"


@dataclass(frozen=True)
class Conv:
    """A convolution, and ReLU after it if `relu`: weight [out, in / groups, k, k], bias [out]."""

    name: str
    source: str
    weight: Floats
    bias: Floats
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1
    relu: bool = False


@dataclass(frozen=True)
class MaxPool:
    """The largest of 3 x 3, every second pixel; of a spectrum, where `frames`, of every second band in every frame."""

    name: str
    source: str
    frames: bool = False


@dataclass(frozen=True)
class AveragePool:
    """The mean of 2 x 2, of what there is of them at the border."""

    name: str
    source: str


@dataclass(frozen=True)
class AddRelu:
    """ReLU of the sum of two."""

    name: str
    source: str
    other: str


@dataclass(frozen=True)
class Mean:
    """The means of the maps of one or more nodes, side by side: [N, D]."""

    name: str
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Statistics:
    """The means over the last dimension, then the deviations: [N, C, h, w] to [N, 2 C h]."""

    name: str
    source: str


@dataclass(frozen=True)
class Unit:
    """Vectors [N, D] at length one."""

    name: str
    source: str


@dataclass(frozen=True)
class Linear:
    """Weight [K, D] and bias [K]."""

    name: str
    source: str
    weight: Floats
    bias: Floats


Node = Conv | MaxPool | AveragePool | AddRelu | Mean | Statistics | Unit | Linear


@dataclass(frozen=True)
class Graph:
    """Nodes in the order of the work, from `image` [N, channels, *shape] to what is asked for.

    Attributes:
        nodes: each has the names of those before it as sources.
        channels: of the input.
        size: height of the input, pixels or bands.
        outputs: names of nodes: `logits` [N, K], `embedding` [N, D], or one with maps [N, C, h, w].
        width: of the input; 0: as wide as high.
    """

    nodes: tuple[Node, ...]
    channels: int
    size: int
    outputs: tuple[str, ...] = ("logits", "embedding")
    width: int = 0

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the input."""
        return self.size, self.width or self.size


def graph_of(checkpoint: Checkpoint, end: str = "logits") -> Graph:
    """The network of a model folder, or the first part of it.

    Args:
        checkpoint: the network.
        end: "layer1" .. "layer4" for the maps of a stage, "embedding", or "logits" for these with the embedding.

    Raises:
        ModelError: the tensors are not those of a network of the family.
        UsageError: the network is not one of images or spectra.
    """
    options, meta = checkpoint.meta.options, checkpoint.meta
    modality = task_named(meta.task).modality
    if modality is TEXT or meta.variant in NO_GRAPH:
        what = f"{meta.variant}, a network of {modality.noun}, runs on torch only"
        raise UsageError(what, path=checkpoint.folder, fix="--backend torch, or export it to ONNX")
    try:
        tensors = {name: _float(array) for name, array in checkpoint.tensors.items()}
        nodes = tuple(_until(end, _nodes(tensors, checkpoint)))
        channels = int(options.get("in_channels", len(checkpoint.meta.preprocess["mean"])))
        outputs = Graph.outputs if end == "logits" else (nodes[-1].name,)
        if modality is SOUND:
            sound = modality.prepared(meta.preprocess, checkpoint.folder)
            return Graph(nodes, channels, sound.mels, outputs, sound.frames)
        return Graph(nodes, channels, int(meta.preprocess["size"]), outputs)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        what = f"its tensors are not those of a {checkpoint.meta.variant}: {error}"
        raise ModelError(what, path=checkpoint.folder, fix="train or save the model again") from error


def _float(array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(np.float32, copy=False) if array.dtype.kind == "f" else array


def _until(end: str, nodes: Iterable[Node]) -> Iterator[Node]:
    """The nodes up to the one of this name, or up to the last one of this stage."""
    inside = False
    for node in nodes:
        belongs = node.name == end or node.name.startswith(f"{end}_")
        if inside and not belongs:
            return
        inside = inside or belongs
        yield node
        if node.name == end:
            return


def _nodes(tensors: Mapping[str, NDArray[Any]], checkpoint: Checkpoint) -> Iterator[Node]:
    options = checkpoint.meta.options
    last = INPUT
    for node in _stem(tensors, options.get("stem") == "spectrum"):
        last = node.name
        yield node
    ends = []
    dilation, dilate = 1, [False, *options.get("replace_stride_with_dilation", (False, False, False))]
    plain = checkpoint.meta.variant.startswith("plain")
    for stage in range(1, 1 + max(int(name[5]) for name in tensors if name.startswith("layer"))):
        stride = 1 if stage == 1 else 2
        inside, dilation = dilation, dilation * (stride if dilate[stage - 1] else 1)
        stride = 1 if dilate[stage - 1] else stride
        prefix = f"layer{stage}."
        for block in range(1 + max(int(n.split(".")[1]) for n in tensors if n.startswith(prefix))):
            parts = _Block(tensors, f"{prefix}{block}", last, stride if block == 0 else 1, inside)
            for node in parts.nodes(plain):
                last = node.name
                yield node
            inside = dilation
        ends.append(last)
    if "seg_1.weight" in tensors:
        yield from _voices(tensors, last)
        return
    yield Mean("embedding", tuple(ends) if options.get("pool") == "all" else (last,))
    yield Linear("logits", "embedding", tensors["fc.weight"], tensors["fc.bias"])


def _voices(tensors: Mapping[str, NDArray[Any]], source: str) -> Iterator[Node]:
    """The head of `nn.speaker`: logits are scaled cosines with each speaker's vector."""
    yield Statistics("statistics", source)
    yield Linear("embedding", "statistics", tensors["seg_1.weight"], tensors["seg_1.bias"])
    yield Unit("direction", "embedding")
    speakers = tensors["fc.weight"].astype(np.float64)
    weight = SCALE * speakers / np.maximum(np.linalg.norm(speakers, axis=1, keepdims=True), LEAST)
    yield Linear("logits", "direction", weight.astype(np.float32), np.zeros(len(weight), np.float32))


def _folded(tensors: Mapping[str, NDArray[Any]], conv: str, norm: str) -> tuple[Floats, Floats]:
    """Weight and bias of a convolution with the BatchNorm after it; the scale is computed in float64."""
    weight = tensors[f"{conv}.weight"]
    gamma, beta, mean, var = (
        tensors[f"{norm}.{name}"].astype(np.float64) for name in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gamma / np.sqrt(var + EPS)
    return weight * scale.astype(np.float32)[:, None, None, None], (beta - mean * scale).astype(np.float32)


def _stem(tensors: Mapping[str, NDArray[Any]], frames: bool) -> Iterator[Node]:
    if "conv1.0.weight" in tensors:  # three of 3 x 3
        yield Conv("stem0", INPUT, *_folded(tensors, "conv1.0", "conv1.1"), stride=2, padding=1, relu=True)
        yield Conv("stem1", "stem0", *_folded(tensors, "conv1.3", "conv1.4"), padding=1, relu=True)
        yield Conv("stem2", "stem1", *_folded(tensors, "conv1.6", "bn1"), padding=1, relu=True)
        yield MaxPool("pool", "stem2")
        return
    weight, bias = _folded(tensors, "conv1", "bn1")
    if weight.shape[2] == 3:  # of small images
        yield Conv("stem", INPUT, weight, bias, padding=1, relu=True)
        return
    yield Conv("stem", INPUT, weight, bias, stride=2, padding=3, relu=True)
    yield MaxPool("pool", "stem", frames)


@dataclass(frozen=True)
class _Block:
    """A residual unit: its tensors' prefix, the node before it, its stride, and the dilation of its 3 x 3."""

    tensors: Mapping[str, NDArray[Any]]
    prefix: str
    source: str
    stride: int
    dilation: int

    def nodes(self, plain: bool) -> Iterator[Node]:
        """The branch, the shortcut and their sum; of a plain block the branch alone."""
        name = self.prefix.replace(".", "_")
        bottleneck = f"{self.prefix}.conv3.weight" in self.tensors
        first, second = self._conv("1"), self._conv("2")
        last = self._conv("3") if bottleneck else second
        if bottleneck:
            groups = first[0].shape[0] // second[0].shape[1]
            shape = {"stride": self.stride, "padding": self.dilation, "dilation": self.dilation, "groups": groups}
            yield Conv(f"{name}_1", self.source, *first, relu=True)
            yield Conv(f"{name}_2", f"{name}_1", *second, relu=True, **shape)
            yield Conv(f"{name}_3", f"{name}_2", *last)
        else:
            yield Conv(f"{name}_1", self.source, *first, stride=self.stride, padding=1, relu=True)
            yield Conv(f"{name}_2", f"{name}_1", *second, padding=1, relu=plain)
        if plain:
            return
        shortcut = self.source
        for node in self._shortcut(name, first[0].shape[1], last[0].shape[0]):
            shortcut = node.name
            yield node
        yield AddRelu(name, f"{name}_{3 if bottleneck else 2}", shortcut)

    def _conv(self, number: str) -> tuple[Floats, Floats]:
        return _folded(self.tensors, f"{self.prefix}.conv{number}", f"{self.prefix}.bn{number}")

    def _shortcut(self, name: str, inside: int, outside: int) -> Iterator[Node]:
        """Nothing for the identity; a convolution, after a mean of 2 x 2 in form D."""
        down = f"{self.prefix}.downsample"
        if f"{down}.0.weight" in self.tensors:
            yield Conv(f"{name}_s", self.source, *_folded(self.tensors, f"{down}.0", f"{down}.1"), stride=self.stride)
        elif f"{down}.1.weight" in self.tensors:
            source = self.source
            if self.stride == 2:
                source = f"{name}_p"
                yield AveragePool(source, self.source)
            yield Conv(f"{name}_s", source, *_folded(self.tensors, f"{down}.1", f"{down}.2"))
        elif self.stride > 1 or inside != outside:
            weight = np.eye(outside, inside, -((outside - inside) // 2), np.float32)[:, :, None, None]
            yield Conv(f"{name}_s", self.source, weight, np.zeros(outside, np.float32), stride=self.stride)
