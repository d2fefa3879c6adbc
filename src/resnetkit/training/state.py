"""TrainState: all that a training is at a step, to and from a folder of safetensors and JSON."""

from __future__ import annotations

import json
import math
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from resnetkit.errors import ModelError
from resnetkit.files import new_folder, verify_manifest
from resnetkit.nn.resnet import ResNet
from resnetkit.training.optim import update_average
from resnetkit.weights.fit import refuse_differences

KEPT = 2
SECONDS_AT_RISK = 60.0  # of work that a kill may lose
STATE = "state.json"


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
    """

    network: ResNet
    optimizer: torch.optim.Optimizer
    total_steps: int
    step: int = 0
    average: dict[str, Tensor] | None = None
    best: dict[str, Tensor] | None = None
    best_score: float = -math.inf
    best_epoch: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0])
    history: list[dict[str, Any]] = field(default_factory=list)

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


def save(state: TrainState, folder: Path) -> Path:
    """Write a state as folder/<step>, published by one rename with a manifest; the two newest are kept.

    Raises:
        ResourceError: the disk refuses; the older states are intact.
    """
    target = folder / f"{state.step:08d}"
    if target.exists():
        return target
    with new_folder(target) as temporary:
        _write(temporary / "network.safetensors", state.network.state_dict())
        _write(temporary / "optimizer.safetensors", _flat_optimizer(state.optimizer))
        for name in ("average", "best"):
            tensors = getattr(state, name)
            if tensors is not None:
                _write(temporary / f"{name}.safetensors", tensors)
        values = {
            "step": state.step,
            "total_steps": state.total_steps,
            "best_score": None if state.best is None else state.best_score,
            "best_epoch": state.best_epoch,
            "sums": state.sums,
            "history": state.history,
        }
        (temporary / STATE).write_text(json.dumps(values), encoding="utf-8")
    for old in saved_states(folder)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    path.write_bytes(safetensors.torch.save(contiguous))


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
    return sorted(path for path in folder.glob("[0-9]*") if path.is_dir())


def load(state: TrainState, folder: Path) -> None:
    """Put a saved state into a fresh one of the same recipe.

    Raises:
        ModelError: a byte is changed, or it is the state of another network.
    """
    verify_manifest(folder)
    values = json.loads((folder / STATE).read_text(encoding="utf-8"))
    if values["total_steps"] != state.total_steps:
        what = f"is of a training of {values['total_steps']} steps, not {state.total_steps}"
        raise ModelError(what, path=folder, fix="resume with the same data and recipe")
    network = safetensors.torch.load_file(folder / "network.safetensors")
    refuse_differences(state.network.state_dict(), network, str(folder))
    state.network.load_state_dict(network)
    device = state.network.fc.weight.device
    state.optimizer.load_state_dict(_nested_optimizer(state.optimizer, folder / "optimizer.safetensors"))
    for name in ("average", "best"):
        path = folder / f"{name}.safetensors"
        setattr(state, name, safetensors.torch.load_file(path, str(device)) if path.exists() else None)
    state.step, state.sums, state.history = values["step"], values["sums"], values["history"]
    state.best_epoch = values["best_epoch"]
    state.best_score = -math.inf if values["best_score"] is None else values["best_score"]


def _nested_optimizer(optimizer: torch.optim.Optimizer, path: Path) -> dict[str, Any]:
    nested: dict[int, dict[str, Tensor]] = {}
    for name, tensor in safetensors.torch.load_file(path).items():
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
