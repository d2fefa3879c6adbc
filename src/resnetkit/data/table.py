"""A CSV of path,label[,split][,group], or of several labels an image; every complaint names the line.

Several labels stand in a column `labels`, separated by "|" (nothing: none of them), or in a 0/1 column each. A column
`group` says what belongs together: images of one person, one animal, one place.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from resnetkit.data.tree import SPLITS
from resnetkit.errors import DataError, printable
from resnetkit.files import read_errors

SEPARATOR = "|"
BITS = {"0": False, "1": True, "false": False, "true": True}  # pandas writes words
START = "start it with path,label, or path,labels with the labels separated by |, or path and a 0/1 column a label"
Values = Mapping[str, str | None]


@dataclass(frozen=True)
class Row:
    """One line: the path below the CSV's folder, its labels, and split and group ("" where none is given)."""

    path: str
    labels: tuple[str, ...]
    split: str
    group: str = ""


@dataclass(frozen=True)
class Form:
    """How labels are written.

    Attributes:
        several: whether an image may have several labels, or none.
        columns: names of the 0/1 columns.
        labels: of the values of a line; raises ValueError that says what is wrong.
    """

    several: bool
    columns: tuple[str, ...]
    labels: Callable[[Values], tuple[str, ...]]


def split_labels(text: str) -> tuple[str, ...]:
    """The labels in "cat|dog"."""
    return tuple(label.strip() for label in text.split(SEPARATOR) if label.strip())


def read(path: Path) -> tuple[Form, list[Row]]:
    """The rows of a CSV, and how its labels are written.

    Raises:
        DataError: a column is missing, a file is not there or named twice, a split is unknown or given to some only, a
            0/1 column holds something else.
    """
    try:
        with read_errors(path), path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            first = list(islice(reader, 1))
            form = _form(reader.fieldnames or (), first[0] if first else {}, path)
            rows = list(_rows(chain(first, reader), reader, form, path))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"is not a CSV in UTF-8: {error}", path=path, fix="save it as CSV, UTF-8") from error
    if form.columns and rows and all(row.group.lower() in BITS for _, row in rows):
        what = "line 1 has a column group of 0 and 1: a label of that name, or what belongs together?"
        raise DataError(what, path=path, fix="rename it to group_, or give each group a name")
    seen: dict[str, int] = {}
    split, group = (any(getattr(row, name) for _, row in rows) for name in ("split", "group"))
    for line, row in rows:
        first_line = seen.setdefault(os.path.normpath(row.path), line)
        if first_line != line:
            what = f"line {line} names {printable(row.path)} again, after line {first_line}"
            raise DataError(what, path=path, fix="remove one of both")
        if split and not row.split:
            fix = f"one of {', '.join(SPLITS)} in every line, or in none"
            raise DataError(f"line {line} has no split, but others do", path=path, fix=fix)
        if group and not row.group:
            fix = "give it one of its own, or leave the column out"
            raise DataError(f"line {line} has no group, but others do", path=path, fix=fix)
    return form, [row for _, row in rows]


def _form(names: Sequence[str], first: Values, path: Path) -> Form:
    """From the header, and from the first line where no column is called label or labels."""
    if {"path", "label", "labels"} <= set(names):
        raise DataError("line 1 has the columns label and labels", path=path, fix="keep one of both")
    if {"path", "labels"} <= set(names):
        return Form(True, (), _separated)
    if {"path", "label"} <= set(names):
        return Form(False, (), _one)
    others = tuple(name for name in names if name not in ("path", "split", "group"))
    if "path" in names and any((first.get(name) or "").strip().lower() in BITS for name in others):
        wrong = [name for name in others if names.count(name) > 1 or not name.strip() or SEPARATOR in name]
        if wrong:
            what = f"line 1 has a label {wrong[0]!r}: named twice, without a name, or with a {SEPARATOR}"
            raise DataError(what, path=path, fix="give each column a name of its own")
        return Form(True, others, lambda values: _bits(values, others))
    missing = {"path", "label"} - set(names)
    raise DataError(f"line 1 has no column {' or '.join(sorted(missing))}", path=path, fix=START)


def _one(values: Values) -> tuple[str, ...]:
    if not values["label"]:
        raise ValueError("has no path or no label")
    return (values["label"],)


def _separated(values: Values) -> tuple[str, ...]:
    text = values["labels"]
    if text is None:
        raise ValueError("is cut short: it has no labels, not even an empty text")
    return split_labels(text)


def _bits(values: Values, columns: Sequence[str]) -> tuple[str, ...]:
    for name in columns:
        if (values[name] or "").strip().lower() not in BITS:
            raise ValueError(f"has {values[name]!r} in column {name!r}, which is neither 0 nor 1")
    return tuple(name for name in columns if BITS[(values[name] or "").strip().lower()])


def _rows(lines: Iterator[Values], reader: csv.DictReader[str], form: Form, path: Path) -> Iterator[tuple[int, Row]]:
    for values in lines:
        yield reader.line_num, _row(values, form, path, reader.line_num)


def _row(values: Values, form: Form, path: Path, line: int) -> Row:
    split = (values.get("split") or "").strip()
    if not values["path"]:
        raise DataError(f"line {line} has no path or no label", path=path, fix="fill it in or remove the line")
    try:
        labels = form.labels(values)
    except ValueError as error:
        raise DataError(f"line {line} {error}", path=path, fix="fill it in or remove the line") from error
    if split and split not in SPLITS:
        fix = f"one of {', '.join(SPLITS)}, or nothing"
        raise DataError(f"line {line} has the split {split!r}", path=path, fix=fix)
    if not os.path.isfile(path.parent / values["path"]):
        what = f"line {line}: there is no file {printable(values['path'])}"
        raise DataError(what, path=path, fix="paths start at the CSV's folder")
    return Row(values["path"], labels, split, (values.get("group") or "").strip())
