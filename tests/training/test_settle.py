"""What a recipe leaves open is decided by the size of the images and by the network."""

from __future__ import annotations

from resnetkit import recipe as recipes
from resnetkit.training.settle import default_lr, settle


def test_choices_by_size_of_the_images() -> None:
    small = settle(recipes.read(""), 28)
    assert (small.model.weights, small.image.size, small.model.stem, small.image.crop_ratio) == (
        "none",
        32,
        "small",
        1.0,
    )
    large = settle(recipes.read(""), 900)
    assert (large.model.weights, large.image.size, large.model.stem) == ("IMAGENET1K_V1", 224, "imagenet")
    assert (large.optim.optimizer, small.optim.optimizer) == ("adamw", "sgd")
    assert large.optim.lr == default_lr("adamw", 32, True) == 2e-4 and small.optim.lr == 0.05
    for side, stem in ((28, "small"), (900, "deep")):
        model = settle(recipes.read("", {"model.variant": "resnet34d"}), side).model
        assert (model.weights, model.stem, model.shortcut) == ("none", stem, "D")
    assert settle(recipes.read("", {"image.size": 96, "optim.lr": 0.3}), 900).image.size == 96


def test_statistics_are_renewed_unless_told_or_frozen() -> None:
    for freeze, given, expected in (
        ("none", "auto", "renewed"),
        ("none", "kept", "kept"),
        ("layer2", "auto", "kept"),
        ("layer2", "renewed", "renewed"),
    ):
        wanted = {"model.freeze": freeze, "finetune.statistics": given}
        assert settle(recipes.read("", wanted), 900).finetune.statistics == expected
    assert settle(recipes.read(""), 28).finetune.statistics == "kept", "no weights"


def test_what_a_plan_freezes_is_settled_as_it_was_when_the_run_is_resumed() -> None:
    """A plan freezes stages of a recipe that is settled; to settle it again must change nothing."""
    planned = recipes.replace(settle(recipes.read(""), 900), {"model.freeze": "layer2"})
    assert settle(planned, 900) == planned
