"""Small and odd data: few images, one image, 30:1, 28 px, six channels, several labels an image."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from conftest import COLOURS, interrupted_at, picture, tiny, write_labels
from resnetkit import api
from resnetkit.data.image import mean_and_std

Run = Callable[..., tuple[int, str, str]]


def splits(folder: Path, **counts: int) -> Path:
    for number, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            picture(list(COLOURS.values())[number], 100 * number + i).save(folder / name / f"{i}.png")
    return folder


def test_five_images_a_class(run_cli: Run) -> None:
    code, out, err = run_cli("train", splits(Path("few"), a=5, b=5, c=5), *tiny("train.epochs=1"), "--json")
    assert code == 0 and "9 train, 3 val, 3 test" in err
    metrics = json.loads(out)["metrics"]
    assert metrics["accuracy"]["n"] == 3 and {metrics[f"recall/{name}"]["n"] for name in "abc"} == {1}
    assert metrics["accuracy"]["high"] - metrics["accuracy"]["low"] > 0.5, "of three images little can be said"


def test_a_class_of_one_image(run_cli: Run) -> None:
    code, out, err = run_cli("train", splits(Path("one"), a=12, b=12, c=1), *tiny("train.epochs=1"), "--json")
    assert code == 0 and "no held-out images of 1 classes of few images, so no score tells: 'c'" in err
    metrics = json.loads(out)["metrics"]
    assert metrics["recall/c"]["value"] is None and metrics["recall/c"]["method"] == "no samples"
    assert api.load("runs/one").classes == ("a", "b", "c")


@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_thirty_to_one(run_cli: Run, weights: str) -> None:
    data = splits(Path("uneven"), a=90, b=3)
    settings = tiny("train.epochs=1", f"optim.class_weights={weights}")
    code, out, err = run_cli("train", data, *settings, "--json")
    assert code == 0 and "62 training images of 'a', 1 of 'b': look at macro_f1" in err
    metrics = json.loads(out)["metrics"]
    assert (metrics["recall/a"]["n"], metrics["recall/b"]["n"]) == (14, 1) and metrics["macro_f1"]["n"] == 15


def test_28_px_get_the_small_stem_which_is_said(run_cli: Run) -> None:
    for name, colour in COLOURS.items():
        (Path("small") / name).mkdir(parents=True)
        for i in range(4):
            picture(colour, i, 28).convert("L").save(Path("small") / name / f"{i}.png")
    code, _, err = run_cli(
        *("train", "small", "--model", "resnet20", "--epochs", "1", "--batch-size", "4", "--out", "r"),
        *("--set", "image.channels=1"),
    )
    assert code == 0, err
    assert "resnet20, small stem (3x3, stride 1, no pooling), 32 px, weights none" in err
    model = api.load("r")
    assert model.preprocess.size == 32 and model.preprocess.channels == 1
    code, _, err = run_cli("train", "small", "--dry-run", "--model", "resnet18")
    assert code == 0 and "resnet18, small stem" in err and 'stem = "small"' in err


def six_channels(root: Path, pages: bool = False) -> Path:
    """Two classes that only the sixth channel tells apart."""
    rng = np.random.default_rng(0)
    for name, level in (("dry", 60), ("wet", 190)):
        (root / name).mkdir(parents=True)
        for i in range(12):
            array = rng.integers(0, 256, (36, 40, 6)).astype(np.uint8)
            array[:, :, 5] = level + rng.integers(-20, 20, (36, 40))
            if pages:
                first, *rest = (Image.fromarray(array[:, :, c]) for c in range(6))
                first.save(root / name / f"{i}.tif", save_all=True, append_images=rest)
            else:
                np.save(root / name / f"{i}.npy", array)
    return root


@pytest.mark.parametrize("pages", [False, True])
def test_six_channels(run_cli: Run, pages: bool) -> None:
    six_channels(Path("bands"), pages)
    settings = tiny("image.channels=6", "train.epochs=6", "augment.trivial_augment=true")
    code, out, err = run_cli("train", "bands", *settings, "--out", "r", "--json")
    assert code == 0 and "6 channels without colour augmentation" in err, err
    assert json.loads(out)["metrics"]["accuracy"]["value"] == 1.0
    model = api.load("r")
    assert model.preprocess.mean == mean_and_std(6)[0]
    files = sorted(Path("bands/wet").iterdir())[:2]
    code, out, _ = run_cli("predict", "r", *files, "--format", "csv")
    assert code == 0 and [row["label"] for row in csv.DictReader(out.splitlines())] == ["wet", "wet"]
    if not pages:
        assert model.predict(np.load(files[0])).scores == model.predict(files[0]).scores
    assert run_cli("eval", "r", "bands", "--out", "scores")[0] == 0
    assert Path("scores/report.html").exists()


def test_channels_that_the_images_do_not_have(photos: Path, run_cli: Run) -> None:
    six_channels(Path("bands"))
    code, _, err = run_cli("train", "bands", *tiny(), "--quiet")
    assert code == 3 and "has 6 channels, not the 3 of the network" in err and "image.channels=6" in err
    code, _, err = run_cli("train", photos, *tiny("image.channels=6"), "--quiet")
    assert code == 3 and "has 3 channels, not the 6" in err
    assert run_cli("train", photos, *tiny("image.channels=17"))[0] == 2


EASY = ("train.epochs=10", "augment.min_scale=0.9", "augment.color=0.0", "train.batch_size=16")


def test_several_labels_end_to_end(run_cli: Run) -> None:
    source = write_labels(Path("shapes"), 160)
    code, out, err = run_cli("train", source, *tiny(*EASY), "--out", "r", "--json")
    assert code == 0 and "3 labels, several an image (1.5 on average, 20 images have none)" in err, err
    metrics = json.loads(out)["metrics"]
    assert list(metrics)[:4] == ["mAP", "macro_f1", "accuracy", "ece"] and metrics["mAP"]["value"] > 0.8
    assert {f"{kind}/{name}" for kind in ("AP", "F1") for name in COLOURS} == set(list(metrics)[4:])
    assert json.loads(Path("r/model/model.json").read_text())["task"] == "multilabel"
    assert 'task = "multilabel"' in Path("r/recipe.toml").read_text()
    with Path("r/results.csv").open() as file:
        rows = list(csv.DictReader(file))
    best = min(range(len(rows)), key=lambda i: float(rows[i]["val_calibrated_loss"]))
    assert [int(row["best"]) for row in rows][best] == 1 and not any(int(row["best"]) for row in rows[best + 1 :])
    report = Path("r/report.html").read_text()
    assert "Average precision of each label" in report and "Confusion matrix" not in report
    code, out, _ = run_cli("eval", "r", source, "--json", "--quiet", "--min", "mAP=0.5", "--out", "scores")
    assert code == 0 and json.loads(out)["metrics"] == metrics, "the same held-out images"


def test_several_labels_in_columns_are_the_same_training(run_cli: Run) -> None:
    for name, columns in (("a", False), ("b", True)):
        code, _, err = run_cli("train", write_labels(Path(name), columns=columns), *tiny(), "--out", f"r{name}")
        assert code == 0, err
    first, second = (safetensors.numpy.load_file(f"r{name}/model/model.safetensors") for name in "ab")
    assert all(np.array_equal(first[key], second[key]) for key in first)


def test_several_labels_resume_exactly(run_cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_labels(Path("shapes"))
    settings = tiny("augment.mixup=0.2", "optim.class_weights=balanced", "optim.ema_decay=0.9")
    assert run_cli("train", source, *settings, "--out", "whole")[0] == 0
    with monkeypatch.context() as patch:
        interrupted_at(4, patch)
        assert run_cli("train", source, *settings, "--out", "parts")[0] == 130
    assert run_cli("train", "--resume", "--out", "parts")[0] == 0
    for name in ("model/model.safetensors", "metrics.json"):
        assert Path("whole", name).read_bytes() == Path("parts", name).read_bytes()


def test_several_labels_predicted(run_cli: Run) -> None:
    source = write_labels(Path("shapes"))
    assert run_cli("train", source, *tiny(), "--out", "r")[0] == 0
    files = [Path("shapes/7.png"), Path("shapes/8.png")]
    code, out, _ = run_cli("predict", "r", *files, "--format", "jsonl")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and all({"path", "labels", "label", "score", "label_3", "score_3"} <= set(row) for row in rows)
    for row, answer in zip(rows, api.load("r").predict(files), strict=True):
        over = {name for name, score in zip(answer.labels, answer.scores, strict=True) if score >= 0.5}
        assert set(filter(None, row["labels"].split("|"))) == over == set(answer.present)
    code, out, _ = run_cli("predict", "r", files[0])
    assert code == 0 and out.startswith(f"{files[0]}  {rows[0]['labels'] or 'no label'}:  {rows[0]['label']} ")


def test_the_task_can_be_chosen(photos: Path, run_cli: Run) -> None:
    code, _, err = run_cli("train", photos, *tiny("train.epochs=1"), "--task", "multilabel", "--out", "several")
    assert code == 0 and "3 labels, several an image (1.0 on average)" in err
    assert run_cli("eval", "several", photos)[0] == 0
    source = write_labels(Path("shapes"))
    code, _, err = run_cli("train", source, *tiny(), "--task", "classify", "--out", "one")
    assert code == 3 and "has several labels an image" in err and not Path("one").exists()
    assert run_cli("train", photos, *tiny("train.epochs=1"), "--out", "one")[0] == 0
    code, _, err = run_cli("eval", "one", source)
    assert code == 3 and f"{source}: has several labels an image" in err


def test_a_label_without_images(run_cli: Run) -> None:
    source = write_labels(Path("shapes"), columns=True)
    lines = [f"{line},{'ghost' if i == 0 else 0}" for i, line in enumerate(source.read_text().splitlines())]
    source.write_text("\n".join(lines) + "\n")
    code, _, err = run_cli("train", source, *tiny(), "--quiet", "--out", "r")
    assert code == 3 and f"{source}: has no images of label 'ghost'" in err and not Path("r").exists()
    settings = tiny("train.epochs=1", "data.allow_empty_class=true")
    code, out, _ = run_cli("train", source, *settings, "--out", "r", "--json")
    metrics = json.loads(out)["metrics"]
    assert code == 0 and metrics["AP/ghost"]["value"] is None and metrics["AP/ghost"]["method"].startswith("no image")
    assert metrics["mAP"]["value"] is not None
