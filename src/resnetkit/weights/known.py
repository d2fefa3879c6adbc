"""Which weights there are: torchvision's own table of names, addresses and hashes, and files of the user's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from torchvision.models import get_model_weights

from resnetkit.errors import UsageError
from resnetkit.weights.fetch import download, read_state

# What a weights file may end in; anything else that looks like a name is taken for one.
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


def published(variant: str) -> dict[str, Any]:
    """Name to torchvision's Weights value (url, transforms, meta) of a variant."""
    return {weights.name: weights for weights in get_model_weights(variant)}


def known_weights(variant: str, weights: str | Path, *, progress: bool = True) -> tuple[Mapping[str, Tensor], str]:
    """The state dict of published weights or of a file, and what to call it.

    Raises:
        UsageError: the variant has no weights of this name.
        ModelError: the file is not a state dict that can be read safely.
        NetworkError: the download failed, its hash is wrong, or RESNETKIT_OFFLINE is set and no cache has the file.
    """
    path = Path(weights)
    if path.suffix in SUFFIXES or path.exists():
        return read_state(path), str(weights)
    names = published(variant)
    if str(weights) not in names:
        raise UsageError(
            f"{variant} has no weights {str(weights)!r}",
            fix=f"one of {', '.join(names)}, or the path of a .safetensors or .pth file",
        )
    return download(names[str(weights)].url, progress=progress), str(weights)
