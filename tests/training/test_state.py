"""Saving and loading a training: whole, two kept, and the next one back when one is damaged."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from resnetkit import models
from resnetkit.errors import ModelError
from resnetkit.recipe import Optim
from resnetkit.training import optim
from resnetkit.training import state as states


def fresh(optimizer: str = "sgd", num_classes: int = 3) -> states.TrainState:
    torch.manual_seed(0)
    network = models.resnet18(num_classes=num_classes)
    return states.TrainState(network, optim.make_optimizer(network, Optim(optimizer=optimizer)), 10)


def stepped(optimizer: str = "sgd") -> states.TrainState:
    state = fresh(optimizer)
    state.average = {name: tensor.clone() for name, tensor in state.network.state_dict().items()}
    optim.set_lr(state.optimizer, 0.01)
    state.network(torch.randn(2, 3, 32, 32)).sum().backward()
    state.optimizer.step()
    state.step, state.sums, state.history = 1, [1.5, 2.0], [{"epoch": 1, "val_accuracy": None}]
    state.keep_best(0.5, 1)
    return state


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_everything_comes_back(tmp_path: Path, optimizer: str) -> None:
    state, other = stepped(optimizer), fresh(optimizer)
    states.load(other, states.save(state, tmp_path))
    for mine, theirs in (
        (state.network.state_dict(), other.network.state_dict()),
        (state.average, other.average),
        (state.best, other.best),
    ):
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    moments, others = state.optimizer.state_dict()["state"], other.optimizer.state_dict()["state"]
    for index, values in moments.items():
        assert all(
            torch.equal(torch.as_tensor(value), torch.as_tensor(others[index][name])) for name, value in values.items()
        )
    assert (other.step, other.sums, other.history, other.best_score, other.best_epoch) == (
        1,
        [1.5, 2.0],
        state.history,
        0.5,
        1,
    )


def test_two_are_kept(tmp_path: Path) -> None:
    state = stepped()
    for step in (1, 2, 3):
        state.step = step
        states.save(state, tmp_path)
    assert [folder.name for folder in states.saved_states(tmp_path)] == ["00000002", "00000003"]


def test_another_network_or_a_changed_byte_is_refused(tmp_path: Path) -> None:
    """C17, D2: the head of a state to resume must be this one, and every byte of it."""
    folder = states.save(stepped(), tmp_path)
    with pytest.raises(ModelError, match="another architecture"):
        states.load(fresh(num_classes=4), folder)
    path = folder / "optimizer.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match="SHA-256"):
        states.load(fresh(), folder)


def test_nan_never_is_the_best() -> None:
    """C14."""
    state = fresh()
    assert not state.keep_best(float("nan"), 1) and state.best is None
    assert state.keep_best(0.3, 2)
    assert not state.keep_best(float("nan"), 3) and not state.keep_best(0.3, 4)
    assert state.best_epoch == 2


def test_a_save_is_due_after_a_minute_or_when_it_costs_little(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(states.time, "monotonic", lambda: clock[0])
    saver = states.Saver(last=0.0)
    assert saver.due(True) and not saver.due(False)
    saver.cost = 2.0
    clock[0] = 39.0
    assert not saver.due(True)
    clock[0] = 41.0
    assert saver.due(True) and not saver.due(False)
    clock[0] = 60.0
    assert saver.due(False)
