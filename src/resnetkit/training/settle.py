"""What a recipe leaves open, decided from the variant and from the data, before anything is measured or computed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import torch

from resnetkit import models
from resnetkit.data.dataset import File
from resnetkit.data.image import stored_size
from resnetkit.errors import UsageError
from resnetkit.nn.cifar import WIDTH
from resnetkit.recipe import Recipe, replace
from resnetkit.training.objective import OBJECTIVES

SMALL = 64  # images under this are too small for ImageNet's weights and its stem
PROBED = 200  # images whose header is read
EPOCHS_A_VIEW = 2  # of layer4 on stored maps


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
    changes |= {"image.width": 0, "finetune.statistics": _statistics(recipe)}
    if image.crop_ratio == "auto":
        changes["image.crop_ratio"] = 1.0 if side < SMALL else 0.875
    optimizer = optim.optimizer
    if optimizer == "auto":
        optimizer = "sgd" if weights == "none" else "adamw"
    changes |= {"optim.optimizer": optimizer, "model.shortcut": shortcut}
    if optim.lr == "auto":
        changes["optim.lr"] = default_lr(optimizer, recipe.train.batch_size, weights != "none")
    if weights != "none":
        changes["model.zero_init_residual"] = False
    if weights == "none" or recipe.grow.from_:  # there are no features yet, or soon others
        changes |= {"finetune.head": False, "finetune.keep_statistics": False, "finetune.statistics": "kept"}
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


def _statistics(recipe: Recipe) -> str:
    """What finetune.statistics is: what a user freezes stays as it is, its statistics too.

    What is decided is kept, since a plan may freeze stages later, and a resumed run is settled again.
    """
    given = recipe.finetune.statistics
    return given if given != "auto" else "renewed" if recipe.model.freeze == "none" else "kept"


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
    changes |= {"finetune.head": False, "finetune.keep_statistics": False, "finetune.statistics": "kept"}
    changes |= {"finetune.views": 0, "finetune.layer4_epochs": 0}
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
