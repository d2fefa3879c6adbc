"""What the README of an exported folder says: twenty lines of Python that answer a photo without training code."""

from __future__ import annotations

from typing import Any

from resnetkit.checkpoint import Checkpoint
from resnetkit.data.image import Preprocess, preprocess_from

READ = """\
```python
import json

import numpy as np
from PIL import Image, ImageOps
{imports}
with open("classes.json", encoding="utf-8") as file:
    classes = json.load(file)
image = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("{mode}")
{resize}
pixels = np.asarray(image).reshape({size}, {size}, {channels})
{run}
{answer}
```
"""
NORMALISED = """\
mean, std = np.array({mean}, np.float32), np.array({std}, np.float32)
floats = np.ascontiguousarray(((pixels / np.float32(255) - mean) / std).transpose(2, 0, 1))
"""


def usage(checkpoint: Checkpoint, imports: str, run: str) -> str:
    """Python that reads a photo and says what it is, without resnetkit and without torch."""
    meta, prepare = checkpoint.meta, preprocess_from(checkpoint.meta.preprocess, checkpoint.folder)
    answer = "print(classes[int(logits.argmax())])"
    if meta.task == "multilabel":
        answer = "print([classes[index] for index in (logits[0] >= 0).nonzero()[0].tolist()])"
    if "floats" in run:
        run = NORMALISED.format(mean=list(prepare.mean), std=list(prepare.std)) + run
    mode = "L" if prepare.channels == 1 else "RGB"
    numbers = {"size": prepare.size, "channels": prepare.channels, "mode": mode, "resize": _resize(prepare)}
    return READ.format(imports=imports, run=run, answer=answer, **numbers)


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
