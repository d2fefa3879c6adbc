"""A state dict into a network: all of it, or all but a head of another size and a stem of other channels."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from resnetkit.checkpoint import STEM, refuse_unsound
from resnetkit.errors import ModelError
from resnetkit.weights.keymaps import renamed

log = logging.getLogger("resnetkit")
HEAD = ("fc.weight", "fc.bias")


def inflate_stem(weight: Tensor, channels: int) -> Tensor:
    """A stem [out, C, k, k] for another number of input channels, so that the responses keep their size.

    One channel: the sum over C, which equals feeding a grey image to all C. More: the C filters over and over, scaled
    by C / channels.
    """
    have = weight.shape[1]
    if channels == 1:
        return weight.sum(1, keepdim=True)
    index = torch.arange(channels) % have
    return weight[:, index] * (have / channels)


def fit(network: nn.Module, state: Mapping[str, Tensor], source: str) -> str:
    """Load a state dict and say in one line what was loaded and what was made anew; floats are cast to the network's.

    Args:
        network: a ResNet; loaded in place.
        state: names to tensors.
        source: what to call the weights in messages.

    Raises:
        ModelError: the tensors are those of another architecture, of which the first ten differences are listed, or
            hold NaN, infinite values, negative variances or only zeros.
    """
    own = network.state_dict()
    notes = []
    state, library = renamed(state)
    fitted = dict(state)
    if state and not any(name in state for name in HEAD):
        notes.append(f"none -> {own[HEAD[1]].shape[0]}")  # the weights of a backbone
        fitted |= {name: own[name] for name in HEAD if name in own}
    head = [name for name in HEAD if name in own and name in fitted and fitted[name].ndim]
    if any(own[name].shape != fitted[name].shape for name in head):
        notes.append(f"{fitted[head[0]].shape[0]} -> {own[head[0]].shape[0]}")
        fitted |= {name: own[name] for name in head}
    first = next(name for name in STEM if name in own)
    stem = fitted.get(first)
    reshaped = stem is not None and stem.ndim == 4 and stem.shape[1] != own[first].shape[1]
    if stem is not None and reshaped:
        fitted[first] = inflate_stem(stem.float(), own[first].shape[1])
    refuse_differences(own, fitted, source)
    arrays = {name: tensor.detach().float().cpu().numpy() for name, tensor in state.items()}
    refuse_unsound(arrays, source, fix="start from other weights")
    network.load_state_dict({**own, **fitted})
    kept = sum(n not in HEAD for n in own) if notes else len(own)
    message = f"{source}: loaded {kept} of {len(own)} tensors"
    if library:
        message += f"; renamed from those of {library}"
    if notes:
        message += f"; head {notes[0]} re-initialised"
    if stem is not None and reshaped:
        message += f"; stem {stem.shape[1]} -> {own[first].shape[1]} channels"
    cast = sorted({str(t.dtype).removeprefix("torch.") for n, t in state.items() if t.dtype != own[n].dtype})
    if cast:
        message += f"; cast from {', '.join(cast)}"
    log.warning(message)
    return message


def refuse_differences(own: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str) -> None:
    """Refuse a state dict whose names or shapes are not the network's own; `num_batches_tracked` may be missing.

    Raises:
        ModelError: lists the first ten differences.
    """
    optional = {name for name in own if name.endswith("num_batches_tracked")}
    differences = [f"{name} is missing" for name in own if name not in state and name not in optional]
    differences += [f"{name} is not in the network" for name in state if name not in own]
    differences += [
        f"{name} is {tuple(state[name].shape)}, not {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    differences += [
        f"{name} is {str(state[name].dtype).removeprefix('torch.')}, not floating point"
        for name in own
        if name in state and own[name].is_floating_point() and not state[name].is_floating_point()
    ]
    if differences:
        more = f" and {len(differences) - 10} more" if len(differences) > 10 else ""
        raise ModelError(
            f"are weights of another architecture: {'; '.join(differences[:10])}{more}",
            path=source,
            fix="name the matching --model",
        )
