"""compare: two model folders on the same images, held out by both."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from conftest import COLOURS, tiny, write_classes
from resnetkit import api
from resnetkit.recipe import parse_setting


@pytest.fixture(scope="module")
def other(trained: Path) -> Path:
    """A run on the same images and splits that has hardly learnt."""
    settings = dict(map(parse_setting, tiny("train.epochs=1", "optim.lr=1e-5", "model.width=64")[1::2]))
    photos, folder = trained.parent.parent / "photos", trained.parent / "other"
    return api.train(photos, out=folder, settings=settings, quiet=True).folder


def test_two_runs(trained: Path, other: Path, run_cli) -> None:
    photos = trained.parent.parent / "photos"
    code, out, err = run_cli("compare", other, trained, photos, "--split", "all", "--out", "c")
    assert code == 0 and "36 images (all)" in err
    lines = out.splitlines()
    kept = json.loads(Path("c/comparison.json").read_text())
    assert lines[0] == kept["verdict"] == "B is better" and kept["n"] == 36
    a, b = (api.evaluate(run, photos, split="all", quiet=True) for run in (other, trained))
    assert kept["b_less_a"]["accuracy"]["value"] == pytest.approx(
        b.metrics["accuracy"].value - a.metrics["accuracy"].value
    )
    with Path("c/flipped.csv").open() as file:
        assert len(list(csv.DictReader(file))) == kept["only_a_right"] + kept["only_b_right"]
    code, out, _ = run_cli("compare", other, trained, photos, "--split", "all", "--json")
    assert code == 0 and json.loads(out) == kept
    code, _, err = run_cli("compare", other, trained, photos, "--out", "c")
    assert code == 2 and err == "error: c: holds something already (choose another --out)\n"


def test_the_test_images_of_both_runs(trained: Path, other: Path, run_cli) -> None:
    """6 of 36 images: too few to tell anything."""
    code, out, err = run_cli("compare", trained, trained, trained.parent.parent / "photos")
    assert code == 0 and "6 images (test)" in err and "cannot tell with n = 6: both" in out


def test_a_run_and_a_model_that_knows_nothing_of_the_data(trained: Path, other: Path, tmp_path: Path, run_cli) -> None:
    """The run's own test images are those that are compared, whichever stands first."""
    bare = shutil.copytree(other / "model", tmp_path / "elsewhere" / "model")
    photos = trained.parent.parent / "photos"
    for pair in ((trained, bare), (bare, trained)):
        code, _, err = run_cli("compare", *pair, photos)
        assert code == 0 and "6 images (test)" in err
    code, _, err = run_cli("compare", bare, trained, photos, "--split", "all")
    assert code == 0 and "36 images (all)" in err and "take care" in err


def test_what_only_one_can_read_is_left_out_for_both(trained: Path, photos: Path) -> None:
    from resnetkit.verbs.compare import _read_by_both

    whole = api.evaluate(trained, photos, split="all", quiet=True)
    (photos / "red" / "3.png").write_bytes(b"")
    a, b = _read_by_both(api.evaluate(trained, photos, split="all", quiet=True), whole)
    assert a.paths == b.paths and len(a.paths) == len(a.logits) == len(b.targets) == 35
    assert a.failed == b.failed and [path for path, _ in b.failed] == ["red/3.png"]


def test_runs_that_cut_other_test_images_are_not_compared_on_them(trained: Path, run_cli) -> None:
    photos = trained.parent.parent / "photos"
    assert run_cli("train", photos, *tiny("train.epochs=1", "train.seed=5"), "--out", "seeded")[0] == 0
    code, _, err = run_cli("compare", trained, "seeded", photos)
    assert code == 3 and "other test images for each" in err and "--split all" in err


def test_classes_in_another_order_and_other_classes(trained: Path, tmp_path: Path, run_cli) -> None:
    """Answers are matched by name; models of other classes are refused."""
    from resnetkit.errors import ModelError
    from resnetkit.verbs.compare import _in_order_of

    photos = trained.parent.parent / "photos"
    scores = api.evaluate(trained, photos, split="all", quiet=True)
    other = replace(scores, classes=scores.classes[::-1], logits=scores.logits[:, ::-1], targets=2 - scores.targets)
    assert list(_in_order_of(scores, other).rows()) == list(scores.rows())
    some = write_classes(tmp_path / "two", 6, classes={name: COLOURS[name] for name in ("green", "red")})
    run = api.train(some, out=tmp_path / "run", settings=dict(map(parse_setting, tiny()[1::2])), quiet=True).folder
    with pytest.raises(ModelError, match="knows other classes: only one of both has 'blue'"):
        api.compare(trained, run, photos, quiet=True)


def test_what_cannot_be_read_is_in_no_comparison(trained: Path, photos: Path, run_cli) -> None:
    shutil.rmtree(photos / "blue")
    (photos / "red" / "3.png").write_bytes(b"")
    code, out, err = run_cli("compare", trained, trained, photos, "--split", "all", "--json")
    assert code == 4 and "red/3.png" in err and json.loads(out)["n"] == 23


def grouped(photos: Path, groups: int) -> Path:
    """A CSV of the photos, of which every `groups`-th belongs together."""
    rows = [
        f"{path.relative_to(photos)},{path.parent.name},animal {i % groups}"
        for i, path in enumerate(sorted(photos.rglob("*.png")))
    ]
    (photos / "labels.csv").write_text("\n".join(["path,label,group", *rows]) + "\n")
    return photos / "labels.csv"


def test_images_of_one_group_are_one_witness(trained: Path, other: Path, photos: Path, run_cli) -> None:
    table = grouped(photos, 5)
    code, out, _ = run_cli("compare", trained, other, table, "--split", "all", "--json")
    found = json.loads(out)
    assert code == 0 and found["groups"] == 5 and "5 groups" in found["b_less_a"]["accuracy"]["method"]
    code, out, _ = run_cli("compare", trained, other, table, "--split", "all")
    assert code == 0 and "of 5 groups swapped" in out


def test_groups_are_kept_on_one_side_and_told(photos: Path, run_cli) -> None:
    table = grouped(photos, 12)
    code, _, err = run_cli("train", table, *tiny("train.epochs=1"), "--out", "grouped")
    assert code == 0 and "12 groups, kept on one side of the splits" in err
    torn = [f"{line},{('train', 'val')[i % 2]}" for i, line in enumerate(table.read_text().splitlines()[1:])]
    table.write_text("\n".join(["path,label,group,split", *torn]) + "\n")
    code, _, err = run_cli("train", table, *tiny("train.epochs=1"), "--dry-run")
    assert code == 0 and "groups are in two splits" not in err  # every second of 12: each group is whole
    whole = table.read_text().replace("animal 1,", "animal 0,")
    table.write_text(whole)
    code, _, err = run_cli("train", table, *tiny("train.epochs=1"), "--dry-run")
    assert code == 0 and "1 groups are in two splits" in err
