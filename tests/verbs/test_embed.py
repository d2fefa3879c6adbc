"""embed: features of files as an array or a table, in the order given."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from conftest import write_classes
from resnetkit import api, models
from resnetkit.errors import Interrupted, UsageError
from resnetkit.runtime.save import save
from resnetkit.verbs import embed as verb


@pytest.fixture
def files(photos: Path) -> list[Path]:
    return [photos / "red" / "10.png", photos / "blue" / "2.png", photos / "green" / "0.png"]


def table(path: str | Path) -> list[dict[str, str]]:
    with Path(path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_array_and_its_names(trained: Path, files: list[Path], run_cli) -> None:
    code, out, err = run_cli("embed", trained, *files, "--out", "new/features.npy", "--json")
    assert code == 0 and "embedding 3/3" in err
    assert json.loads(out) == {"out": "new/features.npy", "rows": 3, "width": 512, "failed": []}
    found = np.load("new/features.npy")
    assert found.shape == (3, 512) and found.dtype == np.float32 and sorted(os.listdir("new"))[1:] == ["features.npy"]
    assert table("new/features.csv") == [{"row": str(i), "path": str(path)} for i, path in enumerate(files)]
    model = api.load(trained)
    weight, bias = (model.checkpoint.tensors[name] for name in ("fc.weight", "fc.bias"))
    logits = np.stack([answer for _, answer in model.answers(files)])
    np.testing.assert_allclose((found @ weight.T + bias) / model.temperature, logits, rtol=1e-4, atol=1e-5)


def test_the_table_has_the_same_numbers(trained: Path, files: list[Path], run_cli) -> None:
    code, out, _ = run_cli("embed", trained, *files, "--out", "features.CSV", "--quiet")
    assert code == 0 and out == "features.CSV: 3 rows of 512 features\n"
    rows = table("features.CSV")
    assert [row.pop("path") for row in rows] == [str(path) for path in files] and list(rows[0])[:2] == ["f0", "f1"]
    api.embed(trained, files, out="features.npy", quiet=True)
    found = np.array([[np.float32(value) for value in row.values()] for row in rows])
    assert np.array_equal(found, np.load("features.npy"))


@pytest.mark.parametrize(("variant", "pool"), [("resnet18", "last"), ("resnet20", "all")])
def test_every_stage(photos: Path, variant: str, pool: str) -> None:
    save(models.build(variant, num_classes=3, pool=pool).eval(), "model")
    model = api.load("model")
    stages = [stage for stage in verb.stages_of(model) if stage != "embedding"]
    for stage in stages:
        done = api.embed(model, [photos / "red"], out=f"{stage}.npy", stage=stage, quiet=True)
        assert done.rows == 12 and np.load(f"{stage}.npy").shape == (12, done.width)
    api.embed(model, [photos / "red"], out="features.npy", quiet=True)
    parts = stages if pool == "all" else stages[-1:]
    together = np.concatenate([np.load(f"{stage}.npy") for stage in parts], 1)
    np.testing.assert_allclose(together, np.load("features.npy"), rtol=1e-4, atol=1e-6)
    with pytest.raises(UsageError, match=f"one of embedding, {', '.join(stages)}"):
        api.embed(model, [photos], out="more.npy", stage="layer9")


def test_files_that_cannot_be_read_are_in_no_row(trained: Path, files: list[Path], run_cli) -> None:
    files[1].write_bytes(b"%PDF-1.4")
    code, out, err = run_cli("embed", trained, *files, "gone.png", "--out", "features.npy")
    assert code == 4 and "it looks like PDF" in err and "2 of 4 files could not be read" in err
    assert [row["path"] for row in table("features.csv")] == [str(files[0]), str(files[2])]
    assert np.load("features.npy").shape == (2, 512)
    code, _, _ = run_cli("embed", trained, "gone.png", "--out", "none.npy")
    assert code == 4 and np.load("none.npy").shape == (0, 512) and table("none.csv") == []


def test_what_is_there_stays(trained: Path, files: list[Path], run_cli) -> None:
    Path("features.csv").write_text("mine")
    code, _, err = run_cli("embed", trained, files[0], "--out", "features.npy")
    assert code == 2 and "features.csv: exists already (--overwrite" in err and not Path("features.npy").exists()
    code, _, err = run_cli("embed", trained, files[0], "--out", "features.npy", "--overwrite")
    assert code == 0 and Path("features.csv.1").read_text() == "mine" and "moved aside" in err
    assert table("features.csv")[0]["path"] == str(files[0]) and np.load("features.npy").shape == (1, 512)


def test_an_input_is_not_moved_aside(trained: Path, run_cli) -> None:
    np.save("bands.npy", np.zeros((8, 8, 3), np.uint8))
    code, _, err = run_cli("embed", trained, ".", "--out", "bands.npy", "--overwrite")
    assert code == 2 and "bands.npy: is one of the inputs" in err


@pytest.mark.parametrize("out", ["features", "features.txt", ".npy", "there.npy"])
def test_a_name_that_cannot_be(trained: Path, files: list[Path], run_cli, out: str) -> None:
    Path("there.npy").mkdir()
    code, _, err = run_cli("embed", trained, files[0], "--out", out, "--overwrite")
    assert code == 2 and err.count("\n") == 1 and os.listdir("there.npy") == []


def test_a_signal_or_a_failure_leaves_nothing(trained: Path, tmp_path: Path, monkeypatch) -> None:
    write_classes(tmp_path / "many", counts=20)
    before = sorted(os.listdir())

    def stop(*args: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    def fail(*args: object) -> None:
        raise ZeroDivisionError

    for act, error in ((stop, Interrupted), (fail, ZeroDivisionError)):
        monkeypatch.setattr(verb, "_cell", act)
        with pytest.raises(error):
            api.embed(trained, ["many"], out="features.npy", quiet=True)
        assert sorted(os.listdir()) == before


def test_names_stay_on_one_line(trained: Path, files: list[Path], run_cli) -> None:
    name = 'new\nline, "=c".png'
    os.rename(files[0], name)
    for out in ("features.npy", "other.csv"):
        code, _, _ = run_cli("embed", trained, name, "--out", out, "--quiet")
        assert code == 0
    for path in ("features.csv", "other.csv"):
        assert table(path)[0]["path"] == name.replace("\n", "\\n")
        assert len(io.StringIO(Path(path).read_text()).readlines()) == 2


def test_the_header_has_room_for_any_number_of_rows() -> None:
    lengths = []
    for rows in (0, 10**15):
        file = io.BytesIO()
        verb._npy_header(file, rows, 2048)
        lengths.append(file.tell())
    assert lengths[0] == lengths[1]
