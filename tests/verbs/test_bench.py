"""bench: every backend in turn, in numbers that say what they are."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from resnetkit import api, models
from resnetkit.errors import ResourceError, UsageError
from resnetkit.runtime.backends import BACKENDS
from resnetkit.runtime.choice import installed
from resnetkit.runtime.model import Model, load, load_classifier
from resnetkit.verbs import bench as verb
from resnetkit.verbs.console import _silent

TORCH = ("--backend", "torch")


def test_a_table_and_json(trained: Path, run_cli) -> None:
    code, out, err = run_cli("bench", trained, *TORCH, "--batch", "1", "--batch", "3", "--seconds", "0.05")
    assert code == 0 and "timing 10/10" in err
    lines = out.splitlines()
    assert lines[0].startswith("resnet18 at 32 px") and [line.split()[:4] for line in lines[2:4]] == [
        ["torch", "f32", "cpu", "1"],
        ["torch", "f32", "cpu", "3"],
    ]
    assert "of this whole process so far" in lines[-1]
    code, out, _ = run_cli("bench", trained, *TORCH, "--batch", "2", "--seconds", "0.01", "--json")
    found = json.loads(out)
    (row,) = found["measured"]
    assert code == 0 and row["batch"] == 2 and row["images_per_second"] > 0 and row["p50"] <= row["p99"]
    assert row["difference"] == 0 and row["agreement"] == 1 and row["calls"] >= found["rounds"] == 5
    assert found["peak_memory"] > 10**7 and found["from_files"] == []


def test_every_backend_that_is_installed(trained: Path) -> None:
    found = api.bench(trained, batches=[2], seconds=0.01, device="cpu", quiet=True)
    assert [row.backend for row in found.measured] == ["torch", *installed()]
    assert {*found.skipped} == {*BACKENDS} - {"auto", "torch", *installed()}
    assert all(row.agreement == 1 and row.difference is not None and row.difference < 1e-3 for row in found.measured)


def test_a_device_that_only_torch_knows(trained: Path, monkeypatch) -> None:
    monkeypatch.setattr("resnetkit.runtime.backends.torch_device", lambda name: "cpu")
    found = api.bench(trained, batches=[1], seconds=0.01, device="cuda", quiet=True)
    assert [row.backend for row in found.measured] == ["torch"]
    assert all("runs on the CPU, not on cuda" in why for why in found.skipped.values())


def test_from_files(trained: Path, photos: Path, run_cli) -> None:
    flags = (*TORCH, "--batch", "1", "--seconds", "0.01")
    code, out, _ = run_cli("bench", trained, photos, *flags, "--quiet")
    assert code == 0 and "torch f32 from files: " in out and "(36 files, each once)" in out
    code, out, err = run_cli("bench", trained, photos / "red" / "1.png", "gone.png", *flags, "--json")
    assert code == 4 and "gone.png" in err and "1 of 2 files" in err
    (files,) = json.loads(out)["from_files"]
    assert files["files"] == 2 and files["failed"] == 1 and files["images_per_second"] > 0


def test_backends_have_their_turns() -> None:
    """Five rounds, each with an untimed call first, whoever is slow."""
    order: list[str] = []
    times = verb.in_turn([lambda: order.append("a"), lambda: order.append("b")], 0.0, _silent)
    assert order == ["a", "a", "b", "b"] * 5
    assert [[len(calls) for calls in rounds] for rounds in times] == [[1] * 5] * 2


def test_agreement() -> None:
    logits = np.array([[1.0, 4.0], [2.0, 0.0]], np.float32)
    assert verb.agreement(logits, logits) == (0, 1)
    assert verb.agreement(logits, logits + np.float32([[0, 0], [0, 3]])) == (pytest.approx(0.75), 0.5)
    assert verb.agreement(logits, logits[:1]) == (float("inf"), 0)


def test_a_backend_that_is_not_installed(trained: Path, monkeypatch, capsys) -> None:
    missing = ResourceError("there is no onnx", fix="pip install onnx")

    def only_torch(folder: Path, *, backend: str = "auto", device: str = "auto") -> Model:
        if backend == "onnx":
            raise missing
        return load_classifier(folder, backend=backend, device=device)

    monkeypatch.setattr(verb, "load_classifier", only_torch)
    monkeypatch.setattr(verb, "BACKENDS", ("auto", "onnx", "torch"))
    found = api.bench(trained, batches=[1], seconds=0.01)
    assert [row.backend for row in found.measured] == ["torch"] and found.skipped == {"onnx": str(missing)}
    assert "onnx: left out: there is no onnx (pip install onnx)" in capsys.readouterr().err
    with pytest.raises(ResourceError):
        api.bench(trained, backends=["onnx"])
    monkeypatch.setattr(verb, "BACKENDS", ("auto", "onnx"))
    with pytest.raises(ResourceError):
        api.bench(trained, quiet=True)


def test_a_batch_that_does_not_fit_in_memory(trained: Path) -> None:
    @dataclass(frozen=True)
    class Full:
        error: Exception

        def __call__(self, batch: object) -> None:
            raise self.error

    model, batch = load(trained), np.zeros((3, 3, 32, 32), np.float32)
    for error in (MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")):
        with pytest.raises(ResourceError, match="torch is out of memory at 3 images a call .a smaller --batch"):
            verb._call("torch", replace(model, backend=Full(error)), batch)()
    with pytest.raises(RuntimeError, match="shapes"):
        verb._call("torch", replace(model, backend=Full(RuntimeError("shapes"))), batch)()


def test_what_cannot_be(trained: Path) -> None:
    for settings in ({"batches": [0]}, {"batches": []}, {"seconds": -1}, {"backends": ["cake"]}):
        with pytest.raises(UsageError):
            api.bench(trained, **settings)


def test_no_difference_without_torch(trained: Path) -> None:
    (row, *_) = api.bench(trained, backends=["torch"], batches=[1], seconds=0.01, quiet=True).measured
    bare = verb.Measured("other", "f32", "cpu", 1, row.timing, None, None)
    assert bare.row()["difference"] is None
    lines = list(verb.bench_lines(verb.Bench("resnet18", 32, "images", "32 px", 1, (bare,), (), {}, None)))
    assert lines[2].split()[-2:] == ["-", "-"] and "memory" not in lines[-1]


def test_exports_in_int8_are_measured_beside_the_others(trained: Path, photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="needs openvino")
    shutil.copytree(trained / "model", tmp_path / "mine")
    exported = api.export(tmp_path / "mine", "openvino", int8=True, data=photos, max_drop=1.0, quiet=True).folder
    found = api.bench(tmp_path / "mine", [photos / "red"], batches=[1], seconds=0.01, quiet=True)
    rows = [(row.backend, row.precision) for row in found.measured]
    assert rows == [("torch", "f32"), *((name, "f32") for name in installed()), ("openvino", "int8")]
    assert found.measured[-1].difference > found.measured[0].difference == 0
    assert [(row.backend, row.precision) for row in found.from_files] == rows
    assert any(line.startswith("openvino      int8 ") for line in verb.bench_lines(found))
    api.save(models.resnet18(num_classes=2), tmp_path / "mine-2")
    shutil.copytree(exported, tmp_path / "mine-openvino-int8.1")  # older, set aside
    shutil.copytree(exported, tmp_path / "mine-2-openvino-int8")  # of another model
    for path in (tmp_path / "mine", exported.parent / "mine"):
        assert [name for name, _ in verb._int8_beside(path, True)] == ["openvino int8"]
    (alone,) = api.bench(exported, batches=[1], seconds=0.01, quiet=True).measured
    assert (alone.backend, alone.precision, alone.difference) == ("openvino", "int8", None)
