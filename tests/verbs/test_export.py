"""export: where it goes, what is refused before any work, and what is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from resnetkit import api, models
from resnetkit.data.image import Preprocess
from resnetkit.errors import NetworkError, UsageError
from resnetkit.verbs import export as verb


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    return api.save(models.resnet18(num_classes=2), tmp_path / "models" / "mine", preprocess=Preprocess(size=32))


def test_a_run_is_exported_beside_its_model(trained: Path, tmp_path: Path, run_cli) -> None:
    code, out, err = run_cli("export", trained, "--format", "huggingface", "--out", tmp_path / "given", "--json")
    assert code == 0, err
    result = json.loads(out)
    assert result["folder"] == str(tmp_path / "given") and result["format"] == "huggingface" and result["pushed"] == ""
    assert result["opened_in"].startswith("transformers ") and result["proof"]["difference"] < 1e-4
    assert result["proof"]["source"] == "the run's validation images, all 6"
    config = json.loads((tmp_path / "given" / "config.json").read_text())
    assert config["id2label"] == {"0": "blue", "1": "green", "2": "red"}
    assert verb.beside(trained / "model", "torchvision") == trained / "torchvision"


def test_a_model_folder_is_exported_beside_it(model: Path, run_cli, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, err = run_cli("export", "models/mine", "--format", "torchvision")
    assert code == 0 and out.startswith("models/mine-torchvision: opened in torchvision "), err
    assert "models/mine: writing models/mine-torchvision" in err
    assert (
        load_file("models/mine-torchvision/model.safetensors").keys() == load_file(model / "model.safetensors").keys()
    )
    code, out, err = run_cli("export", "models/mine", "--format", "torchvision")
    assert (
        code == 2
        and out == ""
        and err.endswith(
            "models/mine-torchvision: holds something already (--overwrite to move it aside, or another --out)\n"
        )
    )
    code, _, err = run_cli("export", "models/mine", "--format", "torchvision", "--overwrite", "--quiet")
    assert code == 0 and err == "" and Path("models/mine-torchvision.1").is_dir()
    monkeypatch.chdir(model)
    assert verb.beside(Path(), "huggingface") == model.with_name("mine-huggingface")


@pytest.mark.parametrize("out", [".", "models", "models/mine"])
def test_the_model_itself_is_not_moved_aside(model: Path, out: str) -> None:
    with pytest.raises(UsageError, match="holds the model itself"):
        api.export(model, "torchvision", out=out, overwrite=True)


def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path: Path, run_cli) -> None:
    api.save(models.resnet20(), tmp_path / "m")
    before = set(tmp_path.rglob("*"))
    code, out, err = run_cli("export", "m", "--format", "huggingface")
    assert code == 2 and out == "" and err.startswith("error: m: transformers has no resnet20 (") and "resnet34" in err
    assert set(tmp_path.rglob("*")) == before


def test_offline_nothing_is_begun(model: Path, monkeypatch: pytest.MonkeyPatch, run_cli) -> None:
    def opened(*_: object, **__: object) -> None:
        raise AssertionError("the model was opened")

    monkeypatch.setattr(verb, "load", opened)
    code, _, err = run_cli("export", model, "--format", "torchvision", "--push", "owner/name")
    assert code == 8 and "the network is forbidden" in err and err.count("\n") == 1
    monkeypatch.setenv("RESNETKIT_OFFLINE", "0")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(NetworkError):
        api.export(model, "torchvision", push="owner/name")


def test_what_is_published_is_pushed(model: Path, monkeypatch: pytest.MonkeyPatch, run_cli) -> None:
    """The upload itself is in tests/weights/test_hub.py."""
    pushed = []

    def push(folder: Path, repository: str, *, progress: bool) -> str:
        pushed.append((folder, repository, (folder / "manifest.json").is_file(), progress))
        return f"hub/{repository}"

    monkeypatch.setenv("RESNETKIT_OFFLINE", "0")
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    monkeypatch.setattr("resnetkit.weights.hub.push", push)
    code, out, err = run_cli("export", "models/mine", "--format", "torchvision", "--push", "owner/name", "--quiet")
    assert code == 0 and "hub/owner/name: holds the same files" in out, err
    assert pushed == [(Path("models/mine-torchvision"), "owner/name", True, False)]


def test_images_that_are_given_are_compared(trained: Path, tmp_path: Path, run_cli, photos: Path) -> None:
    code, out, err = run_cli("export", trained, "--format", "torchvision", "--data", photos, "--out", tmp_path / "out")
    assert code == 0 and f"compared on {photos} (all), all 36: logits differ by" in out, err
    code, _, err = run_cli("export", trained, "--format", "torchvision", "--data", "nowhere", "--out", tmp_path / "no")
    assert code == 3 and "nowhere" in err and not (tmp_path / "no").exists()


def test_a_run_whose_images_are_gone_is_compared_on_synthetic_ones(model: Path, run_cli) -> None:
    code, out, _ = run_cli("export", model, "--format", "torchvision")
    assert code == 0 and "compared on 7 synthetic images" in out


def test_int8(trained: Path, tmp_path: Path, run_cli, photos: Path) -> None:
    pytest.importorskip("openvino", reason="needs openvino")
    command = ["export", trained, "--format", "openvino", "--int8", "--data", photos, "--out", tmp_path / "int8"]
    code, out, err = run_cli(*command, "--max-drop", "0.5")
    assert code == 0 and "in int8 accuracy falls by " in out and "n = 36" in out and "no training images" not in err, (
        err
    )
    code, out, _ = run_cli("predict", tmp_path / "int8", photos / "red", "--format", "csv")
    assert code == 0 and out.count("\n") == 13
    code, out, _ = run_cli("eval", tmp_path / "int8", photos, "--backend", "openvino")
    assert code == 0 and "accuracy" in out
    # hardly trained, it decides by hairs, so int8 flips many answers
    code, out, err = run_cli(*command, "--max-drop", "0", "--overwrite")
    assert (code, out) == (4, "") and "in int8 accuracy falls by" in err and "nothing was written" in err
    assert not (tmp_path / "int8.1").exists()


@pytest.mark.parametrize(
    ("more", "code", "told"),
    [
        (["--format", "ncnn", "--int8"], 2, "ncnn has no int8 here (--format onnx or openvino or native)"),
        (["--format", "onnx", "--int8", "--max-drop", "2"], 2, "max_drop = 2.0 (give a share between 0 and 1"),
        (["--format", "onnx", "--max-drop", "0.1"], 2, "a largest drop is that of int8 (add --int8"),
        (["--format", "onnx", "--int8"], 3, "int8 takes images with known answers"),
    ],
    ids=str,
)
def test_int8_that_cannot_be(model: Path, run_cli, more: list[str], code: int, told: str) -> None:
    found, out, err = run_cli("export", model, *more)
    assert (found, out) == (code, "") and told in err and err.count("error:") == 1
