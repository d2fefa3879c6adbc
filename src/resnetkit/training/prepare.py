"""What a training decides of its inputs, and how these are prepared: one value for images, sounds and texts each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resnetkit import recipe as recipes
from resnetkit.data.dataset import Dataset
from resnetkit.data.prepared import Prepared
from resnetkit.data.text import Chosen
from resnetkit.recipe import Recipe
from resnetkit.tasks.task import TASKS, Modality, modality_of, task_named
from resnetkit.training import hearing, plan, reading
from resnetkit.training.loader import store_preprocess
from resnetkit.training.objective import preprocess_of


@dataclass(frozen=True)
class Preparing:
    """The torch side of a modality.

    Attributes:
        usual: settings that differ from the defaults where nobody names them.
        settle: a recipe and the data, with splits, to the recipe without "auto".
        evaluated: a settled recipe and the data to how an input is prepared, as in model.json.
        stored: likewise, of what is kept of a training input.
        told: a settled recipe to words about its network and input.
    """

    usual: Mapping[str, Any]
    settle: Callable[[Recipe, Dataset], Recipe]
    evaluated: Callable[[Recipe, Dataset], Prepared]
    stored: Callable[[Recipe, Dataset], Prepared]
    told: Callable[[Recipe], str]


def _settle_images(recipe: Recipe, dataset: Dataset) -> Recipe:
    return plan.settle(recipe, plan.typical_side(dataset.files))


def _settle_sounds(recipe: Recipe, dataset: Dataset) -> Recipe:
    return plan.settle_others(hearing.settle(recipe, dataset), hearing.RATE)


def _settle_texts(recipe: Recipe, dataset: Dataset) -> Recipe:
    settled = reading.settle(recipe, dataset)
    return plan.settle_others(settled, reading.RATES.get(recipe.model.variant, reading.RATE))


def _told_of_images(recipe: Recipe) -> str:
    model, image = recipe.model, recipe.image
    stem = {"small": "small stem (3x3, stride 1, no pooling)"}.get(model.stem, f"{model.stem} stem")
    colour = "" if image.channels in (1, 3) else f", {image.channels} channels without colour augmentation"
    return f"{model.variant}, {stem}, {image.size} px{colour}, weights {model.weights}"


def _told_of_sounds(recipe: Recipe) -> str:
    model, own = recipe.model, recipe.sound
    wide = "" if model.width == "auto" else f" of width {model.width}"
    form = "samples" if hearing.preprocess_of(recipe).form == "wave" else f"log-mel of {own.mels} bands"
    return f"{model.variant}{wide}, {own.seconds:g} s at {own.rate:,} Hz, {form}, weights {model.weights}"


def _told_of_texts(recipe: Recipe) -> str:
    own = recipe.text
    return f"{recipe.model.variant}, {own.length:,} {own.units} of {own.tokens:,} different ones, weights none"


PREPARING = {
    "images": Preparing(
        {},
        _settle_images,
        lambda recipe, dataset: preprocess_of(recipe),
        lambda recipe, dataset: store_preprocess(recipe),
        _told_of_images,
    ),
    "sounds": Preparing(
        hearing.USUAL,
        _settle_sounds,
        lambda recipe, dataset: hearing.preprocess_of(recipe),
        lambda recipe, dataset: hearing.stored(recipe),
        _told_of_sounds,
    ),
    "texts": Preparing(reading.USUAL, _settle_texts, reading.preprocess_of, reading.preprocess_of, _told_of_texts),
}


def preparing_of(dataset: Dataset) -> Preparing:
    """Of what a data set holds."""
    return PREPARING[dataset.noun]


def columns_of(recipe: Recipe) -> Chosen:
    """The columns of a table that a recipe names."""
    return Chosen(recipe.data.text, recipe.data.label)


def modality_for(recipe: Recipe) -> Modality:
    """What a recipe's data holds: by its task, or told from the data.

    Raises:
        UsageError: there is no such task.
    """
    if recipe.data.task != "auto":
        return task_named(recipe.data.task).modality
    return (
        modality_of(Path(recipe.data.source), columns_of(recipe)) if recipe.data.source else TASKS["classify"].modality
    )


def read_recipe(recipe: str | Path, given: Mapping[str, Any]) -> Recipe:
    """A recipe as `recipe.read` gives it, over what is usual for its data.

    Raises:
        UsageError: as there.
    """
    first = recipes.read(recipe, given)
    usual = PREPARING[modality_for(first).noun].usual
    return recipes.read(recipe, given, usual) if usual else first
