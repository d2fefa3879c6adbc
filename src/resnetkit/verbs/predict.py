"""predict: files, folders, globs and lists to answers, in their order and in bounded memory."""

from __future__ import annotations

import glob
import io
import os
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path
from typing import Any

from natsort import natsorted

from resnetkit import run
from resnetkit.data.image import picture
from resnetkit.data.pairs import is_pairs
from resnetkit.data.sources import Line
from resnetkit.data.tokens import excerpt
from resnetkit.errors import DataError, UsageError, printable
from resnetkit.files import resource_errors, write
from resnetkit.runtime.model import Model, load, load_classifier
from resnetkit.runtime.scenes import SceneModel
from resnetkit.tasks.boxes import SURE, Boxes
from resnetkit.tasks.classes import Prediction
from resnetkit.tasks.masks import Mask
from resnetkit.tasks.task import IMAGE, SOUND, TEXT
from resnetkit.verbs import many
from resnetkit.verbs.console import bar
from resnetkit.verbs.verify import Pair, verified

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
) -> Iterator[Prediction | Boxes | Mask | Pair | DataError]:
    """Predict any number of files.

    Args:
        model: a run folder, a model folder, or what `load` returned.
        inputs: files, folders (searched deep), globs, or "-" for a list of paths on standard input, one a line. For a
            model of texts also tables, of which each line is one, and texts themselves, which hold a space. For a model
            of sounds a CSV of a,b[,same][,speaker_a,speaker_b]: then each answer is a Pair.
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
    if isinstance(opened, Model) and opened.task.modality is SOUND and [*map(is_pairs, map(Path, inputs))] == [True]:
        yield from verified(opened, Path(inputs[0]), quiet)
        return
    sources = sources_of(opened, inputs)
    done_before = [path for path in sources if skip and printable(str(path)) in skip]
    paths = [path for path in sources if not skip or printable(str(path)) not in skip]
    most = TOP if isinstance(opened, Model) else MOST
    call = many.Call(most if top is None else top, coverage, backend, device, mirror)
    answers = _answers(opened, paths, call, scale)
    pictures = _pictures(opened, draw, done_before)
    with bar("predicting", len(paths), quiet=quiet) as advance:
        for done, (path, answer) in enumerate(answers, 1):
            if pictures and isinstance(answer, Boxes | Mask):
                pictures.add(path, answer)
            yield answer
            advance(done)


def _answers(
    opened: Model | SceneModel, paths: Sequence[Path | Line], call: many.Call, scale: many.Scale
) -> Iterator[tuple[Any, Any]]:
    """Each input and its answer, made here or by the machines of a Ray cluster."""
    if isinstance(opened, Model) and scale.engine == "ray":
        refuse_all_but_images(opened, "Ray", "leave scale.engine out")
        return many.predictions(opened, [path for path in paths if isinstance(path, Path)], call, scale)
    return opened.predictions(paths, call.top, call.coverage)


@dataclass
class Pictures:
    """Answers drawn over their images, in a folder, under the images' names; of two with one name the second gets _2.

    Attributes:
        folder: of the pictures.
        classes: names, which have colours by their order.
        used: names of pictures that were given away, in lower case.
    """

    folder: Path
    classes: Sequence[str]
    used: set[str] = field(default_factory=set)

    def add(self, path: Path, answer: Boxes | Mask) -> None:
        """One more; a mask is also written as PNG of class indices."""
        stem = self.name_for(path)
        buffer = io.BytesIO()
        answer.drawn(picture(path, DRAWN), SURE, self.classes).save(buffer, "JPEG", quality=90)
        write(self.folder / f"{stem}.jpg", buffer.getvalue())
        if isinstance(answer, Mask):
            write(self.folder / f"{stem}.png", answer.png())

    def name_for(self, path: Path) -> str:
        """A name that no picture of this folder has yet."""
        names = chain([path.stem], (f"{path.stem}_{number}" for number in count(2)))
        found = next(name for name in names if name.casefold() not in self.used)
        self.used.add(found.casefold())
        return found


def _pictures(model: Model | SceneModel, draw: str | Path | None, done: Sequence[Path | Line]) -> Pictures | None:
    """Where answers are drawn; those that are `done`, by an earlier call, keep their names."""
    if draw is None:
        return None
    if isinstance(model, Model):
        raise UsageError("--draw is for boxes and masks", fix="resnetkit explain shows what a model looks at")
    if not done:
        run.refuse(Path(draw), fix="choose another --draw")
    with resource_errors(draw):
        Path(draw).mkdir(parents=True, exist_ok=True)
    pictures = Pictures(Path(draw), model.classes)
    for path in done:
        pictures.name_for(Path(path))
    return pictures


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


def sources_of(model: Model | SceneModel, inputs: Sequence[str | Path]) -> list[Path | Line]:
    """What the inputs name: files; for a model of texts also each line of a table, and a text itself.

    An input that is the name of nothing is a text if it holds a space.
    """
    modality, found = model.task.modality, list[Path | Line]()
    for each in inputs:
        if modality is TEXT and " " in str(each) and not os.path.exists(each):
            found.append(Line(excerpt(str(each)), str(each)))
            continue
        for path in expand([each], modality.extensions, modality.noun):
            found += modality.inputs(path)
    return found


def refuse_all_but_images(model: Model, verb: str, fix: str) -> None:
    """Refuse a model of sounds or texts where a verb knows images only.

    Raises:
        UsageError: it is one.
    """
    if model.task.modality is not IMAGE:
        what = f"{verb} is for models of images, and this is one of {model.task.modality.noun}"
        raise UsageError(what, path=model.checkpoint.folder, fix=fix)


def expand(inputs: Sequence[str | Path], extensions: Sequence[str], noun: str = "images") -> Iterator[Path]:
    """The files that the inputs name; a file named by itself is taken whatever its ending."""
    for text in inputs:
        if str(text) == "-":
            yield from _listed()
            continue
        path = Path(text)
        if path.is_dir():
            found = list(_below(path, extensions))
            if not found:
                raise DataError(f"holds no {noun}", path=path, fix=f"files ending in {' '.join(extensions)}")
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
