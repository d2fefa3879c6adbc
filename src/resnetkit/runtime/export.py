"""A model written for another library: proven there before it is published, or not written.

A format is one value of functions. A new one is a value more in FORMATS: the evidence, the comparison and the rename
are the same for all.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnetkit.checkpoint import FLOAT32, Checkpoint, Meta
from resnetkit.data.image import Pixels
from resnetkit.errors import IncompleteError, UsageError
from resnetkit.files import new_folder, set_aside
from resnetkit.ops.intervals import Metric, wilson
from resnetkit.ops.metrics import relative_difference
from resnetkit.ops.quantization import Quantization
from resnetkit.runtime import deploy, libraries, torchfiles
from resnetkit.runtime.choice import MOST
from resnetkit.runtime.libraries import write_json
from resnetkit.runtime.model import Model
from resnetkit.runtime.probes import probes
from resnetkit.runtime.scenes import SceneModel
from resnetkit.tasks.task import IMAGE, LABELS

BATCH_SIZES = (1, 2, 7)
BATCH = 32
CALLS, SECONDS = 30, 1.0  # of one image, to time it: at most
PROOF = "proof.json"


@dataclass(frozen=True)
class Format:
    """What a model can be written as.

    Attributes:
        refuse: raises UsageError where the format cannot hold the model.
        write: puts the files into an empty folder.
        open: opens that folder as its readers will; what runs it, and its name and version.
        write_int8: as `write`, with convolutions in int8; None where the format has none.
    """

    refuse: Callable[[Meta], None]
    write: Callable[[Checkpoint, Path], None]
    open: Callable[[Path, Meta], tuple[libraries.Infer, str]]
    write_int8: Callable[[Checkpoint, Path, Quantization], None] | None = None


FORMATS = {
    "torchvision": Format(libraries.refuse_torchvision, libraries.write_torchvision, libraries.open_torchvision),
    "huggingface": Format(libraries.refuse_huggingface, libraries.write_huggingface, libraries.open_huggingface),
    "onnx": Format(deploy.refuse_none, deploy.write_onnx, partial(deploy.opened, form="onnx"), deploy.write_onnx),
    "openvino": Format(
        deploy.refuse_none, deploy.write_openvino, partial(deploy.opened, form="openvino"), deploy.write_openvino
    ),
    "ncnn": Format(deploy.refuse_sounds, deploy.write_ncnn, partial(deploy.opened, form="ncnn")),
    "native": Format(
        deploy.refuse_sounds, deploy.write_native, partial(deploy.opened, form="native"), deploy.write_native
    ),
    "torchscript": Format(deploy.refuse_sounds, torchfiles.write_torchscript, torchfiles.open_torchscript),
    "safetensors": Format(deploy.refuse_sounds, torchfiles.write_safetensors, torchfiles.open_safetensors),
}


@dataclass(frozen=True)
class Evidence:
    """Images on which an export is compared with its model.

    Attributes:
        source: what they are, in words.
        pixels: as the model's preprocess gives them [N, size, size, C].
        targets: truth as the task has it [N] or [N, K]; None where it is not known.
    """

    source: str
    pixels: NDArray[Any]
    targets: NDArray[np.integer] | None = None


@dataclass(frozen=True)
class Proof:
    """How an export compares with its model.

    Attributes:
        source: what the images were.
        difference: largest one of two logits, as a share of the largest logit.
        agreement: share of images with the same answer.
        latency: of one image in its own runtime, ms; the median.
    """

    source: str
    difference: float
    agreement: Metric
    latency: float


@dataclass(frozen=True)
class Exported:
    """A model that was written in another format.

    Attributes:
        folder: where it lies.
        format: key of FORMATS.
        opened_in: what opened it for the proof, with its version.
        proof: how it compares with its model.
        size: bytes of all its files, the golden picture's apart.
        precision: "f32", or "int8".
        int8: what that cost and brought; nothing where it is float32.
        pushed: address on the Hub, if it was uploaded.
    """

    folder: Path
    format: str
    opened_in: str
    proof: Proof
    size: int
    precision: str = FLOAT32
    int8: dict[str, Any] = field(default_factory=dict)
    pushed: str = ""

    @property
    def difference(self) -> float:
        """Largest one of two logits, as a share of the largest logit."""
        return self.proof.difference

    def as_dict(self) -> dict[str, Any]:
        """As `--json` prints it, and as proof.json."""
        return {**asdict(self), "folder": str(self.folder)}


def format_named(name: str) -> Format:
    """The format of this name.

    Raises:
        UsageError: there is none.
    """
    if name not in FORMATS:
        raise UsageError(f"there is no format {name!r}", fix=f"one of {', '.join(FORMATS)}")
    return FORMATS[name]


def write_export(
    model: Model, name: str, folder: Path, evidence: Evidence | None = None, *, overwrite: bool = False
) -> Exported:
    """Write a model in a format, prove it, and publish the folder by one rename.

    Args:
        model: run by the torch backend on the CPU: its logits are the measure.
        name: of the format, which can hold the model.
        folder: to be made.
        evidence: images to compare both on; synthetic ones besides, or alone.
        overwrite: rename an older one aside, once the new one is proven.

    Raises:
        IncompleteError: what was written gives other logits; then nothing is published.
        ResourceError: the folder exists, or the disk refuses.
    """
    form, meta = format_named(name), model.checkpoint.meta
    with new_folder(folder, needed=bytes_of(model)) as temporary:
        form.write(model.checkpoint, temporary)
        infer, opened_in = form.open(temporary, meta)
        found = prove(model, infer, opened_in, evidence)
        done = Exported(folder, name, opened_in, found, size_of(temporary))
        write_json(temporary / PROOF, {**done.as_dict(), "folder": folder.name})
        if overwrite:
            set_aside(folder)
    return done


def bytes_of(model: Model | SceneModel) -> int:
    """Of its tensors."""
    return sum(array.nbytes for array in model.checkpoint.tensors.values())


def size_of(folder: Path) -> int:
    """Bytes of the files of an export, the golden picture's apart."""
    return sum(path.stat().st_size for path in folder.iterdir() if not path.name.startswith(deploy.GOLDEN))


def prove(model: Model, infer: libraries.Infer, opened_in: str, evidence: Evidence | None = None) -> Proof:
    """Compare logits on batches of 1, 2 and 7 synthetic images, then on those given.

    Raises:
        IncompleteError: two differ by more than 1e-3 of the largest, or a synthetic image has another top-1.
    """
    images, worst, same = probe(model), 0.0, True
    for size in BATCH_SIZES:
        ours, theirs = model.backend(images[:size]), infer(images[:size])
        same = same and ours.shape == theirs.shape and np.array_equal(ours.argmax(1), theirs.argmax(1))
        worst = max(worst, relative_difference(ours, theirs))
    if same and evidence is not None:
        ours, theirs = in_batches(model.backend, evidence.pixels), in_batches(infer, evidence.pixels)
        worst = max(worst, relative_difference(ours, theirs))
    if same and worst <= MOST:  # within which only near ties can have another answer
        source = evidence.source if evidence is not None else f"{len(images)} synthetic {model.task.modality.noun}"
        return Proof(source, worst, agreement(model, ours, theirs), latency(infer, images[:1]))
    what = f"opened in {opened_in} it gives other logits: a difference of {worst:.1e} of the largest logit"
    what += "" if same else ", another top-1"
    raise IncompleteError(f"{what}; nothing was written", path=model.checkpoint.folder, fix="report it as a bug")


def agreement(model: Model, ours: NDArray[np.floating], theirs: NDArray[np.floating]) -> Metric:
    """Share of images with the same answer from logits [N, K]: the class on top, or each of several labels."""
    several = model.task.target is LABELS
    equal = ((ours >= 0) == (theirs >= 0)).all(1) if several else ours.argmax(1) == theirs.argmax(1)
    return wilson(int(equal.sum()), len(equal))


def in_batches(
    infer: libraries.Infer, pixels: NDArray[Any], advance: Callable[[int], None] = lambda done: None
) -> NDArray[np.float32]:
    """Logits [N, K] of any number of images; `advance` is called with the number of images done."""
    found = []
    for start in range(0, len(pixels), BATCH):
        found.append(infer(pixels[start : start + BATCH]))
        advance(min(start + BATCH, len(pixels)))
    return np.concatenate(found)


def latency(infer: libraries.Infer, image: NDArray[Any]) -> float:
    """Median time of one image, ms, after a call that does not count."""
    infer(image)
    times: list[float] = []
    while len(times) < CALLS and sum(times) < SECONDS:
        started = time.perf_counter()
        infer(image)
        times.append(time.perf_counter() - started)
    return 1e3 * float(np.median(times))


def probe(model: Model) -> NDArray[Any]:
    """Seven images [7, size, size, C] of coloured squares with noise, or of `probes`, always the same."""
    rng = np.random.default_rng(0)
    if model.task.modality is not IMAGE:
        return probes(model.preprocess, max(BATCH_SIZES))
    size, channels = model.preprocess.size, model.preprocess.channels
    square = np.arange(size) * 8 // size
    colours = rng.normal(127, 60, (max(BATCH_SIZES), 8, 8, channels))[:, square[:, None], square]
    pixels: Pixels = (colours + rng.normal(0, 30, colours.shape)).clip(0, 255).astype(np.uint8)
    return pixels
