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
from typing import Any

import torch
from torch import Tensor, nn

from resnetkit import models
from resnetkit.data.dataset import File
from resnetkit.data.image import stored_size
from resnetkit.errors import UsageError
from resnetkit.nn.cifar import WIDTH
from resnetkit.nn.cut import cut, last_cut
from resnetkit.nn.resnet import ResNet
from resnetkit.recipe import Recipe, replace
from resnetkit.training.device import Setup
from resnetkit.training.kernels import kernels_wanted, own_kernels
from resnetkit.training.loader import Loader, share_of_work
from resnetkit.training.objective import OBJECTIVES
from resnetkit.training.optim import in_memory_order, make_optimizer, train_mode
from resnetkit.training.state import TrainState
from resnetkit.training.train import plan_of, train
from resnetkit.training.trunk import engine_of, open_trunk, seconds_of

SMALL = 64  # images under this are too small for ImageNet's weights and its stem
STEPS, SECONDS = 8, 2.0  # measured for each memory format: so many steps, or what fits but three at least
MARGIN = 0.92  # of the time that is left is planned: steps take longer than they took when they were measured
FEWEST = 3  # epochs of the whole network that are worth more than layer4 on stored maps
FEWEST_VIEWS, MOST_VIEWS, MOST_EPOCHS, EPOCHS_A_VIEW = 2, 8, 24, 2  # of layer4 on stored maps
LEAST_STEP = 2.0  # times what evaluation takes, a training step takes for certain: three to four were measured
SMALLEST_BATCH = 8  # on which costs are measured, at 224 px
SECONDS_A_HEAD, SECONDS_A_FEATURE = 1.0, 4e-7  # to fit the head: measured with scikit-learn 1.9 on one core
PROBED = 200  # images whose header is read; steps under which measuring costs more than it brings


def typical_side(files: Sequence[File]) -> int:
    """Median short side of up to 200 images, spread over the data set, in pixels."""
    stride = max(1, math.ceil(len(files) / PROBED))
    sizes = [stored_size(files[row]) for row in range(0, len(files), stride)]
    return int(statistics.median([min(size) for size in sizes if size] or [224]))


def settle(recipe: Recipe, side: int) -> Recipe:
    """Decide what depends on the variant and the size of the images: weights, size, stem, shortcut, crop, rate.

    Args:
        recipe: with "auto" in it.
        side: typical short side of the images, in pixels.

    Raises:
        UsageError: there is no such variant, or grow.from cannot grow into it.
    """
    _refuse_others(recipe)
    model, image, optim = recipe.model, recipe.image, recipe.optim
    variant = models.variant_named(model.variant)
    weights = model.weights
    first = recipe.grow.from_ or model.variant
    if weights == "auto":
        weights = "none" if side < SMALL or first not in models.PUBLISHED else "IMAGENET1K_V1"
    largest = 32 if variant.width == WIDTH else 224
    size = image.size if image.size != "auto" else min(largest, max(32, 32 * math.ceil(side / 32)))
    stem = model.stem
    if stem == "auto":
        stem = "small" if size < SMALL and weights == "none" else variant.stem
    shortcut = variant.shortcut if model.shortcut == "auto" else model.shortcut
    assert shortcut != "none", "it is refused"
    if recipe.grow.from_:
        with torch.device("meta"):  # no memory is taken and nothing is computed
            models.grow(models.build(first, shortcut=shortcut, stem=stem), model.variant)
    changes: dict[str, Any] = {"model.weights": weights, "image.size": size, "model.stem": stem}
    changes |= {"model.shortcut": shortcut, "image.width": 0}
    if image.crop_ratio == "auto":
        changes["image.crop_ratio"] = 1.0 if side < SMALL else 0.875
    optimizer = optim.optimizer
    if optimizer == "auto":
        optimizer = "sgd" if weights == "none" else "adamw"
    changes["optim.optimizer"] = optimizer
    if optim.lr == "auto":
        changes["optim.lr"] = default_lr(optimizer, recipe.train.batch_size, weights != "none")
    if weights != "none":
        changes["model.zero_init_residual"] = False
    if weights == "none" or recipe.grow.from_:  # there are no features yet, or soon others
        changes |= {"finetune.head": False, "finetune.keep_statistics": False}
        changes |= {"finetune.views": 0, "finetune.layer4_epochs": 0}
    elif not recipe.train.time_limit or recipe.finetune.views != "auto":
        views = recipe.finetune.views if recipe.finetune.views != "auto" else 0
        changes["finetune.views"] = views
        if recipe.finetune.layer4_epochs == "auto":
            changes["finetune.layer4_epochs"] = EPOCHS_A_VIEW * views
    if image.start_size and not 8 <= image.start_size <= size:
        fix = f"0, or 8 to the {size} of image.size"
        raise UsageError(f"image.start_size = {image.start_size} is too small or too large", fix=fix)
    if recipe.data.task != "auto" and OBJECTIVES[recipe.data.task].heads is None:
        changes["finetune.head"] = False
    settled = replace(recipe, changes)
    if model.pool == "all" and settled.finetune.views not in ("auto", 0):
        fix = "leave one of them out"
        raise UsageError("model.pool=all needs features that finetune.views does not store", fix=fix)
    tune = settled.finetune
    if not (settled.train.epochs or tune.head or (tune.views and tune.layer4_epochs)):
        raise UsageError("train.epochs = 0 leaves nothing to learn", fix="give --epochs 1 or more, or --weights")
    return settled


def settle_others(recipe: Recipe, rate: float) -> Recipe:
    """Decide what is left to decide where the data are no images: weights, stem, shortcut, optimiser and its rate.

    Args:
        recipe: whose data are sounds or texts.
        rate: of AdamW for batches of 32.

    Raises:
        UsageError: there is no such variant, or a setting is of images only.
    """
    model, optim, texts = recipe.model, recipe.optim, recipe.text.units != "auto"
    fitting = models.of_texts() if texts else models.of_sounds()
    if model.variant not in fitting:
        what = f"there is no model {model.variant!r} for {'texts' if texts else 'sounds'}"
        raise UsageError(what, fix=f"one of {', '.join(fitting)}")
    weights = "none" if model.weights == "auto" else model.weights
    if weights != "none" and model.variant in models.SEQUENCES:
        raise UsageError(f"{model.variant} takes no weights", fix="leave --weights out")
    if recipe.grow.from_ or recipe.augment.cutmix or recipe.image.start_size or (texts and recipe.augment.mixup):
        what = "grow.from, augment.cutmix and image.start_size are of images, augment.mixup of images and sounds"
        raise UsageError(what, fix="leave them out")
    optimizer = "adamw" if optim.optimizer == "auto" else optim.optimizer
    changes: dict[str, Any] = {"model.weights": weights, "optim.optimizer": optimizer}
    if model.variant in models.VARIANTS:
        variant = models.variant_named(model.variant)
        changes["model.stem"] = variant.stem if model.stem == "auto" else model.stem
        changes["model.shortcut"] = variant.shortcut if model.shortcut == "auto" else model.shortcut
    if optim.lr == "auto":
        scale = math.sqrt(min(recipe.train.batch_size, 128) / 32)
        changes["optim.lr"] = (
            rate * scale if optimizer == "adamw" else default_lr("sgd", recipe.train.batch_size, False)
        )
    for name, value in (("head", False), ("keep_statistics", False), ("views", 0), ("layer4_epochs", 0)):
        changes[f"finetune.{name}"] = value
    if not recipe.train.epochs:
        raise UsageError("train.epochs = 0 leaves nothing to learn", fix="give --epochs 1 or more")
    return replace(recipe, changes)


def _refuse_others(recipe: Recipe) -> None:
    """Refuse what is for boxes and masks, or for texts, alone."""
    if recipe.model.shortcut == "none":
        raise UsageError("model.shortcut = 'none' is of texts", fix="take plain18, plain34, ... of images")
    if recipe.image.width not in ("auto", 0) or recipe.model.head != "auto":
        key = "image.width" if recipe.model.head == "auto" else "model.head"
        raise UsageError(f"{key} is for boxes and masks", fix="leave it out")
    if recipe.model.stem == "spectrum":
        raise UsageError("model.stem = 'spectrum' is of sounds", fix="imagenet, small or deep")
    if recipe.image.resize == "window":
        raise UsageError("image.resize = 'window' is for masks", fix="crop, squash or letterbox")


def default_lr(optimizer: str, batch_size: int, fine_tune: bool) -> float:
    """Peak learning rate: for SGD in proportion to the batch (arXiv 1706.02677) up to 128, for AdamW to its root.

    To fine-tune on 250 to 1,300 images, AdamW's 2e-4 was better in three epochs than SGD's 0.01 and safer: SGD diverged
    where images were unlike photos.
    """
    if optimizer == "adamw":  # arXiv 2205.10287
        return (2e-4 if fine_tune else 1e-3) * math.sqrt(min(batch_size, 128) / 32)
    return (0.01 if fine_tune else 0.05) * min(batch_size, 128) / 32


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
    for _ in train(trial, full.batches(0, min(STEPS, state.total_steps), ahead=False), loader.objective, plan):
        marks.append(time.monotonic())
        if len(marks) > 3 and marks[-1] - marks[0] > SECONDS:
            break
    seconds = [b - a for a, b in pairwise(marks)]
    return min(seconds[1:] or seconds) * share_of_work(loader.recipe)


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
    """

    forward: float
    features: float
    trunk: float
    top: float
    tail: float
    step: float


@dataclass(frozen=True)
class Stages:
    """The stages of a training: whether a head is fitted, views and epochs of layer4 on stored maps, epochs of all."""

    head: bool
    views: int
    layer4_epochs: int
    epochs: int


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
    return {
        "features": stored if stages.head or stages.views else 0.0,
        "head": fit + rest if stages.head else 0.0,
        "layer4": stages.layer4_epochs * (train + val / 3) * costs.tail,
        "all": stages.epochs * (train * costs.step + val * costs.forward),
    }


def choose(
    costs: Costs, images: tuple[int, int], features: int, wanted: int, seconds: float, most_views: int = MOST_VIEWS
) -> Stages:
    """The best fine-tuning that fits: all of the network, else layer4 on stored maps, else the head alone.

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
    epochs = min(wanted, int(left(alone) / (left(alone) - left(dataclasses.replace(alone, epochs=1)))))
    if epochs and epochs >= min(wanted, FEWEST):
        return dataclasses.replace(alone, epochs=epochs)
    for views in range(min(most_views, MOST_VIEWS), FEWEST_VIEWS - 1, -1):
        stored = Stages(True, views, 0, 0)
        epoch = left(stored) - left(dataclasses.replace(stored, layer4_epochs=1))
        if left(stored) >= EPOCHS_A_VIEW * views * epoch:
            return dataclasses.replace(stored, layer4_epochs=min(MOST_EPOCHS, int(left(stored) / epoch)))
    return alone


def least_costs(loader: Loader, setup: Setup, network: nn.Module) -> tuple[str, Costs]:
    """The memory format asked for, or the usual one, and what evaluation costs in it; steps at the least they can."""
    layout = _formats(loader)[0]
    return layout, _costs(loader, setup, _trial(loader, setup, network, layout), None)


def measure_costs(loader: Loader, setup: Setup, network: nn.Module) -> tuple[str, Costs]:
    """The memory format asked for, or that in which a step is faster, and what all costs in it, on random images."""
    trial = partial(_trial, loader, setup, network)
    # one copy at a time: with its gradients and moments it takes four times the memory of the weights
    steps = {layout: seconds_of(_step(loader, setup, *trial(layout))) for layout in _formats(loader)}
    layout = min(steps, key=steps.__getitem__)
    return layout, _costs(loader, setup, trial(layout), steps[layout])


def _formats(loader: Loader) -> tuple[str, ...]:
    wanted = loader.recipe.train.memory_format
    return ("contiguous", "channels_last") if wanted == "auto" else (wanted,)


def _trial(loader: Loader, setup: Setup, network: nn.Module, layout: str) -> tuple[nn.Module, Tensor]:
    """A copy of the network and a random batch, as large as in training, or smaller where images are large."""
    image, form = loader.recipe.image, memory_format(layout)
    assert image.size != "auto", "the verb decides before the first step"
    batch = min(loader.recipe.train.batch_size, max(SMALLEST_BATCH, SMALLEST_BATCH * 224**2 // image.size**2))
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


def _costs(loader: Loader, setup: Setup, trial: tuple[nn.Module, Tensor], step: float | None) -> Costs:
    """Seconds an image, of a copy of the network on a batch whose training step takes `step` seconds.

    None: no step is measured; it takes LEAST_STEP times the evaluation at least, and so does one of layer4.
    """
    network, images = trial
    assert isinstance(network, ResNet)
    trunk, tail = cut(network, last_cut(network))
    batch = len(images)

    @torch.inference_mode()
    def seconds(part: Callable[[Tensor], Tensor], x: Tensor) -> float:
        # reading a number waits for a GPU
        return seconds_of(lambda: float(part(x).flatten()[0])) / batch

    with torch.inference_mode():
        found = trunk.eval()(images)
    maps = found.clone()  # from which gradients can be computed
    full = dataclasses.replace(loader, recipe=replace(loader.recipe, {"image.start_size": 0}))
    prepare = seconds_of(partial(full.batch, 0)) / len(full.batch(0).rows)
    below, top = seconds(trunk, images), seconds(tail.eval(), maps)
    engine = open_trunk(network, last_cut(network), loader.recipe, setup)
    gain = below / seconds(engine, images) if engine_of(loader.recipe, setup) != "torch" else 1.0
    tail_step, whole_step = LEAST_STEP * top, LEAST_STEP * (below + top)
    if step is not None:
        tail_step, whole_step = seconds_of(_step(loader, setup, tail, maps)) / batch, step / batch
    return Costs(
        forward=prepare + below + top,
        features=prepare + (below + top) / gain,
        trunk=prepare + below / gain,
        top=top,
        tail=tail_step,
        step=prepare + whole_step * share_of_work(loader.recipe),
    )


def epochs_that_fit(wanted: int, steps_per_epoch: int, seconds_a_step: float, seconds_left: float) -> int:
    """Epochs up to those wanted that fit in the time left, at least one; a tenth is kept for steps that take longer."""
    fitting = int(0.9 * seconds_left / (seconds_a_step * steps_per_epoch))
    return max(1, min(wanted, fitting))
