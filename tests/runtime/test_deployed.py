"""An exported folder runs as a model folder does, without torch, by its own engine."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from conftest import picture
from networks import needs
from resnetkit.errors import ModelError, UsageError
from resnetkit.files import MANIFEST, _write_manifest
from resnetkit.runtime.deployed import ENGINES
from resnetkit.runtime.export import write_export
from resnetkit.runtime.model import load


@pytest.fixture(params=list(ENGINES))
def form(request):
    needs(ENGINES[request.param][0])
    return request.param


@pytest.fixture
def model(trained):
    return load(trained, backend="torch", device="cpu")


@pytest.fixture
def folder(form, model, tmp_path):
    return write_export(model, form, tmp_path / "out").folder


def seal(folder):
    """A manifest that fits what lies there: bytes are what they should be, only not what model.json says of them."""
    (folder / MANIFEST).unlink()
    _write_manifest(folder)


def test_it_answers_as_the_model_does(form, folder, model):
    images = [picture(colour, seed) for seed, colour in enumerate([(220, 50, 40), (40, 60, 220), (90, 90, 90)])]
    for backend in ("auto", *ENGINES[form]):
        opened = load(folder, backend=backend)
        assert opened.classes == model.classes and opened.temperature == model.temperature
        for ours, theirs in zip(model.predict(images, coverage=0.5), opened.predict(images, coverage=0.5), strict=True):
            one, other = ours.row(), theirs.row()
            assert one.keys() == other.keys() and one["label"] == other["label"]
            assert one["score"] == pytest.approx(other["score"], abs=1e-4)
    found = [answer for _, answer in opened.embeddings(images)]
    np.testing.assert_allclose(found, [answer for _, answer in model.embeddings(images)], rtol=1e-3, atol=1e-4)


def test_what_it_cannot_do_is_told(form, folder, run_cli, photos):
    other = "ncnn" if form != "ncnn" else "openvino"
    with pytest.raises(UsageError, match=f"is an export for {form}, which runs on .*, not on {other}"):
        load(folder, backend=other)
    with pytest.raises(UsageError, match="not on torch"):
        load(folder, backend="torch")
    with pytest.raises(UsageError, match="runs on the CPU, not on cuda .leave --device out"):
        load(folder, device="cuda")
    for command in (
        ["explain", folder, photos / "red" / "0.png", "--out", "why"],
        ["export", folder, "--format", "onnx"],
    ):
        code, _, err = run_cli(*command)
        assert code in (2, 5) and "export" in err and err.count("error:") == 1, err


def test_a_damaged_one_is_refused(form, folder):
    file = max(folder.glob("model.*"), key=lambda path: path.stat().st_size)
    file.write_bytes(b"\xff" * 100)
    with pytest.raises(ModelError, match="corrupt|does not match|changed"):
        load(folder)
    seal(folder)
    with pytest.raises(ModelError, match="cannot run it as model.json says|corrupt: claims a header of"):
        load(folder)


@pytest.mark.parametrize(
    "deployed",
    [
        {"format": "tensorrt", "precision": "f32"},
        {"format": "onnx"},
        {"format": "onnx", "precision": "\x1b[31m"},
        {"format": "o" * 5000, "precision": "f32"},
        3,
    ],
    ids=["format", "no precision", "precision", "long", "number"],
)
def test_one_of_another_version(folder, deployed):
    values = json.loads((folder / "model.json").read_text()) | {"deployed": deployed}
    (folder / "model.json").write_text(json.dumps(values))
    seal(folder)
    with pytest.raises(ModelError, match="is an export of the format 'tensorrt'|does not say what runs it"):
        load(folder)


def test_what_the_files_are_not_is_refused(form, folder):
    values = json.loads((folder / "model.json").read_text())
    prepare = values["preprocess"]
    for changed in (
        {"classes": values["classes"][:2]},
        {"classes": [*values["classes"], "more"]},
        {"preprocess": {**prepare, "size": 48}},
        {"preprocess": {**prepare, "mean": [0.5], "std": [0.5]}},
    ):
        (folder / "model.json").write_text(json.dumps({**values, **changed}))
        seal(folder)
        with pytest.raises(ModelError, match="cannot run it as model.json says") as caught:
            load(folder)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["ncnn"], indirect=True)
@pytest.mark.parametrize("damage", ["text", "kind", "cut"])
def test_ncnn_is_not_run_with_what_it_could_not_read(form, folder, damage):
    """It would end the process."""
    text, weights = folder / "model.param", folder / "model.bin"
    if damage == "text":
        text.write_text("hello")
    elif damage == "kind":
        text.write_text(text.read_text().replace("BinaryOp", "NoSuchOp", 1))
    else:
        weights.write_bytes(weights.read_bytes()[:1000])
    seal(folder)
    with pytest.raises(ModelError, match="cannot run it as model.json says"):
        load(folder)


def test_its_files_must_be_in_the_manifest(form, folder):
    manifest = json.loads((folder / MANIFEST).read_text())
    name = next(name for name in manifest["files"] if name in ("model.onnx", "model.bin", "network.json"))
    del manifest["files"][name]
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ModelError, match=f"{name}: is not in manifest.json"):
        load(folder)


def test_no_torch_is_imported(folder, photos):
    code = (
        "import sys; from resnetkit import cli\n"
        "try: cli.main(sys.argv[1:])\n"
        "except SystemExit as stopped: print(stopped.code, 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, "predict", str(folder), str(photos / "red" / "0.png")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "0 False", done.stderr


def test_it_is_scored_with_a_report_without_overlays(folder, photos, run_cli):
    code, out, err = run_cli("eval", folder, photos, "--out", "scored")
    assert code == 0 and "accuracy" in out, err
    assert "<html" in Path("scored/report.html").read_text(encoding="utf-8")
