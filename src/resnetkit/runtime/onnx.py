"""A graph as an ONNX model: one file, a batch of any size, the graph's outputs under their names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from resnetkit.data.audio import QUIET_FRAME, AudioPreprocess
from resnetkit.data.image import Preprocess
from resnetkit.data.tokens import TextPreprocess
from resnetkit.ops.quantization import Quantization, scale_and_zero, weight_levels
from resnetkit.ops.spectrum import bank, projection
from resnetkit.ops.verification import EPSILON
from resnetkit.runtime.graph import (
    INPUT,
    LEAST,
    AddRelu,
    AveragePool,
    Conv,
    Graph,
    Linear,
    MaxPool,
    Mean,
    Node,
    Statistics,
    Unit,
)
from resnetkit.runtime.sheet import BATCH, PIXELS, SAMPLES, SCORES, TOKENS, Shape, Sheet

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Ends:
    """What lies before and behind the network, to be in the model.

    Attributes:
        preprocess: how pixels are normalised, or samples become a spectrum.
        temperature: what logits are divided by.
        several: each label has a score of its own; else the scores of all classes make one.
    """

    preprocess: Preprocess | AudioPreprocess
    temperature: float = 1.0
    several: bool = False


def onnx_model(graph: Graph, ends: Ends | None = None, quantization: Quantization | None = None) -> onnx.ModelProto:
    """The model: `image` float32 [batch, C, height, width] to the outputs of the graph, float32 too.

    Args:
        graph: the network.
        ends: normalising and scores, to have both in the model: then it takes `pixels` uint8 [batch, size, size, C],
            or `samples` int16 [batch, n], and also gives `scores`, the softmax or sigmoid of the calibrated logits.
        quantization: of convolutions in int8, as pairs of QuantizeLinear and DequantizeLinear, which engines take
            for what they are; the head stays float32.

    Raises:
        ResourceError: the package onnx is not installed.
    """
    writer = _Writer(quantization)
    given: tuple[str, str, Shape]
    if ends is None:
        given = INPUT, "FLOAT", (BATCH, graph.channels, *graph.shape)
    elif isinstance(ends.preprocess, AudioPreprocess):
        given = SAMPLES, "INT16", (BATCH, *ends.preprocess.shape)
        writer.spectrum(ends.preprocess)
    else:
        given = PIXELS, "UINT8", (BATCH, *ends.preprocess.shape)
        writer.normalise(ends.preprocess)
    for node in graph.nodes:
        writer.add(node)
    found = {name: _shape(graph, name) for name in graph.outputs}
    if ends is not None:
        writer.scores(ends.temperature, ends.several)
        found = {SCORES: found["logits"], **found}
    return writer.model(given, found)


def _shape(graph: Graph, name: str) -> Shape:
    """Of an output, as far as it is known: maps have four dimensions."""
    if name not in Graph.outputs:
        return (BATCH, None, None, None)
    layers = (node.weight.shape for node in graph.nodes if isinstance(node, Linear) and node.name == Graph.outputs[0])
    widths = next(layers, (None, None))
    return (BATCH, dict(zip(Graph.outputs, widths, strict=True))[name])


def input_of(preprocess: Preprocess | AudioPreprocess | TextPreprocess | None) -> str:
    """Name of what a model takes that normalises in this way."""
    if preprocess is None:
        return INPUT
    return {AudioPreprocess: SAMPLES, TextPreprocess: TOKENS}.get(type(preprocess), PIXELS)


class _Writer(Sheet):
    """The graph of a network in two dimensions."""

    def __init__(self, quantization: Quantization | None) -> None:
        super().__init__()
        self.quantization = quantization
        self.rounded: dict[str, str] = {}  # an activation's name to that of it in int8

    def normalise(self, preprocess: Preprocess) -> None:
        """(x / 255 - mean) / std of `pixels`, as `data.image.normalise` computes it."""
        mean = np.array(preprocess.mean, np.float32) * np.float32(255)
        scale = np.float32(1) / (np.array(preprocess.std, np.float32) * np.float32(255))
        self._node("Cast", [PIXELS], "floats", to=1)
        self._node("Sub", ["floats", self.tensor("mean", mean)], "centred")
        self._node("Mul", ["centred", self.tensor("scale", scale)], "scaled")
        self._node("Transpose", ["scaled"], INPUT, perm=[0, 3, 1, 2])

    def spectrum(self, preprocess: AudioPreprocess) -> None:
        """Log-mel of `samples`, as `ops.spectrum.fbank` computes it, normalised: two convolutions and a logarithm."""
        mel = preprocess.mel
        half = mel.fft // 2
        self._node("Cast", [SAMPLES], "floats", to=1)
        self._node("Mul", ["floats", self.tensor("scale", np.array(1 / 32768, np.float32))], "waves")
        self._node("Unsqueeze", ["waves", self.tensor("axis", np.array([1], np.int64))], "wave")
        frames = np.ascontiguousarray(projection(mel).T)[:, None]
        self._node(
            "Conv", ["wave", self.tensor("projection", frames)], "parts", kernel_shape=[mel.window], strides=[mel.hop]
        )
        self._node("Mul", ["parts", "parts"], "squares")
        for name, start in (("real", 0), ("imaginary", half)):
            ends = [
                self.tensor(f"{name}.{at}", np.array([where], np.int64))
                for at, where in (("from", start), ("to", start + half))
            ]
            self._node("Slice", ["squares", *ends, "axis"], name)
        self._node("Add", ["real", "imaginary"], "power")
        weights = np.ascontiguousarray(bank(mel).T)[:, :, None]
        self._node("Conv", ["power", self.tensor("bank", weights)], "energy", kernel_shape=[1])
        self._node("Max", ["energy", self.tensor("floor", np.array(mel.floor, np.float32))], "floored")
        self._node("Log", ["floored"], "logarithms")
        self._centre(preprocess)
        mean, std = (np.array(each, np.float32)[:, None] for each in (preprocess.mean, preprocess.std))
        self._node("Sub", ["levels", self.tensor("mean", mean)], "centred")
        self._node("Div", ["centred", self.tensor("std", std)], "normal")
        self._node("Unsqueeze", ["normal", "axis"], INPUT)

    def _centre(self, preprocess: AudioPreprocess) -> None:
        """`logarithms` to `levels`: as `data.audio.centred`."""
        if not (preprocess.level or preprocess.centre):
            self._node("Identity", ["logarithms"], "levels")
            return
        last = self.tensor("last", np.array([2], np.int64))
        self._node("ReduceMax", ["logarithms"], "loudest", axes=[1], keepdims=1)
        self._node("ReduceMax", ["loudest"], "peak", axes=[2], keepdims=1)
        self._node("Sub", ["peak", self.tensor("quiet", np.array(QUIET_FRAME, np.float32))], "least")
        self._node("GreaterOrEqual", ["loudest", "least"], "is_loud")
        self._node("Cast", ["is_loud"], "loud", to=1)
        self._node("Mul", ["logarithms", "loud"], "counted")
        self._node("ReduceSum", ["counted", last], "total", keepdims=1)
        self._node("ReduceSum", ["loud", last], "frames", keepdims=1)
        self._node("Div", ["total", "frames"], "usual")
        self._node("ReduceMean", ["usual"], "level", axes=[1], keepdims=1)
        self._node("Sub", ["usual", "level"], "beside_level")
        share = self.tensor("share", np.array(preprocess.centre, np.float32))
        self._node("Mul", ["beside_level", share], "shared")
        self._node("Add", ["level", "shared"], "taken")
        self._node("Sub", ["usual", "quiet"], "deepest")
        self._node("Max", ["logarithms", "deepest"], "heard")
        self._node("Sub", ["heard", "taken"], "levels")

    def add(self, node: Node) -> None:
        """A node of the graph."""
        if isinstance(node, Conv):
            self._conv(node)
        elif isinstance(node, MaxPool):
            shape = {"kernel_shape": [3, 3], "strides": [2, 1 if node.frames else 2], "pads": [1, 1, 1, 1]}
            self._node("MaxPool", [self._near(node.source)], node.name, **shape)
        elif isinstance(node, AveragePool):
            shape = {"kernel_shape": [2, 2], "strides": [2, 2]}
            self._node("AveragePool", [self._near(node.source)], node.name, ceil_mode=1, **shape)
        elif isinstance(node, AddRelu):
            self._node("Add", [self._near(node.source), self._near(node.other)], f"{node.name}_sum")
            self._node("Relu", [f"{node.name}_sum"], node.name)
        elif isinstance(node, Mean):
            self._mean(node)
        elif isinstance(node, Statistics):
            self._statistics(node)
        elif isinstance(node, Unit):
            self._node("ReduceL2", [node.source], f"{node.name}_length", axes=[1], keepdims=1)
            least = self.tensor("least_length", np.array(LEAST, np.float32))
            self._node("Max", [f"{node.name}_length", least], f"{node.name}_divisor")
            self._node("Div", [node.source, f"{node.name}_divisor"], node.name)
        else:
            weight, bias = (self.tensor(f"{node.name}.{n}", a) for n, a in (("w", node.weight), ("b", node.bias)))
            self._node("Gemm", [node.source, weight, bias], node.name, transB=1)

    def _conv(self, node: Conv) -> None:
        whole = self.quantization is None or node.name in self.quantization.kept
        source = node.source if whole else self._near(node.source)
        weight = self.tensor(f"{node.name}.w", node.weight) if whole else self._levels(node)
        bias = self.tensor(f"{node.name}.b", node.bias)
        out = f"{node.name}_conv" if node.relu else node.name
        shape = {"kernel_shape": list(node.weight.shape[2:]), "group": node.groups, "pads": [node.padding] * 4}
        steps = {"strides": [node.stride] * 2, "dilations": [node.dilation] * 2}
        self._node("Conv", [source, weight, bias], out, **shape, **steps)
        if node.relu:
            self._node("Relu", [out], node.name)

    def _mean(self, node: Mean) -> None:
        for i, source in enumerate(node.sources):
            self._node("GlobalAveragePool", [self._near(source)], f"mean{i}")
            self._node("Flatten", [f"mean{i}"], f"flat{i}")
        self._node("Concat", [f"flat{i}" for i in range(len(node.sources))], node.name, axis=1)

    def _statistics(self, node: Statistics) -> None:
        """As `nn.speaker.StatisticsPooling`."""
        self._node("ReduceMean", [node.source], "means", axes=[3], keepdims=1)
        self._node("Sub", [node.source, "means"], "beside")
        self._node("Mul", ["beside", "beside"], "beside_squared")
        self._node("ReduceMean", ["beside_squared"], "variance", axes=[3], keepdims=1)
        self._node("Add", ["variance", self.tensor("epsilon", np.array(EPSILON, np.float32))], "variance_above_0")
        self._node("Sqrt", ["variance_above_0"], "deviation")
        for name in ("means", "deviation"):
            self._node("Flatten", [name], f"{name}_flat")
        self._node("Concat", ["means_flat", "deviation_flat"], node.name, axis=1)

    def _near(self, name: str) -> str:
        """An activation rounded to its 256 levels, or as it is where nothing is in int8."""
        if self.quantization is None:
            return name
        if name not in self.rounded:
            scale, zero = scale_and_zero(*self.quantization.ranges[name])
            how = [self.tensor(f"{name}.scale", np.array(scale)), self.tensor(f"{name}.zero", np.array(zero))]
            self._node("QuantizeLinear", [name, *how], f"{name}.levels")
            self._node("DequantizeLinear", [f"{name}.levels", *how], f"{name}.near")
            self.rounded[name] = f"{name}.near"
        return self.rounded[name]

    def _levels(self, node: Conv) -> str:
        """The weight of a convolution in int8."""
        assert self.quantization is not None
        levels, scales = weight_levels(node.weight, self.quantization.most)
        zeros = np.zeros(len(scales), np.int8)
        parts: dict[str, NDArray[Any]] = {"levels": levels, "scales": scales, "zeros": zeros}
        names = [self.tensor(f"{node.name}.w.{name}", array) for name, array in parts.items()]
        self._node("DequantizeLinear", names, f"{node.name}.w", axis=0)
        return f"{node.name}.w"
