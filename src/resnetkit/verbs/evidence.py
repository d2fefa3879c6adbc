"""Images for an export: those that it is compared on, and those that tell int8 the ranges of its activations."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from resnetkit import recipe as recipes
from resnetkit import run
from resnetkit.data.dataset import Dataset
from resnetkit.data.image import Pixels
from resnetkit.errors import DataError, UsageError
from resnetkit.runtime.export import Evidence
from resnetkit.runtime.model import Model
from resnetkit.runtime.pipeline import read_ahead
from resnetkit.runtime.scenes import SceneModel
from resnetkit.verbs.console import bar, note
from resnetkit.verbs.eval import part_of, run_of, run_on, scene_part

COMPARED = 200  # images on which logits in float32 are compared, at most
JUDGED = 2000  # images on which int8 is judged, at most: their pixels are in memory
CALIBRATING = 300  # training images that give ranges, as in NNCF


def evidence_of(
    model: Model, folder: Path, data: str | Path | None, quiet: bool, *, judged: bool = False
) -> Evidence | None:
    """Images to compare a model and its export on; None where the run has no validation images any more.

    Args:
        model: opened.
        folder: the run or model folder that it is of.
        data: with known answers; the run's validation images if left out.
        quiet: no notes and no progress.
        judged: many, since int8 is judged by their accuracy.

    Raises:
        DataError: `data` cannot be read.
    """
    most = JUDGED if judged else COMPARED
    if data is not None:
        source = Path(data)
        _, split, part = part_of(model, run_on(folder, source), source, None)
        return _evidence(model, part, f"{source} ({split})", most, quiet)
    try:
        found = _own(model, folder, "val")
    except (DataError, UsageError) as error:
        note(f"the run's validation images cannot be had: {error}", quiet)
        return None
    return None if found is None else _evidence(model, found, "the run's validation images", most, quiet)


def calibration_of(model: Model, folder: Path, data: str | Path | None, quiet: bool) -> Pixels | None:
    """Training images [N, size, size, C] of the run, or else of `data`; None where there are none."""
    for source in (None, data):
        try:
            part = _own(model, folder, "train") if source is None else _given(model, folder, Path(source))
        except (DataError, UsageError):
            continue
        if part is not None:
            pixels, _ = _pixels(model, _some(part, CALIBRATING), "reading training images", quiet)
            if len(pixels):
                return pixels
    return None


def scene_evidence(model: SceneModel, folder: Path, data: str | Path | None, quiet: bool) -> tuple[Pixels | None, str]:
    """Canvases [N, H, W, C] of validation images, or of `data`, and what they are in words; None where there are none.

    Raises:
        DataError: `data` cannot be read.
    """
    own = run_of(folder)
    source = Path(data) if data is not None else Path(recipes.read(own / run.RECIPE).data.source) if own else None
    if source is None:
        return None, ""
    try:
        _, split, part = scene_part(model, run_on(folder, source), source, None if data is not None else "val")
    except (DataError, UsageError) as error:
        if data is not None:
            raise
        note(f"the run's validation images cannot be had: {error}", quiet)
        return None, ""
    found = []
    with bar("reading images", min(len(part), COMPARED), quiet=quiet) as advance:
        for row, (_, value) in enumerate(read_ahead(_some(part, COMPARED).files, model.canvas, 16)):
            advance(row + 1)
            if isinstance(value, DataError):
                note(f"left out: {value}", quiet)
            else:
                found.append(value)
    return (np.stack(found) if found else None), f"{len(found):,} images of {source} ({split})"


def _own(model: Model, folder: Path, split: str) -> Dataset | None:
    """A split of the data that the run was trained on; None where the model is of no run.

    Raises:
        DataError: the data has no such split, is not there any more, or has changed.
    """
    own = run_of(folder)
    source = recipes.read(own / run.RECIPE).data.source if own is not None else ""
    return part_of(model, own, Path(source), split)[2] if source else None


def _given(model: Model, folder: Path, source: Path) -> Dataset:
    return part_of(model, run_on(folder, source), source, "train")[2]


def _evidence(model: Model, part: Dataset, source: str, most: int, quiet: bool) -> Evidence:
    some = _some(part, most)
    pixels, rows = _pixels(model, some, "reading images", quiet)
    if not len(pixels):
        raise DataError("none of its images can be read", path=part.root, fix="give others with --data")
    words = f"{source}, {len(rows):,} of {len(part):,}" if len(rows) < len(part) else f"{source}, all {len(rows):,}"
    return Evidence(words, pixels, some.targets[rows])


def _some(part: Dataset, most: int) -> Dataset:
    """A part that is not larger than `most`: drawn, always the same."""
    if len(part) <= most:
        return part
    return part.take(np.sort(np.random.default_rng(0).choice(len(part), most, replace=False)))


def _pixels(model: Model, part: Dataset, label: str, quiet: bool) -> tuple[Pixels, list[int]]:
    """What can be read, as the network sees it, and which rows they are; the others are told."""
    found, rows = [], []
    with bar(label, len(part), quiet=quiet) as advance:
        for row, (_, value) in enumerate(read_ahead(part.files, model.read, 64)):
            advance(row + 1)
            if isinstance(value, DataError):
                note(f"left out: {value}", quiet)
            else:
                found.append(value)
                rows.append(row)
    return np.stack(found) if found else np.zeros((0, 0, 0, 0), np.uint8), rows
