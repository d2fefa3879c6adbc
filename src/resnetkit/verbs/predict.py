"""predict: files, folders, globs and lists to answers, in their order and in bounded memory."""

from __future__ import annotations

import glob
import io
import os
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from natsort import natsorted

from resnetkit import run
from resnetkit.data.image import picture
from resnetkit.errors import DataError, UsageError, printable
from resnetkit.files import resource_errors, write
from resnetkit.runtime.model import Model, load, load_classifier
from resnetkit.runtime.scenes import SceneModel
from resnetkit.tasks.boxes import SURE, Boxes
from resnetkit.tasks.classes import Prediction
from resnetkit.tasks.masks import Mask
from resnetkit.verbs import many
from resnetkit.verbs.console import bar

TOP, MOST = 5, 100  # classes, and boxes, in an answer
DRAWN = 2048  # px of a picture's long side, at most


def predict(
    model: str | Path | Model | SceneModel,
    inputs: Sequence[str | Path],
    *,
    top: int | None = None,
    backend: str = "auto",
    device: str = "auto",
    mirror: bool = False,
    coverage: float | None = None,
    skip: Collection[str] = (),
    settings: Mapping[str, Any] | None = None,
    draw: str | Path | None = None,
    quiet: bool = True,
) -> Iterator[Prediction | Boxes | Mask | DataError]:
    """Predict any number of files.

    Args:
        model: a run folder, a model folder, or what `load` returned.
        inputs: files, folders (searched deep), globs, or "-" for a list of paths on standard input, one a line.
        top: number of classes in each answer, 5 if left out, or most boxes, 100.
        backend: what runs the network, "auto" (the fastest), "torch", "onnxruntime", "openvino", "ncnn" or "native".
        device: where, "auto", "cpu", "cuda", ...
        mirror: answer with the mean over an image and its mirror image, in twice the time.
        coverage: give the set of classes that holds the true one with this probability, 0..1, too.
        skip: printable paths of inputs that are passed over.
        settings: "scale.engine": "ray" for many machines, "scale.workers": how many processes there.
        draw: a new folder for the images with their boxes or masks drawn over them, and masks as PNG of indices.
        quiet: no progress on stderr.

    Yields:
        A Prediction, Boxes or Mask for each file, in the order of the inputs, or the DataError of one that could not be
            read.

    Raises:
        DataError: an input matches no file.
        ModelError: the model is refused.
        ResourceError: what is asked for is not installed or not there.
        UsageError: `top` is under 1, `mirror` or Ray is asked of a model that is open already, the model was calibrated
            on too few images for the coverage, or on none, or there is no such setting.
    """
    scale = many.scale_from(settings or {})
    opened = _opened(model, backend, device, mirror, scale)
    paths = list(expand(inputs, opened.task.modality.extensions))
    if skip:
        paths = [path for path in paths if printable(path) not in skip]
    most = TOP if isinstance(opened, Model) else MOST
    most = most if top is None else top
    if isinstance(opened, Model) and scale.engine == "ray":
        call = many.Call(most, coverage, backend, device, mirror)
        answers: Iterator[tuple[Any, Any]] = many.predictions(opened, paths, call, scale)
    else:
        answers = opened.predictions(paths, most, coverage)
    pictures = _pictures(opened, draw)
    with bar("predicting", len(paths), quiet=quiet) as advance:
        for done, (path, answer) in enumerate(answers, 1):
            if pictures and isinstance(answer, Boxes | Mask):
                pictures.add(path, answer)
            yield answer
            advance(done)


@dataclass
class Pictures:
    """Answers drawn over their images, in a folder, under the images' names; of two with one name the second gets _2.

    Attributes:
        folder: of the pictures.
        classes: names, which have colours by their order.
        used: how often each name was there.
    """

    folder: Path
    classes: Sequence[str]
    used: Counter[str] = field(default_factory=Counter)

    def add(self, path: Path, answer: Boxes | Mask) -> None:
        """One more; a mask is also written as PNG of class indices."""
        self.used[path.stem] += 1
        stem = path.stem if self.used[path.stem] == 1 else f"{path.stem}_{self.used[path.stem]}"
        buffer = io.BytesIO()
        answer.drawn(picture(path, DRAWN), SURE, self.classes).save(buffer, "JPEG", quality=90)
        write(self.folder / f"{stem}.jpg", buffer.getvalue())
        if isinstance(answer, Mask):
            write(self.folder / f"{stem}.png", answer.png())


def _pictures(model: Model | SceneModel, draw: str | Path | None) -> Pictures | None:
    if draw is None:
        return None
    if isinstance(model, Model):
        raise UsageError("--draw is for boxes and masks", fix="resnetkit explain shows what a model looks at")
    run.refuse(Path(draw), fix="choose another --draw")
    with resource_errors(draw):
        Path(draw).mkdir(parents=True)
    return Pictures(Path(draw), model.classes)


def _opened(
    model: str | Path | Model | SceneModel, backend: str, device: str, mirror: bool, scale: many.Scale
) -> Model | SceneModel:
    """The model; for Ray on the CPU of this machine, which need not have what the others have."""
    if scale.engine == "ray":
        if isinstance(model, Model | SceneModel):
            raise UsageError("Ray's workers open the model themselves", fix="give its folder")
        many.refuse_one_gpu(device)
        many.import_ray()  # what is missing is told before anything else is done
        return load_classifier(model, backend=backend, device="cpu", mirror=mirror)
    if isinstance(model, Model | SceneModel):
        if mirror:
            raise UsageError("mirror is for a model that is opened here", fix="load(..., mirror=True)")
        return model
    return load(model, backend=backend, device=device, mirror=mirror)


def expand(inputs: Sequence[str | Path], extensions: Sequence[str]) -> Iterator[Path]:
    """The files that the inputs name; a file named by itself is taken whatever its ending."""
    for text in inputs:
        if str(text) == "-":
            yield from _listed()
            continue
        path = Path(text)
        if path.is_dir():
            found = list(_below(path, extensions))
            if not found:
                raise DataError("holds no images", path=path, fix=f"files ending in {' '.join(extensions)}")
            yield from found
        elif path.exists() or not glob.has_magic(str(text)):
            yield path
        else:
            matches = natsorted(glob.glob(str(text), recursive=True))
            if not matches:
                raise DataError("matches no file", path=str(text), fix="check the pattern")
            yield from (Path(match) for match in matches if not os.path.isdir(match))


def _listed() -> Iterator[Path]:
    """Paths on standard input, byte for byte, one a line."""
    for line in sys.stdin.buffer:
        name = os.fsdecode(line.rstrip(b"\r\n"))
        if name:
            yield Path(name)


def _below(folder: Path, extensions: Sequence[str]) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = natsorted(name for name in folders if not name.startswith("."))
        for name in natsorted(files):
            if Path(name).suffix.lower() in extensions and not name.startswith("."):
                yield Path(parent, name)
