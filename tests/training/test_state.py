"""Saving and loading a training: whole, two kept, and the next one back when one is damaged."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from resnetkit import files, models
from resnetkit.errors import ModelError
from resnetkit.nn.blocks import Bottleneck
from resnetkit.nn.resnet import ResNet
from resnetkit.settings import Optim
from resnetkit.training import optim
from resnetkit.training import state as states


def fresh(optimizer: str = "sgd", num_classes: int = 3) -> states.TrainState:
    torch.manual_seed(0)
    # the narrowest there is: a second of writing less for each state
    network = ResNet(Bottleneck, (1, 1, 1, 1), num_classes, width_per_group=4, shortcut="A")
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


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_going_on_is_exact_in_both_memory_formats(tmp_path: Path, optimizer: str, layout: torch.memory_format) -> None:
    """Fused optimisers go over memory as it lies, so that moments in another format would meet other weights."""
    state, other = fresh(optimizer), fresh(optimizer)
    for one in (state, other):
        one.network.to(memory_format=layout)
    images = torch.randn(2, 3, 32, 32).to(memory_format=layout)

    def step(one: states.TrainState) -> None:
        optim.set_lr(one.optimizer, 0.01)
        one.optimizer.zero_grad()
        one.network(images).square().sum().backward()
        one.optimizer.step()

    step(state)
    step(state)
    states.load(other, states.save(state, tmp_path))
    for one in (state, other):
        step(one)
    mine, theirs = state.network.state_dict(), other.network.state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


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


def changed(folder: Path, **values: object) -> Path:
    """A state with other values and sums that fit."""
    path = folder / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    (folder / "manifest.json").unlink()
    files._write_manifest(folder)
    return folder


@pytest.mark.parametrize("scaler", [None, {"scale": 2.0**16, "_growth_tracker": 3}])
def test_scaler_and_numbers_that_json_has_no_word_for(tmp_path: Path, scaler: dict[str, float] | None) -> None:
    state, other = stepped(), fresh()
    state.scaler, state.history = scaler, [{"epoch": 1, "val_loss": float("nan")}]
    states.load(other, states.save(state, tmp_path))
    assert other.scaler == scaler and other.history == [{"epoch": 1, "val_loss": None}]


def test_other_data_is_refused(tmp_path: Path) -> None:
    """C25: by the fingerprint; where either has none, nothing is known and nothing is said."""
    state, other = stepped(), fresh()
    state.fingerprint, other.fingerprint = "aa", "bb"
    folder = states.save(state, tmp_path)
    before = {name: tensor.clone() for name, tensor in other.network.state_dict().items()}
    with pytest.raises(ModelError, match="was trained on other data") as caught:
        states.load(other, folder)
    assert caught.value.exit_code == 5 and other.step == 0
    assert all(torch.equal(before[name], tensor) for name, tensor in other.network.state_dict().items())
    for fingerprint in ("aa", ""):
        other.fingerprint = fingerprint
        states.load(other, folder)
        assert other.fingerprint == fingerprint


def test_another_number_of_steps_is_refused(tmp_path: Path) -> None:
    """C25."""
    folder, other = states.save(stepped(), tmp_path), fresh()
    other.total_steps = 11
    with pytest.raises(ModelError, match="of a training of 10 steps, not 11"):
        states.load(other, folder)


def test_another_torch_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """C25: going on is allowed, bit-exactness is not promised; states of versions that did not say it load too."""
    folder = states.save(stepped(), tmp_path)
    states.load(fresh(), folder)
    states.load(fresh(), changed(folder, torch=None))
    assert caplog.messages == []
    states.load(fresh(), changed(folder, torch="1.0"))
    (said,) = caplog.messages
    assert said == (
        f"{folder}: saved by torch 1.0, this is {torch.__version__}: going on is not promised to be bit-exact"
    )


def test_the_newest_whole_state(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """D2: a damaged state is told and passed over, but never all of them; the next save replaces it."""
    state, other = stepped(), fresh()
    assert states.load_newest(other, tmp_path / "state") is None
    for step in (1, 2):
        state.step = step
        states.save(state, tmp_path)
    (tmp_path / "00000002" / "network.safetensors").write_bytes(b"")
    assert states.load_newest(other, tmp_path) == tmp_path / "00000001" and other.step == 1
    (said,) = caplog.messages
    assert "corrupt: 0 of" in said and said.endswith("; going on from the state before it, of step 1")
    shutil.copytree(tmp_path / "00000002", tmp_path / "00000003")
    state.step = 2
    states.save(state, tmp_path)
    assert [path.name for path in states.saved_states(tmp_path)] == ["00000001", "00000002"]
    for name in ("00000001", "00000002"):
        os.unlink(tmp_path / name / "best.safetensors")
    with pytest.raises(ModelError, match="00000002.best.safetensors: is missing"):
        states.load_newest(other, tmp_path)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("average", [False, True])
def test_the_size_is_known_beforehand(tmp_path: Path, optimizer: str, average: bool) -> None:
    """C7: what a state will need is what it needs, but for names and numbers."""
    state, other = stepped(optimizer), fresh(optimizer)
    other.average = state.average = state.average if average else None
    found = sum(path.stat().st_size for path in states.save(state, tmp_path).iterdir())
    assert found * 0.99 < states.size(other) == states.size(state) <= found


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


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_all_of_a_state_grows(tmp_path: Path, optimizer: str) -> None:
    """The new blocks are the identity in the network, its average and its best; moments stay; steps go on."""
    settings = Optim(optimizer=optimizer)

    def small() -> states.TrainState:
        torch.manual_seed(0)
        network = models.build("resnet20", num_classes=3)
        growth = states.Growth(2, "resnet32", settings)
        return states.TrainState(network, optim.make_optimizer(network, settings), 4, growth=growth)

    def stepped_once(state: states.TrainState) -> None:
        optim.set_lr(state.optimizer, 0.01)
        state.optimizer.zero_grad()
        state.network.train()(images).square().sum().backward()
        state.optimizer.step()
        state.step += 1

    images = torch.randn(4, 3, 32, 32)
    state = small()
    assert state.phases() == [2, 4]
    stepped_once(state)
    stepped_once(state)
    assert state.phases() == [4]
    state.average = {name: tensor.clone() for name, tensor in state.network.state_dict().items()}
    state.keep_best(0.5, 1)
    before = [f(state, images) for f in (logits, logits_of_best)]
    momentum = {n: state.optimizer.state[p] for n, p in state.network.named_parameters()}
    states.grow(state, seed=0)
    assert len(state.network.layer1) == 5
    assert all(
        torch.equal(a, b) for a, b in zip(before, (logits(state, images), logits_of_best(state, images)), strict=True)
    )
    moved = dict(state.network.named_parameters())
    assert all(state.optimizer.state[moved[name]] is values for name, values in momentum.items())
    assert state.best is not None and state.average.keys() == state.best.keys() == state.network.state_dict().keys()
    assert not any(state.average[name] is state.best[name] for name in state.best)
    stepped_once(state)
    other = small()
    states.load(other, states.save(state, tmp_path))
    assert other.step == 3 and other.phases() == [4]
    for one in (state, other):
        stepped_once(one)
    mine, theirs = state.network.state_dict(), other.network.state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


@torch.no_grad()
def logits(state: states.TrainState, images: torch.Tensor) -> torch.Tensor:
    return state.network.eval()(images)  # type: ignore[no-any-return]


@torch.no_grad()
def logits_of_best(state: states.TrainState, images: torch.Tensor) -> torch.Tensor:
    assert state.best is not None
    return torch.func.functional_call(state.network.eval(), state.best, (images,))  # type: ignore[no-any-return]
