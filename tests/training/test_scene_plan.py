"""What is decided before boxes or masks are learnt."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import write_scenes
from resnetkit import recipe as recipes
from resnetkit.data import boxes, masks
from resnetkit.errors import UsageError
from resnetkit.training.scene_plan import settle_scene


def test_heads_and_widths_follow_what_is_learnt(tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "data")
    given = {"image.resize": "letterbox", "finetune.keep_statistics": False, "finetune.head": False}
    given |= {"finetune.views": 0, "optim.label_smoothing": 0.0}
    for dataset, head, width in ((boxes.scan(root / "boxes"), "fcos", 128), (masks.scan(root / "masks"), "unet", 24)):
        settled = settle_scene(recipes.read("", given), dataset)
        assert (settled.model.head, settled.model.head_width) == (head, width)
        assert settled.model.weights == "IMAGENET1K_V1" and settled.image.crop_ratio == 1.0
        assert settled.model.freeze == ("stem" if head == "fcos" else "none"), "a pretrained stem of a detector stays"
        assert settle_scene(settled, dataset) == settled, "a frozen recipe is settled"


@pytest.mark.parametrize(
    "key, value",
    [
        ("augment.rotate", 5.0),
        ("grow.from", "resnet18"),
        ("model.pool", "all"),
        ("optim.class_weights", "balanced"),
        ("optim.label_smoothing", 0.1),
    ],
)
def test_what_is_for_classes_is_refused(key: str, value: object, tmp_path: Path) -> None:
    dataset = boxes.scan(write_scenes(tmp_path / "data") / "boxes")
    with pytest.raises(UsageError, match=key):
        settle_scene(recipes.read("", {"image.resize": "letterbox", key: value}), dataset)
