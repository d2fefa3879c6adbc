"""A fix file: which images of a data set to leave out or to give another label, without a change to the user's files.

A CSV of path,action,label,reason, as `resnetkit check --write` makes it; every complaint names the line.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from resnetkit.data.dataset import Dataset, split_labels
from resnetkit.errors import DataError, printable
from resnetkit.files import read_errors
from resnetkit.run import plain

COLUMNS = ("path", "action", "label", "reason")
EXCLUDE, RELABEL = "exclude", "relabel"
CORRECT = "correct the line or remove it"


@dataclass(frozen=True)
class Fix:
    """What to do with one image.

    Attributes:
        line: of the file.
        path: as `errors.printable` writes the sample's name.
        label: another one, as it is written ("cat|dog" where there may be several), or None to leave the image out.
    """

    line: int
    path: str
    label: str | None


def read(path: Path) -> list[Fix]:
    """The fixes in a file.

    Raises:
        DataError: there is no such file, a column or a label is missing, an action is unknown, an image is named twice.
        ResourceError: it cannot be read.
    """
    if not path.is_file():
        raise DataError("there is no such file", path=path, fix="make one with resnetkit check DATA --write FILE")
    try:
        with read_errors(path), path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = {"path", "action"} - set(reader.fieldnames or ())
            if missing:
                what = f"line 1 has no column {' or '.join(sorted(missing))}"
                raise DataError(what, path=path, fix=f"start it with {','.join(COLUMNS)}")
            fixes = [_fix(values, reader.line_num, path) for values in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"is not a CSV in UTF-8: {error}", path=path, fix="save it as CSV, UTF-8") from error
    seen: dict[str, int] = {}
    for fix in fixes:
        if seen.setdefault(fix.path, fix.line) != fix.line:
            what = f"line {fix.line} names {printable(fix.path)} again, after line {seen[fix.path]}"
            raise DataError(what, path=path, fix="remove one of both")
    return fixes


def _fix(values: Mapping[str, str | None], line: int, path: Path) -> Fix:
    name, action, label = values["path"] or "", (values["action"] or "").strip(), values.get("label")
    if not name:
        raise DataError(f"line {line} has no path", path=path, fix=CORRECT)
    if action not in (EXCLUDE, RELABEL):
        fix = f"one of {EXCLUDE}, {RELABEL}"
        raise DataError(f"line {line} has the action {action!r}", path=path, fix=fix)
    if action == RELABEL and label is None:
        raise DataError(f"line {line} has no label", path=path, fix=CORRECT)
    return Fix(line, name, None if action == EXCLUDE else label)


def apply(dataset: Dataset, fixes: Sequence[Fix], path: Path) -> Dataset:
    """The data set with some images left out and others under another label; its classes stay.

    Args:
        dataset: as it was read.
        fixes: from `read`.
        path: of the fix file, for messages.

    Raises:
        DataError: an image or a class is not there.
    """
    rows = _rows(dataset, fixes)
    for fix in fixes:
        if fix.path not in rows:
            what = f"line {fix.line}: there is no image {printable(fix.path)} in {printable(dataset.root)}"
            raise DataError(what, path=path, fix=CORRECT)
    index = {name: number for number, name in enumerate(dataset.classes)}
    targets, kept = dataset.targets.copy(), np.ones(len(dataset), bool)
    for fix in fixes:
        if fix.label is None:
            kept[rows[fix.path]] = False
        else:
            targets[rows[fix.path]] = _target(fix, index, dataset, path)
    return replace(dataset, targets=targets).take(np.flatnonzero(kept))


def _rows(dataset: Dataset, fixes: Sequence[Fix]) -> dict[str, int]:
    """The row of each path that is there; names are looked at one by one, since there may be a million."""
    wanted = {fix.path for fix in fixes}
    guarded = {plain(path): path for path in wanted}
    found = {}
    for row, name in enumerate(dataset.names) if wanted else ():
        text = printable(name)
        if text in wanted:
            found[text] = row
        elif text in guarded:
            found.setdefault(guarded[text], row)
    return found


def _target(fix: Fix, index: Mapping[str, int], dataset: Dataset, path: Path) -> int | NDArray[np.integer]:
    assert fix.label is not None
    text = fix.label if fix.label in index else plain(fix.label)
    labels = split_labels(text) if dataset.several else (text,)
    unknown = next((label for label in labels if label not in index), None)
    if unknown is not None:
        what = f"line {fix.line}: there is no class {unknown!r}"
        raise DataError(what, path=path, fix=f"one of {', '.join(_first(dataset.classes))}")
    if not dataset.several:
        return index[labels[0]]
    has = np.zeros(len(index), dataset.targets.dtype)
    has[[index[label] for label in labels]] = 1
    return has


def _first(classes: Sequence[str], most: int = 20) -> Iterator[str]:
    yield from map(printable, classes[:most])
    if len(classes) > most:
        yield "..."
