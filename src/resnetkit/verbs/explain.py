"""explain: inputs to what the model looked at, heard or read in them, and the training samples most like them."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from resnetkit import recipe as recipes
from resnetkit import run
from resnetkit.data.dataset import Dataset
from resnetkit.data.sources import Line
from resnetkit.errors import DataError, UsageError
from resnetkit.files import resource_errors, set_aside, write
from resnetkit.ops.calibration import unit
from resnetkit.runtime.model import Model, load_classifier
from resnetkit.runtime.pipeline import read_ahead
from resnetkit.tasks.task import SOUND, TEXT
from resnetkit.trust.evidence import Bank
from resnetkit.trust.explain import AHEAD, Look, Wanted, drawn, looks
from resnetkit.trust.explanation import Explanation, columns, rows, write_page
from resnetkit.trust.senses import SENSES, marked
from resnetkit.trust.spectra import heard
from resnetkit.verbs.console import bar, note
from resnetkit.verbs.eval import part_of, run_of, run_on
from resnetkit.verbs.predict import sources_of

TABLE, PAGE = "explained.csv", "index.html"
STEM = 40  # characters of an input's name in that of its overlay: what four bytes each leave room for
KNOWN = 20  # classes in a message


def explain(
    model: str | Path | Model,
    inputs: Sequence[str | Path],
    *,
    out: str | Path,
    label: str | None = None,
    evidence: str | Path | None = None,
    nearest: int = 4,
    device: str = "auto",
    overwrite: bool = False,
    quiet: bool = False,
) -> list[Explanation | DataError]:
    """Show what speaks for a class in each image (Grad-CAM, arXiv 1610.02391), and the nearest training images.

    Of sounds the map lies over their spectrum; of texts each span of words is left out, and the logit asked again.

    Args:
        model: a run folder, a model folder, or what `load` returned.
        inputs: files, folders (searched deep), globs, or "-" for a list of paths on standard input, one a line; for a
            model of texts also tables and texts themselves, as for `predict`.
        out: folder for a PNG an input (none of texts), explained.csv and index.html; must not hold anything.
        label: the class to explain, by its name; the predicted one of each image if left out.
        evidence: training images, a folder of class folders, an archive of them, or a CSV; those that the run was
            trained on if left out, where they are still there.
        nearest: how many training images to show beside each image; 0 for none.
        device: where, "auto", "cpu", "cuda", ...
        overwrite: move an older folder aside.
        quiet: no notes and no progress on stderr.

    Returns:
        An Explanation for each file, in the order of the inputs, or the DataError of one that could not be read.

    Raises:
        UsageError: there is no such class, or the folder holds something.
        DataError: an input matches no file, or the evidence cannot be used.
        ModelError, ResourceError: see `errors`.
    """
    folder = Path(out)
    if nearest < 0:
        raise UsageError(f"nearest = {nearest}", fix="give 0 or more")
    run.refuse(folder, overwrite=overwrite, fix="--overwrite to move it aside, or another --out")
    opened = model if isinstance(model, Model) else load_classifier(model, backend="torch", device=device)
    index = None if label is None else _index(opened, label)
    paths = sources_of(opened, inputs)
    part = _training_images(opened, evidence, quiet) if nearest else None
    read = [Path(each) for each in inputs if Path(each).exists()]
    own = (opened.checkpoint.folder, *read, *(Path(path) for path in paths), *([part.root] if part else []))
    _refuse_to_move(folder, own)
    bank = None if part is None else _bank(opened, part, quiet)
    aside = set_aside(folder) if overwrite else None
    if aside:
        note(f"{folder}: moved aside to {aside}", quiet)
    with resource_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    found = _explained(Work(opened, folder, len(paths), bank, nearest), paths, index, quiet)
    if any(isinstance(each, Explanation) and each.cells == (1, 1) for each in found):
        note("take care: at this size the last stage has a single cell: maps tell no place from another", quiet)
    return found


def _explained(
    work: Work, paths: Sequence[Path | Line], index: int | None, quiet: bool
) -> list[Explanation | DataError]:
    """Explain every input, and write the table and the page."""
    bank, noun = work.bank, work.model.task.modality.noun
    texts = noun == TEXT.noun
    answers = work.read(paths, index) if texts else _looked(work, ((path, index) for path in paths))
    found: list[Explanation | DataError] = []
    with bar("explaining", len(paths), quiet=quiet) as advance:
        for each in answers:
            found.append(each)
            advance(len(found))
    most = min(work.nearest, len(bank.rows)) if bank else 0
    write(work.folder / TABLE, run.as_csv(columns(most, "words" if texts else "overlay"), rows(found)))
    write_page(work.folder / PAGE, found, str(bank.dataset.root) if bank else "", (noun, SENSES[noun]))
    return found


def _index(model: Model, label: str) -> int:
    if label not in model.classes:
        known = ", ".join(model.classes[:KNOWN]) + (" ..." if len(model.classes) > KNOWN else "")
        raise UsageError(f"the model does not know the class {label!r}", fix=f"it knows {known}")
    return model.classes.index(label)


def _refuse_to_move(folder: Path, own: Iterable[Path]) -> None:
    """Refuse a folder that holds what is to be read, which would be moved aside with it."""
    if not folder.exists():
        return
    outside = folder.resolve()
    for path in own:
        if path.resolve().is_relative_to(outside):
            raise UsageError(f"holds {path}, which is to be read", path=folder, fix="choose another --out")


def _training_images(model: Model, evidence: str | Path | None, quiet: bool) -> Dataset | None:
    """The images that the nearest ones are looked for among; None, with a note why, where there are none."""
    folder = model.checkpoint.folder
    if evidence is not None:
        return _given(model, Path(evidence), quiet)
    own = run_of(folder)
    if own is None:
        note(f"{folder}: does not say what it was trained on: no nearest training data (--evidence DATA)", quiet)
        return None
    source = Path(recipes.read(own / run.RECIPE).data.source)
    if not source.exists():
        note(f"{source}: is not there any more: no nearest training data (--evidence DATA)", quiet)
        return None
    try:
        part = part_of(model, own, source, "train")[2]
    except DataError as error:
        note(f"{source}: {error.what}: no nearest training data (--evidence DATA)", quiet)
        return None
    note(
        f"{source}: the nearest of its {len(part):,} training {part.noun} stand beside each (--nearest 0: none)", quiet
    )
    return part


def _given(model: Model, source: Path, quiet: bool) -> Dataset:
    """The training images of a source: as the run has cut them, or as it says itself, or all."""
    own = run_on(model.checkpoint.folder, source)
    if own is not None:
        try:
            return part_of(model, own, source, "train")[2]
        except DataError as error:
            note(f"{source}: {error.what}: the nearest images are of all there are", quiet)
    dataset = part_of(model, None, source, "all")[0]
    return dataset.select("train") if dataset.num_samples("train") else dataset


def _bank(model: Model, part: Dataset, quiet: bool) -> Bank:
    """The embeddings of the images, in memory: 2 kB each for a ResNet-34."""
    rows: list[int] = []
    embeddings = np.zeros((0, 0), np.float32)
    with bar(f"features of training {part.noun}", len(part), quiet=quiet) as advance:
        for row, (_, embedding) in enumerate(model.embeddings(part.files)):
            advance(row + 1)
            if isinstance(embedding, DataError):
                continue
            if not rows:
                embeddings = np.empty((len(part), len(embedding)), np.float32)
            embeddings[len(rows)] = unit(embedding)
            rows.append(row)
    lost = len(part) - len(rows)
    if lost:
        note(f"{lost:,} training {part.noun} could not be read: they are near to nothing", quiet)
    return Bank(part, np.array(rows, np.intp), embeddings[: len(rows)], model.task.target.text)


@dataclass(frozen=True)
class Work:
    """What one input is explained with: the model, the folder, how many inputs there are, and the training images."""

    model: Model
    folder: Path
    total: int
    bank: Bank | None
    nearest: int

    def one(self, number: int, file: Path, look: Look) -> Explanation:
        """Write the overlay of the input of this number, from 1, and say what there is to say.

        Raises:
            DataError: the file cannot be read.
            ResourceError: the disk refuses.
        """
        model = self.model
        buffer = io.BytesIO()
        draws = heard if model.task.modality is SOUND else drawn
        draws(file, look.map, model.preprocess).save(buffer, "PNG", compress_level=1)
        overlay = self.folder / f"{number:0{len(str(self.total))}d}-{_safe(file.stem)}.png"
        write(overlay, buffer.getvalue())
        prediction = model.task.target.decode(look.logits / model.temperature, model.classes, str(file), 1)
        near = self.bank.neighbours(file, look.embedding, self.nearest) if self.bank else ()
        h, w = look.map.shape
        return Explanation(prediction, model.classes[look.index], overlay, (h, w), not look.map.any(), near)

    def read(self, sources: Sequence[Path | Line], index: int | None) -> Iterator[Explanation | DataError]:
        """What each text hangs on, in order, or why it cannot be read; `index` is as in `Wanted`."""
        model = self.model
        for source, found in model.outputs(sources):
            if isinstance(found, DataError):
                yield found
                continue
            logits, embedding = np.split(found, [len(model.classes)])
            chosen = int(logits.argmax()) if index is None else index
            words = next(marked(model, [source], [chosen]))
            if isinstance(words, DataError):
                yield words
                continue
            prediction = model.task.target.decode(logits / model.temperature, model.classes, str(source), 1)
            near = self.bank.neighbours(source, embedding, self.nearest) if self.bank else ()
            silent = not any(weight > 0 for _, weight in words)
            yield Explanation(prediction, model.classes[chosen], None, (0, 0), silent, near, words)


def _safe(stem: str) -> str:
    """A file's name as a part of another's: letters, digits, ".", "-" and "_" of any script, and not many."""
    return re.sub(r"[^\w.-]+", "_", stem)[:STEM]


def _looked(work: Work, wanted: Iterable[Wanted]) -> Iterator[Explanation | DataError]:
    """Explain every input: the next ones go through the network while the overlays of the last are drawn."""

    def one(item: tuple[int, tuple[Wanted, Look | DataError]]) -> Explanation:
        number, ((file, _), look) = item
        if isinstance(look, DataError):
            raise look
        return work.one(number, Path(file), look)

    return (each for _, each in read_ahead(enumerate(looks(work.model, wanted), 1), one, AHEAD))
