"""What "auto" becomes, from the data and from a few measured steps; decided and written down before the first step."""

from __future__ import annotations

import copy
import dataclasses
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from resnetkit import models
from resnetkit.data.dataset import File
from resnetkit.data.image import stored_size
from resnetkit.nn.cifar import WIDTH
from resnetkit.recipe import Recipe, replace
from resnetkit.training.device import Setup
from resnetkit.training.loader import Loader
from resnetkit.training.optim import make_optimizer
from resnetkit.training.state import TrainState
from resnetkit.training.train import plan_of, train

SMALL = 64  # images under this are too small for ImageNet's weights and its stem
STEPS, SECONDS = 8, 2.0  # measured for each memory format: so many steps, or what fits but three at least
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
    if recipe.grow.from_:
        with torch.device("meta"):  # no memory is taken and nothing is computed
            models.grow(models.build(first, shortcut=shortcut, stem=stem), model.variant)
    changes = {"model.weights": weights, "image.size": size, "model.stem": stem, "model.shortcut": shortcut}
    if image.crop_ratio == "auto":
        changes["image.crop_ratio"] = 1.0 if side < SMALL else 0.875
    if optim.lr == "auto":
        changes["optim.lr"] = default_lr(optim.optimizer, recipe.train.batch_size, weights != "none")
    if weights != "none":
        changes["model.zero_init_residual"] = False
    return replace(recipe, changes)


def default_lr(optimizer: str, batch_size: int, fine_tune: bool) -> float:
    """Peak learning rate: for SGD in proportion to the batch (arXiv 1706.02677) up to 128, for AdamW fixed."""
    if optimizer == "adamw":
        return 1e-4 if fine_tune else 1e-3
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
    recipe = replace(loader.recipe, {"train.memory_format": layout})
    # under several processes the copy is not wrapped: measuring needs no gradients of others
    alone = Setup(setup.device, setup.precision)
    network = copy.deepcopy(state.network).to(memory_format=memory_format(layout))
    trial = TrainState(network, make_optimizer(network, recipe.optim), state.total_steps)
    plan = plan_of(dataclasses.replace(loader, recipe=recipe), alone)
    marks = [time.monotonic()]
    for _ in train(trial, loader.batches(0, min(STEPS, state.total_steps), ahead=False), loader.objective, plan):
        marks.append(time.monotonic())
        if len(marks) > 3 and marks[-1] - marks[0] > SECONDS:
            break
    seconds = [b - a for a, b in pairwise(marks)]
    return min(seconds[1:] or seconds)


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


def epochs_that_fit(wanted: int, steps_per_epoch: int, seconds_a_step: float, seconds_left: float) -> int:
    """Epochs up to those wanted that fit in the time left, at least one; a tenth is kept for steps that take longer."""
    fitting = int(0.9 * seconds_left / (seconds_a_step * steps_per_epoch))
    return max(1, min(wanted, fitting))
