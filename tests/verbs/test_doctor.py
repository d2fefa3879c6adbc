"""doctor: tells what there is whatever is missing, and gives advice only where it holds."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from resnetkit import api
from resnetkit.errors import ModelError
from resnetkit.runtime.machine import Machine
from resnetkit.verbs import doctor as verb

ROOT = Path(__file__).parent.parent.parent
MISSING = tuple(verb.Package(name, None, "is fast", "pip install x", runs=True) for name in ("onnx", "ncnn"))
GOOD = verb.Diagnosis(
    resnetkit="1",
    python="3",
    machine=Machine("Linux", "fast", 4, 4, None, 10**10, None, ("avx2",)),
    gpus=(),
    threads=4,
    threads_from="the cores that this process may use, or its quota",
    packages=(verb.Package("torch", "2.10", "", "pip install torch", runs=False),),
    torch_error="",
    jpeg_turbo=True,
    places=(verb.Place("weights", "/w", 5, 10**12),),
    offline=False,
    bench=None,
    not_timed="",
)


def with_quota(quota: float | None) -> Machine:
    return replace(GOOD.machine, quota=quota)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, []),
        ({"threads": 8, "threads_from": verb.THREADS}, ["RESNETKIT_THREADS=4: 8 threads share 4 cores"]),
        ({"threads": 1, "threads_from": verb.THREADS}, ["unset RESNETKIT_THREADS: 1 of 4 cores are used"]),
        ({"machine": with_quota(1.5)}, ["RESNETKIT_THREADS=1: 4 threads share 1.5 cores' time", "1.5 of 4 cores"]),
        ({"machine": with_quota(1.5), "threads": 1, "threads_from": verb.THREADS}, ["it allows 1.5 of 4 cores"]),
        ({"machine": with_quota(0.5), "threads": 1}, ["it allows 0.5 of 4 cores"]),
        ({"machine": with_quota(8.0)}, []),
        ({"jpeg_turbo": False}, ["without libjpeg-turbo"]),
        ({"jpeg_turbo": None, "threads": None, "offline": None}, []),
        ({"packages": MISSING}, ['pip install "resnetkit[runtime]": has onnx, ncnn, and']),
        ({"packages": MISSING, "gpus": ("fast",)}, []),
        ({"packages": (verb.Package("pillow-heif", None, "HEIC", "pip install x", runs=False),)}, []),
        (
            {"places": tuple(verb.Place(what, f"/{what}", 5, 10**9) for what in "ab")},
            ["free some space on the disk of /b: 1.0 GB left"],
        ),
        ({"places": (verb.Place("weights", None, 0, None), verb.Place("images", "/x", 0, 0))}, ["0 bytes left"]),
    ],
)
def test_advice_only_where_it_holds(changes: dict[str, object], told: list[str]) -> None:
    found = replace(GOOD, **changes)
    assert len(found.advice) == len(told) and all(text in line for text, line in zip(told, found.advice, strict=True))
    lines = list(verb.diagnosis_lines(found))
    assert [line for line in lines if line.startswith("faster: ")] == [f"faster: {line}" for line in found.advice]
    json.dumps(found.as_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("asked", "text"),
    [("2", "RESNETKIT_THREADS"), ("", "may use"), ("0", "=0 is no number above 0"), ("many", "=many is no number")],
)
def test_why_so_many_threads(asked: str, text: str) -> None:
    assert verb.threads_from(asked).endswith(text) or text in verb.threads_from(asked)


def test_this_machine(tmp_path: Path, run_cli, monkeypatch) -> None:
    (tmp_path / "cache-home" / "pixels").mkdir(parents=True)
    (tmp_path / "cache-home" / "pixels" / "some").write_bytes(bytes(2000))
    monkeypatch.setenv("RESNETKIT_THREADS", "999")
    code, out, err = run_cli("doctor")
    assert code == 0 and err == ""
    labels = [line.split()[0].rstrip(":") for line in out.splitlines()]
    assert {"resnetkit", "processor", "cores", "memory", "GPU", "threads", "packages", "weights", "network"} <= {
        *labels
    }
    assert f"{tmp_path / 'cache-home' / 'pixels'}: 2.0 kB kept" in out and str(tmp_path / "torch-home") in out
    assert str(tmp_path / "hub-cache") in out and "forbidden (RESNETKIT_OFFLINE" in out
    assert "faster: export RESNETKIT_THREADS=" in out
    code, out, _ = run_cli("doctor", "--json")
    found = json.loads(out)
    assert code == 0 and found["threads"] == 999 and found["offline"] is True and found["advice"]
    assert {"name", "version", "brings", "install", "runs"} == set(found["packages"][0])


def test_the_core_packages_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert list(verb.CORE) == [name.partition(">")[0] for name in project["dependencies"]]


def test_the_optional_packages_are_those_of_the_project() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    runtime = [name.partition(">")[0] for name in extras["runtime"]]
    assert runtime == [name for name, _, _, runs in verb.OPTIONAL if runs]
    for _, _, install, _ in verb.OPTIONAL:
        extra = re.search(r"resnetkit\[(\w+)\]", install)
        assert extra is None or extra[1] in extras


def test_a_model_is_timed(trained: Path, run_cli, monkeypatch) -> None:
    monkeypatch.setattr(verb, "SECONDS", 0.01)
    code, out, _ = run_cli("doctor", trained)
    assert code == 0 and "images/s in batches of 1, " in out and "images/s in batches of 16" in out
    found = api.doctor(trained, quiet=True).as_dict()
    assert [row["batch"] for row in found["bench"]["measured"]] == [1, 16]
    json.dumps(found, allow_nan=False)
    code, out, _ = run_cli("doctor", trained, "--device", "cuda:99")
    assert code == 0 and "cannot be run: there is no device 'cuda:99'" in out
    with pytest.raises(ModelError):
        api.doctor("nowhere")


@pytest.mark.parametrize("broken", [["torch"], ["torch", "numpy", "safetensors", "filelock", "PIL", "huggingface_hub"]])
def test_nothing_that_is_missing_is_an_error(trained: Path, tmp_path: Path, broken: list[str]) -> None:
    for name in broken:
        (tmp_path / "broken" / name).mkdir(parents=True)
        (tmp_path / "broken" / name / "__init__.py").write_text(f"raise OSError('no {name}\\nhere')")
    paths = [str(tmp_path / "broken"), str(ROOT / "src")]
    done = subprocess.run(
        [sys.executable, "-m", "resnetkit", "doctor", str(trained)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "torch      cannot be imported: OSError: no torch here (pip install --force-reinstall" in done.stdout
    assert "model      cannot be run: " in done.stdout and "GPU        unknown" in done.stdout
