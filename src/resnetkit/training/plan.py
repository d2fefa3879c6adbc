"""What "auto" becomes, from the data and from a few measured steps; decided and written down before the first step."""

from __future__ import annotations

import copy
import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from resnetkit import models
from resnetkit.nn.cut import cut, last_cut
from resnetkit.nn.resnet import ResNet
from resnetkit.recipe import replace
from resnetkit.settings import Recipe
from resnetkit.training.device import Setup
from resnetkit.training.kernels import kernels_wanted, own_kernels
from resnetkit.training.loader import Loader, share_of_work
from resnetkit.training.optim import freeze, in_memory_order, make_optimizer, train_mode
from resnetkit.training.settle import EPOCHS_A_VIEW
from resnetkit.training.state import TrainState
from resnetkit.training.statistics import IMAGES
from resnetkit.training.train import plan_of, train
from resnetkit.training.trunk import engine_of, open_trunk, seconds_of

STEPS, SECONDS = 8, 2.0  # measured for each memory format: so many steps, or what fits but three at least
MARGIN = 0.92  # of the time that is left is planned: steps take longer than they took when they were measured
UPPER = "layer2"  # what lies above it, layer3 to the head, learns as well on few images, in 0.7 of the time
FEWEST, FEWEST_UPPER = 5, 3  # epochs of the whole network, and of that, which are worth more than less of it
FEWEST_VIEWS, MOST_VIEWS, MOST_EPOCHS = 2, 8, 24  # of layer4 on stored maps
LEAST_STEP = 2.0  # times what evaluation takes, a training step takes for certain: three to four were measured
SMALLEST_BATCH = 8  # on which costs are measured, at 224 px
SECONDS_A_HEAD, SECONDS_A_FEATURE = 1.5, 2e-7  # to fit the head: importing scikit-learn 1.9, and on one core


@dataclass(frozen=True)
class Pace:
    """Measured seconds a step, for each memory format tried."""

    seconds: dict[str, float]

    @property
    def fastest(self) -> str:
        """The memory format that won."""
        return min(self.seconds, key=self.seconds.__getitem__)


def measure(loader: Loader, setup: Setup, state: TrainState, formats: Sequence[str]) -> Pace:
    """Seconds a step for each memory format: the best of two or more after a first one, on a copy of the network."""
    return Pace({layout: _seconds_a_step(loader, setup, state, layout) for layout in formats})


def _seconds_a_step(loader: Loader, setup: Setup, state: TrainState, layout: str) -> float:
    recipe = replace(loader.recipe, {"train.memory_format": layout, "image.start_size": 0})
    # under several processes the copy is not wrapped: measuring needs no gradients of others
    alone = Setup(setup.device, setup.precision)
    network = copy.deepcopy(state.network).to(memory_format=memory_format(layout))
    trial = TrainState(network, make_optimizer(network, recipe.optim), state.total_steps)
    full = dataclasses.replace(loader, recipe=recipe)  # of the last size
    plan, marks = plan_of(full, alone), [time.monotonic()]
    early = 2 * setup.hands  # steps whose batches were made while the first one was waited for
    steps = min(STEPS + 2 * early, state.total_steps)
    for _ in train(trial, full.batches(0, steps, hands=setup.hands), loader.objective, plan):
        marks.append(time.monotonic())
        if len(marks) > 3 and marks[-1] - marks[0] > SECONDS:
            break
    seconds = [b - a for a, b in pairwise(marks)]
    late = seconds[1 + early :] or seconds[1:] or seconds
    # without hands each step waits for its own batch, with them some wait for several
    return (statistics.mean(late) if setup.hands else min(late)) * share_of_work(loader.recipe)


def likely_format(recipe: Recipe, setup: Setup) -> str:
    """The memory format asked for, or the one that is faster with our kernels and on GPUs, or the usual one."""
    if recipe.train.memory_format != "auto":
        return recipe.train.memory_format
    return "channels_last" if recipe.train.kernels == "own" or setup.kind == "cuda" else "contiguous"


def formats_to_try(recipe: Recipe, setup: Setup) -> tuple[str, ...]:
    """The memory formats of which one may be the fastest: both on a CPU, if none was asked for."""
    open_to_both = recipe.train.memory_format == "auto" and setup.kind != "cuda"
    return ("contiguous", "channels_last") if open_to_both else (likely_format(recipe, setup),)


def memory_format(layout: str) -> torch.memory_format:
    """The torch value of a memory format's name."""
    return torch.channels_last if layout == "channels_last" else torch.contiguous_format


def seconds_with_growth(loader: Loader, setup: Setup, state: TrainState, pace: Pace) -> float:
    """Mean seconds a step in the fastest memory format, where the network grows on the way too."""
    seconds = pace.seconds[pace.fastest]
    if state.growth is None:
        return seconds
    grown = dataclasses.replace(state, network=models.grow(state.network, state.growth.into))
    later = measure(loader, setup, grown, [pace.fastest]).seconds[pace.fastest]
    at = loader.recipe.grow.at
    return at * seconds + (1 - at) * later


@dataclass(frozen=True)
class Costs:
    """Measured seconds an image.

    Attributes:
        forward: the whole network in evaluation, by torch.
        features: the frozen network, by its engine.
        trunk: the frozen network up to layer3, by its engine.
        top: layer4 and the head in evaluation on stored maps, by torch.
        tail: a training step of layer4 and the head, on stored maps.
        step: a training step of the whole network.
        upper: one in which the stages up to UPPER are frozen; infinite where the recipe freezes stages itself.
        statistics: to renew those of BatchNorm; none where they are kept.
    """

    forward: float
    features: float
    trunk: float
    top: float
    tail: float
    step: float
    upper: float = math.inf
    statistics: float = 0.0

    def step_above(self, frozen: str) -> float:
        """Of a training step in which the stages up to `frozen`, "none" or UPPER, are frozen."""
        return self.step if frozen == "none" else self.upper


@dataclass(frozen=True)
class Stages:
    """The stages of a training: whether a head is fitted, views and epochs of layer4 on stored maps, epochs of all.

    In the last ones the network is frozen up to and including `frozen`.
    """

    head: bool
    views: int
    layer4_epochs: int
    epochs: int
    frozen: str = "none"


def predicted(costs: Costs, images: tuple[int, int], features: int, stages: Stages) -> dict[str, float]:
    """Seconds of each stage.

    Args:
        costs: measured.
        images: numbers of training and of validation images.
        features: numbers that the head multiplies for each image: its inputs times the classes.
        stages: what is done.
    """
    train, val = images
    stored = (train * stages.views + val) * costs.trunk if stages.views else (train + val) * costs.features
    rest = (train + val) * costs.top if stages.views else 0.0  # from the maps to the embedding
    fit = SECONDS_A_HEAD + SECONDS_A_FEATURE * train * features
    name, step = "all" if stages.frozen == "none" else f"above {stages.frozen}", costs.step_above(stages.frozen)
    frozen_first = stages.head or stages.views > 0
    return {
        "statistics": min(train, IMAGES) * costs.statistics if frozen_first else 0.0,
        "features": stored if frozen_first else 0.0,
        "head": fit + rest if stages.head else 0.0,
        "layer4": stages.layer4_epochs * (train + val / 3) * costs.tail,
        name: stages.epochs * (train * step + val * costs.forward) if stages.epochs else 0.0,
    }


def choose(
    costs: Costs, images: tuple[int, int], features: int, wanted: int, seconds: float, most_views: int = MOST_VIEWS
) -> Stages:
    """The best fine-tuning that fits: all, else what is above UPPER, else layer4 on stored maps, else the head alone.

    Args:
        costs: as for `predicted`.
        images: likewise.
        features: likewise.
        wanted: epochs of the whole network that are enough.
        seconds: for all stages together.
        most_views: for whose maps there is room.
    """

    def left(stages: Stages) -> float:
        return MARGIN * seconds - sum(predicted(costs, images, features, stages).values())

    alone = Stages(True, 0, 0, 0)
    for frozen, fewest in (("none", FEWEST), (UPPER, FEWEST_UPPER)):
        more = dataclasses.replace(alone, epochs=1, frozen=frozen)
        epochs = min(wanted, int(left(alone) / (left(alone) - left(more))))
        if epochs and epochs >= min(wanted, fewest):
            return dataclasses.replace(more, epochs=epochs)
    for views in range(min(most_views, MOST_VIEWS), FEWEST_VIEWS - 1, -1):
        stored = Stages(True, views, 0, 0)
        epoch = left(stored) - left(dataclasses.replace(stored, layer4_epochs=1))
        if left(stored) >= EPOCHS_A_VIEW * views * epoch:
            return dataclasses.replace(stored, layer4_epochs=min(MOST_EPOCHS, int(left(stored) / epoch)))
    return alone


def least_costs(loader: Loader, setup: Setup, network: nn.Module) -> tuple[str, Costs]:
    """The memory format asked for, or the usual one, and what evaluation costs in it, on random images.

    No step is measured: it takes LEAST_STEP times the evaluation at least, and so does one of a part.
    """
    layout = likely_format(loader.recipe, setup)
    part, images = _trial(loader, setup, network, layout)

    @torch.inference_mode()
    def seconds(part: Callable[[Tensor], Tensor], x: Tensor) -> float:
        # reading a number waits for a GPU
        return seconds_of(lambda: float(part(x).flatten()[0])) / len(images)

    with own_kernels(part, kernels_wanted(loader.recipe, setup)):
        renewing = seconds(part.train(), images) if loader.recipe.finetune.statistics == "renewed" else 0.0
    trunk, tail = _halves(part)
    with torch.inference_mode():
        maps = trunk(images)
    prepare, below, top = _prepare(loader, setup), seconds(trunk, images), seconds(tail, maps)
    engine = open_trunk(part, last_cut(part), loader.recipe, setup)  # type: ignore[arg-type]
    gain = below / seconds(engine, images) if engine_of(loader.recipe, setup) != "torch" else 1.0
    whole, small = LEAST_STEP * (below + top), share_of_work(loader.recipe)
    return layout, Costs(
        forward=prepare + below + top,
        statistics=prepare + renewing if renewing else 0.0,
        features=prepare + (below + top) / gain,
        trunk=prepare + below / gain,
        top=top,
        tail=LEAST_STEP * top,
        step=prepare + whole * small,
        upper=prepare + whole * small / 2 if loader.recipe.model.freeze == "none" else math.inf,
    )


def measure_costs(
    loader: Loader, setup: Setup, network: nn.Module, least: Costs, whole: bool = True
) -> tuple[str, Costs]:
    """The memory format asked for, or that in which a step is faster, and the costs with what learning takes in it.

    What a step of the whole network costs is left as it was unless `whole`.
    """
    trial, formats = partial(_trial, loader, setup, network), [likely_format(loader.recipe, setup)]
    if whole and loader.recipe.train.kernels != "own":  # which are made for one of them
        formats = [*formats_to_try(loader.recipe, setup)]
    # one copy at a time: with its gradients and moments it takes four times the memory of the weights
    steps = {layout: seconds_of(_step(loader, setup, *trial(layout))) if whole else 0.0 for layout in formats}
    layout = min(steps, key=steps.__getitem__)
    part, images = trial(layout)
    trunk, tail = _halves(part)
    with torch.inference_mode():
        found = trunk(images)
    maps = found.clone()  # from which gradients can be computed
    tail_step, upper_step = seconds_of(_step(loader, setup, tail, maps)), math.inf
    least = dataclasses.replace(least, tail=tail_step / len(images))
    if not whole:
        return layout, least
    if loader.recipe.model.freeze == "none":
        freeze(part, UPPER)
        upper_step = seconds_of(_step(loader, setup, part, images))
    prepare, small = _prepare(loader, setup), share_of_work(loader.recipe) / len(images)
    step, upper = (prepare + seconds * small for seconds in (steps[layout], upper_step))
    return layout, dataclasses.replace(least, step=step, upper=upper)


def _halves(network: nn.Module) -> tuple[nn.Module, nn.Module]:
    """What can be frozen and stored, and layer4 with the head, in evaluation mode."""
    assert isinstance(network, ResNet)
    trunk, tail = cut(network, last_cut(network))
    return trunk.eval(), tail.eval()


def _prepare(loader: Loader, setup: Setup) -> float:
    """Seconds to make a training image of the last size from what is stored."""
    full = dataclasses.replace(loader, recipe=replace(loader.recipe, {"image.start_size": 0}))
    return seconds_of(partial(full.batch, 0)) / len(full.batch(0).rows) / max(1, setup.hands)


def _trial(loader: Loader, setup: Setup, network: nn.Module, layout: str) -> tuple[nn.Module, Tensor]:
    """A copy of the network and a random batch, as large as in training, or smaller on a CPU where images are large."""
    image, form = loader.recipe.image, memory_format(layout)
    assert image.size != "auto", "the verb decides before the first step"
    batch = loader.recipe.train.batch_size
    if setup.kind == "cpu":  # a GPU takes as long for a few
        batch = min(batch, max(SMALLEST_BATCH, SMALLEST_BATCH * 224**2 // image.size**2))
    images = torch.randn(batch, image.channels, image.size, image.size, device=setup.device)
    return copy.deepcopy(network).to(memory_format=form), images.to(memory_format=form)


def _step(loader: Loader, setup: Setup, part: nn.Module, x: Tensor) -> Callable[[], None]:
    """A training step of a part of the network on its input."""
    optimizer = make_optimizer(part, loader.recipe.optim)
    targets = torch.full((len(x), loader.num_classes), 1 / loader.num_classes, device=setup.device)
    train_mode(part, loader.recipe.finetune.keep_statistics)

    def step() -> None:
        with setup.autocast(), own_kernels(part, kernels_wanted(loader.recipe, setup)):
            loss = loader.objective.loss(part, x, targets, None)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        with in_memory_order(optimizer):
            optimizer.step()
        loss.item()  # waits for a GPU

    return step


def epochs_that_fit(wanted: int, steps_per_epoch: int, seconds_a_step: float, seconds_left: float) -> int:
    """Epochs up to those wanted that fit in the time left, at least one; a tenth is kept for steps that take longer."""
    fitting = int(0.9 * seconds_left / (seconds_a_step * steps_per_epoch))
    return max(1, min(wanted, fitting))
