"""A CSV of pairs of recordings, and of whether both are of one speaker; every complaint names the line."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from resnetkit.data.table import BITS
from resnetkit.errors import DataError, printable
from resnetkit.files import read_errors

COLUMNS = ("a", "b")
START = "start it with a,b or a,b,same, or with speaker_a,speaker_b behind"


@dataclass(frozen=True)
class Row:
    """Two recordings, whether they are of one speaker (None: not known), and who they are of ("": not known)."""

    a: Path
    b: Path
    same: bool | None
    speakers: tuple[str, str] = ("", "")


def is_pairs(path: Path) -> bool:
    """Whether a file is a CSV with columns a and b."""
    if path.suffix.lower() != ".csv" or not path.is_file():
        return False
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return set(COLUMNS) <= set(next(csv.reader(file), []))
    except (OSError, UnicodeDecodeError, csv.Error):
        return False


def read(path: Path) -> list[Row]:
    """The pairs of a CSV; paths start at its folder.

    Raises:
        DataError: a file is not there, or a value is none.
    """
    try:
        with read_errors(path), path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if not set(COLUMNS) <= set(reader.fieldnames or ()):
                raise DataError("line 1 has no columns a and b", path=path, fix=START)
            rows = [_row(values, path, reader.line_num) for values in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"is not a CSV in UTF-8: {error}", path=path, fix="save it as CSV, UTF-8") from error
    if not rows:
        raise DataError("has no lines below its header", path=path, fix="add some")
    return rows


def _row(values: Mapping[str, str | None], path: Path, line: int) -> Row:
    given = {name: (values.get(name) or "").strip() for name in ("a", "b", "same", "speaker_a", "speaker_b")}
    for name in COLUMNS:
        if not given[name] or not os.path.isfile(path.parent / given[name]):
            what = f"line {line}: there is no file {printable(given[name])!r}"
            raise DataError(what, path=path, fix="paths start at the CSV's folder")
    if given["same"] and given["same"].lower() not in BITS:
        what = f"line {line} has {given['same']!r} in column 'same', which is neither 0 nor 1"
        raise DataError(what, path=path, fix="correct it")
    same = BITS[given["same"].lower()] if given["same"] else None
    who = given["speaker_a"], given["speaker_b"]
    if same is None and all(who):
        same = who[0] == who[1]
    return Row(path.parent / given["a"], path.parent / given["b"], same, who)
