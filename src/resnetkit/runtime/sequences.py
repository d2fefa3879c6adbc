"""The networks in one dimension as ONNX models: tokens, or samples, to scores, logits and the embedding.

network      what it begins with              before its stages        what its head sees
TextResNet   vectors of tokens, conv1, bn1    pooling, but the first   the largest of each channel, and the mean vector
VDCNN        vectors of tokens, conv1         pooling, but the first   the k largest of each channel, fc1 and fc2
WaveResNet   samples, conv1, bn1              pooling                  the means of each channel
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from resnetkit.checkpoint import Checkpoint
from resnetkit.data.audio import AudioPreprocess
from resnetkit.data.tokens import TextPreprocess
from resnetkit.runtime.graph import EPS
from resnetkit.runtime.sheet import BATCH, SAMPLES, SCORES, TOKENS, Sheet

if TYPE_CHECKING:
    import onnx

BETWEEN: dict[str, Any] = {"kernel_shape": [3], "strides": [2], "pads": [1, 1]}  # poolings of texts
BEFORE: dict[str, Any] = {"kernel_shape": [4], "strides": [4], "ceil_mode": 1}  # and of samples
LAST = 4  # the stride of a WaveResNet's first convolution
K = 8  # of a VDCNN's k-max pooling, if its options do not say


def sequence_model(
    checkpoint: Checkpoint, prepare: TextPreprocess | AudioPreprocess, temperature: float, several: bool
) -> onnx.ModelProto:
    """The model: `tokens` uint16 [batch, length], or `samples` int16 [batch, n], to `scores`, `logits`, `embedding`.

    Args:
        checkpoint: of a `TextResNet`, a `VDCNN` or a `WaveResNet`.
        prepare: which tokens or samples they are.
        temperature: what logits are divided by for scores.
        several: each label has a score of its own.

    Raises:
        ResourceError: the package onnx is not installed.
    """
    writer = _Writer(checkpoint)
    if isinstance(prepare, AudioPreprocess):
        given = SAMPLES, "INT16", (BATCH, prepare.samples)
        writer.waves()
    else:
        given = TOKENS, "UINT16", (BATCH, prepare.length)
        writer.texts(prepare.length)
    writer.scores(temperature, several)
    classes, width = checkpoint.tensors["fc.weight"].shape
    sizes = {SCORES: classes, "logits": classes, "embedding": width}
    return writer.model(given, {name: (BATCH, size) for name, size in sizes.items()})


class _Writer(Sheet):
    """The graph, with names after the network's tensors."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        self.values = checkpoint.tensors
        self.options = checkpoint.meta.options
        # what the networks' constructors say where nobody does
        self.plain = self.options.get("shortcut", "none" if "vdcnn" in checkpoint.meta.variant else "") == "none"

    def texts(self, length: int) -> None:
        """`tokens` to `embedding` and `logits`."""
        self._node("Cast", [TOKENS], "numbers", to=7)
        self._node("Gather", [self.weight("embedding.weight"), "numbers"], "rows")
        self._node("Transpose", ["rows"], "vectors", perm=[0, 2, 1])
        x = self.conv("vectors", "conv1")
        if "bn1.weight" not in self.values:
            self.deep_head(self.stages(x), length)
            return
        x = self.stages(self.relu(self.norm(x, "bn1")))
        self._node("ReduceMax", [x], "most", axes=[2], keepdims=0)
        self._node("Concat", ["most", self.mean_vector()], "embedding", axis=1)
        self.linear("embedding", "fc", "logits")

    def mean_vector(self) -> str:
        """The mean of the tokens' vectors, of which padding, token 0, is none."""
        self._node("Cast", [TOKENS], "reals", to=1)
        self._node("Min", ["reals", self.tensor("one", np.array(1, np.float32))], "there")
        self._node("ReduceSum", ["there", self.tensor("axis", np.array([1], np.int64))], "counted", keepdims=1)
        self._node("Max", ["counted", "one"], "count")
        self._node("ReduceSum", ["vectors", self.tensor("last", np.array([2], np.int64))], "sum", keepdims=0)
        return self._node("Div", ["sum", "count"], "mean")

    def deep_head(self, x: str, length: int) -> None:
        """Of a VDCNN, whose last stage is an eighth as long as its texts."""
        x = self.kmax(x, int(self.options.get("k", K)), -(-length // 8))
        if "fc1.weight" not in self.values:
            self._node("Flatten", [x], "embedding", axis=1)
        else:
            first = self.relu(self.linear(self._node("Flatten", [x], "flat", axis=1), "fc1", "first"))
            self._node("Relu", [self.linear(first, "fc2", "second")], "embedding")
        self.linear("embedding", "fc", "logits")

    def kmax(self, x: str, k: int, length: int) -> str:
        """As `nn.sequence.kmax`: of equal values the standard takes the first, too."""
        if length < k:
            x = self._node(
                "Pad", [x, self.tensor("kmax.pads", np.array([0, 0, 0, 0, 0, k - length], np.int64))], "kmax.padded"
            )
        count = self.tensor("kmax.k", np.array([k], np.int64))
        self._node("TopK", [x, count], "kmax.values", "kmax.places", axis=2)
        self._node("TopK", ["kmax.places", count], "kmax.order", "kmax.unused", axis=2, largest=0)
        return self._node("GatherElements", [x, "kmax.order"], "kmax", axis=2)

    def waves(self) -> None:
        """`samples` to `embedding` and `logits`."""
        self._node("Cast", [SAMPLES], "numbers", to=1)
        self._node("Mul", ["numbers", self.tensor("scale", np.array(1 / 32768, np.float32))], "floats")
        self._node("Unsqueeze", ["floats", self.tensor("axis", np.array([1], np.int64))], "wave")
        x = self.relu(self.norm(self.conv("wave", "conv1", LAST), "bn1"))
        x = self.stages(self._node("MaxPool", [x], "pool", **BEFORE), BEFORE)
        self._node("ReduceMean", [x], "embedding", axes=[2], keepdims=0)
        self.linear("embedding", "fc", "logits")

    def stages(self, x: str, pool: dict[str, Any] = BETWEEN) -> str:
        """All stages, with a pooling between two of them."""
        stages = sorted({name.split(".")[0] for name in self.values if name.startswith("layer")})
        for number, stage in enumerate(stages):
            if number:
                x = self._node("MaxPool", [x], f"{stage}.pool", **pool)
            for block in sorted({name.split(".")[1] for name in self.values if name.startswith(f"{stage}.")}, key=int):
                x = self.block(x, f"{stage}.{block}")
        return x

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

    def conv(self, x: str, name: str, stride: int = 1) -> str:
        """A convolution over the middle of as many steps as it has."""
        width = self.values[f"{name}.weight"].shape[2]
        shape: dict[str, Any] = {"kernel_shape": [width], "pads": [width // 2] * 2, "strides": [stride]}
        return self._node("Conv", [x, self.weight(f"{name}.weight")], f"{name}.out", **shape)

    def norm(self, x: str, name: str) -> str:
        """A BatchNorm in evaluation."""
        parts = [self.weight(f"{name}.{part}") for part in ("weight", "bias", "running_mean", "running_var")]
        return self._node("BatchNormalization", [x, *parts], f"{name}.out", epsilon=EPS)

    def relu(self, x: str) -> str:
        """What is above zero."""
        return self._node("Relu", [x], f"{x}.relu")

    def linear(self, x: str, name: str, out: str) -> str:
        """A layer with a bias."""
        return self._node("Gemm", [x, self.weight(f"{name}.weight"), self.weight(f"{name}.bias")], out, transB=1)

    def weight(self, name: str) -> str:
        """One of the network's tensors."""
        return self.tensor(name, self.values[name].astype(np.float32))
