import dataclasses

import numpy as np
import pytest
import torch

from resnetkit import recipe as recipes
from resnetkit.data import audio
from resnetkit.errors import UsageError
from resnetkit.training import hearing, sounds
from resnetkit.training.augment import draws
from resnetkit.training.objective import OBJECTIVES
from senses import tone, write_tones, write_wav

pytest.importorskip("soundfile")
STILL = {"sound.speed": 0, "sound.shift": 0, "sound.gain": 0, "sound.noise": 40, "sound.mask_bands": 0} | {
    "sound.mask_frames": 0,
    "sound.voice": 0,
    "sound.pace": 0,
    "sound.emphasis": 0,
    "sound.room": 0,
}
MADE = {"sound.rate": 8_000, "sound.seconds": 0.5, "sound.kept": 0.5, "sound.mels": 24, "sound.mean": 8} | {
    "sound.window": 0.025,
    "sound.hop": 0.01,
    "sound.std": 4,
    "model.stem": "imagenet",
    "model.shortcut": "B",
}


def recipe_of(source, **more):
    given = {"data.source": str(source), **{key.replace("_", ".", 1): v for key, v in more.items()}}
    return recipes.read("", given, OBJECTIVES["sound"].defaults)


def with_splits(dataset):
    return dataclasses.replace(dataset, splits=np.ones(len(dataset), np.int8))


def test_what_is_usual(tmp_path):
    recipe = recipe_of(write_tones(tmp_path / "a", 2))
    assert (recipe.model.variant, recipe.model.width, recipe.train.epochs) == ("resnet18", 32, 25)
    assert recipe_of(tmp_path / "a", model_variant="resnet34").model.variant == "resnet34"


def test_settle(tmp_path):
    dataset = with_splits(audio.scan(write_tones(tmp_path / "a", 4)))
    found = hearing.settle(recipe_of(tmp_path / "a"), dataset).sound
    assert (found.rate, found.seconds, found.kept, found.mels) == (8_000, 0.75, 0.75, 40)
    assert (found.window, found.hop) == (0.025, 0.01)
    longer = hearing.settle(recipe_of(tmp_path / "a", sound_seconds=2.5, sound_hop=0.015), dataset).sound
    assert (longer.window, longer.hop) == (0.04, 0.015), "long clips are heard in longer frames"
    preprocess = hearing.preprocess_of(hearing.settle(recipe_of(tmp_path / "a"), dataset))
    clips = np.stack([audio.clip(audio.read(file, preprocess), preprocess) for file in dataset.files])
    inputs = audio.normalise(clips, preprocess)
    assert abs(inputs.mean()) < 0.05 and abs(inputs.std() - 1) < 0.05
    given = {"sound.rate": 16_000, "sound.seconds": 0.5, "sound.mean": 1.0, "sound.std": 2.0}
    found = hearing.settle(recipes.replace(recipe_of(tmp_path / "a"), given), dataset).sound
    assert (found.rate, found.seconds, found.mels, found.mean, found.std) == (16_000, 0.5, 64, 1.0, 2.0)


def test_long_files_are_kept_in_part(tmp_path):
    for i in range(6):
        write_wav(tmp_path / "a" / ("x", "y")[i % 2] / f"{i}.wav", tone("low", i, 30.0))
    found = hearing.settle(recipe_of(tmp_path / "a"), with_splits(audio.scan(tmp_path / "a"))).sound
    assert (found.seconds, found.kept) == (5.0, 20.0)
    short = recipes.replace(recipe_of(tmp_path / "a"), {"sound.seconds": 2.0, "sound.kept": 1.0})
    with pytest.raises(UsageError, match=r"sound.kept = 1 is shorter"):
        hearing.settle(short, with_splits(audio.scan(tmp_path / "a")))


@pytest.mark.parametrize(
    ("settings", "stem"),
    [
        ({"seconds": 1.0}, "spectrum"),
        ({"seconds": 3.0, "hop": 0.01}, "auto"),
        ({"seconds": 1.0, "stem": "imagenet"}, "imagenet"),
        ({"seconds": 1.0, "variant": "resnet20"}, "auto"),
        ({"seconds": 1.0, "variant": "speaker34"}, "auto"),
    ],
)
def test_few_frames_are_kept(settings, stem, tmp_path):
    source = write_tones(tmp_path / "tones", 4)
    keys = {name: "model" if name in ("stem", "variant") else "sound" for name in settings}
    recipe = recipe_of(source, **{f"{keys[name]}_{name}": value for name, value in settings.items()})
    settled = hearing.settle(recipe, with_splits(audio.scan(source)))
    assert settled.model.stem == stem, "auto is what the variant has"


def test_inputs_without_changes_are_those_of_evaluation():
    recipe = recipes.read("", {**MADE, **STILL, "model.variant": "resnet18"})
    preprocess = hearing.preprocess_of(recipe)
    clips = np.stack([audio.clip(tone("low", i).astype(np.float32), preprocess) for i in range(3)])
    targets = torch.eye(3)
    found, same = hearing.heard(clips, targets, np.ones(3), recipe, draws(0, 0, 3))
    assert torch.equal(same, targets)
    assert torch.equal(found, torch.from_numpy(audio.normalise(clips, preprocess)))
    assert torch.equal(found, hearing.centre(clips, recipe))


def test_a_random_part_lies_inside_the_sound():
    recipe = recipes.read("", {**MADE, **STILL, "model.variant": "wave34", "sound.kept": 2.0})
    clips = np.zeros((40, 16_000), np.int16)
    clips[:20, 4_000:12_000] = 100  # one second of sound in two
    clips[20:, 7_000:9_000] = 100  # a quarter of one
    aspects = np.array([0.5] * 20 + [0.125] * 20)
    found = hearing.heard(clips, torch.ones(40, 2), aspects, recipe, draws(0, 0, 40))[0].numpy()[:, 0]
    assert found.shape == (40, 4_000)
    assert (found[:20] > 0).all() and ((found[20:] > 0).sum(1) == 2_000).all()


@pytest.mark.parametrize("variant", ["resnet18", "wave34", "speaker34"])
def test_inputs_are_the_same_for_any_number_of_processes(variant):
    recipe = recipes.read("", {**MADE, "model.variant": variant})
    clips = np.stack([audio.to_integers(tone("low", i, 0.5).astype(np.float32)) for i in range(5)])
    targets = torch.eye(5)
    whole, who = hearing.heard(clips, targets, np.ones(5), recipe, draws(1, 2, 5))
    halves = slice(0, 2), slice(2, 5)
    parts = [hearing.heard(clips[p], targets[p], np.ones(5)[p], recipe, draws(1, 2, 5, p)) for p in halves]
    assert torch.allclose(whole, torch.cat([part for part, _ in parts]), atol=1e-4)
    assert torch.equal(who, torch.cat([part for _, part in parts]))
    assert not torch.equal(whole, hearing.centre(clips, recipe))


def test_each_speed_of_a_voice_is_another_speaker():
    settings = {**MADE, **STILL, "model.variant": "speaker34", "data.task": "sound", "sound.speed": 0.2}
    recipe = recipes.read("", settings)
    assert hearing.copies_of(recipe) == (0.8, 0.9, 1.1, 1.2)
    preprocess = hearing.preprocess_of(recipe)
    clips = np.stack([audio.to_integers(tone("low", i, 0.5).astype(np.float32)) for i in range(30)])
    classes = torch.arange(30) % 3
    found, targets = hearing.heard(clips, torch.eye(3)[classes], np.ones(30), recipe, draws(0, 0, 30))
    assert targets.shape == (30, 15) and torch.equal(targets.sum(1), torch.ones(30))
    told = targets.argmax(1)
    assert torch.equal(told % 3, classes) and len(set((told // 3).tolist())) == 5
    factors = np.array([1.0, *hearing.copies_of(recipe)])[told // 3]
    played = [sounds.speed(audio.to_floats(clip), factor) for clip, factor in zip(clips, factors, strict=True)]
    wanted = audio.normalise(audio.to_integers(np.stack(played)), preprocess)
    assert torch.allclose(found, torch.from_numpy(wanted), atol=1e-4)
    network = hearing.build(recipe, 3)
    assert network(found).shape == (30, 15) and network.eval()(found).shape == (30, 3)
    assert hearing.loss(network.train(), found, targets, torch.tensor([1.0, 2.0, 3.0])).isfinite()
    for still in ({"sound.speed": 0.0}, {"model.variant": "resnet18"}, {"data.task": "sound-multilabel"}):
        assert not hearing.copies_of(recipes.read("", {**settings, **still}))


@pytest.mark.parametrize("variant", ["resnet18", "wave34", "speaker34"])
def test_build(variant):
    recipe = recipes.read("", {**MADE, "model.variant": variant, "model.width": 8, "model.weights": "none"})
    network = hearing.build(recipe, 3)
    inputs = hearing.centre(np.zeros((2, 4_000), np.int16), recipe)
    assert network(inputs).shape == (2, 3)
    again = hearing.build(recipe, 3)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))
