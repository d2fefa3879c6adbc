"""many: the rows of a Ray job are those of one process, in their order, and nothing is reported home."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import write_classes
from resnetkit import api
from resnetkit.errors import DataError, ModelError, UsageError
from resnetkit.files import MANIFEST, sha256
from resnetkit.verbs import many


@pytest.mark.parametrize(
    ("nodes", "workers", "gpu", "expected"),
    [
        ([{"CPU": 2}], "auto", True, many.Layout(1, 2)),
        ([{"CPU": 16}, {"CPU": 64}], "auto", True, many.Layout(20, 4)),
        ([{"CPU": 2}, {"CPU": 3}, {}], "auto", True, many.Layout(2, 2)),
        ([{"CPU": 4}], 2, True, many.Layout(2, 2)),
        ([{"CPU": 3}, {"CPU": 3}], 3, True, many.Layout(3, 1)),
        ([{"CPU": 16, "GPU": 4}, {"CPU": 64}], "auto", True, many.Layout(4, 4, 1)),
        ([{"CPU": 16, "GPU": 4}], 9, True, many.Layout(4, 4, 1)),
        ([{"CPU": 16, "GPU": 4}], "auto", False, many.Layout(4, 4)),
    ],
)
def test_no_machine_is_idle(nodes, workers, gpu, expected) -> None:
    assert many.layout(nodes, workers, gpu=gpu) == expected


def test_more_workers_than_cores_would_wait_for_ever() -> None:
    with pytest.raises(UsageError, match="has 4 cores"):
        many.layout([{"CPU": 2}, {"CPU": 2}], 5, gpu=False)


def test_settings() -> None:
    assert many.scale_from({}) == many.Scale("local", "auto")
    assert many.scale_from({"scale.engine": "ray", "scale.workers": 3}) == many.Scale("ray", 3)


def test_what_is_missing_or_cannot_be_is_told_before_the_model_is_opened(trained, run_cli, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    ray = ("--set", "scale.engine=ray")
    code, out, err = run_cli("predict", "nothing", "x.png", *ray)
    assert (code, out) == (6, "") and err.count("\n") == 1 and 'pip install "resnetkit[scale]"' in err
    code, _, err = run_cli("predict", "nothing", "x.png", *ray, "--device", "cuda:1")
    assert code == 2 and "--device cuda" in err
    with pytest.raises(UsageError, match="give its folder"):
        next(api.predict(api.load(trained), ["x.png"], settings={"scale.engine": "ray"}))


def worker(run: Path, digest: str = "", *, mirror: bool = False) -> many.Worker:
    model = run / "model"
    call = many.Call(2, None, "torch", "cpu", mirror)
    return many.Worker(str(model), digest or sha256(model / MANIFEST), call, 1)


@pytest.mark.parametrize("mirror", [False, True])
def test_a_worker_answers_as_the_model_does(trained, photos, monkeypatch, mirror: bool) -> None:
    monkeypatch.setenv("RESNETKIT_THREADS", "1")
    names = ["new\nline.png", os.fsdecode(b"\xff\x80.png"), "broken.png"]
    for name in names[:2]:
        shutil.copy(photos / "red" / "1.png", name)
    Path("broken.png").write_bytes(b"%PDF-1.4")
    rows = {"paths": [b"\0".join(os.fsencode(os.path.abspath(name)) for name in names)]}
    (answers,) = worker(trained, mirror=mirror)(rows)["answers"]
    found = list(many._named([Path(name) for name in names], many.pickle.loads(answers)))
    expected = list(api.predict(trained, names, top=2, backend="torch", device="cpu", mirror=mirror))
    assert found[:2] == expected[:2] and isinstance(found[2], DataError) and str(found[2]) == str(expected[2])


def test_a_worker_says_why_it_does_not_answer(trained, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("RESNETKIT_THREADS", "1")
    for other, text in ((worker(trained, "0"), "another model"), (worker(tmp_path, "0"), "no")):
        (why,) = other({"paths": [b"x.png"]})["answers"]
        with pytest.raises(ModelError, match=text):
            list(many._named([Path("x.png")], many.pickle.loads(why)))


def processes(marker: str) -> dict[str, bytes]:
    """Command line to environment of the processes that have a variable."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name, environment = (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()
            if (folder / "cmdline").read_bytes() != name:  # it has just begun: the one may be its parent's
                name, environment = (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()
        except OSError:
            continue
        if marker.encode() in environment and not name.startswith(b"ray::"):  # a title is written over the environment
            found[name.replace(b"\0", b" ").decode()] = environment
    return found


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs ray")
@pytest.mark.skipif(sys.platform != "linux", reason="looks at the processes that Ray starts")
def test_two_workers_give_the_rows_of_one_process(trained: Path, tmp_path: Path, run_cli) -> None:
    photos = write_classes(tmp_path / "many", counts=30)  # three batches
    (photos / "green" / "3.png").write_bytes(b"%PDF-1.4")
    flags = ["predict", trained, "many", Path("gone.png"), "--backend", "torch", "--format", "jsonl"]
    code, expected, told = run_cli(*flags)
    assert code == 4 and expected.count("\n") == 89
    (tmp_path / "home").mkdir()
    silent = {"HOME": str(tmp_path / "home"), "RESNETKIT_THREADS": "1", "OMP_NUM_THREADS": "1"}
    ray = [*flags, "--set", "scale.engine=ray", "--set", "scale.workers=2"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [sys.executable, "-m", "resnetkit", *map(str, ray)]
    with (
        open("noise", "w") as noise,
        subprocess.Popen(command, env={**environment, **silent}, stdout=subprocess.PIPE, stderr=noise) as running,
    ):
        assert running.stdout is not None
        found = [running.stdout.readline()]
        there = processes(silent["HOME"])  # Ray is shut down only after the last row
        found += running.stdout.readlines()
    assert [json.loads(line) for line in found] == [json.loads(line) for line in expected.splitlines()]
    assert running.returncode == 4 and Path("noise").read_text() == told
    rays = {name: environment for name, environment in there.items() if "resnetkit predict" not in name}
    for part in ("gcs_server", "raylet", "dashboard.py"):  # the last one would send the reports
        assert any(part in name for name in rays)
    assert not [name for name, environment in rays.items() if b"RAY_USAGE_STATS_ENABLED=0" not in environment]
    deadline = time.monotonic() + 20
    while processes(silent["HOME"]) and time.monotonic() < deadline:  # the last ones end a moment later
        time.sleep(0.1)
    assert processes(silent["HOME"]) == {}
    left = {path.name for path in (tmp_path / "home").rglob("*")}
    assert left <= {".ray", "auth_token"}  # the key of Ray's own processes; no id
