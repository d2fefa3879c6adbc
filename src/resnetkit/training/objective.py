"""The torch side of a task: build the network, augment, collate, loss; one Objective for each key of TASKS."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from resnetkit.data.image import Preprocess, mean_and_std
from resnetkit.nn.resnet import ResNet
from resnetkit.settings import Recipe
from resnetkit.training import augment, heads, hearing, places, reading
from resnetkit.training.augment import STORE_RATIO, Draws
from resnetkit.training.heads import LinearHead
from resnetkit.training.networks import residual

Ints = NDArray[np.integer]


@dataclass(frozen=True)
class Objective:
    """What is learnt.

    Attributes:
        build: a recipe and a number of classes to a network, with its weights.
        collate: stored pixels uint8 [n, S, S, C], clips, tokens or features, targets [n] or [n, K], and K, to tensors.
        augment: what is stored, targets, aspects, recipe and random numbers, to input [n, C, H, W] and its targets.
        centre: the same without chance, as images are seen in evaluation; None where no features are stored.
        blend: input (or feature maps), targets, recipe and random numbers, to what is mixed and smoothed of them.
        loss: a network, its input, targets, and class weights [K] or None, to a scalar.
        weights: targets of the training split and K, to the class weights that balance them.
        heads: fits last layers on frozen features; None where there is no such fit.
        preprocess: a recipe to how the network sees a sample.
        store: a recipe to how training samples are stored.
        defaults: settings by dotted key, where the user gives none.
    """

    build: Callable[[Recipe, int], Any]
    collate: Callable[[NDArray[Any], Any, int], tuple[Tensor, Any]]
    augment: Callable[[Tensor, Any, NDArray[np.floating], Recipe, Draws], tuple[Tensor, Any]]
    centre: Callable[[Tensor, NDArray[np.floating], Recipe], Tensor] | None
    blend: Callable[[Tensor, Any, Recipe, Draws], tuple[Tensor, Any]]
    loss: Callable[[Any, Tensor, Any, Tensor | None], Tensor]
    weights: Callable[[Any, int], Tensor]
    heads: Callable[[NDArray[np.floating], Ints, int, bool], list[LinearHead]] | None
    preprocess: Callable[[Recipe], Any]
    store: Callable[[Recipe], Any]
    defaults: Mapping[str, Any] = field(default_factory=dict)


def objective_of(recipe: Recipe) -> Objective:
    """The objective of a recipe's task."""
    return OBJECTIVES["classify" if recipe.data.task == "auto" else recipe.data.task]


def preprocess_of(recipe: Recipe) -> Preprocess:
    """How samples are prepared under a recipe."""
    found: Preprocess = objective_of(recipe).preprocess(recipe)
    return found


def store_preprocess(recipe: Recipe) -> Preprocess:
    """How training samples are stored under a recipe."""
    found: Preprocess = objective_of(recipe).store(recipe)
    return found


def _preprocess(recipe: Recipe) -> Preprocess:
    """Of images to be classified; mean and std are ImageNet's, which the published weights expect."""
    image = recipe.image
    assert image.size != "auto" and image.crop_ratio != "auto", "the verb decides before the first step"
    mean, std = mean_and_std(image.channels)
    return Preprocess(
        size=image.size,
        resize=image.resize,
        crop_ratio=image.crop_ratio,
        interpolation=image.interpolation,
        mean=mean,
        std=std,
    )


def _store(recipe: Recipe) -> Preprocess:
    """Squashed squares, somewhat larger than what the network sees."""
    preprocess = _preprocess(recipe)
    side = math.ceil(preprocess.size * STORE_RATIO)
    return Preprocess(
        size=side, resize="squash", interpolation=preprocess.interpolation, mean=preprocess.mean, std=preprocess.std
    )


def _build(recipe: Recipe, num_classes: int) -> ResNet:
    return residual(recipe, num_classes, recipe.image.channels)


def _collate(pixels: NDArray[Any], targets: Ints, num_classes: int) -> tuple[Tensor, Tensor]:
    one_hot = F.one_hot(torch.from_numpy(np.asarray(targets, np.int64)), num_classes).float()
    return torch.from_numpy(pixels), one_hot


def _collate_labels(pixels: NDArray[Any], targets: Ints, num_classes: int) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(pixels), torch.from_numpy(np.asarray(targets, np.float32))


def _augment(
    pixels: Tensor, targets: Tensor, aspects: NDArray[np.floating], recipe: Recipe, rng: Draws
) -> tuple[Tensor, Tensor]:
    preprocess = _preprocess(recipe)
    images = augment.augment(pixels, aspects, preprocess.size, recipe.augment, rng)
    return augment.erase(_normalised(images, preprocess), recipe.augment.erasing, rng), targets


def _centre(pixels: Tensor, aspects: NDArray[np.floating], recipe: Recipe) -> Tensor:
    preprocess = _preprocess(recipe)
    boxes = augment.centre_boxes(aspects, preprocess)
    images = augment.crops(pixels, boxes, np.zeros(len(pixels), bool), preprocess.size)
    return _normalised(images.div_(255), preprocess)


def _normalised(images: Tensor, preprocess: Preprocess) -> Tensor:
    """Images [n, C, H, W] in 0..1 with the preprocess's mean and deviation taken out, in place."""
    mean, std = (
        torch.tensor(values, device=images.device)[:, None, None] for values in (preprocess.mean, preprocess.std)
    )
    return images.mul_(1 / std).sub_(mean / std)


def _blend(images: Tensor, targets: Tensor, recipe: Recipe, rng: Draws) -> tuple[Tensor, Tensor]:
    images, targets = augment.mix(images, targets, recipe.augment, rng)
    smoothing = recipe.optim.label_smoothing
    return images, targets * (1 - smoothing) + smoothing / targets.shape[1]


def _blend_labels(images: Tensor, targets: Tensor, recipe: Recipe, rng: Draws) -> tuple[Tensor, Tensor]:
    images, targets = augment.mix(images, targets, recipe.augment, rng)
    smoothing = recipe.optim.label_smoothing
    return images, targets * (1 - smoothing) + smoothing / 2  # each label is there or not: two outcomes


def _loss(network: nn.Module, images: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
    return F.cross_entropy(network(images).float(), targets, weights)


def _loss_of_labels(network: nn.Module, images: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
    # the sum over labels: with the mean, the more labels there are the less each is learnt
    logits = network(images).float()
    losses = F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weights, reduction="none")
    return losses.sum(1).mean()


def _hear(clips: Tensor, targets: Any, aspects: NDArray[np.floating], recipe: Recipe, rng: Draws) -> tuple[Tensor, Any]:
    return hearing.heard(clips.numpy(), targets, aspects, recipe, rng)


def _hear_plainly(clips: Tensor, aspects: NDArray[np.floating], recipe: Recipe) -> Tensor:
    return hearing.centre(clips.numpy(), recipe)


def _read(
    tokens: Tensor, targets: Any, aspects: NDArray[np.floating], recipe: Recipe, rng: Draws
) -> tuple[Tensor, Any]:
    return reading.inputs(tokens.numpy(), recipe, rng), targets


def _read_plainly(tokens: Tensor, aspects: NDArray[np.floating], recipe: Recipe) -> Tensor:
    return reading.centre(tokens.numpy())


def class_weights(targets: Ints, num_classes: int) -> Tensor:
    """Weights [K] with which every class counts the same: n / (K * n_k), 0 for a class without samples."""
    counts = np.bincount(targets, minlength=num_classes)
    weights = len(targets) / (num_classes * np.maximum(counts, 1))
    return torch.from_numpy(np.where(counts > 0, weights, 0.0).astype(np.float32))


def positive_weights(targets: Ints, num_classes: int) -> Tensor:
    """Weights [K] with which the samples that have a label count as much as those without; 1 where one is missing."""
    has = targets.sum(0, np.int64)
    weights = np.where(has > 0, (len(targets) - has) / np.maximum(has, 1), 1.0)
    return torch.from_numpy(np.where(weights > 0, weights, 1.0).astype(np.float32))


def _hearing(objective: Objective) -> Objective:
    """The same of sounds."""
    own = replace(objective, build=hearing.build, augment=_hear, centre=_hear_plainly, heads=None)
    own = replace(own, preprocess=hearing.preprocess_of, store=hearing.stored, defaults=hearing.USUAL)
    return replace(own, loss=hearing.loss) if objective.loss is _loss else own


def _reading(objective: Objective) -> Objective:
    """The same of texts."""
    own = replace(objective, build=reading.build, augment=_read, centre=_read_plainly, heads=None)
    return replace(own, preprocess=reading.without_words, store=reading.without_words, defaults=reading.USUAL)


CLASSIFY = Objective(
    _build, _collate, _augment, _centre, _blend, _loss, class_weights, heads.fitted, _preprocess, _store
)
LABEL = replace(
    CLASSIFY,
    collate=_collate_labels,
    blend=_blend_labels,
    loss=_loss_of_labels,
    weights=positive_weights,
    heads=None,
)
DETECT = Objective(
    places.build,
    places.collate,
    places.augment,
    None,
    places.as_they_are,
    places.box_loss,
    places.no_weights,
    None,
    places.canvas_of,
    places.store_of,
    places.DEFAULTS,
)
OBJECTIVES = {
    "classify": CLASSIFY,
    "multilabel": LABEL,
    "sound": _hearing(CLASSIFY),
    "sound-multilabel": _hearing(LABEL),
    "text": _reading(CLASSIFY),
    "text-multilabel": _reading(LABEL),
    "detect": DETECT,
    "instances": DETECT,  # of more: what is there in an image says so
    "segment": Objective(
        places.build,
        places.collate,
        places.augment,
        None,
        places.as_they_are,
        places.mask_loss,
        places.pixel_weights,
        None,
        places.canvas_of,
        places.store_of,
        places.MASK_DEFAULTS,
    ),
}
