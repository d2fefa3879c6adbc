"""eval: by name, on what was held out, with what could not be read counted and listed."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from conftest import COLOURS, write_classes
from resnetkit import api


def test_the_runs_own_data_is_scored_on_what_was_held_out(trained: Path, run_cli) -> None:
    code, out, err = run_cli("eval", trained, trained.parent.parent / "photos", "--json")
    result = json.loads(out)
    assert code == 0 and result["split"] == "test"
    assert result["metrics"] == json.loads((trained / "metrics.json").read_text())


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
