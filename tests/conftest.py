"""Data that the tests make: folders of coloured shapes, small enough to learn in seconds."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from resnetkit import cli
from resnetkit.ops.rle import runs
from resnetkit.runtime import choice
from resnetkit.runtime.pipeline import num_threads
from resnetkit.training import train as loop

# What tests import themselves reports home otherwise; test_engines.py looks at what the package does about it.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
# What is exact to the bit on a CPU is not so on a GPU, of which `make gpu` runs the tests.
GPU = os.environ.get("RESNETKIT_TEST_GPU") == "1"
if not GPU:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
NO_GPU = "make gpu runs these, where there is a GPU"
on_gpu = pytest.mark.skipif(not (GPU and torch.cuda.is_available()), reason=NO_GPU)
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
NARROW = (*TINY, "model.width=16")


RUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "--module", "resnetkit"]


def start(*argv: object) -> subprocess.Popen[str]:
    """A command in two processes that share its work."""
    command = [*RUN, *map(str, argv)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


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


def shapes(rng: np.random.Generator, size: tuple[int, int] = (96, 64)) -> tuple[Image.Image, Image.Image, list[Any]]:
    """A square and a disc beside each other: the image, its mask, and class, middle, width and height of each box."""
    image, mask = Image.fromarray(rng.integers(0, 60, (*size[::-1], 3), np.uint8)), Image.new("L", size)
    boxes = []
    for k, left in enumerate(rng.permutation([2, 50]).tolist()):
        side = int(rng.integers(34, 42))
        x, y = left + int(rng.integers(0, 44 - side)), int(rng.integers(2, size[1] - side - 2))
        for canvas, fill in ((image, ((60, 200, 230), (230, 60, 40))[k]), (mask, k + 1)):
            pen = ImageDraw.Draw(canvas)
            (pen.ellipse if k else pen.rectangle)((x, y, x + side - 1, y + side - 1), fill=fill)
        boxes.append((k, x + side / 2, y + side / 2, side, side))
    return image, mask, boxes


def write_scenes(root: Path, counts: tuple[int, int] = (8, 3), seed: int = 0) -> Path:
    """The same images with boxes (YOLO) in boxes/, masks in masks/ and COCO's outlines in instances/; train and val."""
    rng = np.random.default_rng(seed)
    for split, numbers in (("train", range(counts[0])), ("val", range(counts[0], sum(counts)))):
        content = _write_split(root, split, numbers, rng)
        (root / "instances" / f"{split}.json").write_text(json.dumps(content))
    (root / "masks" / "classes.txt").write_text("ground\nsquare\ndisc\n")
    names = "names: [square, disc]\ntrain: train/images\nval: val/images\n"
    (root / "boxes" / "data.yaml").write_text(names)
    return root


def _write_split(root: Path, split: str, numbers: range, rng: np.random.Generator) -> dict[str, list[Any]]:
    """Some of `write_scenes`; gives what COCO's JSON says of them."""
    images, annotations = [], []
    for i in numbers:
        image, mask, found = shapes(rng)
        images.append({"id": i, "file_name": f"{split}/images/{i}.png", "width": 96, "height": 64})
        for k, x, y, w, h in found:
            left, top = x - w / 2, y - h / 2
            outline: Any = [[left, top, left + w, top, left + w, top + h, left, top + h]]
            if k:  # the disc
                outline = {"size": [64, 96], "counts": runs(np.asarray(mask) == k + 1)}
            one = {"image_id": i, "category_id": k + 1, "bbox": [left, top, w, h], "segmentation": outline}
            annotations.append({"id": 2 * i + k, "iscrowd": 0, "area": w * h, **one})
        for kind, beside in (("boxes", "labels"), ("masks", "masks"), ("instances", "images")):
            for folder in ("images", beside):
                (root / kind / split / folder).mkdir(parents=True, exist_ok=True)
            image.save(root / kind / split / "images" / f"{i}.png")
        mask.save(root / "masks" / split / "masks" / f"{i}.png")
        lines = (f"{k} {x / 96} {y / 64} {w / 96} {h / 64}\n" for k, x, y, w, h in found)
        (root / "boxes" / split / "labels" / f"{i}.txt").write_text("".join(lines))
    kinds = [{"id": 1, "name": "square"}, {"id": 2, "name": "disc"}]
    return {"images": images, "annotations": annotations, "categories": kinds}


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
    """Flags of a training of a second, of a narrow network; `more` replaces settings of the same key."""
    settings = dict(setting.split("=", 1) for setting in (*NARROW, *more))
    return [flag for key, value in settings.items() if key != without for flag in ("--set", f"{key}={value}")]


def interrupted_at(step: int, monkeypatch: pytest.MonkeyPatch, number: int = signal.SIGINT) -> None:
    """Send this process a signal while it works on a step."""
    loss = loop._loss

    def learn_and_interrupt(learner, batch, plan):
        if batch.step == step:
            os.kill(os.getpid(), number)
        return loss(learner, batch, plan)

    monkeypatch.setattr(loop, "_loss", learn_and_interrupt)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of a tiny ResNet-18 on three colours; runs/photos, and photos beside runs.

    By torch's kernels, so that it knows the same wherever it is made: tests rely on which of two models is better.
    """
    from resnetkit import api
    from resnetkit.recipe import parse_setting

    root = tmp_path_factory.mktemp("trained")
    write_classes(root / "photos")
    settings = dict(map(parse_setting, (*TINY, "train.kernels=torch")))
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


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium under playwright, whose loop keeps others from running in this thread as long as it is there."""
    sync = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if not chromium:
        pytest.skip("needs chromium")
    with sync.sync_playwright() as play:
        opened = play.chromium.launch(executable_path=chromium, args=["--no-sandbox", CAMERA])
        yield opened
        opened.close()
