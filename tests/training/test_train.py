"""The loop: it learns, it stops where it should, and what it computes is what torch computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from resnetkit import models
from resnetkit import recipe as recipes
from resnetkit.errors import DivergedError
from resnetkit.training import plan
from resnetkit.training.device import Setup, processor_precision
from resnetkit.training.loader import Loader
from resnetkit.training.objective import OBJECTIVES, class_weights
from resnetkit.training.optim import lr_at, make_optimizer
from resnetkit.training.pixels import Pixels
from resnetkit.training.settle import settle
from resnetkit.training.state import TrainState
from resnetkit.training.train import plan_of, train

SETUP = Setup("cpu", "f32")


def ready(total: int = 6, **changes: object) -> tuple[TrainState, Loader]:
    overrides = {
        "model.variant": "resnet18",
        "model.weights": "none",
        "image.size": 32,
        "train.batch_size": 8,
        **changes,
    }
    recipe = settle(recipes.read("", overrides), 32)
    squares = np.random.default_rng(0).integers(0, 256, (24, 37, 37, 3), np.uint8)
    loader = Loader(
        Pixels(lambda rows: lambda: squares[rows], np.ones(24), np.zeros(24, np.uint64)),
        np.arange(24) % 3,
        3,
        recipe,
        OBJECTIVES["classify"],
    )
    network = loader.objective.build(recipe, 3)
    return TrainState(network, make_optimizer(network, recipe.optim), total), loader


def test_one_step_is_a_plain_torch_step() -> None:
    state, loader = ready()
    batch = loader.batch(0)
    torch.manual_seed(loader.recipe.train.seed)
    plain = models.resnet18(num_classes=3, stem="small", zero_init_residual=True)
    plain.load_state_dict(state.network.state_dict())
    optimizer = torch.optim.SGD(plain.parameters(), lr=lr_at(0, 6, loader.recipe.optim), momentum=0.9, nesterov=True)
    for group, decay in zip(make_optimizer(plain, loader.recipe.optim).param_groups, (5e-4, 0), strict=True):
        assert group["weight_decay"] == decay
    loss = F.cross_entropy(plain(batch.images), batch.targets)
    loss.backward()
    tick = next(train(state, [batch], loader.objective, plan_of(loader, SETUP)))
    assert tick.loss == loss.item() and tick.step == 1 and tick.epoch is None
    for mine, theirs in zip(state.network.parameters(), plain.parameters(), strict=True):
        assert torch.equal(mine.grad, theirs.grad)
    optimizer.zero_grad()


def test_epochs_are_reported_with_the_mean_loss() -> None:
    state, loader = ready()
    losses, epochs = [], []
    for tick in train(state, loader.batches(0, 6), loader.objective, plan_of(loader, SETUP)):
        losses.append(tick.loss)
        epochs += [tick.epoch] if tick.epoch else []
    assert [epoch.number for epoch in epochs] == [1, 2]
    assert epochs[0].loss == pytest.approx(np.mean(losses[:3])) and epochs[1].loss == pytest.approx(np.mean(losses[3:]))


@pytest.mark.parametrize(
    "changes", [{}, {"optim.ema_decay": 0.9, "model.stochastic_depth": 0.3, "optim.optimizer": "adamw"}]
)
def test_two_halves_are_the_whole(changes) -> None:
    """The state after 3 + 3 steps is that after 6, bit for bit, dropped blocks and averages included."""

    def run(state: TrainState, loader: Loader, start: int, stop: int) -> None:
        if loader.recipe.optim.ema_decay and state.average is None:
            state.average = {name: tensor.clone() for name, tensor in state.network.state_dict().items()}
        for _ in train(state, loader.batches(start, stop), loader.objective, plan_of(loader, SETUP)):
            torch.rand(3)  # whoever draws from torch's global generator between steps changes nothing

    whole, loader = ready(**changes)
    run(whole, loader, 0, 6)
    halves, _ = ready(**changes)
    run(halves, loader, 0, 2)
    run(halves, loader, 2, 6)
    for name, tensor in whole.evaluated().items():
        assert torch.equal(tensor, halves.evaluated()[name]), name


def test_a_loss_that_is_not_finite_stops_and_names_the_step() -> None:
    """C12."""
    state, loader = ready()
    batches = list(loader.batches(0, 3))
    batches[1].images[0, 0, 0, 0] = float("nan")
    ticks = train(state, batches, loader.objective, plan_of(loader, SETUP))
    next(ticks)
    before = {name: tensor.clone() for name, tensor in state.network.named_parameters()}
    with pytest.raises(DivergedError, match="nan at step 1, with samples") as error:
        next(ticks)
    assert error.value.exit_code == 7 and state.step == 1
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.network.named_parameters())


def test_gradients_are_clipped() -> None:
    state, loader = ready(**{"optim.clip_norm": 0.01})
    next(train(state, [loader.batch(0)], loader.objective, plan_of(loader, SETUP)))
    norm = torch.stack([p.grad.norm() for p in state.network.parameters() if p.grad is not None]).norm()
    assert norm <= 0.0101


def test_balanced_weights_count_every_class_the_same() -> None:
    targets = np.array([0] * 6 + [1] * 3 + [2])
    weights = class_weights(targets, 4)
    assert weights.tolist() == pytest.approx([10 / 24, 10 / 12, 10 / 4, 0])


def test_cpus_train_in_f32() -> None:
    assert processor_precision("cpu") == "f32"


def test_label_smoothing_and_no_augmentation_of_targets() -> None:
    _, loader = ready(**{"optim.label_smoothing": 0.3})
    batch = loader.batch(0)
    assert torch.allclose(batch.targets.sum(1), torch.ones(len(batch.rows)))
    assert batch.targets.min().item() == pytest.approx(0.1) and batch.targets.max().item() == pytest.approx(0.8)


def test_steps_are_measured_at_the_last_size_and_counted_at_their_own(monkeypatch) -> None:
    state, loader = ready(**{"image.start_size": 16, "train.epochs": 30})
    sides = []

    def spied(state, batches, *rest):
        def seen():
            for batch in batches:
                sides.append(batch.images.shape[-1])
                yield batch

        return train(state, seen(), *rest)

    monkeypatch.setattr(plan, "train", spied)
    monkeypatch.setattr(plan, "share_of_work", lambda recipe: 1000.0 * (recipe.image.start_size == 16))
    assert plan.measure(loader, SETUP, state, ["contiguous"]).seconds["contiguous"] > 1
    assert sides and set(sides) == {32}
