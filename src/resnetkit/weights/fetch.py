"""Published weights as a file: from the caches of torch and of the Hub, or downloaded into torch's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import torch

from resnetkit.errors import NetworkError, ResourceError
from resnetkit.files import sha256
from resnetkit.weights import hub
from resnetkit.weights.download import cache_errors, download, offline
from resnetkit.weights.published import Published, sha256_prefix

SLACK = 1 << 20  # the sizes in torchvision's table are rounded


def torch_cache() -> Path:
    """Where torch keeps the checkpoints that it downloads.

    Raises:
        ResourceError: nothing says where that is.
    """
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    if folder.parts[0].startswith("~"):  # neither HOME nor the list of users has a home for this one
        raise ResourceError("there is no home folder to keep weights in", fix="set HOME, or TORCH_HOME to a folder")
    return folder


def weights_file(weights: Published, *, progress: bool = True) -> Path:
    """The file of published weights, its hash checked; downloaded where no cache has it.

    Raises:
        NetworkError: a cached file is corrupt, the download failed, or the network is forbidden.
        ResourceError: the cache cannot be read or written to.
    """
    found = next(_cached(weights), None)
    if found is not None:
        return found
    target = torch_cache() / weights.file
    if offline():
        raise NetworkError(
            f"{weights.file} is not in the cache, and the network is forbidden (RESNETKIT_OFFLINE or HF_HUB_OFFLINE)",
            path=target,
            fix="copy the file there, or give --weights PATH or --weights none",
        )
    prefix, most = sha256_prefix(weights.file), weights.num_bytes + SLACK
    return download(weights.url, target, sha256_prefix=prefix, max_bytes=most, progress=progress)


def _cached(weights: Published) -> Iterator[Path]:
    """Files on this machine that hold the weights, each checked against the hash in its name."""
    for name in weights.files:
        path = torch_cache() / name
        if os.path.isfile(path):  # and not path.is_file(), which raises where a folder may not be looked into
            _verify(path, sha256_prefix(name))
            yield path
    found = hub.cached(weights.hub_repository)
    if found is not None and hub.verify_blob(found):
        yield found


def _verify(path: Path, prefix: str) -> None:
    with cache_errors(path):
        found = sha256(path)
    if not found.startswith(prefix):
        fix = "delete this file, it is then downloaded again"
        raise NetworkError(f"corrupt: its SHA-256 is {found} and does not begin with {prefix}", path=path, fix=fix)
