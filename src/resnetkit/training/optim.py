"""Optimiser, schedules as pure functions of the step, and the moving average of the weights."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from resnetkit.settings import Optim

BACKBONE = re.compile(r"(backbone\.(body\.)?)?(conv1|bn1|layer\d+)\b")  # parameters of a residual network but its head


def one_cycle(step: int, total: int, warmup: float) -> float:
    """Factor 0..1 of the peak rate at step 0..total-1: cosine from 1/25 up, then cosine to 0 (arXiv 1708.07120)."""
    rise = warmup * total
    if step < rise:
        return 1 / 25 + (1 - 1 / 25) * (1 - math.cos(math.pi * step / rise)) / 2
    return (1 + math.cos(math.pi * (step - rise) / (total - rise))) / 2


def cosine(step: int, total: int, warmup: float) -> float:
    """Factor 0..1 of the peak rate at a step of 0..total-1: a line from 0 up, then cosine to 0 (arXiv 1608.03983)."""
    rise = warmup * total
    if step < rise:
        return (step + 1) / (math.ceil(rise) + 1)
    return (1 + math.cos(math.pi * (step - rise) / (total - rise))) / 2


def lr_at(step: int, total: int, settings: Optim) -> float:
    """Learning rate at a step of 0..total-1."""
    assert settings.lr != "auto", "the verb decides before the first step"
    factor = one_cycle if settings.schedule == "one-cycle" else cosine
    return settings.lr * factor(step, total, settings.warmup)


def parameter_groups(network: nn.Module, settings: Optim) -> list[dict[str, Any]]:
    """Trainable parameters by their share of the rate and their decay; norms and biases (one dimension) have none."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            share = settings.backbone_lr if BACKBONE.match(name) else 1.0
            decay = settings.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((share, decay), []).append(parameter)
    return [{"params": group, "share": share, "weight_decay": decay} for (share, decay), group in groups.items()]


def make_optimizer(network: nn.Module, settings: Optim) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum 0.9, or AdamW; the loop sets the rate at every step; fused: one pass over memory."""
    groups = parameter_groups(network, settings)
    assert settings.optimizer != "auto", "the verb decides before the first step"
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=0.0, fused=True)
    return torch.optim.SGD(groups, lr=0.0, momentum=0.9, nesterov=True, fused=True)


def match_memory_formats(optimizer: torch.optim.Optimizer) -> None:
    """Give moments that were read from a file the memory format of their parameters.

    torch's fused optimisers on CPUs go over memory as it lies, and would join each weight with the moment of another.
    """
    for parameter, moments in optimizer.state.items():
        for name, moment in moments.items():
            if isinstance(moment, Tensor) and moment.shape == parameter.shape:
                moments[name] = torch.empty_like(parameter).copy_(moment)


@contextmanager
def in_memory_order(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Inside, weights in channels_last on a CPU have the shape in which they lie, [K, h, w, C], for a step of updates.

    torch's fused optimisers would copy each of their gradients otherwise, which takes as long as all the rest.
    """
    weights = [p for group in optimizer.param_groups for p in group["params"] if _lies_last(p)]
    _turn(optimizer, weights, (0, 2, 3, 1))
    try:
        yield
    finally:
        _turn(optimizer, weights, (0, 3, 1, 2))


def _lies_last(weight: Tensor) -> bool:
    last = weight.ndim == 4 and weight.is_contiguous(memory_format=torch.channels_last)
    return last and not weight.is_contiguous() and weight.device.type == "cpu"


def _turn(optimizer: torch.optim.Optimizer, weights: Iterable[Tensor], axes: tuple[int, ...]) -> None:
    """Put the axes of weights, their gradients and moments into another order; nothing moves in memory."""
    for weight in weights:
        gradient, weight.grad = weight.grad, None
        weight.data = weight.data.permute(axes)
        weight.grad = None if gradient is None else gradient.permute(axes)
        moments = optimizer.state.get(weight, {})
        moments |= {name: m.permute(axes) for name, m in moments.items() if isinstance(m, Tensor) and m.ndim == 4}


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the rate of all groups, to their share of it."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("share", 1.0)


@torch.no_grad()
def update_average(average: Mapping[str, Tensor], current: Mapping[str, Tensor], decay: float) -> None:
    """Average = decay * average + (1 - decay) * current, in place; counters and statistics of integers are copied."""
    for name, value in current.items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - decay)
        else:
            average[name].copy_(value)


def freeze(network: nn.Module, until: str) -> None:
    """Freeze the stem and the stages up to and including `until` ("none" to "layer4"): no gradients."""
    order = ("stem", "layer1", "layer2", "layer3", "layer4")
    frozen = order[: order.index(until) + 1] if until in order else ()
    for part in frozen:
        for module in _part(network, part):
            module.requires_grad_(False)


def _part(network: nn.Module, part: str) -> Iterable[nn.Module]:
    names = ("conv1", "bn1") if part == "stem" else (part,)
    return [module for name, module in network.named_children() if name in names]  # three stages have no layer4


def train_mode(network: nn.Module, keep_statistics: bool) -> None:
    """Training mode, except for norms that keep their statistics: all of them, or else those that are frozen."""
    network.train()
    for module in network.modules():
        own = list(module.parameters(recurse=False))
        if own and isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train(not keep_statistics and any(p.requires_grad for p in own))
