"""Weights by their name: published ones, a file on the Hub, or a file of the user's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from resnetkit.errors import UsageError
from resnetkit.weights.download import offline
from resnetkit.weights.fetch import weights_file
from resnetkit.weights.hub import SCHEME, hub_file
from resnetkit.weights.published import published
from resnetkit.weights.read import read_state

# What a weights file may end in; anything else that looks like a name is taken for one.
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


def known_weights(variant: str, weights: str | Path, *, progress: bool = True) -> tuple[Mapping[str, Tensor], str]:
    """The state dict of published weights or of a file, and what to call it.

    Args:
        variant: whose weights; files are not asked whether they fit it, see `fit`.
        weights: a published name, the path of a file, or hf://owner/name[@revision][/file].
        progress: show how a download goes.

    Raises:
        UsageError: the variant has no weights of this name.
        ModelError: the file is not a state dict that can be read safely.
        NetworkError: the download failed, its hash is wrong, or RESNETKIT_OFFLINE is set and no cache has the file.
        ResourceError: the file cannot be read, or the cache not written to.
    """
    name = str(weights)
    if name.startswith(SCHEME):
        return read_state(hub_file(name, offline=offline(), progress=progress)), name
    if Path(name).suffix in SUFFIXES or os.path.exists(name):
        return read_state(Path(name)), name
    names = published(variant)
    if name not in names:
        known = "".join(f"{known}, " for known in names)
        raise UsageError(f"{variant} has no weights {name!r}", fix=f"one of {known}or a .safetensors or .pth file")
    return read_state(weights_file(names[name], progress=progress)), name
