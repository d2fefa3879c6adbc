"""The tensor names of other libraries, turned into those that torchvision, timm and resnetkit share."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

Rules = tuple[tuple[str, str], ...]  # patterns, and what takes the place of each
HUGGING_FACE = (
    (r"^resnet\.embedder\.embedder\.convolution\.", "conv1."),
    (r"^resnet\.embedder\.embedder\.normalization\.", "bn1."),
    (r"^resnet\.encoder\.stages\.(\d+)\.layers\.(\d+)\.shortcut\.convolution\.", r"layer<\1>.\2.downsample.0."),
    (r"^resnet\.encoder\.stages\.(\d+)\.layers\.(\d+)\.shortcut\.normalization\.", r"layer<\1>.\2.downsample.1."),
    (r"^resnet\.encoder\.stages\.(\d+)\.layers\.(\d+)\.layer\.(\d+)\.convolution\.", r"layer<\1>.\2.conv<\3>."),
    (r"^resnet\.encoder\.stages\.(\d+)\.layers\.(\d+)\.layer\.(\d+)\.normalization\.", r"layer<\1>.\2.bn<\3>."),
    (r"^classifier\.1\.", "fc."),
)
# Library, a pattern by which its names are known, and its rules; the first that is known is taken.
LIBRARIES: tuple[tuple[str, str, Rules], ...] = (
    ("Hugging Face", r"^resnet\.embedder\.", HUGGING_FACE),
    ("mmpretrain", r"^backbone\.conv1\.", ((r"^backbone\.", ""), (r"^head\.fc\.", "fc."))),
    ("segmentation-models", r"^encoder\.conv1\.", ((r"^encoder\.", ""),)),
    ("a wrapper", r"^model\.conv1\.", ((r"^model\.", ""),)),
    ("pytorch_resnet_cifar10", r"^linear\.", ((r"^linear\.", "fc."),)),
)


def renamed(state: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], str]:
    """A state dict with resnetkit's names, and the library that it came from: "" where nothing had to be renamed."""
    for library, mark, rules in LIBRARIES:
        if any(re.search(mark, name) for name in state):
            return {_renamed(name, rules): tensor for name, tensor in state.items()}, library
    return state, ""


def _renamed(name: str, rules: Rules) -> str:
    for pattern, to in rules:
        name, count = re.subn(pattern, to, name)
        if count:  # Hugging Face counts stages and layers from 0
            return re.sub(r"<(\d+)>", lambda found: str(int(found[1]) + 1), name)
    return name
