from dataclasses import replace
from pathlib import Path

import pytest

from resnetkit import recipe as recipes
from resnetkit.data.columns import dataset_of
from resnetkit.data.table import Row
from resnetkit.training.prepare import default_epochs, defaults_of


@pytest.mark.parametrize(
    ("noun", "usual", "samples", "epochs"),
    [
        ("images", 10, 4, 10),
        ("sounds", 25, 2_295, 25),
        ("sounds", 25, 1_600, 36),
        ("sounds", 25, 140, 100),
        ("sounds", 25, 100_000, 25),
        ("texts", 5, 6_920, 5),
        ("texts", 5, 3_460, 10),
        ("texts", 5, 200, 20),
    ],
)
def test_few_samples_are_seen_more_often(noun, usual, samples, epochs):
    rows = [Row(f"{i}.x", (str(i % 2),), "train", "") for i in range(samples)]
    assert default_epochs(replace(dataset_of(Path("."), rows), noun=noun), usual) == epochs


def test_voices_have_defaults_of_their_own():
    dataset = replace(dataset_of(Path("."), [Row("a.wav", ("x",), "train", "")]), noun="sounds")
    usual, voices = (
        defaults_of("sound", recipes.read("", {"model.variant": variant}), dataset)
        for variant in ("resnet18", "speaker34")
    )
    assert "sound.voice" not in usual and voices["sound.voice"] == 0 and voices["optim.label_smoothing"] == 0
    assert usual["train.epochs"] == voices["train.epochs"] == 100
