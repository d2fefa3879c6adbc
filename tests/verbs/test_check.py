"""check, by its command: what was planted is found, exit codes, the files it writes, and fixes that train applies."""

import csv
import json
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import COLOURS, picture, tiny, write_classes, write_labels
from resnetkit import api
from resnetkit.errors import DataError


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """train/ and val/ of three classes, 14 images each: nothing is wrong."""
    for split, seed in (("train", 0), ("val", 5000)):
        write_scenes(tmp_path / "data" / split, 14, seed)
    return tmp_path / "data"


def write_scenes(root: Path, count: int, seed: int) -> None:
    """Blobs of each class's colour on grounds that are all different."""
    for k, (name, colour) in enumerate(COLOURS.items()):
        (root / name).mkdir(parents=True)
        for i in range(count):
            rng = np.random.default_rng([seed, k, i])
            ground = Image.fromarray(rng.integers(60, 190, (6, 6, 3), np.uint8)).resize(
                (48, 48), Image.Resampling.BICUBIC
            )
            pixels = np.asarray(ground).copy()
            pixels[16:32, 16:32] = colour
            Image.fromarray(pixels).save(root / name / f"{i}.png")


def plant(data: Path) -> None:
    """Broken files, leaks, and one image under two labels."""
    red, whole = data / "train/red", (data / "train/red/2.png").read_bytes()
    parts = ((b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b"\0" * 99)))
    bomb = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in parts
    )
    broken = {"zero.png": b"", "cut.png": whole[:300], "text.jpg": b"<html>no</html>", "bomb.png": bomb}
    for name, content in broken.items():
        (red / name).write_bytes(content)
    (data / "val/red/leak.png").write_bytes((red / "0.png").read_bytes())
    Image.open(red / "1.png").resize((90, 90)).save(data / "val/red/resized.jpg", quality=60)
    (data / "train/blue/two.png").write_bytes((red / "3.png").read_bytes())


def test_clean_data(data: Path, run_cli) -> None:
    code, out, err = run_cli("check", "data")
    assert code == 0 and "error" not in err
    assert out.startswith("note") and out.count("\n") == 1
    found = json.loads(Path("checks/data/check.json").read_text())
    assert found["images"] == found["readable"] == 84 and found["classes"]["red"] == {"train": 14, "val": 14}
    page = Path("checks/data/check.html").read_text()
    assert "nothing is wrong" in page and "default-src 'none'" in page and "<script" not in page


def test_what_was_planted_is_found_and_fixed(data: Path, run_cli) -> None:
    plant(data)
    before = {path: path.read_bytes() for path in data.rglob("*.*")}
    code, out, err = run_cli("check", "data", "--write", "fixes.csv")
    assert code == 3 and err.splitlines()[-1].startswith("error: data: training would refuse this data")
    lines = out.splitlines()
    assert lines[0].startswith("refuse  4 images cannot be read, as train/red/bomb.png")
    assert lines[1].startswith("refuse  1 images are in two splits")
    assert lines[1].endswith("as train/red/0.png and val/red/leak.png")
    assert [line[:4] for line in lines[2:]] == ["look", "look", "note"]
    found = {each["kind"]: each for each in json.loads(Path("checks/data/check.json").read_text())["findings"]}
    reasons = {item["path"].rpartition("/")[2]: item["reason"] for item in found["unreadable"]["items"]}
    assert set(reasons) == {"zero.png", "cut.png", "text.jpg", "bomb.png"}
    assert "empty" in reasons["zero.png"] and "HTML" in reasons["text.jpg"] and "pixels" in reasons["bomb.png"]
    assert [item["paths"] for item in found["near_across"]["items"]] == [["train/red/1.png", "val/red/resized.jpg"]]
    assert found["copies_of_two_labels"]["items"][0]["labels"] == ["blue", "red"]
    rows = list(csv.DictReader(Path("fixes.csv").read_text(encoding="utf-8").splitlines()))
    assert sorted(row["path"] for row in rows) == sorted(
        [
            *(f"train/red/{name}" for name in ("0.png", "1.png", "3.png", *reasons)),
            "train/blue/two.png",
        ]
    )
    page = Path("checks/data/check.html").read_text()
    assert page.count("<img") == 6 and 'alt="val/red/resized.jpg"' in page and len(page) < 3_000_000
    assert {path: path.read_bytes() for path in data.rglob("*.*")} == before, "the user's files are as they were"

    code, out, _ = run_cli("check", "data", "--set", "data.fixes=fixes.csv", "--out", "again")
    assert code == 0 and out.startswith("note")
    code, _, err = run_cli("train", "data", *tiny("train.epochs=1", "data.fixes=fixes.csv"))
    assert code == 0 and "take care" not in err
    assert Path("runs/data/fixes.csv").read_bytes() == Path("fixes.csv").read_bytes()
    assert not Path("runs/data/unreadable.csv").exists()
    code, _, err = run_cli("eval", "runs/data", "data", "--split", "train")
    assert code == 0 and "39 images (train)" in err


def test_relabelled_images_and_splits_that_are_cut(photos: Path, run_cli) -> None:
    Path("fixes.csv").write_text("path,action,label\nred/0.png,relabel,blue\nred/1.png,exclude,\n")
    code, _, err = run_cli("train", "photos", *tiny("train.epochs=1", "data.fixes=fixes.csv"))
    assert code == 0 and "3 classes" in err
    code, _, err = run_cli("train", "photos", *tiny("data.fixes=fixes.csv"), "--out", "runs/stopped")
    assert code == 0
    shutil.rmtree("runs/stopped/model")  # as if it had been stopped before its end
    Path("fixes.csv").unlink()  # a run has a copy of its own
    assert run_cli("train", "--resume", "--out", "runs/stopped")[0] == 0
    code, out, err = run_cli("eval", "runs/photos", "photos", "--json")
    assert code == 0 and json.loads(out)["split"] == "test", err
    code, _, err = run_cli("train", "photos", *tiny("data.fixes=fixes.csv"), "--out", "runs/other")
    assert code == 3 and "fixes.csv: there is no such file" in err and not Path("runs/other").exists()


def test_findings_that_training_would_take(photos: Path, run_cli) -> None:
    (photos / "red" / "copy.png").write_bytes((photos / "red" / "0.png").read_bytes())
    (photos / "red" / "cut.png").write_bytes(b"nothing")
    code, out, err = run_cli("check", "photos", "--set", "data.max_bad=0.5", "--json", "--quiet")
    assert code == 4 and json.loads(err)["code"] == 4
    found = json.loads(out)
    assert found == json.loads(Path("checks/photos/check.json").read_text())
    assert {each["kind"]: each["severity"] for each in found["findings"]}["unreadable"] == "look"
    assert found["splits"] == "as training would cut them"
    assert run_cli("check", "photos", "--out", "strict")[0] == 3


def test_what_is_there_already_is_refused_or_moved(photos: Path, run_cli) -> None:
    Path("fixes.csv").write_text("mine")
    code, out, err = run_cli("check", "photos", "--write", "fixes.csv")
    assert (code, out) == (2, "") and err == "error: fixes.csv: is there already (choose another --write)\n"
    assert not Path("checks").exists() and Path("fixes.csv").read_text() == "mine"
    assert run_cli("check", "photos", "--write", "none/fixes.csv")[0] == 2 and not Path("checks").exists()
    assert run_cli("check", "photos")[0] in (0, 4)
    code, out, err = run_cli("check", "photos")
    assert (code, out) == (2, "") and "--overwrite" in err and "--resume" not in err
    code, _, err = run_cli("check", "photos", "--overwrite")
    assert code in (0, 4) and "moved the older checks/photos to checks/photos.1" in err
    assert sorted(path.name for path in Path("checks").iterdir()) == ["photos", "photos.1"]


def test_nothing_to_look_at(run_cli) -> None:
    code, out, err = run_cli("check", "nowhere")
    assert (code, out) == (3, "") and err.startswith("error: nowhere: there is no such file or folder")
    Path("one/red").mkdir(parents=True)
    picture((200, 0, 0), 1).save("one/red/1.png")
    code, out, _ = run_cli("check", "one")
    assert code == 3 and "refuse  the data has one class only, 'red'" in out


def test_ctrl_c_leaves_nothing(photos: Path, run_cli, monkeypatch) -> None:
    def stopped(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("resnetkit.verbs.check.write_page", stopped)
    code, _, _ = run_cli("check", "photos", "--write", "fixes.csv")
    assert code == 130 and not Path("fixes.csv").exists() and list(Path("checks").iterdir()) == []


def test_hostile_names_are_escaped(tmp_path: Path, run_cli) -> None:
    for name in ("<img src=x>", "=1+1", "a\nb"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(12):
            picture((200, 40, 40), len(name) * 100 + i, 48).save(tmp_path / "data" / name / f"'<b>{i}.png")
    (tmp_path / "data/=1+1/=cut.png").write_bytes(b"<html>")
    (tmp_path / "data/a\nb/evil\n<script>.png").write_bytes(b"x")
    code, out, _ = run_cli("check", "data", "--write", "fixes.csv")
    assert code == 3 and "\nb" not in out
    page = Path("checks/data/check.html").read_text()
    assert "<img src=x>" not in page and "<script" not in page and "<b>" not in page and "&lt;img src=x&gt;" in page
    rows = [line for line in Path("fixes.csv").read_text().splitlines() if "cut" in line or "evil" in line]
    assert len(rows) == 2 and any(row.startswith("'=1+1/=cut.png") for row in rows)
    code, out, err = run_cli("check", "data", "--set", "data.fixes=fixes.csv", "--out", "again")
    assert code != 3, err


def test_several_labels(tmp_path: Path, run_cli) -> None:
    source = write_labels(tmp_path / "several")
    code, out, _ = run_cli("check", source)
    assert code in (0, 4) and "labels" in json.dumps(json.loads(Path("checks/labels/check.json").read_text()))
    code, out, err = run_cli("check", source, "--labels", "--out", "other")
    assert (code, out) == (2, "") and "several labels an image" in err


def test_wrong_labels_by_the_features_of_a_run(trained: Path, tmp_path: Path, run_cli) -> None:
    """And nothing is downloaded: the weights are those of a run."""
    data = write_classes(tmp_path / "data", 20, seed=7000)
    for i in range(2):
        (data / "red" / f"{i}.png").rename(data / "blue" / f"wrong{i}.png")
    weights = trained / "model" / "model.safetensors"
    settings = ["--set", "model.variant=resnet18", "--set", "model.stem=imagenet", "--set", "image.size=32"]
    code, out, err = run_cli("check", "data", "--labels", "--weights", weights, *settings, "--write", "fixes.csv")
    assert code == 4 and "judging labels" in err, err
    found = {each["kind"]: each for each in json.loads(Path("checks/data/check.json").read_text())["findings"]}
    suspects = {item["path"]: item["suggested"] for item in found["labels"]["items"]}
    wrong = {path for path in suspects if "wrong" in path}  # one is enough: the network has learnt for seconds
    assert wrong and all(suspects[path] == "red" for path in wrong)
    assert "looks like red" in Path("checks/data/check.html").read_text()
    assert all(f"{path},relabel,red," in Path("fixes.csv").read_text() for path in wrong)
    code, _, err = run_cli("check", "data", "--labels", "--out", "published")
    assert code == 8 and "OFFLINE" in err and "reading" not in err and not Path("published").exists()
    code, _, err = run_cli("check", "data", "--labels", "--weights", "none", "--out", "published")
    assert code == 2 and "name its --weights" in err


def test_from_python(photos: Path) -> None:
    found = api.check(photos, quiet=True)
    assert found.exit_code in (0, 4) and len(found.seen.facts) == 36
    with pytest.raises(DataError):
        api.check("nowhere", quiet=True)


def test_an_archive(tmp_path: Path, data: Path, run_cli) -> None:
    plant(data)
    shutil.make_archive(str(tmp_path / "packed"), "zip", data)
    code, out, _ = run_cli("check", "packed.zip")
    assert code == 3 and "4 images cannot be read" in out and "near" in out
    assert Path("checks/packed/check.html").read_text().count("<img") == 6


def test_fixes_inside_the_folder_that_is_moved_aside_are_refused(trained: Path, photos: Path, run_cli) -> None:
    Path("run").mkdir()
    Path("run/fixes.csv").write_text("path,action,label,reason\n")
    fixes = "data.fixes=run/fixes.csv"
    code, _, err = run_cli("train", photos, *tiny(fixes), "--out", "run", "--overwrite")
    assert code == 2 and "would be moved aside" in err and Path("run/fixes.csv").exists()
