"""Recorded steps are the plain ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from conftest import on_gpu
from resnetkit import recipe as recipes
from resnetkit.training import graphs
from resnetkit.training import train as loop
from resnetkit.training.device import Setup
from resnetkit.training.loader import Loader
from resnetkit.training.objective import OBJECTIVES
from resnetkit.training.optim import make_optimizer
from resnetkit.training.pixels import Pixels
from resnetkit.training.settle import settle
from resnetkit.training.state import TrainState
from resnetkit.training.train import plan_of, train

pytestmark = on_gpu


def steps(
    count: int, *, recorded: bool, monkeypatch: pytest.MonkeyPatch, **changes: object
) -> tuple[list[float], dict]:
    """Losses and weights of steps on batches of two sizes, and of how many shapes were recorded."""
    overrides = {"model.variant": "resnet18", "model.weights": "none", "image.size": 32, "train.batch_size": 9}
    recipe = settle(recipes.read("", {**overrides, "train.memory_format": "channels_last", **changes}), 32)
    squares = np.random.default_rng(0).integers(0, 256, (25, 37, 37, 3), np.uint8)
    pixels = Pixels(lambda rows: lambda: squares[rows], np.ones(25), np.zeros(25, np.uint64))
    loader = Loader(pixels, np.arange(25) % 3, 3, recipe, OBJECTIVES["classify"], device="cuda:0")
    torch.manual_seed(0)
    network = loader.objective.build(recipe, 3).to("cuda:0", memory_format=torch.channels_last)
    state = TrainState(network, make_optimizer(network, recipe.optim), count)
    made = []
    record = graphs.Recorded._recorded
    with monkeypatch.context() as patch:
        patch.setattr(graphs.Recorded, "_recorded", lambda *args: made.append(1) or record(*args))
        if not recorded:
            patch.setattr(loop, "_can_be_recorded", lambda plan: False)
        plan = plan_of(loader, Setup("cuda:0", "f32"))
        losses = [tick.loss for tick in train(state, loader.batches(0, count, hands=2), loader.objective, plan)]
    assert len(made) == (2 if recorded else 0)
    return losses, {name: tensor.cpu() for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("changes", [{}, {"model.stochastic_depth": 0.3, "optim.clip_norm": 1.0}])
def test_recorded_steps_are_the_steps(monkeypatch, changes) -> None:
    plain, one = steps(24, recorded=False, monkeypatch=monkeypatch, **changes)
    found, other = steps(24, recorded=True, monkeypatch=monkeypatch, **changes)
    assert found[:4] == pytest.approx(plain[:4], rel=1e-3) and len(set(found)) == 24
    if not changes:  # a replay draws other blocks to skip
        assert found == pytest.approx(plain, rel=0.05)
        assert all(torch.allclose(one[name].float(), other[name].float(), atol=0.02) for name in one)
        assert torch.equal(one["bn1.num_batches_tracked"], other["bn1.num_batches_tracked"])
