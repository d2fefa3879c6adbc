"""Boxes or masks as an ONNX file that takes pixels and gives what is found, proven before it is published."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from resnetkit.checkpoint import CARD, FLOAT32, ONNX, Deployed, card, write_meta
from resnetkit.data.image import Pixels, Preprocess, from_array, pixels
from resnetkit.errors import IncompleteError, ResourceError, UsageError
from resnetkit.files import new_folder, set_aside
from resnetkit.ops.intervals import wilson
from resnetkit.ops.matching import Found
from resnetkit.ops.metrics import relative_difference
from resnetkit.runtime import choice
from resnetkit.runtime.deploy import GOLDEN, golden_picture
from resnetkit.runtime.export import PROOF, Exported, Proof, bytes_of, latency, size_of
from resnetkit.runtime.libraries import public, write_json
from resnetkit.runtime.scenes import OUTPUTS, SAID, Infer, SceneModel, infer_of_file, open_network
from resnetkit.runtime.sheet import PIXELS

OPSET = 17
NEAR = 1e-3  # of a score, and of the canvas's side: within which two boxes are one
LEAST = 0.99  # share of images with the same answer
USAGE = """
```python
import json, os

import numpy as np
from PIL import Image, ImageOps

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # it reports home otherwise
import onnxruntime

with open("classes.json", encoding="utf-8") as file:
    classes = json.load(file)
image = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("{mode}")
canvas = ImageOps.pad(image, ({width}, {height}), Image.Resampling.{method}, color={fill})
pixels = np.asarray(canvas).reshape(1, {height}, {width}, {channels})
session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
{answer}
```

`golden.png` is a picture whose answer, in pixels of the canvas, is in `golden.json`.
"""
WINDOWS = """
The network looks at windows of {width} x {height} pixels, which slide over an image at its own resolution; where two
overlap, the mean of their logits counts.

```python
import json, os

import numpy as np
from PIL import Image, ImageOps

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # it reports home otherwise
import onnxruntime

with open("classes.json", encoding="utf-8") as file:
    classes = json.load(file)
image = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("{mode}")
size = max(image.width, {width}), max(image.height, {height})
pixels = np.asarray(ImageOps.pad(image, size, color={fill}) if size != image.size else image)
pixels = pixels.reshape(size[1], size[0], {channels})
session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
sums = np.zeros((len(classes), size[1], size[0]), np.float32)
for top in sorted({{*range(0, size[1] - {height}, {height} * 3 // 4), size[1] - {height}}}):
    for left in sorted({{*range(0, size[0] - {width}, {width} * 3 // 4), size[0] - {width}}}):
        there = slice(top, top + {height}), slice(left, left + {width})
        (logits,) = session.run(["logits"], {{"pixels": pixels[there][None]}})
        sums[:, *there] += logits[0]
indices = sums.argmax(0)  # the class of each pixel of the photo
print([(name, float((indices == k).mean())) for k, name in enumerate(classes)])
```

`golden.png` is a picture whose answer in the window at its middle is in `golden.json`.
"""
WITH_PARTS = 'scores, parts = session.run(["boxes", "labels", "scores", "masks"]'
BOXES = """\
boxes, labels, scores = session.run(["boxes", "labels", "scores"], {"pixels": pixels})
scale = min(WIDTH / image.width, HEIGHT / image.height)
corner = np.array([(WIDTH - image.width * scale) / 2, (HEIGHT - image.height * scale) / 2] * 2)
for box, label, score in zip((boxes - corner) / scale, labels, scores):  # x1, y1, x2, y2 in pixels of the photo
    print(classes[label], round(float(score), 3), box.round(1).tolist())"""
PARTS = """
for part, box in zip(parts, boxes):  # of the canvas: what is in a box, 0..1 [28, 28], enlarged to it
    size = [max(1, round(float(side))) for side in box[2:] - box[:2]]
    mask = np.asarray(Image.fromarray(part).resize(size, Image.Resampling.BILINEAR)) > 0.5
    print(int(mask.sum()), "pixels of the canvas")"""
INSTANCES = BOXES.replace('scores = session.run(["boxes", "labels", "scores"]', WITH_PARTS) + PARTS
MASKS = """\
(logits,) = session.run(["logits"], {"pixels": pixels})
indices = logits[0].argmax(0)  # the class of each pixel of the canvas
print([(name, float((indices == k).mean())) for k, name in enumerate(classes)])"""


def write_scene_export(
    model: SceneModel, name: str, folder: Path, canvases: Pixels | None, source: str, *, overwrite: bool = False
) -> Exported:
    """Write a model of boxes or masks as ONNX, prove it, and publish the folder by one rename.

    Args:
        model: run by torch.
        name: "onnx".
        folder: to be made.
        canvases: images to compare both on [N, H, W, C]; synthetic ones besides, or alone.
        source: what they are, in words.
        overwrite: rename an older one aside, once the new one is proven.

    Raises:
        UsageError: another format.
        IncompleteError: what was written finds something else; then nothing is published.
        ResourceError: the folder exists, the disk refuses, or a package is missing.
    """
    refuse_scene(model, name)
    with new_folder(folder, needed=bytes_of(model)) as temporary:
        _write(model, temporary)
        infer = infer_of_file(temporary / ONNX, model.checkpoint.meta.task)
        opened_in = f"onnxruntime {choice.version_of('onnxruntime')}"
        found = _prove(model, infer, opened_in, (canvases, source))
        done = Exported(folder, name, opened_in, found, size_of(temporary))
        write_json(temporary / PROOF, {**done.as_dict(), "folder": folder.name})
        if overwrite:
            set_aside(folder)
    return done


def refuse_scene(model: SceneModel, name: str) -> None:
    """Refuse what cannot be written.

    Raises:
        UsageError: another format than ONNX, or a model of images that are neither grey nor RGB.
    """
    if name != "onnx":
        raise UsageError(f"boxes and masks cannot be written as {name}", fix="--format onnx")
    if model.preprocess.channels not in (1, 3):
        what = f"boxes and masks of {model.preprocess.channels} channels cannot be written"
        raise UsageError(what, path=model.checkpoint.folder, fix="grey and RGB can")


def _write(model: SceneModel, folder: Path) -> None:
    import torch

    from resnetkit.nn.finder import Finder, FromPixels

    read, prepare = model.checkpoint, model.preprocess
    network, _ = open_network(read, "cpu")
    whole = FromPixels(Finder(network), prepare.mean, prepare.std)
    example = torch.zeros(1, *prepare.canvas, prepare.channels, dtype=torch.uint8)
    outputs = list(OUTPUTS[read.meta.task])
    # boxes of one image: their number differs from image to image
    axes = {PIXELS: {0: "batch"}, "logits": {0: "batch"}} if len(outputs) == 1 else {o: {0: "found"} for o in outputs}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that shapes are taken as constants, as they are meant to be
        try:
            torch.onnx.export(
                whole,
                (example,),
                str(folder / ONNX),
                dynamo=False,  # the newer exporter does not know how torchvision chooses boxes
                opset_version=OPSET,
                input_names=[PIXELS],
                output_names=outputs,
                dynamic_axes=axes,
            )
        except ImportError as error:
            raise ResourceError(f"the export needs onnx: {error}", fix='pip install "resnetkit[runtime]"') from error
    meta = public(read.meta)
    write_meta(folder, meta, None, Deployed("onnx", FLOAT32))
    write_json(folder / "classes.json", list(meta.classes))
    write_json(folder / "preprocess.json", prepare.as_dict())
    (folder / CARD).write_text(card(meta, "onnx", _usage(prepare, read.meta.task)), encoding="utf-8")
    _write_golden(model, folder)


def _usage(prepare: Preprocess, task: str) -> str:
    height, width = prepare.canvas
    fill = tuple(round(255 * value) for value in prepare.mean)
    answer = {"detect": BOXES, "instances": INSTANCES, "segment": MASKS}[task]
    answer = answer.replace("WIDTH", str(width)).replace("HEIGHT", str(height))
    return (WINDOWS if prepare.resize == "window" else USAGE).format(
        mode="RGB" if prepare.channels == 3 else "L",
        width=width,
        height=height,
        channels=prepare.channels,
        method=prepare.interpolation.upper(),
        fill=fill if len(fill) > 1 else fill[0],
        answer=answer,
    )


def _write_golden(model: SceneModel, folder: Path) -> None:
    prepare = model.preprocess
    picture = golden_picture(prepare.channels)
    Image.fromarray(picture if prepare.channels == 3 else picture[:, :, 0]).save(folder / f"{GOLDEN}.png")
    found = model.infer(pixels(from_array(picture, prepare), prepare)[None])[0]
    if isinstance(found, Found):
        answer: Any = {name: getattr(found, name).tolist() for name in SAID}
    else:
        answer = {"pixels": np.bincount(found.argmax(0).ravel(), minlength=len(found)).tolist()}
    write_json(folder / f"{GOLDEN}.json", answer)


def _prove(model: SceneModel, infer: Infer, opened_in: str, evidence: tuple[Pixels | None, str]) -> Proof:
    """Compare what is found on synthetic canvases and on those given.

    Raises:
        IncompleteError: more than one in a hundred of the images, or a synthetic one, has another answer.
    """
    height, width, channels = *model.preprocess.canvas, model.preprocess.channels
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (3, 8, 8, channels), np.uint8)
    synthetic = colours[:, np.arange(height) * 8 // height][:, :, np.arange(width) * 8 // width]
    given, source = evidence
    canvases = given if given is not None else synthetic
    ours, theirs = model.infer(synthetic) + _all(model.infer, given), infer(synthetic) + _all(infer, given)
    side = max(height, width)
    differences = np.array([_difference(one, other, side) for one, other in zip(ours, theirs, strict=True)])
    same = differences <= NEAR
    if not same[:3].all() or same.mean() < LEAST:
        what = f"opened in {opened_in} it finds something else in {int((~same).sum())} of {len(same)} images"
        raise IncompleteError(f"{what}; nothing was written", path=model.checkpoint.folder, fix="report it as a bug")
    told = source if given is not None else "3 synthetic images"
    kept = same[3:] if given is not None else same
    worst = float(differences[same].max())
    return Proof(told, worst, wilson(int(kept.sum()), len(kept)), latency(infer, canvases[:1]))  # type: ignore[arg-type]


def _all(infer: Infer, canvases: Pixels | None) -> list[Any]:
    batches: Sequence[Pixels] = () if canvases is None else [canvases[i : i + 8] for i in range(0, len(canvases), 8)]
    return [each for batch in batches for each in infer(batch)]


def _difference(one: Any, other: Any, side: int) -> float:
    """Largest one of two scores, two masks, or two corners as a share of the side; of logits as a share of the largest.

    Boxes are compared with the nearest of the same class, since two of one score may come in either order, and one
    whose score is at the edge of what is kept may be missing.
    """
    if not isinstance(one, Found):
        return relative_difference(one, other)
    return max(_unmatched(one, other, side), _unmatched(other, one, side))


def _unmatched(one: Found, other: Found, side: int) -> float:
    """Distance from each box of one to the nearest of the other; the largest."""
    if not len(one.scores):
        return 0.0
    edge = min(each.scores.min() for each in (one, other) if len(each.scores)) + NEAR
    if not len(other.scores):
        return 0.0 if one.scores.max() <= edge else np.inf
    corners = np.abs(one.boxes[:, None] - other.boxes[None]).max(2) / side
    far = np.maximum(corners, np.abs(one.scores[:, None] - other.scores[None]))
    if one.parts is not None and other.parts is not None:
        far = np.maximum(far, np.abs(one.parts[:, None] - other.parts[None]).max((2, 3)))
    far = np.where(one.labels[:, None] == other.labels[None], far, np.inf).min(1)
    return float(np.where((one.scores <= edge) & (far > NEAR), 0.0, far).max())
