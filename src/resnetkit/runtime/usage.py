"""What the README of an exported folder says: twenty lines of Python that answer a photo without training code."""

from __future__ import annotations

from typing import Any

from resnetkit.checkpoint import Checkpoint
from resnetkit.data.audio import AudioPreprocess
from resnetkit.data.image import Preprocess
from resnetkit.runtime.backends import prepared_of, preprocess_of
from resnetkit.tasks.task import LABELS, task_named

READ = """\
```python
import json

import numpy as np
from PIL import Image, ImageOps
{imports}
with open("classes.json", encoding="utf-8") as file:
    classes = json.load(file)
{pixels}
{run}
{answer}
```
"""
PHOTO = """\
image = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("{mode}")
{resize}
pixels = np.asarray(image).reshape({size}, {size}, {channels})"""
BANDS = """\
pixels = np.load("bands.npy").reshape({size}, {size}, {channels})  # uint8, resized as preprocess.json says"""
READ_SOUND = """\
```python
import json

import numpy as np
import soundfile
import soxr
{imports}
with open("classes.json", encoding="utf-8") as file:
    classes = json.load(file)
{samples}
{run}
{answer}
```
"""
READ_TEXT = """\
```python
import json
import unicodedata

import numpy as np
import tokenizers
{imports}
with open("classes.json", encoding="utf-8") as file:
    classes = json.load(file)
with open("preprocess.json", encoding="utf-8") as file:
    prepare = json.load(file)
text = unicodedata.normalize("NFC", "what a lovely film")
text = text.lower() if prepare["lower"] else text
if prepare["vocabulary"]:
    found = tokenizers.Tokenizer.from_str(prepare["vocabulary"]).encode(text).ids
else:
    found = [byte + 1 for byte in text.encode()]
tokens = np.zeros(prepare["length"], np.uint16)
tokens[: len(found)] = found[: len(tokens)]
{run}
{answer}
```
"""
RECORDING = """\
sound, rate = soundfile.read("recording.wav", dtype="float32", always_2d=True)
sound = soxr.resample(sound.mean(1), rate, {rate})
before, start = max(0, {samples} - len(sound)) // 2, max(0, len(sound) - {samples}) // 2
sound = np.pad(sound[start:], (before, {samples}))[:{samples}]  # silence on both sides, or the middle
samples = np.rint(np.clip(sound * 32768, -32768, 32767)).astype(np.int16)"""
NORMALISED = """\
mean, std = np.array({mean}, np.float32), np.array({std}, np.float32)
floats = np.ascontiguousarray(((pixels / np.float32(255) - mean) / std).transpose(2, 0, 1))
"""


def usage(checkpoint: Checkpoint, imports: str, run: str) -> str:
    """Python that reads a photo and says what it is, without resnetkit and without torch."""
    meta, prepare = checkpoint.meta, preprocess_of(checkpoint)
    answer = "print(classes[int(logits.argmax())])"
    if task_named(meta.task).target is LABELS:
        answer = "print([classes[index] for index in (logits[0] >= 0).nonzero()[0].tolist()])"
    if "floats" in run:
        run = NORMALISED.format(mean=list(prepare.mean), std=list(prepare.std)) + run
    mode = "L" if prepare.channels == 1 else "RGB"
    numbers = {"size": prepare.size, "channels": prepare.channels, "mode": mode, "resize": _resize(prepare)}
    source = (PHOTO if prepare.channels in (1, 3) else BANDS).format(**numbers)
    return READ.format(imports=imports, pixels=source, run=run, answer=answer)


def other_usage(checkpoint: Checkpoint, imports: str, run: str) -> str:
    """Python that hears a recording, or reads a text, and says what it is, without resnetkit and without torch."""
    prepare = prepared_of(checkpoint)
    answer = "print(classes[int(logits.argmax())])"
    if task_named(checkpoint.meta.task).target is LABELS:
        answer = "print([classes[index] for index in (logits[0] >= 0).nonzero()[0].tolist()])"
    if isinstance(prepare, AudioPreprocess):
        source = RECORDING.format(rate=prepare.rate, samples=prepare.samples)
        run = run.replace('"pixels": pixels', '"samples": samples')
        return READ_SOUND.format(imports=imports, samples=source, run=run, answer=answer)
    return READ_TEXT.format(imports=imports, run=run.replace('"pixels": pixels', '"tokens": tokens'), answer=answer)


def _resize(prepare: Preprocess) -> str:
    """The resize as Python that uses Pillow: what `data.image.pixels` does."""
    size, method = prepare.size, f"Image.Resampling.{prepare.interpolation.upper()}"
    if prepare.resize == "squash":
        return f"image = image.resize(({size}, {size}), {method})"
    if prepare.resize == "letterbox":
        colour = tuple(round(255 * value) for value in prepare.mean)
        fill: Any = colour if len(colour) > 1 else colour[0]
        return f"image = ImageOps.pad(image, ({size}, {size}), {method}, color={fill})"
    return (
        f"side = max(1, {prepare.crop_ratio} * min(image.size))\n"
        "left, top = (image.width - side) / 2, (image.height - side) / 2\n"
        f"image = image.resize(({size}, {size}), {method}, box=(left, top, left + side, top + side))"
    )
