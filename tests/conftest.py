"""Data that the tests make: folders of coloured shapes, small enough to learn in seconds."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from resnetkit import cli
from resnetkit.runtime import choice
from resnetkit.runtime.pipeline import num_threads

# What tests import themselves reports home otherwise; test_engines.py looks at what the package does about it.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
CAMERA = "--use-fake-device-for-media-stream"  # chromium's own, a turning pie
COLOURS = {"blue": (40, 60, 220), "green": (30, 180, 60), "red": (220, 50, 40)}
TINY = (
    "model.variant=resnet18",
    "model.weights=none",
    "model.stem=imagenet",
    "image.size=32",
    "train.batch_size=8",
    "train.epochs=3",
)


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No network, no caches of the user's, torch as the backend, and a working folder of its own for every test."""
    monkeypatch.setenv("RESNETKIT_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch-home"))
    monkeypatch.setenv("RESNETKIT_CACHE", str(tmp_path / "cache-home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.chdir(tmp_path)
    # measured for each model anew, the fastest backend would take seconds a test; test_choice.py looks at that
    monkeypatch.setattr(choice, "installed", lambda: ())
    logging.getLogger("resnetkit").setLevel(logging.NOTSET)
    torch.set_num_threads(num_threads())


def picture(colour: tuple[int, int, int], seed: int, size: int = 40) -> Image.Image:
    """A blob of a colour on a grey ground, with noise."""
    rng = np.random.default_rng(seed)
    pixels = np.full((size, size, 3), 128, np.float64)
    y, x = rng.integers(8, size - 8, 2)
    pixels[y - 8 : y + 8, x - 8 : x + 8] = colour
    return Image.fromarray(np.clip(pixels + rng.normal(0, 8, pixels.shape), 0, 255).astype(np.uint8))


def write_classes(
    root: Path, counts: int = 12, seed: int = 0, classes: dict[str, tuple[int, int, int]] = COLOURS
) -> Path:
    """A folder of class folders of PNG files."""
    for number, (name, colour) in enumerate(classes.items()):
        folder = root / name
        folder.mkdir(parents=True)
        for i in range(counts):
            picture(colour, seed + 1000 * number + i).save(folder / f"{i}.png")
    return root


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """36 images of three classes, without splits."""
    return write_classes(tmp_path / "photos")


@pytest.fixture
def run_cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command in this process: exit code, stdout, stderr."""

    def run(*argv: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stopped:
            cli.main([str(argument) for argument in argv])
        captured = capsys.readouterr()
        return int(stopped.value.code or 0), captured.out, captured.err

    return run


def tiny(*more: str, without: str = "") -> list[str]:
    """Flags of a training of seconds; `more` replaces settings of the same key."""
    settings = dict(setting.split("=", 1) for setting in (*TINY, *more))
    return [flag for key, value in settings.items() if key != without for flag in ("--set", f"{key}={value}")]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of a tiny ResNet-18 on three colours; runs/photos, and photos beside runs."""
    from resnetkit import api
    from resnetkit.recipe import parse_setting

    root = tmp_path_factory.mktemp("trained")
    write_classes(root / "photos")
    settings = dict(map(parse_setting, TINY))
    return api.train(root / "photos", out=root / "runs" / "photos", settings=settings, quiet=True).folder


def write_labels(root: Path, count: int = 36, *, columns: bool = False, seed: int = 0) -> Path:
    """Images with none, one or several of the blobs of COLOURS, and labels.csv in either form; the path of the CSV."""
    root.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    lines = ["path," + (",".join(COLOURS) if columns else "labels")]
    for i in range(count):
        pixels = rng.normal(128, 8, (40, 40, 3))
        present = [name for k, name in enumerate(COLOURS) if (i >> k) & 1]  # every set of labels equally often
        for k, name in enumerate(present):
            y, x = rng.integers(0, 12, 2) + (13 * k, 13 * k)
            pixels[y : y + 13, x : x + 13] = COLOURS[name]
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(root / f"{i}.png")
        written = ",".join(str(int(name in present)) for name in COLOURS) if columns else "|".join(present)
        lines.append(f"{i}.png,{written}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root / "labels.csv"


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium under playwright."""
    sync = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if not chromium:
        pytest.skip("needs chromium")
    with sync.sync_playwright() as play:
        opened = play.chromium.launch(executable_path=chromium, args=["--no-sandbox", CAMERA])
        yield opened
        opened.close()
