"""A state dict from a file, never by running what is in it: safetensors, or weights_only pickles."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from resnetkit.checkpoint import check_header
from resnetkit.errors import ModelError, ResourceError

log = logging.getLogger("resnetkit")
# What training programs put a state dict under, and before its names (DataParallel, torch.compile). As in timm, the
# moving average is taken where there is one.
WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")
PREFIXES = ("module.", "_orig_mod.")


def read_state(path: Path) -> Mapping[str, Tensor]:
    """The state dict in a .safetensors file, or in a pickle that holds nothing but tensors.

    Raises:
        ModelError: there is no such file, it is damaged, or it would run code.
        ResourceError: it may not be read.
    """
    if os.path.isdir(path):
        raise ModelError("is a folder, not a weights file", path=path, fix="name the .safetensors or .pth file in it")
    if not os.path.isfile(path):
        raise ModelError("there is no such weights file", path=path, fix="give a .safetensors or .pth file")
    with _readable(path), path.open("rb") as file:
        head = file.read(9)
    if head[8:9] == b"{":
        return _read_safetensors(path)
    if not head.startswith((b"PK\x03\x04", b"\x80")):
        raise ModelError("is neither safetensors nor a torch checkpoint", path=path, fix="give .safetensors or .pth")
    return _read_pickle(path)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = f"cannot be read: {(error.strerror or str(error)).lower()}"
        raise ResourceError(what, path=path, fix="give yourself access to it") from error


def _read_safetensors(path: Path) -> Mapping[str, Tensor]:
    check_header(path)
    try:
        return _tensors(safetensors.torch.load_file(path), path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"corrupt: {error}", path=path, fix="copy the file again from its source") from error


def _read_pickle(path: Path) -> Mapping[str, Tensor]:
    # A namespace of settings is what torchvision's and timm's training scripts save beside the weights.
    allowed = torch.serialization.safe_globals([argparse.Namespace])
    try:
        with path.open("rb") as file, allowed:  # not by its name: torch.load takes name.safetensors for safetensors
            loaded = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise nearly anything
        fix = "resnetkit never runs code from a checkpoint: save its state dict as .safetensors where you trust it"
        raise ModelError("holds more than tensors, or is damaged", path=path, fix=fix) from error
    return _tensors(loaded, path)


def _tensors(loaded: Any, path: Path) -> Mapping[str, Tensor]:
    """The mapping of names to tensors in what a file holds, out of its wrapper and without prefixes."""
    if isinstance(loaded, Mapping):
        inside = next((key for key in WRAPPERS if isinstance(loaded.get(key), Mapping)), None)
        if inside and inside.endswith("ema"):
            log.warning("%s: took the moving average of the weights, %s", path, inside)
        loaded = loaded[inside] if inside else loaded
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise ModelError("is not a state dict of tensors", path=path, fix="save model.state_dict()")
    state = {_bare(str(name)): tensor for name, tensor in loaded.items()}
    if len(state) < len(loaded):
        raise ModelError("names a tensor twice, with and without a prefix", path=path, fix="save model.state_dict()")
    state.pop("n_averaged", None)  # the counter of torch's AveragedModel
    return state


def _bare(name: str) -> str:
    while name.startswith(PREFIXES):
        name = name.partition(".")[2]
    return name
