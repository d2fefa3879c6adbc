"""Weights from a file or from the network, never by running what is in them: safetensors, or weights_only pickles."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlparse

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from resnetkit.errors import ModelError, NetworkError

log = logging.getLogger("resnetkit")


def offline() -> bool:
    """Whether the user forbids the network (RESNETKIT_OFFLINE or HF_HUB_OFFLINE)."""
    return any(os.environ.get(name, "0") not in ("", "0") for name in ("RESNETKIT_OFFLINE", "HF_HUB_OFFLINE"))


def download(url: str, *, progress: bool = True) -> Mapping[str, Tensor]:
    """Weights from torch's own cache, or downloaded there with torch's hash check and progress bar.

    Raises:
        NetworkError: the download failed, its hash is wrong, or the network is forbidden and the cache has no file.
    """
    name = Path(urlparse(url).path).name
    cached = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not cached.exists():
        if offline():
            raise NetworkError(
                f"{name} is not in the cache and RESNETKIT_OFFLINE is set",
                path=cached,
                fix="copy the file there, or give --weights PATH or --weights none",
            )
        log.warning("downloading %s to %s", name, cached)
        _download(url, cached, progress)
    return read_state(cached)


def _download(url: str, cached: Path, progress: bool) -> None:
    """Into the cache, whole and with the right hash or not at all (load_state_dict_from_url would write to stdout)."""
    name = cached.name
    announced = re.search(r"-([0-9a-f]{8,})\.", name)
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(cached), announced and announced[1], progress=progress)
    except (OSError, RuntimeError, HTTPException) as error:
        if isinstance(error, HTTPError):
            error.close()  # its socket
        raise NetworkError(
            f"{name} could not be downloaded: {error}",
            path=cached,
            fix="copy the file there by hand, or give --weights PATH or --weights none",
        ) from error


def read_state(path: Path) -> Mapping[str, Tensor]:
    """The state dict in a .safetensors file, or in a pickle that holds nothing but tensors.

    Raises:
        ModelError: there is no such file, it is damaged, or it would run code.
    """
    if not path.is_file():
        raise ModelError("there is no such weights file", path=path, fix="give a .safetensors or .pth file")
    with path.open("rb") as file:
        head = file.read(9)
    if head[8:9] == b"{":
        return _read_safetensors(path)
    if not head.startswith((b"PK\x03\x04", b"\x80")):
        raise ModelError("is neither safetensors nor a torch checkpoint", path=path, fix="give .safetensors or .pth")
    try:
        with path.open("rb") as file:  # not by its name: torch.load takes any name.safetensors for safetensors
            loaded = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise nearly anything
        fix = "resnetkit never runs code from a checkpoint: save its state dict as .safetensors where you trust it"
        raise ModelError("holds more than tensors, or is damaged", path=path, fix=fix) from error
    return _tensors(loaded, path)


def _read_safetensors(path: Path) -> Mapping[str, Tensor]:
    try:
        return _tensors(safetensors.torch.load_file(path), path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"corrupt: {error}", path=path, fix="copy the file again from its source") from error


def _tensors(loaded: Any, path: Path) -> Mapping[str, Tensor]:
    """The mapping of names to tensors in what a .pth file holds, out of its usual wrapper."""
    if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise ModelError("is not a state dict of tensors", path=path, fix="save model.state_dict()")
    return {str(name).removeprefix("module."): value for name, value in loaded.items()}
