"""A CSV of path,label[,split]; every complaint names the line."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from resnetkit.data.tree import SPLITS
from resnetkit.errors import DataError, printable
from resnetkit.files import read_errors


@dataclass(frozen=True)
class Row:
    """One line: the path below the CSV's folder, the label, and the split ("" where none is given)."""

    path: str
    label: str
    split: str


def read(path: Path) -> list[Row]:
    """The rows of a CSV.

    Raises:
        DataError: a column is missing, a file is not there or named twice, a split is unknown or given to some only.
    """
    try:
        with read_errors(path), path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(_rows(csv.DictReader(file), path))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"is not a CSV in UTF-8: {error}", path=path, fix="save it as CSV, UTF-8") from error
    seen: dict[str, int] = {}
    split = any(row.split for _, row in rows)
    for line, row in rows:
        first = seen.setdefault(os.path.normpath(row.path), line)
        if first != line:
            what = f"line {line} names {printable(row.path)} again, after line {first}"
            raise DataError(what, path=path, fix="remove one of both")
        if split and not row.split:
            fix = f"one of {', '.join(SPLITS)} in every line, or in none"
            raise DataError(f"line {line} has no split, but others do", path=path, fix=fix)
    return [row for _, row in rows]


def _rows(reader: csv.DictReader[str], path: Path) -> Iterator[tuple[int, Row]]:
    missing = {"path", "label"} - set(reader.fieldnames or ())
    if missing:
        what = f"line 1 has no column {' or '.join(sorted(missing))}"
        raise DataError(what, path=path, fix="start it with path,label")
    for values in reader:
        yield reader.line_num, _row(values, path, reader.line_num)


def _row(values: dict[str, str | None], path: Path, line: int) -> Row:
    split = (values.get("split") or "").strip()
    if not values["path"] or not values["label"]:
        raise DataError(f"line {line} has no path or no label", path=path, fix="fill it in or remove the line")
    if split and split not in SPLITS:
        fix = f"one of {', '.join(SPLITS)}, or nothing"
        raise DataError(f"line {line} has the split {split!r}", path=path, fix=fix)
    if not os.path.isfile(path.parent / values["path"]):
        what = f"line {line}: there is no file {printable(values['path'])}"
        raise DataError(what, path=path, fix="paths start at the CSV's folder")
    return Row(values["path"], values["label"], split)
