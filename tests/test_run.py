"""A run folder is never overwritten, and what is written into it is safe to open."""

import csv
import io
import json
import math
import os

import pytest

from resnetkit import __version__, run
from resnetkit.errors import ResourceError, UsageError


def prepare(folder, resume=False, overwrite=False):
    return run.prepare(folder, resume=resume, overwrite=overwrite)


def refused(kind, folder, message, **flags):
    before = sorted(folder.rglob("*")) if folder.is_dir() else None
    for call in (run.refuse, run.prepare):
        with pytest.raises(kind) as caught:
            call(folder, **{"resume": False, "overwrite": False, **flags})
        assert message in str(caught.value) and caught.value.fix
    assert before is None or sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("there", [False, True])
def test_prepare_makes_the_folder(tmp_path, there):
    folder = tmp_path / "runs" / "deep" / "mine"
    if there:
        folder.mkdir(parents=True)
    assert prepare(folder) is None and os.listdir(folder) == ["env.json"]


def test_what_is_there_is_kept(tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    refused(UsageError, tmp_path, "holds something already (--resume to go on, --overwrite to move it aside")
    refused(UsageError, tmp_path, "holds no run to resume", resume=True)
    refused(UsageError, tmp_path, "exclude each other", resume=True, overwrite=True)
    refused(UsageError, tmp_path / "gone", "holds no run to resume", resume=True)
    refused(ResourceError, tmp_path / "note.txt", "is a file")
    (tmp_path / "recipe.toml").touch()
    (tmp_path / "model").mkdir()
    refused(UsageError, tmp_path, "is finished already", resume=True)


def test_names_the_disk_refuses(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match="too long"):
        run.refuse(tmp_path / ("x" * 300), resume=False, overwrite=False)
    with pytest.raises(ResourceError, match="not a directory"):
        prepare(tmp_path / "file" / "run")


def test_overwrite_moves_aside(tmp_path):
    folder = tmp_path / "run"
    for number in (1, 2):
        prepare(folder, overwrite=number > 1)
        (folder / "note.txt").write_text(str(number))
    assert prepare(folder, overwrite=True) == tmp_path / "run.2"
    assert [(tmp_path / f"run.{n}" / "note.txt").read_text() for n in (1, 2)] == ["1", "2"]
    assert os.listdir(folder) == ["env.json"]


def test_resume_removes_what_a_kill_left_and_nothing_else(tmp_path):
    (tmp_path / "recipe.toml").write_text("x")
    for name in (".model.tmp-17", "state/.5.tmp-17", "state/4"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "weights").touch()
    for name in (".results.csv.tmp-17", "results.csv", ".mine"):
        (tmp_path / name).touch()
    prepare(tmp_path, resume=True)
    assert sorted(os.listdir(tmp_path)) == [".mine", "env.json", "recipe.toml", "results.csv", "state"]
    assert os.listdir(tmp_path / "state") == ["4"] and os.listdir(tmp_path / "state" / "4") == ["weights"]


def test_environment(tmp_path):
    prepare(tmp_path)
    found = json.loads((tmp_path / "env.json").read_text())
    assert found["versions"].keys() == set(run.PACKAGES) and all(found["versions"].values())
    assert found["versions"]["resnetkit"] == __version__
    assert found["cores"] >= 1 and found["command"] and found["python"] and found["started"][:2] == "20"


def test_environment_without_a_package(monkeypatch):
    monkeypatch.setattr(run, "PACKAGES", ("not-installed-anywhere",))
    assert run.environment()["versions"] == {"not-installed-anywhere": None}


@pytest.mark.parametrize("value", ["=cmd()", "+1", "-1", "@x", "\tx", "\r=x"])
def test_no_cell_is_a_formula(value):
    assert run.cell(value) == "'" + value


@pytest.mark.parametrize(("value", "expected"), [(None, ""), (math.nan, ""), (-1.5, -1.5), ("a=b", "a=b"), ("", "")])
def test_other_cells(value, expected):
    assert run.cell(value) == expected


def test_as_csv():
    names = ['"q"', "a,b", "two\nlines", "🐈", "<b>", "=1"]
    text = run.as_csv(("name", "value"), [{"name": name, "value": 0.5, "extra": 1} for name in names] + [{}])
    found = list(csv.reader(io.StringIO(text)))
    assert found == [["name", "value"], *([name.replace("=", "'="), "0.5"] for name in names), ["", ""]]


@pytest.mark.parametrize("value", [math.nan, math.inf, {"a": [-math.inf]}])
def test_write_json_refuses_what_is_no_json(tmp_path, value):
    with pytest.raises(ValueError):
        run.write_json(tmp_path / "a.json", value)
    assert os.listdir(tmp_path) == []


def test_write_json(tmp_path):
    run.write_json(tmp_path / "a.json", {"é": None})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "é": null\n}\n'


def test_log_event(tmp_path, capsys):
    for step in (1, 2):
        run.log_event(tmp_path, "saved", {"step": step, "name": "\udcff\n"})
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(line["event"], line["step"], line["name"]) for line in lines] == [("saved", n, "\udcff\n") for n in (1, 2)]
    run.log_event(tmp_path / "gone", "saved", {})  # a log must not end a training
    assert "note: log.jsonl cannot be written" in capsys.readouterr().err
