"""What a training decides of its inputs, and how these are prepared: images, sounds and texts, each in its own way."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from resnetkit import models
from resnetkit.data.dataset import Dataset
from resnetkit.data.masks import Masked
from resnetkit.data.text import Chosen
from resnetkit.data.tokens import TextPreprocess
from resnetkit.settings import Recipe
from resnetkit.tasks.scenes import SCENES
from resnetkit.training import hearing, places, reading
from resnetkit.training.objective import OBJECTIVES, preprocess_of, store_preprocess
from resnetkit.training.places import whole_store
from resnetkit.training.settle import settle, settle_others, typical_side


@dataclass(frozen=True)
class Preparing:
    """The torch side of a modality.

    Attributes:
        settle: a recipe and the data, with splits, to the recipe without "auto".
        told: a settled recipe to words about its network and input.
        seen: training samples, counted with repeats, that make a network from nothing, where that is known; 0 else.
    """

    settle: Callable[[Recipe, Dataset], Recipe]
    told: Callable[[Recipe], str]
    seen: int = 0


def evaluated(recipe: Recipe, dataset: Dataset) -> Any:
    """How an input is prepared, as in model.json: by the recipe, and for texts by the vocabulary of the data."""
    found: Any = preprocess_of(recipe)
    return reading.preprocess_of(recipe, dataset) if isinstance(found, TextPreprocess) else found


def stored(recipe: Recipe, dataset: Dataset) -> Any:
    """How a training input is prepared, of which each epoch makes something else."""
    found: Any = store_preprocess(recipe)
    if isinstance(dataset, Masked) and recipe.image.resize == "window":
        return whole_store(preprocess_of(recipe), dataset.marks.sizes[dataset.select("train").targets])
    return reading.preprocess_of(recipe, dataset) if isinstance(found, TextPreprocess) else found


def _settle_images(recipe: Recipe, dataset: Dataset) -> Recipe:
    return settle(recipe, typical_side(dataset.files))


def _settle_sounds(recipe: Recipe, dataset: Dataset) -> Recipe:
    return settle_others(hearing.settle(recipe, dataset), hearing.RATE)


def _settle_texts(recipe: Recipe, dataset: Dataset) -> Recipe:
    settled = reading.settle(recipe, dataset)
    return settle_others(settled, reading.RATES.get(recipe.model.variant, reading.RATE))


def _told_of_images(recipe: Recipe) -> str:
    model, image = recipe.model, recipe.image
    stem = {"small": "small stem (3x3, stride 1, no pooling)"}.get(model.stem, f"{model.stem} stem")
    colour = "" if image.channels in (1, 3) else f", {image.channels} channels without colour augmentation"
    size = f"{image.size} x {image.width}" if image.width else f"{image.size}"
    size = f"windows of {size}" if image.resize == "window" else size
    head = "" if model.head == "auto" else f"{model.head} on "
    return f"{head}{model.variant}, {stem}, {size} px{colour}, weights {model.weights}"


def _told_of_sounds(recipe: Recipe) -> str:
    model, own = recipe.model, recipe.sound
    wide = "" if model.width == "auto" else f" of width {model.width}"
    form = "samples" if hearing.preprocess_of(recipe).form == "wave" else f"log-mel of {own.mels} bands"
    return f"{model.variant}{wide}, {own.seconds:g} s at {own.rate:,} Hz, {form}, weights {model.weights}"


def _told_of_texts(recipe: Recipe) -> str:
    own = recipe.text
    return f"{recipe.model.variant}, {own.length:,} {own.units} of {own.tokens:,} different ones, weights none"


PREPARING = {
    "images": Preparing(_settle_images, _told_of_images),
    "sounds": Preparing(_settle_sounds, _told_of_sounds, 57_000),
    "texts": Preparing(_settle_texts, _told_of_texts, 34_600),
}
MOST_TIMES = 4  # the usual number of epochs, where samples are few


def preparing_of(dataset: Dataset) -> Preparing:
    """Of what a data set holds."""
    return PREPARING[dataset.noun]


def defaults_of(task: str, recipe: Recipe, dataset: Dataset) -> dict[str, Any]:
    """Settings by dotted key where the user gives none: those of the task, of the network, of the data.

    Args:
        task: key of the data.
        recipe: what the user gives, over the defaults of images.
        dataset: with its splits.
    """
    found = dict(OBJECTIVES[task].defaults)
    if recipe.model.variant == models.SPEAKER:
        found |= hearing.OF_VOICES
    if task in SCENES:
        times = places.times_shown(recipe)
        found["train.epochs"] = places.default_epochs(times * dataset.num_samples("train"))
    elif "train.epochs" in found:
        found["train.epochs"] = default_epochs(dataset, found["train.epochs"])
    return found


def default_epochs(dataset: Dataset, usual: int) -> int:
    """Passes over the training samples: the usual number, or more where they are few, since steps are what counts."""
    fitting = math.ceil(preparing_of(dataset).seen / max(1, dataset.num_samples("train")))
    return max(usual, min(MOST_TIMES * usual, fitting))


def columns_of(recipe: Recipe) -> Chosen:
    """The columns of a table that a recipe names."""
    return Chosen(recipe.data.text, recipe.data.label)
