"""The loop: a generator that yields after every step. The caller evaluates, saves, and stops with `break`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from resnetkit.errors import DivergedError
from resnetkit.settings import Recipe
from resnetkit.training.device import Setup, largest, layout_of, on_device, parallel, summed
from resnetkit.training.graphs import Recorded
from resnetkit.training.kernels import kernels_wanted, own_kernels
from resnetkit.training.loader import Batch, Loader
from resnetkit.training.objective import Objective
from resnetkit.training.optim import in_memory_order, lr_at, set_lr, train_mode
from resnetkit.training.state import TrainState, seed_step

Learning = Callable[[Tensor, Any, float], Tensor]
RECORDED = ("classify", "multilabel")


@dataclass(frozen=True)
class Epoch:
    """A finished epoch: its number from 1, and the mean loss over its samples."""

    number: int
    loss: float


@dataclass(frozen=True)
class Tick:
    """A finished step: steps done so far, loss, learning rate; `epoch` at an epoch's end, else None."""

    step: int
    loss: float
    lr: float
    epoch: Epoch | None


@dataclass(frozen=True)
class Plan:
    """What the loop needs to know, and does not change.

    Attributes:
        recipe: settings.
        setup: device, precision, processes.
        steps_per_epoch: steps of an epoch.
        weights: of the classes in the loss [K], or None.
    """

    recipe: Recipe
    setup: Setup
    steps_per_epoch: int
    weights: Tensor | None = None


def plan_of(loader: Loader, setup: Setup) -> Plan:
    """The plan of a loader's recipe."""
    balanced = loader.recipe.optim.class_weights == "balanced"
    weights = loader.objective.weights(loader.targets, loader.num_classes).to(setup.device) if balanced else None
    return Plan(loader.recipe, setup, loader.steps_per_epoch, weights)


def train(state: TrainState, batches: Iterable[Batch], objective: Objective, plan: Plan) -> Iterator[Tick]:
    """Train; yields after every step, when `state` is whole and may be saved.

    Args:
        state: changed in place.
        batches: of the steps from state.step on.
        objective: of the task.
        plan: settings, device, and class weights.

    Raises:
        DivergedError: the loss is not finite; the state is that of the step before.
    """
    with own_kernels(state.network, kernels_wanted(plan.recipe, plan.setup)):
        yield from _train(state, batches, objective, plan)


def _train(state: TrainState, batches: Iterable[Batch], objective: Objective, plan: Plan) -> Iterator[Tick]:
    scaler = torch.amp.GradScaler(plan.setup.kind, enabled=plan.setup.precision == "f16")
    if state.scaler:
        scaler.load_state_dict(state.scaler)
    learn = _learning(state, objective, scaler, plan)
    train_mode(state.network, plan.recipe.finetune.keep_statistics)
    for batch in batches:
        lr = lr_at(batch.step, state.total_steps, plan.recipe.optim)
        set_lr(state.optimizer, lr)
        seed_step(plan.recipe.train.seed, batch.step)
        value = _loss(learn, batch, plan)
        if largest(int(not math.isfinite(value)), plan.setup):
            what = f"the loss is {value} at step {batch.step}, with samples {batch.rows[:8].tolist()}"
            raise DivergedError(what, fix="lower optim.lr, or set optim.clip_norm=1.0")
        _update(state, scaler, plan.recipe.optim.clip_norm)
        state.step, state.scaler = batch.step + 1, scaler.state_dict() or None
        state.average_weights(plan.recipe.optim.ema_decay)
        state.sums[0] += value * len(batch.rows)
        state.sums[1] += len(batch.rows)
        yield Tick(state.step, value, lr, _end_of_epoch(state, plan))
        if not state.network.training:  # the caller has evaluated it
            train_mode(state.network, plan.recipe.finetune.keep_statistics)


class Learner(nn.Module):
    """A network with its loss as one module: where processes share a step, torch looks at calls of `forward` alone."""

    def __init__(self, network: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.network, self.loss = network, objective.loss

    def forward(self, inputs: Tensor, targets: Any, weights: Tensor | None) -> Tensor:
        """What the objective's loss gives."""
        return self.loss(self.network, inputs, targets, weights)


def _learning(state: TrainState, objective: Objective, scaler: torch.amp.GradScaler, plan: Plan) -> Learning:
    """What leaves the gradients of a batch; its share is of the samples of all processes, times their number."""
    learner = parallel(Learner(state.network, objective), plan.setup)

    def learn(images: Tensor, targets: Any, share: float = 1.0) -> Tensor:
        state.optimizer.zero_grad(set_to_none=True)
        with plan.setup.autocast():
            loss = learner(images, targets, plan.weights)
        scaler.scale(loss * share).backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    if not _can_be_recorded(plan):
        return learn
    recorded = Recorded(learn, [*state.network.parameters()])
    return lambda images, targets, share: recorded(images, targets)


def _can_be_recorded(plan: Plan) -> bool:
    """Whether the steps of images of classes are the same operations for each batch, on a GPU that is not shared."""
    setup, task = plan.setup, plan.recipe.data.task
    return (setup.kind, setup.world) == ("cuda", 1) and setup.precision != "f16" and task in ("auto", *RECORDED)


def _loss(learn: Learning, batch: Batch, plan: Plan) -> float:
    images = batch.images.to(plan.setup.device, memory_format=layout_of(plan.recipe), non_blocking=True)
    targets = on_device(batch.targets, plan.setup.device)
    return float(learn(images, targets, len(batch.rows) * plan.setup.world / batch.total))


def _update(state: TrainState, scaler: torch.amp.GradScaler, clip_norm: float) -> None:
    if clip_norm:
        scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(state.network.parameters(), clip_norm)
    with in_memory_order(state.optimizer):
        scaler.step(state.optimizer)
    scaler.update()


def _end_of_epoch(state: TrainState, plan: Plan) -> Epoch | None:
    if state.step % plan.steps_per_epoch:
        return None
    loss, samples = summed(state.sums, plan.setup)
    epoch = Epoch(state.step // plan.steps_per_epoch, loss / samples)
    state.sums = [0.0, 0.0]
    return epoch


@torch.inference_mode()
def logits_of(
    network: nn.Module, images: Iterable[Tensor], device: str
) -> Iterator[np.ndarray[Any, np.dtype[np.float32]]]:
    """Logits [n, K] of batches [n, C, H, W] in evaluation mode and f32."""
    network.eval()
    for batch in images:
        yield network(batch.to(device)).float().cpu().numpy()
