"""An ONNX model that is being written: what its writers have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from resnetkit.errors import ResourceError

if TYPE_CHECKING:
    import onnx

OPSET = 17  # of 2022: read by ONNX Runtime from 1.12, OpenVINO from 2022.2, onnxruntime-web
BATCH = "batch"
PIXELS, SAMPLES, TOKENS, SCORES = "pixels", "samples", "tokens", "scores"
Shape = tuple[str | int | None, ...]


class Sheet:
    """The nodes and constants of a graph.

    Raises:
        ResourceError: the package onnx is not installed.
    """

    def __init__(self) -> None:
        try:
            from onnx import helper, numpy_helper
        except ImportError as error:
            raise ResourceError("ONNX needs the package onnx", fix='pip install "resnetkit[runtime]"') from error
        self.helper, self.from_array = helper, numpy_helper.from_array
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: dict[str, onnx.TensorProto] = {}

    def _node(self, kind: str, sources: list[str], *names: str, **values: Any) -> str:
        """Add a node with the names of what it gives, and gives the first of them."""
        self.nodes.append(self.helper.make_node(kind, sources, names, name=names[0], **values))
        return names[0]

    def tensor(self, name: str, array: NDArray[Any]) -> str:
        """Add a constant, once; gives its name."""
        if name not in self.tensors:
            self.tensors[name] = self.from_array(np.ascontiguousarray(array), name)
        return name

    def scores(self, temperature: float, several: bool) -> None:
        """Softmax of logits / temperature, or sigmoid where each label has a score of its own."""
        divisor = self.tensor("temperature", np.array(temperature, np.float32))
        calibrated = self._node("Div", ["logits", divisor], "calibrated")
        if several:
            self._node("Sigmoid", [calibrated], SCORES)
        else:
            self._node("Softmax", [calibrated], SCORES, axis=1)

    def model(self, given: tuple[str, str, Shape], found: Mapping[str, Shape]) -> onnx.ModelProto:
        """All of it.

        Args:
            given: name, type ("FLOAT", "UINT8", ..) and shape of what it takes.
            found: shapes of what it gives in float32, by name.
        """
        from onnx import TensorProto

        name, kind, shape = given
        inputs = [self.helper.make_tensor_value_info(name, getattr(TensorProto, kind), shape)]
        outputs = [self.helper.make_tensor_value_info(key, TensorProto.FLOAT, each) for key, each in found.items()]
        made = self.helper.make_graph(self.nodes, "resnetkit", inputs, outputs, list(self.tensors.values()))
        imports = [self.helper.make_opsetid("", OPSET)]
        # what engines of this process are given is checked by them, what is written for others by `deploy`
        return self.helper.make_model(made, producer_name="resnetkit", ir_version=8, opset_imports=imports)
