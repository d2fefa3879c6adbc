"""predict: files, folders, globs and lists to answers, in their order and in bounded memory."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from natsort import natsorted

from resnetkit.data.pairs import is_pairs
from resnetkit.data.sources import Line
from resnetkit.data.tokens import excerpt
from resnetkit.errors import DataError, UsageError, printable
from resnetkit.runtime.model import Model, load
from resnetkit.tasks.classes import Prediction
from resnetkit.tasks.task import IMAGE, SOUND, TEXT
from resnetkit.verbs import many
from resnetkit.verbs.console import bar
from resnetkit.verbs.verify import Pair, verified


def predict(
    model: str | Path | Model,
    inputs: Sequence[str | Path],
    *,
    top: int = 5,
    backend: str = "auto",
    device: str = "auto",
    mirror: bool = False,
    coverage: float | None = None,
    skip: Collection[str] = (),
    settings: Mapping[str, Any] | None = None,
    quiet: bool = True,
) -> Iterator[Prediction | Pair | DataError]:
    """Predict any number of files.

    Args:
        model: a run folder, a model folder, or what `load` returned.
        inputs: files, folders (searched deep), globs, or "-" for a list of paths on standard input, one a line. For a
            model of texts also tables, of which each line is one, and texts themselves, which hold a space. For a model
            of sounds a CSV of a,b[,same][,speaker_a,speaker_b]: then each answer is a Pair.
        top: number of classes in each answer.
        backend: what runs the network, "auto" (the fastest), "torch", "onnxruntime", "openvino" or "ncnn".
        device: where, "auto", "cpu", "cuda", ...
        mirror: answer with the mean over an image and its mirror image, in twice the time.
        coverage: give the set of classes that holds the true one with this probability, 0..1, too.
        skip: printable paths of inputs that are passed over.
        settings: "scale.engine": "ray" for many machines, "scale.workers": how many processes there.
        quiet: no progress on stderr.

    Yields:
        A Prediction for each file, in the order of the inputs, or the DataError of one that could not be read.

    Raises:
        DataError: an input matches no file.
        ModelError: the model is refused.
        ResourceError: what is asked for is not installed or not there.
        UsageError: `top` is under 1, `mirror` or Ray is asked of a model that is open already, the model was calibrated
            on too few images for the coverage, or on none, or there is no such setting.
    """
    scale = many.scale_from(settings or {})
    opened = _opened(model, backend, device, mirror, scale)
    if opened.task.modality is SOUND and len(inputs) == 1 and is_pairs(Path(inputs[0])):
        yield from verified(opened, Path(inputs[0]), quiet)
        return
    paths = sources_of(opened, inputs)
    if skip:
        paths = [path for path in paths if printable(str(path)) not in skip]
    call = many.Call(top, coverage, backend, device, mirror)
    ray = scale.engine == "ray"
    if ray and opened.task.modality is not IMAGE:
        raise UsageError(f"Ray is for images, not for {opened.task.modality.noun}", fix="leave scale.engine out")
    files = [path for path in paths if isinstance(path, Path)]
    answers = many.predictions(opened, files, call, scale) if ray else opened.predictions(paths, top, coverage)
    with bar("predicting", len(paths), quiet=quiet) as advance:
        for done, (_, answer) in enumerate(answers, 1):
            yield answer
            advance(done)


def _opened(model: str | Path | Model, backend: str, device: str, mirror: bool, scale: many.Scale) -> Model:
    """The model; for Ray on the CPU of this machine, which need not have what the others have."""
    if scale.engine == "ray":
        if isinstance(model, Model):
            raise UsageError("Ray's workers open the model themselves", fix="give its folder")
        many.refuse_one_gpu(device)
        many.import_ray()  # what is missing is told before anything else is done
        device = "cpu"
    elif isinstance(model, Model):
        if mirror:
            raise UsageError("mirror is for a model that is opened here", fix="load(..., mirror=True)")
        return model
    return load(model, backend=backend, device=device, mirror=mirror)


def sources_of(model: Model, inputs: Sequence[str | Path]) -> list[Path | Line]:
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
