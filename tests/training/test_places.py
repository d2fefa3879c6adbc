"""What is learnt from boxes and masks: how images are stored, and what batches of them hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import write_scenes
from resnetkit import recipe as recipes
from resnetkit.data import boxes, image, masks
from resnetkit.settings import Recipe
from resnetkit.tasks.scenes import Truths
from resnetkit.training import places
from resnetkit.training.augment import draws
from resnetkit.training.objective import OBJECTIVES
from resnetkit.training.scene_plan import settle_scene

SETTINGS = {"model.weights": "none", "model.variant": "resnet18"}
STILL = {"augment.flip": False, "augment.min_scale": 1, "augment.color": 0.0}


def ready(root: Path, kind: str, **changes: object) -> tuple[Recipe, Truths, np.ndarray]:
    """A recipe, what is there, and the stored canvases of the training images."""
    source = write_scenes(root / "data") / kind
    dataset = boxes.scan(source) if kind == "boxes" else masks.scan(source)
    task = "detect" if kind == "boxes" else "segment"
    wanted = SETTINGS | {"data.task": task} | {key.replace("__", "."): value for key, value in changes.items()}
    recipe = settle_scene(recipes.read("", wanted, OBJECTIVES[task].defaults), dataset)
    part = dataset.select("train")
    store = places.store_of(recipe)
    canvases = [image.pixels(image.decode(file, store), store) for file in part.files]
    return recipe, Truths(part), np.stack(canvases)


def test_the_canvas_has_the_proportions_of_the_images(tmp_path: Path) -> None:
    recipe, _, canvases = ready(tmp_path, "boxes")
    assert places.canvas_of(recipe).canvas == (208, 320), "96 x 64, in steps of 16 pixels, 320 long"
    assert canvases.shape == (8, 260, 400, 3)
    taller, _, _ = ready(tmp_path / "more", "boxes", image__size=96)
    assert places.canvas_of(taller).canvas == (96, 144)


@pytest.mark.parametrize("kind", ["boxes", "masks"])
def test_what_is_learnt_lies_where_it_is_seen(kind: str, tmp_path: Path) -> None:
    """Without chance: inside each box, and under each class of a mask, is the colour of its shape."""
    recipe, truths, canvases = ready(tmp_path, kind, **{key.replace(".", "__"): v for key, v in STILL.items()})
    rows = np.arange(8)
    objective = OBJECTIVES[recipe.data.task]
    stored, there = objective.collate(canvases, truths[rows], 2)
    images, targets = objective.augment(stored, there, np.ones(8), recipe, draws(0, 0, 8))
    assert images.shape == (8, 3, 208, 320)
    reddest = images[:, 0] > images[:, 2]  # discs are red, squares blue, the ground is dark
    if kind == "masks":
        assert targets.shape == (8, 208, 320) and set(targets.unique().tolist()) == {0, 1, 2, 255}
        assert reddest[targets == 2].float().mean() > 0.95 and reddest[targets == 1].float().mean() < 0.05
        return
    for image_, target in zip(images, targets, strict=True):
        assert sorted(target["labels"].tolist()) == [0, 1]
        for (x1, y1, x2, y2), label in zip(target["boxes"].round().int().tolist(), target["labels"], strict=True):
            middle = image_[:, (y1 + y2) // 2, (x1 + x2) // 2]
            assert bool(middle[0] > middle[2]) == bool(label)
            width = torch.tensor([x2 - x1, y2 - y1])
            assert (width > 100).all() and abs(width[0] - width[1]) <= 3, "shapes are as wide as high"


def test_few_images_are_seen_often() -> None:
    assert [places.default_epochs(n) for n in (0, 10, 100, 205, 100_000)] == [60, 60, 24, 12, 12]


def test_balanced_masks_weigh_rare_classes_more(tmp_path: Path) -> None:
    _, truths, _ = ready(tmp_path, "masks")
    weights = places.pixel_weights(truths, 3)
    assert weights[0] < weights[1] and weights[0] < weights[2]
    torch.testing.assert_close(places.no_weights(truths, 2), torch.ones(2))
