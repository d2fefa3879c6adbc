"""The tensor names of other libraries, turned into those that torchvision, timm and resnetkit share, and back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

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
TO_HUGGING_FACE = (
    (r"^conv1\.", "resnet.embedder.embedder.convolution."),
    (r"^bn1\.", "resnet.embedder.embedder.normalization."),
    (r"^layer(\d+)\.(\d+)\.downsample\.0\.", r"resnet.encoder.stages.<\1>.layers.\2.shortcut.convolution."),
    (r"^layer(\d+)\.(\d+)\.downsample\.1\.", r"resnet.encoder.stages.<\1>.layers.\2.shortcut.normalization."),
    (r"^layer(\d+)\.(\d+)\.conv(\d+)\.", r"resnet.encoder.stages.<\1>.layers.\2.layer.<\3>.convolution."),
    (r"^layer(\d+)\.(\d+)\.bn(\d+)\.", r"resnet.encoder.stages.<\1>.layers.\2.layer.<\3>.normalization."),
    (r"^fc\.", "classifier.1."),
)
FASTAI = (
    (r"^0\.0\.", "conv1."),
    (r"^0\.1\.", "bn1."),
    *((rf"^0\.{stage + 3}\.", f"layer{stage}.") for stage in range(1, 5)),
)


@dataclass(frozen=True)
class Library:
    """How a library names the tensors of a residual network.

    Attributes:
        name: of the library.
        mark: a pattern by which its names are known.
        rules: from its names to ours.
        others: a pattern of what is no part of the network: heads for boxes and masks, pyramids.
    """

    name: str
    mark: str
    rules: Rules
    others: str = r"(?!)"  # none


# The first one that is known is taken.
LIBRARIES = (
    Library("Hugging Face", r"^resnet\.embedder\.", HUGGING_FACE),
    Library(
        "torchvision's detection",
        r"^backbone\.body\.conv1\.",
        ((r"^backbone\.body\.", ""),),
        r"^(rpn|roi_heads|head|backbone\.fpn)\.",
    ),
    Library(
        "torchvision's segmentation",
        r"^classifier\.\d.*",
        ((r"^backbone\.", ""),),
        r"^(aux_)?classifier\.",
    ),
    Library("mmpretrain", r"^backbone\.conv1\.", ((r"^backbone\.", ""), (r"^head\.fc\.", "fc."))),
    Library("segmentation-models", r"^encoder\.conv1\.", ((r"^encoder\.", ""),), r"^(decoder|segmentation_head)\."),
    Library("fastai", r"^0\.4\.0\.conv1\.", FASTAI, r"^1\."),
    Library("a wrapper", r"^model\.conv1\.", ((r"^model\.", ""),)),
    Library("pytorch_resnet_cifar10", r"^linear\.", ((r"^linear\.", "fc."),)),
)


def renamed(state: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], str]:
    """A state dict with resnetkit's names, and the library that it came from: "" where nothing had to be renamed."""
    for library in LIBRARIES:
        if any(re.search(library.mark, name) for name in state):
            own = {name: tensor for name, tensor in state.items() if not re.search(library.others, name)}
            return {_renamed(name, library.rules): tensor for name, tensor in own.items()}, library.name
    return state, ""


def hugging_face_name(name: str) -> str:
    """A name of ours as transformers' ResNetForImageClassification has it."""
    return _renamed(name, TO_HUGGING_FACE, -1)


def _renamed(name: str, rules: Rules, step: int = 1) -> str:
    for pattern, to in rules:
        name, count = re.subn(pattern, to, name)
        if count:  # Hugging Face counts stages and layers from 0, the others from 1
            return re.sub(r"<(\d+)>", lambda found: str(int(found[1]) + step), name)
    return name
