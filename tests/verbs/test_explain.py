"""explain: overlays, a table and a page, and the training images that are most like each."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import tiny, write_classes, write_labels
from resnetkit import api, models
from resnetkit.data.image import Preprocess
from resnetkit.errors import DataError
from resnetkit.recipe import parse_setting
from resnetkit.runtime.save import save
from resnetkit.trust.explanation import SHOWN, Explanation
from resnetkit.verbs import explain as verb

HOSTILE = [
    "new\nline.png",
    "..png",
    "...png",
    "🐈.png",
    "\u202etlr.png",
    os.fsdecode(b"\xff\x80.png"),
    "-rf.png",
    "=c.png",
    "<script>alert(1)<script>.png",
    '"><img src=x onerror=alert(1)>.png',
    "{{ 7 * 7 }}.png",
    "é" * 100 + ".png",
]


@pytest.fixture
def own(trained: Path) -> Path:
    """The folder that the run was trained on."""
    return trained.parent.parent / "photos"


def table(folder: str | Path) -> list[dict[str, str]]:
    with Path(folder, "explained.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_run_with_its_own_training_images(trained: Path, own: Path, photos: Path, run_cli) -> None:
    files = [photos / "red" / "10.png", photos / "blue" / "2.png", photos / "green" / "0.png"]
    code, out, err = run_cli("explain", trained, *files, "--out", "why")
    assert code == 0 and re.search(r"the nearest of its \d\d training images", err) and "explaining 3/3" in err
    assert "has a single cell" in err  # of 32 px nothing else is left
    rows = table("why")
    assert [row["path"] for row in rows] == [str(path) for path in files]
    answers = [json.loads(line) for line in run_cli("predict", trained, *files, "--json")[1].splitlines()]
    assert [(row["label"], float(row["score"])) for row in rows] == [(row["label"], row["score"]) for row in answers]
    assert [row["overlay"] for row in rows] == [f"why/{name}.png" for name in ("1-10", "2-2", "3-0")]
    assert all(row["explained"] == row["label"] and not row["error"] for row in rows)
    for line, row, path in zip(out.splitlines(), rows, files, strict=True):
        assert line.startswith(f"{path}  {row['label']} ") and f"{row['overlay']}  like {row['nearest_1']}" in line
        with Image.open(row["overlay"]) as image:
            assert image.size == (40, 40) and image.mode == "RGB"
        similar = [float(row[f"nearest_{i}_similarity"]) for i in (1, 2, 3, 4)]
        assert similar == sorted(similar, reverse=True) and -1 <= similar[3] <= similar[0] <= 1
        for i in (1, 2, 3, 4):
            assert Path(row[f"nearest_{i}"]).parent == own / row[f"nearest_{i}_label"]
    held_out = set(api.evaluate(trained, own, split="test", quiet=True).paths)
    assert not held_out & {os.path.relpath(row[f"nearest_{i}"], own) for row in rows for i in (1, 2, 3, 4)}
    page = Path("why/index.html").read_text(encoding="utf-8")
    assert page.count("<article>") == 3 and page.count("data:image/jpeg") == 3 * 5 and "<script" not in page
    assert page.count("alt=") == page.count("<img ") and "default-src 'none'" in page
    assert sorted(os.listdir("why")) == ["1-10.png", "2-2.png", "3-0.png", "explained.csv", "index.html"]


def test_another_class_and_json(trained: Path, photos: Path, run_cli) -> None:
    code, out, _ = run_cli("explain", trained, photos / "red" / "0.png", "--label", "blue", "--out", "why", "--json")
    (row,) = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and row["explained"] == "blue" and row["nearest_4_label"] in ("red", "green", "blue")
    code, out, err = run_cli("explain", trained, photos, "--label", "mauve", "--out", "other")
    assert code == 2 and out == "" and err.count("\n") == 1 and "'mauve' (it knows blue, green, red)" in err
    assert not Path("other").exists()


def test_given_evidence_or_none(trained: Path, own: Path, photos: Path, tmp_path: Path, run_cli) -> None:
    file = photos / "red" / "0.png"
    more = write_classes(tmp_path / "more" / "train", 3, seed=7).parent
    write_classes(more / "test", 2, seed=8)
    (more / "train" / "red" / "0.png").write_bytes(b"no picture")
    code, _, err = run_cli("explain", trained, file, "--evidence", more, "--nearest", "999999999", "--out", "a")
    (row,) = table("a")
    found = [row[f"nearest_{i}"] for i in range(1, 9)]
    assert code == 0 and "nearest_9" not in row and all(str(more / "train") in path for path in found)
    assert "1 training images could not be read" in err
    code, out, err = run_cli("explain", trained, file, "--nearest", "0", "--out", "b")
    assert code == 0 and set(table("b")[0]) == {"path", "label", "score", "explained", "overlay", "error"}
    assert "like" not in out and "training images" not in err
    bare = shutil.copytree(trained / "model", tmp_path / "bare")
    code, out, err = run_cli("explain", bare, file, "--out", "c")
    assert code == 0 and "does not say what it was trained on" in err and "like" not in out
    code, _, err = run_cli("explain", trained, own / "red" / "0.png", "--out", "d", "--evidence", own)
    assert code == 0 and str(own / "red" / "0.png") not in [table("d")[0][f"nearest_{i}"] for i in (1, 2, 3, 4)]
    code, _, err = run_cli("explain", trained, file, "--out", "e", "--evidence", "nowhere")
    assert code == 3 and err.count("\n") == 1 and not Path("e").exists()


def test_training_images_that_have_changed_or_gone(trained: Path, photos: Path, tmp_path: Path, run_cli) -> None:
    """The run is on photos/ of a working folder of its own."""
    settings = dict(map(parse_setting, tiny("train.epochs=1")[1::2]))
    run = api.train("photos", out="runs/own", settings=settings, quiet=True).folder
    shutil.copy(photos / "red" / "0.png", photos / "red" / "new.png")
    code, out, err = run_cli("explain", run, photos / "blue" / "1.png", "--out", "a")
    assert code == 0 and "photos: has changed since the run" in err and "like" not in out
    code, out, err = run_cli("explain", run, photos / "blue" / "1.png", "--out", "b", "--evidence", "photos")
    assert code == 0 and "the nearest images are of all there are" in err and "like" in out
    photos.rename(tmp_path / "moved")
    code, out, err = run_cli("explain", run, tmp_path / "moved" / "blue" / "1.png", "--out", "c")
    assert code == 0 and "photos: is not there any more" in err and "like" not in out


def test_unreadable_files_are_named_and_the_others_explained(trained: Path, photos: Path, run_cli) -> None:
    files = [photos / "red" / f"{i}.png" for i in range(3)]
    files[1].write_bytes(b"%PDF-1.4")
    code, out, err = run_cli("explain", trained, *files, "gone.png", "--out", "why", "--nearest", "0", "--quiet")
    assert code == 4 and len(out.splitlines()) == 2 and "it looks like PDF" in err and "2 of 4 files" in err
    rows = table("why")
    assert [bool(row["error"]) for row in rows] == [False, True, False, True]
    assert sorted(os.listdir("why")) == ["1-0.png", "3-2.png", "explained.csv", "index.html"]
    assert "gone.png" in Path("why/index.html").read_text(encoding="utf-8")
    found = api.explain(trained, files, out="again", nearest=0, quiet=True)
    assert [isinstance(each, DataError) for each in found] == [False, True, False]
    assert isinstance(found[0], Explanation) and found[0].overlay == Path("again/1-0.png")


def test_hostile_names(trained: Path, photos: Path, run_cli) -> None:
    """Every overlay lies in the folder under a tame name of its own, and every form keeps to one line a file."""
    Path("in").mkdir()
    for name in HOSTILE:
        shutil.copy(photos / "red" / "0.png", Path("in") / name)
    inputs = [Path("in") / name for name in HOSTILE]
    code, out, _ = run_cli("explain", trained, *inputs, "--out", "why", "--nearest", "0", "--quiet")
    assert code == 0 and len(out.splitlines()) == len(HOSTILE) == len(table("why"))
    made = {name for name in os.listdir("why") if name.endswith(".png")}
    assert len(made) == len(HOSTILE) and all(re.fullmatch(r"\d\d-[\w.-]*\.png", name) for name in made)
    page = Path("why/index.html").read_text(encoding="utf-8")
    assert "<script" not in page and "onerror=alert(1)&gt;" in page and page.count("<img ") == len(HOSTILE)
    assert "{{ 7 * 7 }}" in page and "\u202e" not in page
    code, out, _ = run_cli("explain", trained, *inputs, "--out", "json", "--nearest", "0", "--json")
    paths = [json.loads(line)["path"] for line in out.splitlines()]
    assert [os.fsencode(path) for path in paths] == [os.fsencode(path) for path in inputs]


def test_hostile_training_images(trained: Path, photos: Path, tmp_path: Path, run_cli) -> None:
    data = write_classes(tmp_path / "data", 1)
    for name in HOSTILE:
        shutil.copy(photos / "red" / "0.png", data / "red" / name)
    code, out, _ = run_cli(
        "explain", trained, photos / "red" / "1.png", "--evidence", data, "--nearest", "20", "--out", "o"
    )
    page = Path("o/index.html").read_text(encoding="utf-8")
    assert code == 0 and len(out.splitlines()) == 1 and len(table("o")) == 1
    hidden = sum(name.startswith(".") for name in HOSTILE)
    assert page.count("<img ") == 1 + len(HOSTILE) - hidden + 3 and "<script" not in page


def test_a_folder_that_holds_something(trained: Path, photos: Path, run_cli) -> None:
    file = photos / "red" / "0.png"
    (photos.parent / "why").mkdir()
    Path("why/letter.txt").write_text("dear")
    code, _, err = run_cli("explain", trained, file, "--out", "why")
    assert code == 2 and err == "error: why: holds something already (--overwrite to move it aside, or another --out)\n"
    code, _, err = run_cli("explain", trained, file, "--out", "why", "--overwrite")
    assert code == 0 and Path("why.1/letter.txt").exists() and "moved aside to why.1" in err
    for folder in (photos, photos / "red"):
        code, _, err = run_cli("explain", trained, file, "--out", folder, "--overwrite")
        assert code == 2 and "which is to be read (choose another --out)" in err and file.exists()
    code, _, err = run_cli("explain", trained, file, "--out", file)
    assert code == 6 and "is a file" in err
    code, _, err = run_cli("explain", trained, file, "--out", trained, "--overwrite")
    assert code == 2 and "which is to be read" in err and (trained / "model").exists()


def test_many_inputs(trained: Path, photos: Path, tmp_path: Path, run_cli, monkeypatch) -> None:
    """More than a batch, and more than the page shows; named on standard input."""
    listed = "\n".join(str(photos / "red" / f"{i % 12}.png") for i in range(SHOWN + 10)) + "\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(listed.encode())))
    code, out, _ = run_cli("explain", trained, "-", "--out", "why", "--nearest", "1", "--quiet")
    page = Path("why/index.html").read_text(encoding="utf-8")
    assert code == 0 and len(out.splitlines()) == SHOWN + 10 == len(table("why"))
    assert page.count("<article>") == SHOWN and f"The first {SHOWN} of {SHOWN + 10} images" in page
    assert len(list(Path("why").glob("*.png"))) == SHOWN + 10


def test_several_labels(tmp_path: Path, run_cli) -> None:
    data = write_labels(tmp_path / "several", 24)
    settings = dict(map(parse_setting, tiny("train.epochs=1")[1::2]))
    run = api.train(data, out="runs/several", settings=settings, quiet=True).folder
    file = tmp_path / "several" / "3.png"
    code, out, _ = run_cli("explain", run, file, "--out", "a", "--json")
    row = json.loads(out)
    (best,) = api.predict(run, [file], top=1)
    assert code == 0 and row["explained"] == row["label"] == best.label and row["score"] == round(best.score, 6)
    assert row["nearest_1_label"] in {"no label", *(line.split(",")[1] for line in data.read_text().splitlines())}
    code, out, _ = run_cli("explain", run, file, "--out", "b", "--label", "green", "--json")
    assert code == 0 and json.loads(out)["explained"] == "green"


def test_a_model_that_is_open(trained: Path, photos: Path) -> None:
    model = api.load(trained, device="cpu")
    (found,) = api.explain(model, [photos / "red" / "0.png"], out="why", quiet=True)
    assert isinstance(found, Explanation) and len(found.nearest) == 4
    with pytest.raises(ValueError, match="nearest = -1"):
        api.explain(model, [photos], out="other", nearest=-1)


def test_a_large_picture_is_made_smaller(trained: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((1500, 3000, 3), np.uint8)).save(tmp_path / "large.jpg")
    (found,) = api.explain(trained, [tmp_path / "large.jpg"], out="why", nearest=0, quiet=True)
    assert isinstance(found, Explanation)
    with Image.open(found.overlay) as image:
        assert image.size == (1024, 512)


@pytest.mark.parametrize(("stem", "safe"), [("../../etc/x", ".._.._etc_x"), ("a b", "a_b"), ("日本", "日本"), ("", "")])
def test_safe_names(stem: str, safe: str) -> None:
    assert verb._safe(stem) == safe


def test_the_cells_are_told(photos: Path, tmp_path: Path, run_cli) -> None:
    """Of a network whose last stage sees more than one place."""
    save(models.build("resnet20", num_classes=3), "small", preprocess=Preprocess(size=32))
    code, _, err = run_cli("explain", "small", photos / "red", "--out", "why", "--nearest", "0")
    assert code == 0 and "single cell" not in err
    page = Path("why/index.html").read_text(encoding="utf-8")
    assert "in 8 x 8 cells" in page and "Take care" not in page
