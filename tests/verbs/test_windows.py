"""Masks of images that are much larger than what the network sees: windows through all verbs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import resnetkit
from conftest import shapes, write_scenes
from resnetkit.errors import UsageError

SETTINGS = {
    "model.variant": "resnet18",
    "model.weights": "none",
    "model.head_width": 16,
    "image.resize": "window",
    "image.size": 64,
    "augment.flip": False,
    "augment.min_scale": 1,
    "augment.color": 0.0,
    "train.epochs": 6,
}


def write_large(root: Path, counts: tuple[int, int] = (3, 1), side: int = 3) -> Path:
    """Images of side x side pictures of 96 x 64, one beside the other, with masks."""
    rng = np.random.default_rng(1)
    for i in range(sum(counts)):
        split = "train" if i < counts[0] else "val"
        image, mask = Image.new("RGB", (96 * side, 64 * side)), Image.new("L", (96 * side, 64 * side))
        for at in range(side * side):
            part, of_part, _ = shapes(rng)
            corner = 96 * (at % side), 64 * (at // side)
            image.paste(part, corner)
            mask.paste(of_part, corner)
        for folder, picture in (("images", image), ("masks", mask)):
            (root / split / folder).mkdir(parents=True, exist_ok=True)
            picture.save(root / split / folder / f"{i}.png")
    (root / "classes.txt").write_text("ground\nsquare\ndisc\n")
    return root


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("large")
    resnetkit.train(write_large(root / "data"), settings=SETTINGS, out=root / "run", quiet=True)
    return root


def test_a_large_image_is_learnt_from_windows_and_answered_whole(run: Path) -> None:
    written = json.loads((run / "run" / "metrics.json").read_text())
    assert written["mIoU"]["value"] > 0.6
    again = resnetkit.evaluate(run / "run", run / "data", quiet=True)
    assert again.as_dict() == written
    model = resnetkit.load(run / "run")
    path = run / "data" / "val" / "images" / "3.png"
    answer = model.predict(path)
    truth = np.asarray(Image.open(run / "data" / "val" / "masks" / "3.png"))
    assert answer.indices.shape == truth.shape == (192, 288)
    assert (answer.indices == truth).mean() > 0.85
    small, odd = Image.open(path).crop((0, 0, 41, 33)), Image.open(path).crop((0, 0, 41, 150))
    assert [each.indices.shape for each in model.predict([small, odd])] == [(33, 41), (150, 41)]
    report = (run / "run" / "report.html").read_text()
    assert "The worst images" in report and "window" in report


def test_an_export_sees_one_window_and_answers_whole_images(run: Path) -> None:
    pytest.importorskip("onnx")
    done = resnetkit.export(run / "run", "onnx", out="made", quiet=True)
    assert done.proof.agreement.value == 1
    path = run / "data" / "val" / "images" / "3.png"
    one, other = (resnetkit.load(model).predict(path).indices for model in (run / "run", "made"))
    assert (one == other).mean() > 0.999
    code = Path("made/README.md").read_text().split("```python\n")[1].split("```")[0]
    Image.open(path).save("made/photo.jpg")
    shown = subprocess.run([sys.executable, "-c", code], cwd="made", capture_output=True, text=True)
    assert shown.returncode == 0 and "square" in shown.stdout, shown.stderr


def test_twelve_megapixels_in_little_memory(run: Path) -> None:
    """A process of its own: 36 MB of pixels, the image beside them, and the logits of one row of windows."""
    Image.open(run / "data" / "val" / "images" / "3.png").resize((4000, 3000)).save("large.jpg")
    script = (
        "import resource, sys, resnetkit\n"
        "model = resnetkit.load(sys.argv[1])\n"
        "wide = model.preprocess.__class__(size=512, width=1024, resize='window')\n"
        "import dataclasses, numpy as np\n"
        "model = dataclasses.replace(model, infer=lambda seen: [np.zeros((11, *seen.shape[1:3]), 'f4')] * len(seen))\n"
        "model.__dict__['preprocess'] = wide\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(model.predict('large.jpg').indices.shape)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)"
    )
    done = subprocess.run([sys.executable, "-c", script, run / "run"], capture_output=True, text=True, check=True)
    shape, megabytes = done.stdout.splitlines()
    assert shape == "(3000, 4000)" and int(megabytes) < 400


def test_windows_are_for_masks(photos: Path, tmp_path: Path) -> None:
    boxes = write_scenes(tmp_path / "data") / "boxes"
    for data, settings in ((boxes, SETTINGS), (photos, {"image.resize": "window", "model.weights": "none"})):
        with pytest.raises(UsageError, match="image.resize.*masks"):
            resnetkit.train(data, settings=settings, out="r", dry_run=True, quiet=True)


def test_a_dry_run_in_windows(run: Path, run_cli) -> None:
    flags = [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]
    code, _, err = run_cli("train", run / "data", *flags, "--dry-run", "--out", "r", "--time-limit", "2m")
    assert code == 0 and "windows of 64" in err and "epochs fit" in err, err
