"""TrainState: all that a training is at a step, to and from a folder of safetensors and JSON.

Here tensors become arrays and back; `run` writes and reads these.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from resnetkit import models, run
from resnetkit.errors import ModelError
from resnetkit.settings import Optim, Recipe
from resnetkit.training.optim import make_optimizer, match_memory_formats, update_average
from resnetkit.weights.fit import refuse_differences

log = logging.getLogger("resnetkit")
Arrays = dict[str, NDArray[Any]]
SECONDS_AT_RISK = 60.0  # of work that a kill may lose


@dataclass(frozen=True)
class Growth:
    """That a network becomes a deeper variant: before which step, and which; `optim` makes the optimiser anew."""

    step: int
    into: str
    optim: Optim


@dataclass
class TrainState:
    """A training at a step; owned by the caller of `train`, which changes it in place and may save it at each tick.

    Randomness needs no state: order, augmentation and dropout follow from (seed, step).

    Attributes:
        network: the network in training.
        optimizer: its optimiser.
        total_steps: where the schedule ends.
        step: steps done.
        average: moving average of the weights (EMA), or None.
        best: weights of the epoch with the best score, or None before the first one.
        best_score: its score; -inf before the first epoch.
        best_epoch: its number.
        sums: running sums of the epoch: loss * samples, samples.
        history: one row a finished epoch, as in results.csv.
        scaler: state of the gradient scaler (f16), or None.
        fingerprint: of the data and classes; a state of other data is refused. "": not known.
        growth: when the network grows, and into what; None: never.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    total_steps: int
    step: int = 0
    average: dict[str, Tensor] | None = None
    best: dict[str, Tensor] | None = None
    best_score: float = -math.inf
    best_epoch: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0])
    history: list[dict[str, Any]] = field(default_factory=list)
    scaler: dict[str, float] | None = None
    fingerprint: str = ""
    growth: Growth | None = None

    def phases(self) -> list[int]:
        """Where what is left of the steps ends: before the network grows, if it still will, and at the end."""
        return [*([self.growth.step] if self.growth and self.step < self.growth.step else []), self.total_steps]

    def evaluated(self) -> dict[str, Tensor]:
        """The weights that are scored and kept: the moving average where there is one."""
        return self.average if self.average is not None else self.network.state_dict()

    def keep_best(self, score: float, epoch: int) -> bool:
        """Keep the weights if the score is better than every one before; a NaN never is."""
        if not score > self.best_score:
            return False
        self.best = {name: tensor.detach().clone() for name, tensor in self.evaluated().items()}
        self.best_score, self.best_epoch = score, epoch
        return True

    def average_weights(self, decay: float) -> None:
        """One step of the moving average."""
        if self.average is not None:
            # a short warm-up, so that the first random weights are soon forgotten
            update_average(self.average, self.network.state_dict(), min(decay, (1 + self.step) / (10 + self.step)))


def growth_of(recipe: Recipe, total_steps: int) -> Growth | None:
    """When the network of a recipe grows; None: never."""
    if not recipe.grow.from_:
        return None
    return Growth(round(recipe.grow.at * total_steps), recipe.model.variant, recipe.optim)


def seed_step(seed: int, step: int) -> None:
    """Seed what torch draws in a step: dropout, stochastic depth, weights of new blocks."""
    torch.manual_seed(int(np.random.SeedSequence([seed, step]).generate_state(1)[0]))


def grow(state: TrainState, seed: int) -> None:
    """Let the network grow; the average, the best weights and the moments of the optimiser grow with it.

    The new blocks are the identity, so scores stay as they are, those of the best weights too.
    """
    assert state.growth is not None
    moments = {name: state.optimizer.state[p] for name, p in state.network.named_parameters()}
    seed_step(seed, state.step)
    state.network = models.grow(state.network, state.growth.into)
    state.optimizer = make_optimizer(state.network, state.growth.optim)
    for name, parameter in state.network.named_parameters():
        if moments.get(name):
            state.optimizer.state[parameter] = moments[name]
        elif isinstance(state.optimizer, torch.optim.SGD) and parameter.requires_grad:
            # fused SGD takes either all momenta or none
            state.optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    for group in (state.average, state.best):
        if group is not None:
            fresh = state.network.state_dict()
            group |= {name: fresh[name].detach().clone() for name in fresh.keys() - group.keys()}


def size(state: TrainState) -> int:
    """Bytes of a saved state, before its first step too, and of the deepest that the network becomes."""
    network = models.grow(state.network, state.growth.into) if state.growth else state.network
    weights = _bytes(network.state_dict().values())
    trained = _bytes(p for p in network.parameters() if p.requires_grad)
    moments = 2 if isinstance(state.optimizer, torch.optim.AdamW) else 1
    # the weights, the best of them, and their moving average
    return weights * (2 + (state.average is not None)) + trained * moments


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def save(state: TrainState, folder: Path) -> Path:
    """Write a state as folder/<step>, published by one rename with a manifest; the two newest are kept.

    Raises:
        ResourceError: the disk refuses; the older states are intact.
    """
    tensors = {"network": state.network.state_dict(), "optimizer": _flat_optimizer(state.optimizer)}
    tensors |= {"average": state.average} if state.average is not None else {}
    tensors |= {"best": state.best} if state.best is not None else {}
    values = {
        "total_steps": state.total_steps,
        "best_score": state.best_score if math.isfinite(state.best_score) else None,
        "best_epoch": state.best_epoch,
        "sums": state.sums,
        "history": [run.finite(row) for row in state.history],
        "scaler": state.scaler,
        "fingerprint": state.fingerprint,
        "torch": str(torch.__version__),
    }
    return run.save_state(folder, state.step, {name: _arrays(group) for name, group in tensors.items()}, values)


def _arrays(tensors: Mapping[str, Tensor]) -> Arrays:
    return {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in tensors.items()}


def _tensors(arrays: Arrays) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _flat_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": value
        for index, values in state.items()
        for name, value in values.items()
        if value is not None
    }


def saved_states(folder: Path) -> list[Path]:
    """Folders of the saved states, oldest first."""
    return run.saved_states(folder)


def load(state: TrainState, folder: Path) -> None:
    """Put a saved state into a fresh one of the same recipe.

    Raises:
        ModelError: a byte is changed, or it is the state of another network, of another recipe or of other data.
    """
    arrays, values = run.read_state(folder)
    _refuse_other_training(state, values, folder)
    if state.growth and state.step <= state.growth.step < values["step"]:
        grow(state, seed=0)  # for its shapes: all values come from the folder
    tensors = {name: _tensors(group) for name, group in arrays.items()}
    network = tensors.get("network", {})
    refuse_differences(state.network.state_dict(), network, str(folder))
    state.network.load_state_dict(network)
    state.optimizer.load_state_dict(_nested_optimizer(state.optimizer, tensors.get("optimizer", {})))
    match_memory_formats(state.optimizer)
    own = state.network.state_dict()
    for name in ("average", "best"):
        group = tensors.get(name)
        # in the memory format of the network: in another one the last bits of its answers would be others
        alike = None if group is None else {key: torch.empty_like(own[key]).copy_(group[key]) for key in group}
        setattr(state, name, alike)
    state.step, state.sums, state.history = values["step"], values["sums"], values["history"]
    state.best_epoch, state.scaler = values["best_epoch"], values.get("scaler")
    state.best_score = -math.inf if values["best_score"] is None else values["best_score"]
    saved_by, this = values.get("torch"), str(torch.__version__)
    if saved_by and saved_by != this:
        doubt = "going on is not promised to be bit-exact"
        log.warning(f"{folder}: saved by torch {saved_by}, this is {this}: {doubt}")


def _refuse_other_training(state: TrainState, values: Mapping[str, Any], folder: Path) -> None:
    if values["total_steps"] != state.total_steps:
        what = f"is of a training of {values['total_steps']} steps, not {state.total_steps}"
        raise ModelError(what, path=folder, fix="resume with the same data and recipe")
    data = values.get("fingerprint", "")
    if data and state.fingerprint and data != state.fingerprint:
        fix = "put the data back as it was, or train anew into another --out"
        raise ModelError("was trained on other data: files or classes have changed", path=folder, fix=fix)


def load_newest(state: TrainState, folder: Path) -> Path | None:
    """Load the newest saved state that is whole; None where none was saved yet.

    Raises:
        ModelError: there are states, and none can be used: why not the newest. Starting anew would throw them away.
    """
    refused: list[ModelError] = []
    for path in reversed(saved_states(folder)):
        try:
            load(state, path)
        except ModelError as error:
            refused.append(error)
            continue
        for why in refused:
            log.error(f"{why}; going on from the state before it, of step {state.step}")
        return path
    if refused:
        raise refused[0]
    return None


def _nested_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    nested: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        nested.setdefault(int(index), {})[key] = tensor
    return {"state": nested, "param_groups": optimizer.state_dict()["param_groups"]}


@dataclass
class Saver:
    """Decides when the state is saved: so that at most a minute is lost, and saving takes at most a twentieth."""

    last: float = field(default_factory=time.monotonic)
    cost: float = 0.0

    def due(self, epoch_ended: bool) -> bool:
        """Whether to save now."""
        since = time.monotonic() - self.last
        return since >= SECONDS_AT_RISK or (epoch_ended and since >= 20 * self.cost)

    def save(self, state: TrainState, folder: Path) -> None:
        """Save, and remember what it cost."""
        started = time.monotonic()
        save(state, folder)
        self.last = time.monotonic()
        self.cost = self.last - started
