"""A model written for another library: proven there before it is published, or not written.

A format is one value of three functions. A new one is a value more in FORMATS: the probe, the comparison and the rename
are the same for all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnetkit.checkpoint import Checkpoint, Meta
from resnetkit.errors import IncompleteError, UsageError
from resnetkit.files import new_folder, set_aside
from resnetkit.ops.metrics import relative_difference
from resnetkit.runtime import deploy, libraries
from resnetkit.runtime.choice import MOST
from resnetkit.runtime.model import Model

BATCH_SIZES = (1, 2, 7)


@dataclass(frozen=True)
class Format:
    """What a model can be written as.

    Attributes:
        refuse: raises UsageError where the format cannot hold the model.
        write: puts the files into an empty folder.
        open: opens that folder as its readers will; what runs it, and its name and version.
    """

    refuse: Callable[[Meta], None]
    write: Callable[[Checkpoint, Path], None]
    open: Callable[[Path, Meta], tuple[libraries.Infer, str]]


FORMATS = {
    "torchvision": Format(libraries.refuse_torchvision, libraries.write_torchvision, libraries.open_torchvision),
    "huggingface": Format(libraries.refuse_huggingface, libraries.write_huggingface, libraries.open_huggingface),
    "onnx": Format(deploy.refuse_none, deploy.write_onnx, deploy.open_onnx),
    "openvino": Format(deploy.refuse_none, deploy.write_openvino, deploy.open_openvino),
    "ncnn": Format(deploy.refuse_none, deploy.write_ncnn, deploy.open_ncnn),
}


@dataclass(frozen=True)
class Exported:
    """A model that was written in another format.

    Attributes:
        folder: where it lies.
        format: key of FORMATS.
        opened_in: what opened it for the proof, with its version.
        difference: largest one of two logits, as a share of the largest logit.
        pushed: address on the Hub, if it was uploaded.
    """

    folder: Path
    format: str
    opened_in: str
    difference: float
    pushed: str = ""

    def as_dict(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {**asdict(self), "folder": str(self.folder)}


def format_named(name: str) -> Format:
    """The format of this name.

    Raises:
        UsageError: there is none.
    """
    if name not in FORMATS:
        raise UsageError(f"there is no format {name!r}", fix=f"one of {', '.join(FORMATS)}")
    return FORMATS[name]


def write_export(model: Model, name: str, folder: Path, *, overwrite: bool = False) -> Exported:
    """Write a model in a format, prove it, and publish the folder by one rename.

    Args:
        model: run by the torch backend on the CPU: its logits are the measure.
        name: of the format, which can hold the model.
        folder: to be made.
        overwrite: rename an older one aside, once the new one is proven.

    Raises:
        IncompleteError: what was written gives other logits; then nothing is published.
        ResourceError: the folder exists, or the disk refuses.
    """
    form, meta = format_named(name), model.checkpoint.meta
    needed = sum(array.nbytes for array in model.checkpoint.tensors.values())
    with new_folder(folder, needed=needed) as temporary:
        form.write(model.checkpoint, temporary)
        infer, opened_in = form.open(temporary, meta)
        difference = prove(model, infer, opened_in)
        if overwrite:
            set_aside(folder)
    return Exported(folder, name, opened_in, difference)


def prove(model: Model, infer: libraries.Infer, opened_in: str) -> float:
    """The largest difference of two logits over the largest logit, on batches of 1, 2 and 7 synthetic images.

    Raises:
        IncompleteError: it is above 1e-3, or an image has another top-1.
    """
    images, worst, same = probe(model), 0.0, True
    for size in BATCH_SIZES:
        ours, theirs = model.backend(images[:size]), infer(images[:size])
        same = same and ours.shape == theirs.shape and np.array_equal(ours.argmax(1), theirs.argmax(1))
        worst = max(worst, relative_difference(ours, theirs))
    if same and worst <= MOST:
        return worst
    what = f"opened in {opened_in} it gives other logits: a difference of {worst:.1e} of the largest logit"
    what += "" if same else ", another top-1"
    raise IncompleteError(f"{what}; nothing was written", path=model.checkpoint.folder, fix="report it as a bug")


def probe(model: Model) -> NDArray[np.float32]:
    """Seven inputs [7, C, size, size] of coloured squares with noise, always the same, as pixels 0..255 give them."""
    size, channels = model.preprocess.size, model.preprocess.channels
    rng = np.random.default_rng(0)
    square = np.arange(size) * 8 // size
    colours = rng.normal(127, 60, (max(BATCH_SIZES), 8, 8, channels))[:, square[:, None], square]
    pixels = (colours + rng.normal(0, 30, colours.shape)).clip(0, 255).astype(np.uint8)
    return model.task.modality.normalise(pixels, model.preprocess)
