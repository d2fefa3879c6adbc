"""embed: files to what a network makes of them, as an array with the files' names, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from resnetkit import run
from resnetkit.data.image import Pixels
from resnetkit.data.sources import Line
from resnetkit.errors import DataError, Interrupted, UsageError, printable
from resnetkit.files import new_file, resource_errors, set_aside
from resnetkit.runtime import pipeline
from resnetkit.runtime.model import Model, load_classifier
from resnetkit.tasks.task import IMAGE, SOUND
from resnetkit.verbs.console import bar, note, stop_signals
from resnetkit.verbs.predict import sources_of

Floats = NDArray[np.float32]
Features = Callable[[Pixels], Floats]  # a batch [N, size, size, C] to [N, D]

EMBEDDING = "embedding"


@dataclass(frozen=True)
class Form:
    """What features can be written as; the files are those of `endings`, open for writing.

    Attributes:
        endings: of the files' names, the first one that of `out`.
        begin: writes what comes before the rows; takes the files and the width.
        add: writes a row; takes the files, the row's number from 0, the path and the features [D].
        end: writes what is known at the end; takes the files, the number of rows and the width.
    """

    endings: tuple[str, ...]
    begin: Callable[[Sequence[BinaryIO], int], None]
    add: Callable[[Sequence[BinaryIO], int, Path | Line, Floats], None]
    end: Callable[[Sequence[BinaryIO], int, int], None]


@dataclass(frozen=True)
class Embedded:
    """The features of many files, written to one.

    Attributes:
        out: the file, .npy or .csv.
        rows: number of files that could be read, in the order of the inputs.
        width: number of features of each.
        failed: why each of the others could not be read.
    """

    out: Path
    rows: int
    width: int
    failed: tuple[DataError, ...]


def embed(
    model: str | Path | Model,
    inputs: Sequence[str | Path],
    *,
    out: str | Path,
    stage: str = EMBEDDING,
    device: str = "auto",
    overwrite: bool = False,
    quiet: bool = False,
) -> Embedded:
    """Write the features of any number of files.

    Args:
        model: a run folder, a model folder, or what `load` returned.
        inputs: files, folders (searched deep), globs, or "-" for a list of paths on standard input, one a line.
        out: a .npy for float32 [n, D], with a .csv of `row,path` of the same name beside it; or a .csv of
            `path,f0,f1,...`.
        stage: "embedding", the input of the last layer; or "layer1" .. "layer4", the mean over space of a stage's maps.
        device: where, "auto", "cpu", "cuda", ...
        overwrite: move older files of these names aside.
        quiet: no notes and no progress on stderr.

    Returns:
        How much was written, and the files that could not be read, which are in no row.

    Raises:
        UsageError: `out` has another ending, exists, or is one of the inputs; there is no such stage.
        DataError: an input matches no file.
        ModelError, ResourceError: see `errors`; nothing is left then.
    """
    form = _form(Path(out))
    targets = [Path(out), *(Path(out).with_suffix(ending) for ending in form.endings[1:])]
    _refuse_existing(targets, overwrite)
    opened = model if isinstance(model, Model) else load_classifier(model, device=device)
    features = _features(opened, stage)
    paths = sources_of(opened, inputs)
    _refuse_own_inputs(targets, [path for path in paths if isinstance(path, Path)])
    with resource_errors(out):
        Path(out).parent.mkdir(parents=True, exist_ok=True)
    return _write(opened, features, paths, (form, targets), quiet)


def _form(out: Path) -> Form:
    """The form that the ending of a file's name asks for."""
    form = next((form for form in FORMS if form.endings[0] == out.suffix.lower()), None)
    if form is None:
        raise UsageError("is neither .npy nor .csv", path=out, fix="--out features.npy or --out features.csv")
    return form


def _refuse_existing(targets: Sequence[Path], overwrite: bool) -> None:
    for path in targets:
        with resource_errors(path):
            there, folder = path.exists(), path.is_dir()
        if folder or (there and not overwrite):
            fix = "choose another --out" if folder else "--overwrite to move it aside, or another --out"
            raise UsageError("is a folder" if folder else "exists already", path=path, fix=fix)


def _refuse_own_inputs(targets: Sequence[Path], paths: Sequence[Path]) -> None:
    """Refuse to move aside what is to be read: a .npy may be an image of many bands."""
    names = {path.name for path in targets}
    own = {path.resolve() for path in targets}
    for path in paths:
        if path.name in names and path.resolve() in own:
            raise UsageError("is one of the inputs", path=path, fix="choose another --out")


def stages_of(model: Model) -> list[str]:
    """What features can be had of: the embedding and the stages of the network."""
    if model.task.modality is not IMAGE:
        return [EMBEDDING]
    parts = {name.partition(".")[0] for name in model.checkpoint.tensors}
    return [EMBEDDING, *sorted(part for part in parts if part.startswith("layer"))]


def _features(model: Model, stage: str) -> Features:
    """From batches to features; torch is needed for a stage only.

    Raises:
        UsageError: the network has no such stage.
    """
    if stage not in stages_of(model):
        raise UsageError(f"there is no stage {stage!r}", fix=f"one of {', '.join(stages_of(model))}")
    if stage == EMBEDDING:
        return lambda batch: model.backend.outputs(batch)[1]
    import torch

    from resnetkit.nn.cut import front
    from resnetkit.nn.resnet import ResNet
    from resnetkit.trust.explain import network_of

    network, device = network_of(model)
    assert isinstance(network, ResNet), "others have no such stages"
    part = front(network, stage)

    def means(batch: Pixels) -> Floats:
        with torch.inference_mode():
            found: Floats = part(torch.from_numpy(model.normalise(batch)).to(device)).mean((2, 3)).float().cpu().numpy()
        return found

    return means


def _rows(
    model: Model, features: Features, paths: Sequence[Path | Line]
) -> Iterator[tuple[Path | Line, Floats | DataError]]:
    """The features [D] of each file in order, or why it cannot be read; bounded memory for any number."""
    if model.task.modality is SOUND:  # of a long recording the mean over its windows
        return model.embeddings(paths)
    return pipeline.run(paths, model.read, features)


def _write(
    model: Model, features: Features, paths: Sequence[Path | Line], how: tuple[Form, Sequence[Path]], quiet: bool
) -> Embedded:
    """Write the features of all files under temporary names, which become the targets at the end."""
    form, targets = how
    # asked of the network itself: it holds where no file can be read, too
    width = features(np.ones((1, *model.preprocess.shape), model.preprocess.dtype)).shape[1]
    failed: list[DataError] = []
    with ExitStack() as stack:
        files = [stack.enter_context(new_file(path)) for path in targets]
        form.begin(files, width)
        signals = stack.enter_context(stop_signals())
        advance = stack.enter_context(bar("embedding", len(paths), quiet=quiet))
        for done, (path, row) in enumerate(_rows(model, features, paths)):
            if isinstance(row, DataError):
                failed.append(row)
            else:
                form.add(files, done - len(failed), path, row)
            advance(done + 1)
            if signals.received:
                raise Interrupted(signals.received, path=targets[0], fix="nothing was written")
        rows = len(paths) - len(failed)
        form.end(files, rows, width)
        _set_aside(targets, quiet)
    return Embedded(targets[0], rows, width, tuple(failed))


def _set_aside(targets: Sequence[Path], quiet: bool) -> None:
    for path in targets:
        aside = set_aside(path)
        if aside:
            note(f"{path}: moved aside to {aside}", quiet)


def _cell(path: Path | Line) -> str:
    """A path as a CSV cell, as `predict` writes it."""
    return run.as_csv(["path"], [{"path": printable(path)}]).partition("\n")[2].rstrip("\n")


def _begin_csv(files: Sequence[BinaryIO], width: int) -> None:
    files[0].write(run.as_csv(["path", *(f"f{i}" for i in range(width))], ()).encode())


def _add_csv(files: Sequence[BinaryIO], number: int, path: Path | Line, row: Floats) -> None:
    values = ",".join(f"{value:.9g}" for value in row)  # nine digits give every float32 back
    files[0].write(f"{_cell(path)},{values}\n".encode())


def _begin_npy(files: Sequence[BinaryIO], width: int) -> None:
    _npy_header(files[0], 0, width)
    files[1].write(b"row,path\n")


def _add_npy(files: Sequence[BinaryIO], number: int, path: Path | Line, row: Floats) -> None:
    files[0].write(row.astype("<f4").tobytes())
    files[1].write(f"{number},{_cell(path)}\n".encode())


def _end_npy(files: Sequence[BinaryIO], rows: int, width: int) -> None:
    """Numpy leaves room in a header for the number of rows to grow, so this one is as long as the first."""
    files[0].seek(0)
    _npy_header(files[0], rows, width)


def _npy_header(file: BinaryIO, rows: int, width: int) -> None:
    told = {"descr": "<f4", "fortran_order": False, "shape": (rows, width)}
    np.lib.format.write_array_header_1_0(file, told)


FORMS = (
    Form((".npy", ".csv"), _begin_npy, _add_npy, _end_npy),
    Form((".csv",), _begin_csv, _add_csv, lambda files, rows, width: None),
)
