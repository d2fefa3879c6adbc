"""What is decided before boxes or masks are learnt: network and canvas, and which settings have no meaning there."""

from __future__ import annotations

from typing import Any

import numpy as np

from resnetkit import models
from resnetkit.data.annotated import Boxed
from resnetkit.data.masks import Masked
from resnetkit.data.outlines import Outlined
from resnetkit.errors import UsageError
from resnetkit.recipe import as_dict, replace
from resnetkit.settings import Recipe
from resnetkit.training.places import BOX_HEADS, DEFAULTS, FINDERS, INSTANCE_HEADS, MASK_DEFAULTS, MASK_HEADS, WIDTHS

SHORTEST, LONGEST = 320, 384  # of the canvas's long side in pixels: what two cores can learn from in minutes
STEP = 16  # pixels, of which a side is a multiple
# What classes have and places in an image have not; a value other than the default is refused, not ignored.
WITHOUT = (
    "model.pool",
    "grow.from",
    "augment.rotate",
    "augment.trivial_augment",
    "augment.erasing",
    "augment.mixup",
    "augment.cutmix",
    "image.start_size",
    "image.crop_ratio",
    "augment.max_aspect",
    "calibrate.sets",
    "finetune.engine",
    "finetune.layer4_epochs",
)
SETTLED = {("image.crop_ratio", 1.0), ("augment.max_aspect", 1.0), ("finetune.layer4_epochs", 0)}  # by the defaults


def settle_scene(recipe: Recipe, dataset: Boxed | Masked) -> Recipe:
    """Decide what depends on the variant and on the images, for boxes or masks.

    Args:
        recipe: with "auto" in it.
        dataset: what is to be learnt from.

    Raises:
        UsageError: there is no such variant, or a setting has no meaning for boxes or masks.
    """
    model = recipe.model
    heads = INSTANCE_HEADS if isinstance(dataset, Outlined) else BOX_HEADS
    heads = heads if isinstance(dataset, Boxed) else MASK_HEADS
    _refuse_meaningless(recipe, heads)
    variant = models.variant_named(model.variant)
    head = heads[0] if model.head == "auto" else model.head
    weights = model.weights
    if weights == "auto":
        weights = "IMAGENET1K_V1" if model.variant in models.PUBLISHED else "none"
    height, width = _canvas(recipe, dataset.truth.sizes if isinstance(dataset, Boxed) else dataset.marks.sizes)
    if not recipe.train.epochs:
        raise UsageError("train.epochs = 0 leaves nothing to learn", fix="give --epochs 1 or more")
    usual = DEFAULTS if isinstance(dataset, Boxed) else MASK_DEFAULTS
    for key in ("optim.optimizer", "optim.lr"):
        section, name = key.split(".")
        if as_dict(recipe)[section][name] == "auto":
            recipe = replace(recipe, {key: usual[key]})
    changes: dict[str, Any] = {
        "model.head": head,
        "model.weights": weights,
        "model.stem": variant.stem if model.stem == "auto" else model.stem,
        "model.shortcut": variant.shortcut if model.shortcut == "auto" else model.shortcut,
        "image.size": height,
        "image.width": width,
        "image.crop_ratio": 1.0,
    }
    if head in WIDTHS and model.head_width == "auto":
        changes["model.head_width"] = WIDTHS[head]
    if head not in WIDTHS and model.head_width != "auto":
        raise UsageError(f"model.head_width: that of {head} follows its network", fix="leave it out")
    if weights == "none":
        changes["finetune.keep_statistics"] = False
    else:
        changes["model.zero_init_residual"] = False
        if head in FINDERS and model.freeze == "none":
            changes["model.freeze"] = "stem"  # a pretrained one stays as it is
    return replace(recipe, changes)


def _refuse_meaningless(recipe: Recipe, heads: tuple[str, ...]) -> None:
    values, usual = as_dict(recipe), as_dict(Recipe())
    for key in WITHOUT:
        section, name = key.split(".")
        value = values[section][name]
        if value not in (usual[section][name], "auto") and (key, value) not in SETTLED:
            raise UsageError(f"{key} = {values[section][name]!r} is for classes of images", fix="leave it out")
    ways = ("letterbox", "window") if heads == MASK_HEADS else ("letterbox",)
    if recipe.image.resize not in ways:
        raise UsageError("image.resize is letterbox for boxes, that or window for masks", fix="leave it out")
    if recipe.model.head not in ("auto", *heads):
        raise UsageError(f"model.head = {recipe.model.head!r} finds something else", fix=f"one of {', '.join(heads)}")
    if heads != MASK_HEADS and recipe.optim.class_weights != "none":
        raise UsageError("optim.class_weights: the losses of boxes weigh no classes", fix="leave it out")
    if recipe.optim.label_smoothing or recipe.finetune.head or recipe.finetune.views:
        raise UsageError("optim.label_smoothing and finetune.* are for classes of images", fix="leave them out")
    if recipe.model.shortcut == "none" or recipe.model.stem == "spectrum":
        raise UsageError("model.shortcut = 'none' is of texts, model.stem = 'spectrum' of sounds", fix="leave it out")
    if heads == MASK_HEADS and recipe.finetune.keep_statistics:
        raise UsageError("finetune.keep_statistics: the norms of masks learn", fix="leave it out")


def _canvas(recipe: Recipe, sizes: Any) -> tuple[int, int]:
    """Height and width, in the images' usual proportions where they are not given."""
    size, width = recipe.image.size, recipe.image.width
    if recipe.image.resize == "window":  # whatever the images' proportions
        size = SHORTEST if size == "auto" else size
        return size, size if width == "auto" else width or size
    across, down = np.median(sizes, 0) if len(sizes) else (1.0, 1.0)
    if size == "auto":
        longest = min(LONGEST, max(SHORTEST, max(across, down)))
        size = _stepped(longest * down / max(across, down))
    if width == "auto":
        width = _stepped(size * across / down)
    return size, width or size


def _stepped(side: float) -> int:
    return max(2 * STEP, STEP * round(side / STEP))
