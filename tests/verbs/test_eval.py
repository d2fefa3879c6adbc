"""eval: by name, on what was held out, with what could not be read counted and listed."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import COLOURS, tiny, write_classes
from resnetkit import api


def test_the_runs_own_data_is_scored_on_what_was_held_out(trained: Path, run_cli) -> None:
    code, out, err = run_cli("eval", trained, trained.parent.parent / "photos", "--json")
    result = json.loads(out)
    assert code == 0 and result["split"] == "test"
    assert result["metrics"] == json.loads((trained / "metrics.json").read_text())


def test_mirror_is_the_mean_over_both(trained: Path, photos: Path, run_cli) -> None:
    code, out, _ = run_cli("eval", trained, photos, "--mirror", "--json")
    assert code == 0 and json.loads(out)["metrics"]["accuracy"]["n"] == 36
    mirrored, plain = (api.evaluate(trained, photos, mirror=on, quiet=True).logits for on in (True, False))
    assert mirrored.shape == plain.shape and not np.allclose(mirrored, plain, atol=1e-4)
    for path in photos.rglob("*.png"):
        Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path)
    turned = api.evaluate(trained, photos, quiet=True).logits
    np.testing.assert_allclose(mirrored, (plain + turned) / 2, atol=1e-4)


def test_other_data_is_scored_whole_and_by_name(trained: Path, tmp_path: Path) -> None:
    """A class that the data lacks must not shift the others."""
    some = {name: COLOURS[name] for name in ("green", "red")}
    scores = api.evaluate(trained, write_classes(tmp_path / "other", 5, seed=77, classes=some), quiet=True)
    assert scores.split == "all" and len(scores.targets) == 10
    assert scores.metrics["recall/blue"].n == 0 and scores.metrics["recall/blue"].value is None
    assert scores.metrics["recall/red"].n == 5


def test_unknown_class_and_unknown_split(trained: Path, photos: Path, run_cli) -> None:
    code, _, err = run_cli("eval", trained, photos, "--split", "val")
    assert code == 3 and "has no split 'val'" in err
    assert run_cli("eval", trained, photos, "--split", "dev")[0] == 2
    shutil.move(photos / "red", photos / "purple")
    code, _, err = run_cli("eval", trained, photos)
    assert code == 3 and "'purple'" in err and "blue, green, red" in err


@pytest.mark.parametrize("content", [b"", b"<html></html>", b"\x89PNG\r\n\x1a\nbroken"])
def test_unreadable_files_are_counted_and_listed(trained: Path, photos: Path, run_cli, content: bytes) -> None:
    """A13-A16 in evaluation: exit 4, in no score, listed on stderr, in predictions.csv and in the report."""
    (photos / "red" / "3.png").write_bytes(content)
    code, out, err = run_cli("eval", trained, photos, "--out", "scores", "--json")
    assert code == 4 and "red/3.png" in err
    assert json.loads(out)["metrics"]["accuracy"]["n"] == 35
    with Path("scores/predictions.csv").open() as file:
        failed = [row for row in csv.DictReader(file) if row["error"]]
    assert [row["path"] for row in failed] == ["red/3.png"]
    assert "red/3.png" in Path("scores/report.html").read_text()


def test_gates(trained: Path, photos: Path, run_cli) -> None:
    assert run_cli("eval", trained, photos, "--min", "accuracy=0")[0] == 0
    code, _, err = run_cli("eval", trained, photos, "--min", "accuracy=1.01")
    assert code == 4 and "under the 1.01" in err
    assert run_cli("eval", trained, photos, "--min", "beauty=1")[0] == 2
    assert run_cli("eval", trained, photos, "--min", "accuracy")[0] == 2
    assert run_cli("eval", trained, photos, "--max", "ece=nan")[0] == 2
    assert run_cli("eval", trained, photos, "--min-low", "accuracy=0", "--max", "ece=1")[0] == 0
    code, _, err = run_cli("eval", trained, photos, "--min", "accuracy=0", "--min-low", "accuracy=1")
    assert code == 4 and "the lower end of accuracy is 0." in err and "under the 1.0 of --min-low" in err
    code, _, err = run_cli("eval", trained, photos, "--max", "ece=-0.1")
    assert code == 4 and "over the -0.1 of --max" in err


def test_images_that_it_was_trained_on_are_never_its_test(tmp_path: Path, run_cli) -> None:
    """The cut is made again at each evaluation; where it would be another, nothing is scored behind the user's back."""
    root = write_classes(tmp_path / "photos", 12)
    (tmp_path / "elsewhere.png").write_bytes((root / "red" / "0.png").read_bytes())
    (root / "red" / "out.png").symlink_to(tmp_path / "elsewhere.png")
    assert run_cli("train", root, *tiny("train.epochs=1", "data.follow_links=true"), "--out", "r", "--quiet")[0] == 0
    with Path("r/predictions.csv").open() as file:
        held_out = {row["path"] for row in csv.DictReader(file)}
    for model in ("r", "r/model"):
        assert run_cli("eval", model, root, "--out", f"s-{model[2:]}", "--quiet")[0] == 0
        with Path(f"s-{model[2:]}/predictions.csv").open() as file:
            assert {row["path"] for row in csv.DictReader(file)} == held_out
    (root / "blue" / "3.png").unlink()
    code, _, err = run_cli("eval", "r", root)
    assert code == 3 and "has changed since the run" in err and "--split all" in err
    Path("r/env.json").unlink()
    code, _, err = run_cli("eval", "r", root)
    assert code == 3 and "may be other data" in err
    code, out, _ = run_cli("eval", "r", root, "--split", "all", "--out", "all")
    assert code == 0 and "n = 36" in out


def test_a_folder_that_holds_something_is_refused_before_the_work(trained: Path, photos: Path, run_cli) -> None:
    Path("full").mkdir()
    (Path("full") / "mine.txt").touch()
    code, _, err = run_cli("eval", trained, photos, "--out", "full")
    assert code == 2 and "scoring" not in err


def test_the_training_split_has_a_report(trained: Path, run_cli) -> None:
    code, _, err = run_cli("eval", trained, trained.parent.parent / "photos", "--split", "train", "--out", "scored")
    assert code == 0 and "training images the model names" in Path("scored/report.html").read_text(), err
