"""Texts in a training: the vocabulary and what "auto" becomes, the network, and how tokens are changed."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from resnetkit import models
from resnetkit.data import tokens
from resnetkit.data.dataset import Dataset
from resnetkit.data.tokens import BYTES, TextPreprocess
from resnetkit.models import Network
from resnetkit.recipe import replace
from resnetkit.settings import Recipe
from resnetkit.training import texts
from resnetkit.training.augment import Draws
from resnetkit.training.shared import Shared

USUAL = {
    "model.variant": "words",
    "model.weights": "none",
    "optim.optimizer": "adamw",
    "optim.weight_decay": 0.05,
    "optim.label_smoothing": 0.05,
    "optim.warmup": 0.1,
    "train.epochs": 5,
}
RATES = {"words": 4e-3}  # of AdamW for batches of 32
RATE = 1e-3  # of the others
MEASURED = 2_000  # texts whose length is looked at
MOST_WORDS, MOST_BYTES = 512, 1_024


def settle(recipe: Recipe, dataset: Dataset) -> Recipe:
    """Decide what depends on the texts: their units, the vocabulary's size, and how much of a text is read.

    Raises:
        ResourceError: the package for vocabularies is missing.
        UsageError: a setting out of its range.
    """
    units = recipe.text.units
    if units == "auto":
        units = "bytes" if recipe.model.variant.startswith("vdcnn") else "words"
    settled = replace(recipe, {"text.units": units, "train.memory_format": "contiguous"})
    train = dataset.select("train").texts or ()
    vocabulary = _vocabulary(train, units, recipe.text.vocabulary, recipe.text.lower)
    whole = TextPreprocess(length=65_536, lower=recipe.text.lower, vocabulary=vocabulary)
    changes = {"text.tokens": whole.num_tokens}
    if recipe.text.length == "auto":
        most = MOST_BYTES if units == "bytes" else MOST_WORDS
        stride = max(1, math.ceil(len(train) / MEASURED))
        counts = [np.count_nonzero(tokens.encode([text], whole)) for text in train[::stride]]
        usual = float(np.quantile(counts, 0.99)) if counts else 16.0
        changes["text.length"] = min(most, max(16, 8 * math.ceil(usual / 8)))
    return replace(settled, changes)


@lru_cache(maxsize=2)
def _vocabulary(train: tuple[str, ...], units: str, size: int, lower: bool) -> str:
    """A vocabulary of the training texts; a function of these alone, so a run that is resumed has the same."""
    if units == "bytes":
        return ""
    make = tokens.train_words if units == "words" else tokens.train_pieces
    return make(train, max(size, BYTES + 1) if units == "pieces" else size, lower=lower)


def without_words(recipe: Recipe) -> TextPreprocess:
    """How texts are prepared under a recipe, as far as it tells: of whatever vocabulary."""
    assert recipe.text.length != "auto", "the verb decides before the first step"
    return TextPreprocess(recipe.text.length, recipe.text.lower)


def preprocess_of(recipe: Recipe, dataset: Dataset) -> TextPreprocess:
    """How texts are prepared under a recipe, with the vocabulary of the training texts."""
    own = recipe.text
    assert own.length != "auto", "the verb decides before the first step"
    train = dataset.select("train").texts or ()
    return TextPreprocess(own.length, own.lower, _vocabulary(train, own.units, own.vocabulary, own.lower))


def build(recipe: Recipe, num_classes: int) -> Network:
    """The network with fresh weights."""
    torch.manual_seed(recipe.train.seed)
    model, own = recipe.model, recipe.text
    options: dict[str, Any] = {"num_classes": num_classes, "num_tokens": own.tokens}
    options |= {} if model.shortcut == "auto" else {"shortcut": model.shortcut}
    if model.variant == models.WORDS:
        options |= {"dropout": own.dropout} | ({} if model.width == "auto" else {"width": model.width})
    else:
        options |= {"k": own.kmax, "hidden": own.hidden}
    return models.assembled(model.variant, options)


def inputs(found: NDArray[np.integer], recipe: Recipe, rng: Draws) -> Tensor:
    """Stored tokens [n, length] to a network's input, some of them left out."""
    shared = Shared(rng)
    if recipe.text.drop:
        found = texts.drop_tokens(found, recipe.text.drop, shared, unknown=int(recipe.text.units == "words"))
    if recipe.text.span:
        found = texts.delete_spans(found, recipe.text.span, shared)
    return centre(found)


def centre(found: NDArray[np.integer]) -> Tensor:
    """Stored tokens, unchanged."""
    return torch.from_numpy(found.astype(np.int64))
