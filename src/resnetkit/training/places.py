"""What is learnt where the parts of images are predicted: networks, stored canvases, and what is there in each image.

torchvision's networks take a second to import, so this module imports them when they are needed.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from resnetkit import models
from resnetkit.data.dataset import Dataset
from resnetkit.data.image import Preprocess, inside, mean_and_std
from resnetkit.data.masks import Masked
from resnetkit.data.preprocess import LARGEST
from resnetkit.errors import UsageError
from resnetkit.ops.boxes import scale
from resnetkit.ops.windows import starts
from resnetkit.runtime.save import options_of
from resnetkit.settings import Augment, Recipe
from resnetkit.tasks.scenes import There, Truths
from resnetkit.training.augment import Draws
from resnetkit.training.optim import freeze
from resnetkit.weights.fit import fit
from resnetkit.weights.known import known_weights
from resnetkit.weights.whole import fit_whole

SHOWN = 8  # times that an epoch shows an image, of which each time another window is seen
STORE_RATIO = 1.25  # how far stored canvases are larger than the network's, so that crops keep their detail
SMALLEST = 0.75  # of objects, beside the size at which the whole image just fits
DICE = 0.5  # its share of the loss of masks
BOX_HEADS, INSTANCE_HEADS = ("fcos", "retinanet", "fasterrcnn"), ("maskrcnn",)
MASK_HEADS = ("unet", "fcn", "deeplabv3")
FINDERS = (*BOX_HEADS, *INSTANCE_HEADS)  # what finds objects, with or without their pixels
WIDTHS = {"unet": 24} | dict.fromkeys(FINDERS, 128)
# What docs/decisions/014 found to be good, where the user says nothing else.
DEFAULTS: Mapping[str, Any] = {
    "train.batch_size": 4,
    "optim.optimizer": "adamw",
    "optim.lr": 1e-3,
    "optim.backbone_lr": 0.3,
    "optim.weight_decay": 0.01,
    "optim.schedule": "cosine",
    "optim.warmup": 0.1,
    "optim.clip_norm": 5.0,
    "optim.label_smoothing": 0.0,
    "image.resize": "letterbox",
    "augment.min_scale": 0.44,
    "augment.max_aspect": 1.0,
    "augment.color": 0.3,
    "finetune.head": False,
    "finetune.statistics": "kept",
    "finetune.views": 0,
    "finetune.layer4_epochs": 0,
}
FEWEST, MOST, IMAGES = 12, 60, 2400  # epochs; images that are to be seen, counted with repeats
MASK_DEFAULTS: Mapping[str, Any] = {
    **DEFAULTS,
    "optim.lr": 2e-3,
    "optim.class_weights": "balanced",
    "finetune.keep_statistics": False,
}


def default_epochs(images: int) -> int:
    """Passes over so many training images: few images take many, to be learnt from at all."""
    return min(MOST, max(FEWEST, math.ceil(IMAGES / max(1, images))))


def times_shown(recipe: Recipe) -> int:
    """How often an epoch shows each image."""
    return SHOWN if recipe.image.resize == "window" else 1


def canvas_of(recipe: Recipe) -> Preprocess:
    """How the network sees an image: all of it, as large as it fits into the canvas, or a window of it."""
    image = recipe.image
    assert image.size != "auto" and image.width != "auto", "the verb decides before the first step"
    mean, std = mean_and_std(image.channels)
    return Preprocess(
        size=image.size,
        width=image.width,
        resize="letterbox" if image.resize != "window" else "window",
        interpolation=image.interpolation,
        mean=mean,
        std=std,
    )


def store_of(recipe: Recipe) -> Preprocess:
    """How training images are stored: on a larger canvas."""
    canvas = canvas_of(recipe)
    height, width = (math.ceil(STORE_RATIO * side) for side in canvas.canvas)
    return dataclasses.replace(canvas, size=height, width=width)


def windows_of(dataset: Dataset, recipe: Recipe) -> float:
    """How many windows it takes to see an image, on average; 1 where it is seen at once."""
    if not isinstance(dataset, Masked) or recipe.image.resize != "window":
        return 1.0
    height, width = canvas_of(recipe).canvas
    each = [len(starts(int(w), width)) * len(starts(int(h), height)) for w, h in dataset.marks.sizes]
    return float(np.mean(each)) if each else 1.0


def whole_store(window: Preprocess, sizes: NDArray[np.int64]) -> Preprocess:
    """How training images are stored that windows are seen of: as they are, on a canvas that holds the largest.

    Args:
        window: of the network.
        sizes: width and height of the images in pixels [n, 2].

    Raises:
        UsageError: one is too large.
    """
    width, height = np.max(sizes, axis=0, initial=0).tolist()
    if max(width, height) > LARGEST:
        what = f"an image of {width:,} x {height:,} pixels is too large to be learnt from in windows"
        raise UsageError(what, fix=f"cut it into parts of at most {LARGEST:,}")
    return dataclasses.replace(window, size=max(window.canvas[0], height), width=max(window.canvas[1], width))


def collate(pixels: NDArray[Any], there: list[There], num_classes: int) -> tuple[Tensor, list[There]]:
    """Stored canvases as a tensor, and what is there."""
    return torch.from_numpy(pixels), there


def augment(
    pixels: Tensor, there: Sequence[There], aspects: NDArray[np.floating], recipe: Recipe, rng: Draws
) -> tuple[Tensor, Any]:
    """Stored canvases uint8 [n, H, W, C] and what is there, to input [n, C, h, w] and what the loss takes."""
    from resnetkit.training import scenes

    stored = dataclasses.replace(canvas_of(recipe), size=pixels.shape[1], width=pixels.shape[2])
    shown = [scene_of(canvas, each, stored) for canvas, each in zip(pixels, there, strict=True)]
    images, seen = scenes.augmented(
        shown, canvas_of(recipe).canvas, _changes(recipe.augment, stored.resize != "window"), rng
    )
    masked = there[0].mask is not None
    return scenes.normalised(images), scenes.mask_targets(seen) if masked else scenes.box_targets(seen)


def _changes(settings: Augment, fitted: bool) -> Any:
    from resnetkit.training.scenes import Changes

    largest = 1 / math.sqrt(settings.min_scale)
    return Changes(
        min_scale=max(SMALLEST, 1 / largest),
        max_scale=largest,
        flip=0.5 * settings.flip,
        flip_vertical=0.5 * settings.flip_vertical,
        color=settings.color,
        fitted=fitted,
    )


def scene_of(canvas: Tensor, there: There, stored: Preprocess) -> Any:
    """A stored canvas uint8 [H, W, C] without its bars, and what is there, in its pixels."""
    from resnetkit.training.scenes import Scene

    left, top, width, height = inside(there.size, stored)
    image = canvas[top : top + height, left : left + width].permute(2, 0, 1)
    if there.mask is not None:
        mask = Image.fromarray(there.mask).resize((width, height), Image.Resampling.NEAREST)
        nothing = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
        return Scene(image, *nothing, torch.from_numpy(np.array(mask)))
    assert there.objects is not None, "there are objects or a mask"
    judged = ~there.objects.crowds
    boxes = scale(there.objects.boxes[judged], width / there.size[0], height / there.size[1])
    labels, shapes = there.objects.labels[judged].astype(np.int64), None
    if there.regions is not None:
        regions = (region for region, one in zip(there.regions((width, height)), judged, strict=True) if one)
        dense = [region.dense(height, width) for region in regions]
        shapes = torch.from_numpy(np.array(dense, np.uint8).reshape(-1, height, width))
    return Scene(image, torch.from_numpy(boxes.astype(np.float32)), torch.from_numpy(labels), shapes=shapes)


def as_they_are(images: Tensor, targets: Any, recipe: Recipe, rng: Draws) -> tuple[Tensor, Any]:
    """Boxes and masks are not mixed."""
    return images, targets


def box_loss(network: Any, images: Tensor, targets: Any, weights: Tensor | None) -> Tensor:
    """The sum of a detector's losses."""
    from resnetkit.training import scenes

    return scenes.box_loss(network.losses(images, targets))


def mask_loss(network: nn.Module, images: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
    """Cross-entropy and Dice of every pixel, half and half."""
    from resnetkit.training import scenes

    return scenes.mask_loss(network(images), targets, weights, DICE)


def no_weights(truths: Truths, num_classes: int) -> Tensor:
    """The losses of detectors weigh no classes: all ones [K]."""
    return torch.ones(num_classes)


def pixel_weights(truths: Truths, num_classes: int) -> Tensor:
    """Weights [K] of classes by their pixels, see `scenes.pixel_weights`."""
    from resnetkit.training import scenes

    return scenes.pixel_weights(truths.counts)


def build(recipe: Recipe, num_classes: int) -> nn.Module:
    """The network of a recipe, with its weights: of a backbone, or of a whole network that has "backbone." before."""
    settings = recipe.model
    torch.manual_seed(recipe.train.seed)
    backbone = _backbone(recipe)
    whole = None
    if settings.weights != "none":
        state, source = known_weights(settings.variant, settings.weights)
        if any(name.startswith("backbone.") for name in state):
            whole = state, source
        else:
            fit(backbone, state, source)
    freeze(backbone, settings.freeze)
    options = {name: value for name, value in meta_options(recipe).items() if name in ("width", "freeze_norms")}
    if settings.head in FINDERS:
        options["trained_stages"] = 5  # what is frozen, model.freeze says
    network = models.with_head(backbone, settings.head, num_classes, options)
    if whole:
        fit_whole(network, *whole)
    return network


def _backbone(recipe: Recipe) -> Any:
    settings = recipe.model
    assert settings.stem != "auto" and settings.shortcut != "auto", "the verb decides before the first step"
    assert settings.shortcut != "none", "it is refused"
    return models.build(
        settings.variant,
        num_classes=2,
        in_channels=recipe.image.channels,
        stem=settings.stem,
        shortcut=settings.shortcut,
        zero_init_residual=settings.zero_init_residual,
        stochastic_depth=settings.stochastic_depth,
    )


def meta_options(recipe: Recipe) -> dict[str, Any]:
    """What model.json says of the network: what differs from the variant's defaults, and of its head."""
    settings = recipe.model
    with torch.device("meta"):
        options = options_of(_backbone(recipe))
    options["head"] = settings.head
    if settings.head_width != "auto" and settings.head in WIDTHS:
        options["width"] = settings.head_width
    if settings.head in FINDERS:
        options["freeze_norms"] = recipe.finetune.keep_statistics
    return options
