"""The small residual network for texts as an ONNX model: tokens to scores, logits and the embedding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from resnetkit.checkpoint import Checkpoint
from resnetkit.data.tokens import TextPreprocess
from resnetkit.errors import ResourceError
from resnetkit.runtime.graph import EPS
from resnetkit.runtime.onnx import BATCH, OPSET, SCORES, TOKENS

if TYPE_CHECKING:
    import onnx


def words_model(checkpoint: Checkpoint, prepare: TextPreprocess, temperature: float, several: bool) -> onnx.ModelProto:
    """The model: `tokens` uint16 [batch, length] to `scores`, `logits` and `embedding`.

    Args:
        checkpoint: of a `TextResNet`.
        prepare: which tokens they are.
        temperature: what logits are divided by for scores.
        several: each label has a score of its own.

    Raises:
        ResourceError: the package onnx is not installed.
    """
    try:
        from onnx import TensorProto, helper
    except ImportError as error:
        raise ResourceError("ONNX needs the package onnx", fix='pip install "resnetkit[runtime]"') from error
    writer = _Writer(checkpoint)
    writer.network()
    divided = writer._node(
        "Div", ["logits", writer.tensor("temperature", np.array(temperature, np.float32))], "divided"
    )
    if several:
        writer._node("Sigmoid", [divided], SCORES)
    else:
        writer._node("Softmax", [divided], SCORES, axis=1)
    classes, width = checkpoint.tensors["fc.weight"].shape
    given = helper.make_tensor_value_info(TOKENS, TensorProto.UINT16, (BATCH, prepare.length))
    sizes = {SCORES: classes, "logits": classes, "embedding": width}
    found = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (BATCH, size)) for name, size in sizes.items()]
    made = helper.make_graph(writer.nodes, "resnetkit", [given], found, writer.tensors)
    return helper.make_model(
        made, producer_name="resnetkit", ir_version=8, opset_imports=[helper.make_opsetid("", OPSET)]
    )


class _Writer:
    """Nodes and tensors of the graph, named after the network's tensors."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.values = checkpoint.tensors
        self.plain = checkpoint.meta.options.get("shortcut") == "none"
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []
        self.known: set[str] = set()

    def network(self) -> None:
        """`tokens` to `embedding` and `logits`."""
        self._node("Cast", [TOKENS], "numbers", to=7)
        self._node("Gather", [self.weight("embedding.weight"), "numbers"], "rows")
        self._node("Transpose", ["rows"], "vectors", perm=[0, 2, 1])
        self._node("Cast", [TOKENS], "reals", to=1)
        self._node("Min", ["reals", self.tensor("one", np.array(1, np.float32))], "there")  # 0 is the padding
        axis = self.tensor("axis", np.array([1], np.int64))
        self._node("ReduceSum", ["there", axis], "counted", keepdims=1)
        self._node("Max", ["counted", "one"], "count")
        self._node("ReduceSum", ["vectors", self.tensor("last", np.array([2], np.int64))], "sum", keepdims=0)
        self._node("Div", ["sum", "count"], "mean")
        x = self.relu(self.norm(self.conv("vectors", "conv1"), "bn1"))
        stages = sorted({name.split(".")[0] for name in self.values if name.startswith("layer")})
        for number, stage in enumerate(stages):
            if number:
                x = self._node("MaxPool", [x], f"{stage}.pool", kernel_shape=[3], strides=[2], pads=[1, 1])
            for block in sorted({name.split(".")[1] for name in self.values if name.startswith(f"{stage}.")}, key=int):
                x = self.block(x, f"{stage}.{block}")
        self._node("ReduceMax", [x], "most", axes=[2], keepdims=0)
        self._node("Concat", ["most", "mean"], "embedding", axis=1)
        self._node("Gemm", ["embedding", self.weight("fc.weight"), self.weight("fc.bias")], "logits", transB=1)

    def block(self, x: str, name: str) -> str:
        """A residual unit."""
        out = self.relu(self.norm(self.conv(x, f"{name}.conv1"), f"{name}.bn1"))
        out = self.norm(self.conv(out, f"{name}.conv2"), f"{name}.bn2")
        if not self.plain:
            out = self._node("Add", [out, self.shortcut(x, name)], f"{name}.sum")
        return self.relu(out)

    def shortcut(self, x: str, name: str) -> str:
        """The identity, a convolution, or zeros for new channels."""
        if f"{name}.downsample.0.weight" in self.values:
            return self.norm(self.conv(x, f"{name}.downsample.0"), f"{name}.downsample.1")
        outside, inside = self.values[f"{name}.conv1.weight"].shape[:2]
        if inside == outside:
            return x
        pads = self.tensor(f"{name}.pads", np.array([0, 0, 0, 0, outside - inside, 0], np.int64))
        return self._node("Pad", [x, pads], f"{name}.padded")

    def conv(self, x: str, name: str) -> str:
        """A convolution that keeps the length."""
        width = self.values[f"{name}.weight"].shape[2]
        pads = [width // 2] * 2
        return self._node("Conv", [x, self.weight(f"{name}.weight")], f"{name}.out", kernel_shape=[width], pads=pads)

    def norm(self, x: str, name: str) -> str:
        """A BatchNorm in evaluation."""
        parts = [self.weight(f"{name}.{part}") for part in ("weight", "bias", "running_mean", "running_var")]
        return self._node("BatchNormalization", [x, *parts], f"{name}.out", epsilon=EPS)

    def relu(self, x: str) -> str:
        """What is above zero."""
        return self._node("Relu", [x], f"{x}.relu")

    def weight(self, name: str) -> str:
        """One of the network's tensors."""
        return self.tensor(name, self.values[name].astype(np.float32))

    def _node(self, kind: str, sources: list[str], name: str, **values: Any) -> str:
        """A node; gives its name."""
        from onnx import helper

        self.nodes.append(helper.make_node(kind, sources, [name], name=name, **values))
        return name

    def tensor(self, name: str, array: NDArray[Any]) -> str:
        """A constant; gives its name."""
        from onnx import numpy_helper

        if name not in self.known:
            self.known.add(name)
            self.tensors.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name
