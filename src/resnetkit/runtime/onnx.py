"""A graph as an ONNX model: one file, a batch of any size, the graph's outputs under their names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from resnetkit.data.image import Preprocess
from resnetkit.errors import ResourceError
from resnetkit.runtime.graph import INPUT, AddRelu, AveragePool, Conv, Graph, Linear, MaxPool, Mean, Node

if TYPE_CHECKING:
    import onnx

OPSET = 17  # of 2022: read by ONNX Runtime from 1.12, OpenVINO from 2022.2, onnxruntime-web
BATCH = "batch"
PIXELS, SCORES = "pixels", "scores"


def onnx_model(graph: Graph, inside: tuple[Preprocess, float] | None = None) -> onnx.ModelProto:
    """The model: `image` float32 [batch, C, size, size] to the outputs of the graph, float32 too.

    Args:
        graph: the network.
        inside: how images are normalised, and the temperature, to have both in the model: then it takes `pixels` uint8
            [batch, size, size, C], and also gives `scores`, the softmax of the calibrated logits.

    Raises:
        ResourceError: the package onnx is not installed.
    """
    try:
        from onnx import TensorProto, checker, helper
    except ImportError as error:
        raise ResourceError("ONNX needs the package onnx", fix='pip install "resnetkit[runtime]"') from error
    writer = _Writer([], [])
    square = (graph.size, graph.size)
    if inside is None:
        given = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, (BATCH, graph.channels, *square))
    else:
        given = helper.make_tensor_value_info(PIXELS, TensorProto.UINT8, (BATCH, *square, graph.channels))
        writer.normalise(inside[0])
    for node in graph.nodes:
        writer.add(node)
    found = {name: _shape(graph, name) for name in graph.outputs}
    if inside is not None:
        writer.scores(inside[1])
        found = {SCORES: found["logits"], **found}
    given_out = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in found.items()]
    made = helper.make_graph(writer.nodes, "resnetkit", [given], given_out, writer.tensors)
    model = helper.make_model(
        made, producer_name="resnetkit", ir_version=8, opset_imports=[helper.make_opsetid("", OPSET)]
    )
    checker.check_model(model)
    return model


def _shape(graph: Graph, name: str) -> tuple[str | int | None, ...]:
    """Of an output, as far as it is known: maps have four dimensions."""
    if name not in Graph.outputs:
        return (BATCH, None, None, None)
    widths = next((node.weight.shape for node in graph.nodes if isinstance(node, Linear)), (None, None))
    return (BATCH, dict(zip(Graph.outputs, widths, strict=True))[name])


class _Writer:
    """Nodes and tensors of an ONNX graph that is being written."""

    def __init__(self, nodes: list[onnx.NodeProto], tensors: list[onnx.TensorProto]) -> None:
        self.nodes, self.tensors = nodes, tensors

    def normalise(self, preprocess: Preprocess) -> None:
        """(x / 255 - mean) / std of `pixels`, as `data.image.normalise` computes it."""
        mean = np.array(preprocess.mean, np.float32) * np.float32(255)
        scale = np.float32(1) / (np.array(preprocess.std, np.float32) * np.float32(255))
        self._node("Cast", [PIXELS], "floats", to=1)
        self._node("Sub", ["floats", self._tensor("mean", mean)], "centred")
        self._node("Mul", ["centred", self._tensor("scale", scale)], "scaled")
        self._node("Transpose", ["scaled"], INPUT, perm=[0, 3, 1, 2])

    def scores(self, temperature: float) -> None:
        """Softmax of logits / temperature."""
        divisor = self._tensor("temperature", np.array(temperature, np.float32))
        self._node("Div", ["logits", divisor], "calibrated")
        self._node("Softmax", ["calibrated"], SCORES, axis=1)

    def add(self, node: Node) -> None:
        """A node of the graph."""
        if isinstance(node, Conv):
            self._conv(node)
        elif isinstance(node, MaxPool):
            shape = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
            self._node("MaxPool", [node.source], node.name, **shape)
        elif isinstance(node, AveragePool):
            shape = {"kernel_shape": [2, 2], "strides": [2, 2]}
            self._node("AveragePool", [node.source], node.name, ceil_mode=1, **shape)
        elif isinstance(node, AddRelu):
            self._node("Add", [node.source, node.other], f"{node.name}_sum")
            self._node("Relu", [f"{node.name}_sum"], node.name)
        elif isinstance(node, Mean):
            self._mean(node)
        else:
            weight, bias = (self._tensor(f"{node.name}.{n}", a) for n, a in (("w", node.weight), ("b", node.bias)))
            self._node("Gemm", [node.source, weight, bias], node.name, transB=1)

    def _conv(self, node: Conv) -> None:
        weight, bias = (self._tensor(f"{node.name}.{n}", a) for n, a in (("w", node.weight), ("b", node.bias)))
        out = f"{node.name}_conv" if node.relu else node.name
        shape = {"kernel_shape": list(node.weight.shape[2:]), "group": node.groups, "pads": [node.padding] * 4}
        steps = {"strides": [node.stride] * 2, "dilations": [node.dilation] * 2}
        self._node("Conv", [node.source, weight, bias], out, **shape, **steps)
        if node.relu:
            self._node("Relu", [out], node.name)

    def _mean(self, node: Mean) -> None:
        for i, source in enumerate(node.sources):
            self._node("GlobalAveragePool", [source], f"mean{i}")
            self._node("Flatten", [f"mean{i}"], f"flat{i}")
        self._node("Concat", [f"flat{i}" for i in range(len(node.sources))], node.name, axis=1)

    def _node(self, kind: str, sources: list[str], name: str, **values: Any) -> None:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, sources, [name], name=name, **values))

    def _tensor(self, name: str, array: NDArray[np.float32]) -> str:
        from onnx import numpy_helper

        self.tensors.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name
