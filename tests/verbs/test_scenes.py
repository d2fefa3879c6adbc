"""Boxes and masks through the verbs: learnt, scored, predicted, drawn, stopped and gone on with."""

from __future__ import annotations

import base64
import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

import resnetkit
from conftest import start, write_scenes
from resnetkit import recipe as recipes
from resnetkit.data.dataset import Dataset
from resnetkit.errors import DataError, Interrupted, UsageError
from resnetkit.ops.rle import decode
from resnetkit.tasks.boxes import Boxes
from resnetkit.tasks.instances import Instances
from resnetkit.verbs import fit
from resnetkit.verbs.examples import found_in
from servers import living

KINDS = ("boxes", "masks", "instances")
TASKS = {"boxes": "detect", "masks": "segment", "instances": "instances"}
HEADLINES = {"boxes": "AP50", "masks": "mIoU", "instances": "mask_AP50"}
SMALL = {
    "model.variant": "resnet18",
    "model.width": 32,
    "model.weights": "none",
    "model.head_width": 64,
    "image.size": 64,
    "image.width": 96,
    "train.epochs": 2,
}
# so that little is learnt by heart soon
STILL = {"augment.flip": False, "augment.min_scale": 1, "augment.color": 0.0, "model.width": 64}
BY_HEART = {
    "boxes": {**STILL, "train.epochs": 50, "optim.lr": 2e-3},
    "masks": {**STILL, "train.epochs": 36, "image.size": 128, "image.width": 192, "model.head_width": 24},
    "instances": {**STILL, "train.epochs": 16},
}


def small(kind: str) -> dict[str, object]:
    """Settings of a training of seconds; outlines are learnt from only where that is asked for."""
    return {**SMALL, "data.task": "instances" if kind == "instances" else "auto"}


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of each kind that has learnt eight images by heart, and its data beside it."""
    root = tmp_path_factory.mktemp("scenes")
    write_scenes(root / "data")
    for kind in KINDS:
        settings = {**small(kind), **BY_HEART[kind]}
        resnetkit.train(root / "data" / kind, settings=settings, out=root / kind, quiet=True)
    return root


@pytest.mark.parametrize("kind", KINDS)
def test_eight_images_are_learnt_by_heart(kind: str, runs: Path) -> None:
    scores = resnetkit.evaluate(runs / kind, runs / "data" / kind, split="train", quiet=True)
    assert scores.metrics[HEADLINES[kind]].value > 0.95
    written = json.loads((runs / kind / "metrics.json").read_text())
    again = resnetkit.evaluate(runs / kind, runs / "data" / kind, quiet=True)  # val, as at the end of the training
    assert again.as_dict() == written


def test_a_run_folder_holds_what_was_found(runs: Path) -> None:
    for kind in KINDS:
        page = (runs / kind / "report.html").read_text()
        assert "The worst images" in page and "Confusion matrix" in page and "square" in page
        rows = list(csv.DictReader((runs / kind / "predictions.csv").read_text().splitlines()))
        assert len(rows) == 3 and all(row["split"] == "val" for row in rows)
    assert "Precision and recall" in (runs / "boxes" / "report.html").read_text()
    assert all("segmentation" in row for row in json.loads((runs / "instances" / "coco_results.json").read_text()))
    found = json.loads((runs / "boxes" / "coco_results.json").read_text())
    assert {row["category_id"] for row in found} <= {1, 2} and all(len(row["bbox"]) == 4 for row in found)


def test_boxes_of_paths_images_and_arrays_are_those_of_the_image(runs: Path) -> None:
    model = resnetkit.load(runs / "boxes")
    path = runs / "data" / "boxes" / "train" / "images" / "0.png"
    array = pixels(path)
    one, *others = model.predict([path, Image.fromarray(array), array])
    assert isinstance(one, Boxes) and one.size == (96, 64)
    assert all((each.boxes, each.labels) == (one.boxes, one.labels) for each in others)
    lines = (runs / "data" / "boxes" / "train" / "labels" / "0.txt").read_text().split()
    x, y, w, h = (float(v) * side for v, side in zip(lines[1:5], (96, 64, 96, 64), strict=True))
    square = one.boxes[one.labels.index("square")]
    np.testing.assert_allclose(square, (x - w / 2, y - h / 2, x + w / 2, y + h / 2), atol=6)


def test_a_larger_photo_of_the_same_has_larger_boxes(runs: Path, tmp_path: Path) -> None:
    """Ten times the size as JPEG, which is decoded at a scale, and turned by EXIF: the boxes are where they belong."""
    model = resnetkit.load(runs / "boxes")
    path = runs / "data" / "boxes" / "train" / "images" / "0.png"
    large = Image.fromarray(pixels(path)).resize((960, 640))
    large.save("large.jpg", quality=95)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    large.rotate(90, expand=True).save("turned.jpg", quality=95, exif=exif)
    small, ten, turned = (model.predict(each) for each in (path, "large.jpg", "turned.jpg"))
    assert ten.size == turned.size == (960, 640)
    for each in (ten, turned):
        assert each.labels[:2] == small.labels[:2]
        np.testing.assert_allclose(np.array(each.boxes[:2]) / 10, small.boxes[:2], atol=3)


def test_masks_have_the_size_of_their_images(runs: Path, run_cli) -> None:
    images = runs / "data" / "masks" / "val" / "images"
    code, out, err = run_cli("predict", runs / "masks", images, "--format", "csv", "--draw", "drawn")
    assert code == 0, err
    rows = list(csv.DictReader(out.splitlines()))
    assert {row["label"] for row in rows} == {"ground", "square", "disc"} and rows[0]["width"] == "96"
    for name in ("8", "9", "10"):
        found, truth = pixels(Path(f"drawn/{name}.png")), pixels(runs / "data/masks/val/masks" / f"{name}.png")
        assert found.shape == truth.shape and (found == truth).mean() > 0.9
        assert pixels(Path(f"drawn/{name}.jpg")).shape == (64, 96, 3)


def test_masks_as_run_lengths(runs: Path, run_cli) -> None:
    image = runs / "data" / "masks" / "val" / "images" / "8.png"
    code, out, err = run_cli("predict", runs / "masks", image, "--format", "jsonl")
    assert code == 0, err
    answer = resnetkit.load(runs / "masks").predict(image)
    for row in map(json.loads, out.splitlines()):
        mask = decode(row["rle"]["counts"], *row["rle"]["size"])
        np.testing.assert_array_equal(mask, answer.indices == answer.classes.index(row["label"]))
        assert row["share"] == pytest.approx(mask.mean(), abs=1e-6)


def test_objects_and_their_pixels(runs: Path, run_cli) -> None:
    """The pixels of each object are those of its shape, in lines of JSON, in Python and over the image."""
    image = runs / "data" / "instances" / "val" / "images" / "8.png"
    call = ("predict", runs / "instances", image, "--format", "jsonl", "--top", 2, "--draw", "drawn")
    code, out, err = run_cli(*call)
    assert code == 0 and Path("drawn/8.jpg").exists(), err
    truth = pixels(runs / "data" / "masks" / "val" / "masks" / "8.png")
    answer = resnetkit.load(runs / "instances").predict(image, top=2)
    assert isinstance(answer, Instances)
    for number, row in enumerate(map(json.loads, out.splitlines())):
        mask = decode(row["rle"]["counts"], *row["rle"]["size"])
        np.testing.assert_array_equal(mask, answer.mask(number))
        there = truth == 1 + ("square", "disc").index(row["label"])
        assert (mask & there).sum() / (mask | there).sum() > 0.7
    code, out, _ = run_cli("predict", runs / "instances", image, "--format", "csv", "--top", 1)
    assert code == 0 and out.splitlines()[0] == "path,label,score,x1,y1,x2,y2"


def test_outlines_are_asked_for(tmp_path: Path, run_cli) -> None:
    """Boxes are what COCO JSON is taken for; a line says how to learn the pixels."""
    data = write_scenes(tmp_path / "data") / "instances"
    flags = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
    code, _, err = run_cli("train", data, *flags, "--dry-run", "--out", "r")
    assert code == 0 and 'task = "detect"' in err and "22 objects have an outline, which --task instances learns" in err
    with pytest.raises(DataError, match="outlines"):
        resnetkit.train(data.parent / "boxes", task="instances", settings=SMALL, out="r", dry_run=True, quiet=True)


def test_masks_of_objects_are_learnt_from(tmp_path: Path, run_cli) -> None:
    """Pictures of which object and of which class each pixel is; here the numbers of both are the same."""
    data = write_scenes(tmp_path / "data") / "masks"
    for split in ("train", "val"):
        shutil.copytree(data / split / "masks", data / split / "classes")
    flags = [word for key, value in (SMALL | {"train.epochs": 1}).items() for word in ("--set", f"{key}={value}")]
    code, _, err = run_cli("train", data, "--task", "instances", *flags, "--out", "r")
    assert code == 0 and "2 classes, 22 boxes (masks of objects), 8 train, 3 val" in err, err
    assert json.loads(Path("r/model/model.json").read_text())["classes"] == ["square", "disc"]
    assert json.loads(Path("r/metrics.json").read_text())["mask_AP50"]["n"] == 3


def test_boxes_as_lines_rows_and_drawings(runs: Path, run_cli) -> None:
    images = runs / "data" / "boxes" / "val" / "images"
    code, out, err = run_cli("predict", runs / "boxes", images, "--draw", "drawn", "--top", 2)
    assert code == 0 and len(out.splitlines()) == 6, err
    assert len(list(Path("drawn").glob("*.jpg"))) == 3
    code, _, err = run_cli("predict", runs / "boxes", images, "--draw", "drawn")
    assert code == 2 and "holds something already" in err
    Image.new("RGB", (50, 50)).save("black.png")
    code, out, _ = run_cli("predict", runs / "boxes", "black.png", images, "--format", "csv", "--top", 1)
    assert code == 0 and out.splitlines()[0] == "path,label,score,x1,y1,x2,y2"


@pytest.mark.parametrize("argv", [("explain", "{run}", "x.png", "--out", "e"), ("bench", "{run}")])
def test_verbs_for_classes_say_so(argv: tuple[str, ...], runs: Path, run_cli) -> None:
    code, _, err = run_cli(*(word.format(run=runs / "boxes") for word in argv))
    assert code == 2 and "finds boxes or masks" in err


def test_options_for_classes_say_so(runs: Path) -> None:
    for options in ({"mirror": True}, {"backend": "ncnn"}):
        with pytest.raises(UsageError, match="not for boxes and masks"):
            resnetkit.load(runs / "masks", **options)
    with pytest.raises(UsageError, match="not calibrated"):
        list(resnetkit.predict(runs / "boxes", [runs / "data"], coverage=0.9))


@pytest.mark.parametrize("kind", KINDS)
def test_resume_is_bit_exact(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped in the middle of an epoch and gone on with: the weights and the metrics of the run that was not."""
    data = write_scenes(Path("data")) / kind
    resnetkit.train(data, settings=small(kind), out="whole", quiet=True)
    ticks = fit._ticks

    def stopped(job, stage, state):
        for tick in ticks(job, stage, state):
            yield tick
            if tick.step == 3:
                raise KeyboardInterrupt

    monkeypatch.setattr(fit, "ENOUGH", fit.ENOUGH)
    monkeypatch.setattr(fit.Saver, "due", lambda self, end: True)
    monkeypatch.setattr(fit, "_ticks", stopped)
    with pytest.raises((KeyboardInterrupt, Interrupted)):
        resnetkit.train(data, settings=small(kind), out="parts", quiet=True)
    monkeypatch.setattr(fit, "_ticks", ticks)
    resnetkit.train(out="parts", resume=True, quiet=True)
    one, two = (safetensors.numpy.load_file(f"{name}/model/model.safetensors") for name in ("whole", "parts"))
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert Path("whole/metrics.json").read_text() == Path("parts/metrics.json").read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_learn_what_one_learns(kind: str, tmp_path: Path) -> None:
    data = write_scenes(Path("data")) / kind
    settings = small(kind) | {"model.freeze": "layer2", "train.epochs": 1}
    flags = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    other = start("train", data, *flags, "--out", "two", "--quiet")
    _, err = other.communicate(timeout=240)
    assert other.returncode == 0, err
    tensors = safetensors.numpy.load_file("two/model/model.safetensors")
    assert all(np.isfinite(tensor).all() for tensor in tensors.values())
    with (tmp_path / "two" / "results.csv").open() as rows:
        assert len(list(csv.DictReader(rows))) == 1


def test_settings_without_a_meaning_are_refused(tmp_path: Path) -> None:
    data = write_scenes(tmp_path / "data")
    for kind, key, value in (
        ("boxes", "augment.mixup", 0.2),
        ("boxes", "model.head", "unet"),
        ("masks", "model.head", "fcos"),
        ("masks", "image.resize", "squash"),
        ("masks", "finetune.keep_statistics", True),
    ):
        with pytest.raises(UsageError, match=key):
            resnetkit.train(data / kind, settings={**SMALL, key: value}, out="r", dry_run=True, quiet=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_dry_run_writes_nothing_and_tells_the_time(kind: str, run_cli) -> None:
    data = write_scenes(Path("data")) / kind
    flags = [word for key, value in small(kind).items() for word in ("--set", f"{key}={value}")]
    code, _, err = run_cli("train", data, *flags, "--dry-run", "--out", "r")
    assert code == 0 and "steps of" in err and not Path("r").exists()
    assert f'task = "{TASKS[kind]}"' in err


@pytest.mark.parametrize("kind", KINDS)
def test_an_export_finds_the_same_without_torch(kind: str, runs: Path, run_cli) -> None:
    pytest.importorskip("onnx")
    image = runs / "data" / kind / "val" / "images" / "9.png"
    code, out, err = run_cli("export", runs / kind, "--format", "onnx", "--out", "made", "--json")
    assert code == 0, err
    proof = json.loads(out)["proof"]
    assert proof["agreement"]["value"] == 1 and proof["difference"] < 1e-4
    assert json.loads(Path("made/proof.json").read_text())["proof"] == proof
    ours = resnetkit.load(runs / kind).predict(image).rows()
    script = (
        "import json, sys, resnetkit\n"
        "found = resnetkit.load('made').predict(sys.argv[1]).rows()\n"
        "print(json.dumps([found, 'torch' in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", script, image], capture_output=True, text=True, check=True)
    theirs, torch_too = json.loads(done.stdout)
    assert not torch_too and len(theirs) == len(ours)
    for one, other in zip(ours, theirs, strict=True):
        assert one["label"] == other["label"]
        numbers = [name for name, value in one.items() if isinstance(value, float)]
        np.testing.assert_allclose([one[n] for n in numbers], [other[n] for n in numbers], atol=0.02)


def test_the_readme_of_an_export_runs(runs: Path) -> None:
    pytest.importorskip("onnx")
    for kind in KINDS:
        resnetkit.export(runs / kind, "onnx", out=f"{kind}-onnx", quiet=True)
        code = Path(f"{kind}-onnx/README.md").read_text().split("```python\n")[1].split("```")[0]
        Image.fromarray(pixels(runs / "data" / kind / "val" / "images" / "8.png")).save(f"{kind}-onnx/photo.jpg")
        done = subprocess.run([sys.executable, "-c", code], cwd=f"{kind}-onnx", capture_output=True, text=True)
        assert done.returncode == 0 and "square" in done.stdout, done.stderr


def test_formats_without_boxes_say_so(runs: Path) -> None:
    for options in ({"format": "ncnn"}, {"format": "onnx", "int8": True}):
        with pytest.raises(UsageError, match="boxes and masks"):
            resnetkit.export(runs / "boxes", out="none", quiet=True, **options)
    assert not Path("none").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_a_photo_of_twelve_megapixels_takes_little_memory(kind: str, runs: Path) -> None:
    """In a process of its own: its peak is that of a small photo and some times 12 MB a channel, not 12 MB a class."""
    Image.fromarray(pixels(runs / "data" / kind / "val" / "images" / "8.png")).resize((4000, 3000)).save("large.jpg")
    script = (
        "import resource, sys, resnetkit\n"
        "model = resnetkit.load(sys.argv[1]); model.predict(sys.argv[2])\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "answer = model.predict('large.jpg')\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, len(answer.rows()))"
    )
    small = runs / "data" / kind / "val" / "images" / "9.png"
    done = subprocess.run(
        [sys.executable, "-c", script, runs / kind, small], capture_output=True, text=True, check=True
    )
    megabytes, rows = map(int, done.stdout.split())
    assert megabytes < 400 and rows >= 2


def test_photos_of_twelve_megapixels_are_learnt_from(tmp_path: Path) -> None:
    data = write_scenes(tmp_path / "data", counts=(2, 1)) / "boxes"
    for path in data.rglob("*.png"):
        Image.fromarray(pixels(path)).resize((4000, 3000), Image.Resampling.NEAREST).save(path.with_suffix(".jpg"))
        path.unlink()
    run = resnetkit.train(data, settings=SMALL | {"train.epochs": 1}, out="r", quiet=True)
    assert run.metrics["AP50"]["n"] == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_share_of_the_images_may_be_unreadable(kind: str, tmp_path: Path) -> None:
    data = write_scenes(tmp_path / "data") / kind
    (data / "train" / "images" / "3.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match="3.png"):
        resnetkit.train(data, settings=small(kind) | {"train.epochs": 1}, out="r", quiet=True)
    settings = small(kind) | {"train.epochs": 1, "data.max_bad": 0.2}
    resnetkit.train(data, settings=settings, out="s", quiet=True)
    assert "3.png" in Path("s/unreadable.csv").read_text()


def test_empty_images_and_boxes_of_a_pixel_are_learnt_from(tmp_path: Path) -> None:
    data = write_scenes(tmp_path / "data") / "boxes"
    labels = sorted((data / "train" / "labels").iterdir())
    labels[0].write_text("")
    labels[1].unlink()
    labels[2].write_text(f"0 0.5 0.5 {1 / 96} {1 / 64}\n1 {0.5 / 96} {0.5 / 64} {1 / 96} {1 / 64}\n")
    run = resnetkit.train(data, settings=SMALL, out="r", quiet=True)
    assert run.metrics["AP50"]["n"] == 3 and Path("r/report.html").exists()


def test_classes_that_are_called_like_masks_stay_classes(tmp_path: Path) -> None:
    """The folders surgical/ and surgical_mask/ are two classes of images, whatever their files are called."""
    for name, colour in (("surgical", 60), ("surgical_mask", 200)):
        (tmp_path / "faces" / name).mkdir(parents=True)
        for i in range(6):
            Image.new("L", (40, 40), colour + i).save(tmp_path / "faces" / name / f"{i}.png")
    found = found_in(tmp_path / "faces", recipes.read(""))
    assert found.classes == ("surgical", "surgical_mask") and type(found) is Dataset


def test_coco_results_name_only_classes_that_the_data_has(runs: Path, tmp_path: Path) -> None:
    images = [{"id": 7, "file_name": "8.png", "width": 96, "height": 64}]
    kinds = [{"id": 0, "name": "disc"}]
    box = [{"id": 1, "image_id": 7, "category_id": 0, "bbox": [1, 1, 40, 40], "area": 1600, "iscrowd": 0}]
    (tmp_path / "coco").mkdir()
    shutil.copy(runs / "data" / "boxes" / "val" / "images" / "8.png", tmp_path / "coco")
    (tmp_path / "coco" / "a.json").write_text(json.dumps({"images": images, "annotations": box, "categories": kinds}))
    resnetkit.evaluate(runs / "boxes", tmp_path / "coco", out="scored", quiet=True)
    found = json.loads(Path("scored/coco_results.json").read_text())
    assert found and {row["category_id"] for row in found} == {0} and {row["image_id"] for row in found} == {7}
    page = list(csv.DictReader(Path("scored/predictions.csv").read_text().splitlines()))
    assert len(found) < 100 and len(page) == 1


def test_a_rate_that_is_auto_is_decided_and_no_epochs_are_refused(tmp_path: Path) -> None:
    data = write_scenes(tmp_path / "data")
    for kind, rate in (("boxes", 1e-3), ("masks", 2e-3)):
        settings = {**SMALL, "optim.lr": "auto", "optim.optimizer": "auto", "train.epochs": 1}
        resnetkit.train(data / kind, settings=settings, out=kind, quiet=True)
        assert recipes.read(Path(kind) / "recipe.toml").optim.lr == rate
        with pytest.raises(UsageError, match="leaves nothing to learn"):
            resnetkit.train(data / kind, settings={**SMALL, "train.epochs": 0}, out="r", quiet=True)


def test_a_model_of_masks_scores_images_with_nothing_in_them(tmp_path: Path) -> None:
    """Masks of 0 alone are of two classes to a model that knows two, and of one for nobody to learn."""
    root = tmp_path / "data"
    for seed, (split, values) in enumerate((("train", (0, 255)), ("val", (0, 255)), ("none", (0,)))):
        for folder in ("images", "masks"):
            (root / split / folder).mkdir(parents=True)
        for i in range(4):
            image = np.random.default_rng([seed, i]).integers(0, 60, (64, 96, 3), np.uint8)
            mask = np.zeros((64, 96), np.uint8)
            if 255 in values:
                image[10:50, 20:60] = 220
                mask[10:50, 20:60] = 255
            Image.fromarray(image).save(root / split / "images" / f"{i}.png")
            Image.fromarray(mask).save(root / split / "masks" / f"{i}.png")
    shutil.move(root / "none", tmp_path / "none")
    resnetkit.train(root, settings={**SMALL, "model.head_width": 16}, out="r", quiet=True)
    scores = resnetkit.evaluate("r", tmp_path / "none", quiet=True)
    assert scores.classes == ("background", "foreground") and len(scores.paths) == 4
    assert scores.metrics["IoU/foreground"].value is None
    with pytest.raises(DataError, match="one class only"):
        resnetkit.train(tmp_path / "none", task="segment", settings=SMALL, out="n", quiet=True)


def test_two_photos_of_one_name_have_a_picture_each(runs: Path) -> None:
    image = Image.fromarray(pixels(runs / "data" / "boxes" / "val" / "images" / "8.png"))
    for name in ("a/x.png", "a/x_2.png", "b/x.png"):
        Path(name).parent.mkdir(exist_ok=True)
        image.save(name)
    list(resnetkit.predict(runs / "boxes", ["a/x.png", "a/x_2.png", "b/x.png"], draw="drawn"))
    assert sorted(path.name for path in Path("drawn").iterdir()) == ["x.jpg", "x_2.jpg", "x_3.jpg"]


def test_rows_that_were_cut_short_are_made_again(runs: Path, run_cli) -> None:
    """An answer of several rows of which some are missing is not taken for done."""
    images = runs / "data" / "boxes" / "val" / "images"
    call = ("predict", runs / "boxes", images, "--format", "csv", "--top", 3)
    assert run_cli(*call, "--out", "whole.csv")[0] == 0
    assert run_cli(*call, "--out", "parts.csv")[0] == 0
    lines = Path("whole.csv").read_text().splitlines(keepends=True)
    digest = {"format": "csv", "model": None, "top": 3, "mirror": False, "coverage": None}
    from resnetkit.cli.using import _digest

    Path("parts.csv").unlink()
    Path("parts.csv.partial").write_text("".join(lines[:6]))  # of the second image two of three rows
    Path("parts.csv.call").write_text(json.dumps(digest | {"model": _digest(runs / "boxes")}))
    code, _, err = run_cli(*call, "--out", "parts.csv", "--resume")
    assert code == 0, err
    assert Path("parts.csv").read_text() == Path("whole.csv").read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_boxes_and_masks_are_served(kind: str, runs: Path) -> None:
    """The rows of predict, the picture with them over it, and the Open Inference Protocol with them as JSON."""
    path = runs / "data" / kind / "val" / "images" / "8.png"
    answer = resnetkit.load(runs / kind).predict(path)
    rows = [{name: value for name, value in row.items() if name != "path"} for row in answer.full_rows()]
    with living((kind, runs / kind)) as server:
        info = server.get("/info").json
        assert info["models"][0]["task"] == TASKS[kind]
        told = server.post("/predict?overlay=true", path.read_bytes(), "image/png").json["answers"][0]
        assert told["overlay"].startswith("data:image/") and told["found"] == rows
        file = {
            "name": "file",
            "datatype": "BYTES",
            "shape": [1],
            "data": [base64.b64encode(path.read_bytes()).decode()],
        }
        found = server.post(f"/v2/models/{kind}/infer", json.dumps({"inputs": [file]}), "application/json")
        assert json.loads(found.json["outputs"][0]["data"][0]) == {"found": rows}
        assert server.post("/predict", b"no image", "image/png").status == 415
