"""The residual network of a recipe, for images or for spectra."""

from __future__ import annotations

import torch

from resnetkit import models
from resnetkit.errors import UsageError
from resnetkit.models import ResNetOptions
from resnetkit.nn.resnet import ResNet
from resnetkit.settings import Recipe


def residual(recipe: Recipe, num_classes: int, in_channels: int) -> ResNet:
    """A network of the recipe's variant, with its weights; the same for the same seed.

    Raises:
        UsageError, ModelError, NetworkError: see `models.with_weights`.
    """
    settings = recipe.model
    assert settings.stem != "auto" and settings.shortcut != "auto", "the verb decides before the first step"
    if settings.shortcut == "none":
        raise UsageError('shortcut must be "A", "B", "C" or "D", not "none"', fix="or take plain18, plain34, ...")
    torch.manual_seed(recipe.train.seed)
    options: ResNetOptions = {
        "num_classes": num_classes,
        "in_channels": in_channels,
        "stem": settings.stem,
        "shortcut": settings.shortcut,
        "pool": settings.pool,
        "zero_init_residual": settings.zero_init_residual,
        "stochastic_depth": settings.stochastic_depth,
    }
    if settings.width != "auto":
        options["width"] = settings.width
    weights = None if settings.weights == "none" else settings.weights
    return models.with_weights(recipe.grow.from_ or settings.variant, weights, **options)
