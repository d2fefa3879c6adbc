"""Schedules as pure functions, parameter groups, frozen norms, the moving average."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from resnetkit import models, settings
from resnetkit.nn.resnet import Stem
from resnetkit.training import optim


@pytest.mark.parametrize("schedule", [optim.one_cycle, optim.cosine])
@pytest.mark.parametrize("total", [1, 2, 7, 100])
@pytest.mark.parametrize("warmup", [0.0, 0.25])
def test_schedules_stay_in_range_and_end_near_zero(schedule, total, warmup) -> None:
    factors = [schedule(step, total, warmup) for step in range(total)]
    assert all(0 <= factor <= 1 for factor in factors)
    assert schedule(total, total, warmup) == pytest.approx(0)
    peak = factors.index(max(factors))
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)


def test_one_cycle_is_torchs_own() -> None:
    """Same values as torch.optim.lr_scheduler.OneCycleLR, whose last step is a little above zero."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 1.0, total_steps=101, pct_start=0.25, cycle_momentum=False, final_div_factor=1e9
    )
    for step in range(20):
        # OneCycleLR peaks at step pct_start * total - 1
        assert theirs.get_last_lr()[0] == pytest.approx(optim.one_cycle(step, 100, 0.2425), rel=0.02)
        optimizer.step()
        theirs.step()


def test_norms_and_biases_have_no_weight_decay() -> None:
    network = models.resnet18(num_classes=3)
    decayed, free = optim.parameter_groups(network, settings.Optim(weight_decay=0.1))
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    assert decayed["weight_decay"] == 0.1 and free["weight_decay"] == 0
    assert all(
        "conv" in names[id(p)] or "downsample.0" in names[id(p)] or names[id(p)] == "fc.weight"
        for p in decayed["params"]
    )
    assert all(
        "bn" in names[id(p)] or "downsample.1" in names[id(p)] or names[id(p)] == "fc.bias" for p in free["params"]
    )
    assert len(decayed["params"]) + len(free["params"]) == len(names)


def moved_by_a_step(network: nn.Module, keep_statistics: bool) -> set[str]:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    optimizer = optim.make_optimizer(network, settings.Optim(optimizer="sgd", lr=0.1))
    optim.set_lr(optimizer, 0.1)
    optim.train_mode(network, keep_statistics)
    network(torch.randn(4, 3, 32, 32)).sum().backward()
    optimizer.step()
    return {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}


@pytest.mark.parametrize("stem", ["imagenet", "deep"])
@pytest.mark.parametrize("until", ["stem", "layer2", "layer4"])
def test_frozen_parts_keep_weights_and_statistics(until: str, stem: Stem) -> None:
    """C15's neighbour: "frozen" BatchNorm whose statistics still move is the classic fault."""
    network = models.resnet18(num_classes=3, stem=stem)
    optim.freeze(network, until)
    moved = moved_by_a_step(network, keep_statistics=False)
    order = ["stem", "layer1", "layer2", "layer3", "layer4"]
    frozen = tuple({"stem": ("conv1.", "bn1.")}.get(part, (part + ".",)) for part in order[: order.index(until) + 1])
    prefixes = tuple(prefix for group in frozen for prefix in group)
    assert moved and not any(name.startswith(prefixes) for name in moved)
    rest = {name for name in network.state_dict() if not name.startswith(prefixes) and "running_mean" in name}
    assert rest <= moved


def test_kept_statistics_do_not_move_though_scale_and_shift_learn() -> None:
    network = models.resnet18(num_classes=3, stem="small")
    moved = moved_by_a_step(network, keep_statistics=True)
    buffers = {name for name, _ in network.named_buffers()}
    assert "layer1.0.bn1.weight" in moved and "conv1.weight" in moved and not moved & buffers


def test_the_average_follows_the_weights() -> None:
    average = {"w": torch.zeros(2), "n": torch.tensor(0)}
    optim.update_average(average, {"w": torch.ones(2), "n": torch.tensor(5)}, 0.75)
    assert average["w"].tolist() == [0.25, 0.25] and average["n"].item() == 5


def test_the_backbone_learns_at_a_share_of_the_rate() -> None:
    network = models.build("resnet20")
    optimizer = optim.make_optimizer(network, settings.Optim(optimizer="sgd", backbone_lr=0.25))
    optim.set_lr(optimizer, 0.4)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert {name: rates[id(p)] for name, p in network.named_parameters()} == {
        name: 0.4 if name.startswith("fc.") else 0.1 for name, _ in network.named_parameters()
    }


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_updates_are_the_same_in_the_shape_in_which_weights_lie(optimizer: str) -> None:
    def trained(turned: bool) -> nn.Module:
        torch.manual_seed(0)
        parts = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1), nn.Flatten(), nn.Linear(8 * 36, 2)
        network = nn.Sequential(*parts).to(memory_format=torch.channels_last)
        stepping = optim.make_optimizer(network, settings.Optim(optimizer=optimizer))
        optim.set_lr(stepping, 0.1)
        images = torch.randn(4, 3, 8, 8)
        for _ in range(3):
            stepping.zero_grad()
            network(images).square().sum().backward()
            with optim.in_memory_order(stepping) if turned else nullcontext():
                assert network[0].weight.shape == network[0].weight.grad.shape
                assert network[0].weight.is_contiguous() == turned
                stepping.step()
        return network

    mine, theirs = trained(True), trained(False)
    for one, other in zip(mine.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other) and one.stride() == other.stride()
