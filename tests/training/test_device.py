"""On a GPU every task trains as on a CPU, and gives the same answers there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import resnetkit
from conftest import interrupted_at, on_gpu, tiny, write_classes, write_labels, write_scenes
from resnetkit.recipe import parse_setting
from senses import TINY as SENSES
from senses import write_reviews, write_tones

pytestmark = on_gpu
SCENES = {"image.size": 64, "image.width": 96, "model.variant": "resnet18", "model.weights": "none", "train.epochs": 2}
DEVICE = "cuda"
MOST = 2e-3  # of the largest logit: cuDNN's convolutions read 10 bits of each number (TF32), as torch has it


def differences(run: Path, inputs: list[Path]) -> float:
    """How far the logits of the GPU are from those of the CPU, as a share of the largest."""
    here, there = (
        np.stack([logits for _, logits in resnetkit.load(run, device=device).answers(inputs)])
        for device in ("cpu", DEVICE)
    )
    return float(np.abs(here - there).max() / np.abs(here).max())


@pytest.mark.parametrize("precision", ["auto", "f16", "f32"])
def test_images_of_classes(tmp_path: Path, run_cli, precision: str) -> None:
    photos = write_classes(tmp_path / "photos", 30)
    settings = tiny(f"train.precision={precision}", "train.epochs=8", "augment.min_scale=0.9", "augment.erasing=0.1")
    code, _, err = run_cli("train", photos, *settings, "--out", "r")
    assert code == 0 and f"on {torch.cuda.get_device_name(0)}, " in err, err
    assert torch.cuda.get_device_name(0) in json.loads(Path("r/env.json").read_text())["device"]
    assert differences(Path("r"), sorted(photos.rglob("*.png"))[::7]) < MOST
    assert run_cli("eval", "r", photos, "--split", "train", "--min", "accuracy=0.8")[0] == 0


def test_several_labels(tmp_path: Path, run_cli) -> None:
    code, _, err = run_cli("train", write_labels(tmp_path / "labels"), *tiny("train.epochs=4"), "--out", "r")
    assert code == 0, err


def test_fine_tuning_in_stages_and_on(tmp_path: Path, run_cli) -> None:
    """Features, head, layer4 and all; a time limit, a smaller image at first, turned images, and a plan."""
    photos = write_classes(tmp_path / "photos", 24)
    assert run_cli("train", photos, *tiny(), "--out", "first")[0] == 0
    weights = ("--weights", "first/model/model.safetensors")
    stages = tiny("finetune.views=2", "finetune.layer4_epochs=2", "augment.rotate=20", without="model.weights")
    code, _, err = run_cli("train", photos, *stages, *weights, "--out", "r")
    assert code == 0 and "head on frozen features" in err, err
    code, _, err = run_cli(
        "train", photos, *tiny(without="model.weights"), *weights, "--time-limit", "60s", "--out", "t"
    )
    assert code == 0 and "plan: " in err, err
    code, _, err = run_cli("train", photos, *tiny("image.start_size=16"), "--time-limit", "60s", "--out", "s")
    assert code == 0, err


@pytest.mark.parametrize("kind", ["boxes", "instances", "masks"])
def test_scenes(tmp_path: Path, kind: str) -> None:
    data = write_scenes(tmp_path / "data")
    settings = {**SCENES, "data.task": "instances" if kind == "instances" else "auto"}
    run = resnetkit.train(data / kind, settings=settings, out="r", quiet=True)
    paths = sorted((data / kind / "val" / "images").iterdir())
    for device in ("cpu", DEVICE):
        assert len(resnetkit.load(run.folder, device=device).predict(paths)) == len(paths)


@pytest.mark.parametrize("kind", ["sounds", "texts"])
def test_sounds_and_texts(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("soundfile" if kind == "sounds" else "tokenizers")
    data = write_tones(tmp_path / "tones", 12) if kind == "sounds" else write_reviews(tmp_path / "reviews.csv", 120)
    run = resnetkit.train(data, settings=dict(map(parse_setting, SENSES[kind])), out="r", quiet=True)
    assert resnetkit.evaluate(run.folder, data, split="train", quiet=True).metrics["accuracy"].value > 0.6


@pytest.mark.parametrize("precision", ["f16", "bf16"])
def test_ctrl_c_and_resume(tmp_path: Path, run_cli, monkeypatch, precision: str) -> None:
    """With the scale of gradients in f16; in bf16 the first steps after resuming are plain, those before recorded."""
    photos = write_classes(tmp_path / "photos", 20)
    settings = tiny(f"train.precision={precision}", "optim.ema_decay=0.9", "train.epochs=4")
    assert run_cli("train", photos, *settings, "--out", "whole")[0] == 0
    with monkeypatch.context() as patch:
        interrupted_at(17, patch)
        assert run_cli("train", photos, *settings, "--out", "parts")[0] == 130
    code, _, err = run_cli("train", "--resume", "--out", "parts")
    assert code == 0 and "resuming at step 18" in err, err
    one, two = (Path(run, "results.csv").read_text().splitlines()[-1].split(",") for run in ("whole", "parts"))
    assert float(one[3]) == pytest.approx(float(two[3]), rel=1e-3)


def test_too_large_a_batch_says_so(tmp_path: Path, run_cli) -> None:
    photos = write_classes(tmp_path / "photos", 30)
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_allocated() + 5e8) / total)
    try:
        flags = tiny("model.width=64", "image.size=224", "train.batch_size=64", "train.epochs=1")
        code, _, err = run_cli("train", photos, *flags, "--out", "r")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert code == 6 and "out of memory in a training step" in err and "--batch-size" in err


@pytest.mark.parametrize("count", [1, 2])
def test_processes(tmp_path: Path, count: int) -> None:
    """One through nccl; more than there are GPUs are refused."""
    if count > 1 and torch.cuda.device_count() > 1:
        pytest.skip("needs a machine with one GPU")
    photos = write_classes(tmp_path / "photos", 12)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count), "--standalone"]
    command += ["--module", "resnetkit", "train", str(photos), *tiny(), "--out", "r"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert (done.returncode == 0) == (count == 1), done.stderr
    assert count == 1 or "2 processes need a GPU each, and there are 1" in done.stderr
