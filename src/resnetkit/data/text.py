"""Texts and labels: CSV, TSV, JSONL, or class folders of .txt, as one frozen value.

A TSV is taken as it stands, without quotes that mean something; a CSV has them. Columns are found by their names (see
`TEXT` and `LABEL`), by the names that are given, or, where there is no header, by their numbers from 1; a table of two
columns without a header, or with one of these names in it, is a label and a text, of which the text is the longer. A
folder with train.csv, and val.csv or test.csv beside it (or dev, valid, .tsv, .jsonl), is one data set with these
splits; a column `split` says the same, and `group` what belongs together.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnetkit.data import dataset, prose
from resnetkit.data.columns import dataset_of, refuse_gaps
from resnetkit.data.dataset import CODES, Dataset
from resnetkit.data.sources import Line
from resnetkit.data.table import Row, split_labels
from resnetkit.data.tree import SPLIT_FOLDERS
from resnetkit.errors import DataError, printable

NOUN = "texts"
EXTENSIONS = (".txt",)
TABLES = (".csv", ".tsv", ".jsonl")
TEXT = ("text", "sentence", "review", "content", "question", "document", "message", "tweet", "utterance")
LABEL = ("label", "labels", "class", "category", "target", "sentiment", "intent", "topic")
SPLITS = {**SPLIT_FOLDERS, "dev": "val"}
BOTH = ("text", "label")
EMPTY = "empty texts"
NAME_THEM = "name them: --set data.text=... --set data.label=..., by name or by number from 1"
A_SOURCE = "give a .csv, .tsv or .jsonl, a folder with train.csv, or class folders of .txt"


@dataclass(frozen=True)
class Corpus:
    """Texts of one or more splits.

    Attributes:
        rows: their names (`train.csv#line=7`, or a path), targets, splits and groups, as of any data.
        texts: of each row.
    """

    rows: Dataset
    texts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: NDArray[np.integer]) -> Corpus:
        """Some samples, in the order of the rows."""
        return Corpus(self.rows.take(rows), tuple(self.texts[row] for row in rows.tolist()))

    def select(self, split: str) -> Corpus:
        """The samples of one split."""
        return self.take(np.flatnonzero(self.rows.splits == CODES.index(split)))

    def fingerprint(self) -> str:
        """A digest by which other data is noticed."""
        digest = hashlib.blake2b(self.rows.fingerprint().encode(), digest_size=16)
        for text in self.texts:
            digest.update(hashlib.blake2b(text.encode(), digest_size=16).digest())
        return digest.hexdigest()


@dataclass(frozen=True)
class Chosen:
    """Columns that are asked for, "" where they are to be found by their usual names."""

    text: str = ""
    label: str = ""


def alike(text: str) -> str:
    """A form in which texts that a reader takes for the same are equal: accents, case and spaces are not told apart."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def first_alike(texts: Sequence[str]) -> NDArray[np.intp]:
    """For each text the first that reads the same [n]: itself where it is not a repeat; for `dataset.assign_splits`."""
    seen: dict[bytes, int] = {}
    keys = (hashlib.blake2b(alike(text).encode(), digest_size=16).digest() for text in texts)
    return np.array([seen.setdefault(key, row) for row, key in enumerate(keys)], np.intp)


def straddling(corpus: Corpus) -> NDArray[np.intp]:
    """Rows whose text is, or reads the same, in another split too [m]."""
    first = first_alike(corpus.texts)
    splits = corpus.rows.splits.astype(np.int64)
    pairs = np.unique(np.stack([first, splits], 1), axis=0) if len(first) else np.zeros((0, 2), np.intp)
    several = np.bincount(pairs[:, 0], minlength=len(first)) > 1
    return np.flatnonzero(several[first])


def scan(source: Path, chosen: Chosen = Chosen(), *, follow_links: bool = False) -> Corpus:  # noqa: B008  frozen
    """Read texts and labels; empty texts are passed over and counted.

    Args:
        source: a table, a folder of tables named after splits, or class folders (or an archive of them).
        chosen: which columns of a table.
        follow_links: as in `dataset.scan`.

    Raises:
        DataError: there is nothing to learn from, or a line is wrong; the message names it.
    """
    if not source.exists():
        raise DataError("there is no such file or folder", path=source, fix=A_SOURCE)
    tables = _tables(source)
    if not tables:
        return _from_files(dataset.scan(source, EXTENSIONS, follow_links=follow_links, noun=NOUN))
    parts = [_table(path, split, chosen) for path, split in tables]
    several = {several for several, _ in parts}
    if len(several) > 1:
        raise DataError("has one label a text in some files, several in others", path=source, fix="write all alike")
    root = source if source.is_dir() else source.parent
    return _corpus(root, list(chain.from_iterable(lines for _, lines in parts)), several.pop())


def examples(source: Path, chosen: Chosen = Chosen(), *, follow_links: bool = False) -> Dataset:  # noqa: B008  frozen
    """What `scan` reads, as a data set whose samples are texts."""
    corpus = scan(source, chosen, follow_links=follow_links)
    return replace(corpus.rows, texts=corpus.texts, noun=NOUN)


def lines(path: Path, chosen: Chosen = Chosen()) -> list[Line]:  # noqa: B008  frozen
    """The texts of a table, with or without labels; empty ones too.

    Raises:
        DataError: a line is wrong.
    """
    records = _records(path, chosen, ("text",))
    name = _names(records[0][1], path, chosen, ("text",))[0]
    return [
        Line(f"{path}#line={number}", prose.refuse_odd(record.get(name), str(path), number))
        for number, record in records
    ]


def is_table(path: Path) -> bool:
    """Whether a file is a table by its name."""
    return path.suffix.lower() in TABLES


def _tables(source: Path) -> list[tuple[Path, str]]:
    """Tables and the split that each is, "" where its name says none."""
    if source.is_file():
        if source.suffix.lower() in TABLES:
            return [(source, "")]
        if source.suffix.lower() == ".txt":
            raise DataError("is one text", path=source, fix=A_SOURCE)
        return []
    inside = sorted(path for path in source.iterdir() if path.suffix.lower() in TABLES and path.is_file())
    found = [(path, SPLITS[path.stem.casefold()]) for path in inside if path.stem.casefold() in SPLITS]
    splits = [split for _, split in found]
    if "train" not in splits:
        return []
    for path, split in found:
        if splits.count(split) > 1:
            raise DataError(f"is the {split} split, but another file is so too", path=path, fix="remove one of both")
    return found


@dataclass(frozen=True)
class _Line:
    text: str
    row: Row
    number: int


def _corpus(root: Path, lines: Sequence[_Line], several: bool) -> Corpus:
    full = [line for line in lines if line.text.strip()]
    if not full:
        raise DataError("holds no texts", path=root, fix="add some")
    ignored = [(EMPTY, len(lines) - len(full))] if len(full) < len(lines) else []
    rows = dataset_of(root, [line.row for line in full], several=several, ignored=ignored)
    return Corpus(rows, tuple(line.text for line in full))


def _from_files(rows: Dataset) -> Corpus:
    texts = [prose.refuse_odd(prose.read(file), str(file)) for file in rows.files]
    full = [i for i, text in enumerate(texts) if text.strip()]
    if not full:
        raise DataError("holds no texts", path=rows.root, fix="add some")
    if len(full) < len(texts):
        ignored = (*rows.ignored, (EMPTY, len(texts) - len(full)))
        rows = replace(rows.take(np.array(full, np.intp)), ignored=ignored)
    return Corpus(rows, tuple(texts[i] for i in full))


def _table(path: Path, split: str, chosen: Chosen) -> tuple[bool, list[_Line]]:
    """Whether a text may have several labels, and the lines of a table."""
    records = _records(path, chosen)
    text, label = _names(records[0][1], path, chosen)
    lists = any(isinstance(record.get(label), list) for _, record in records)
    several = lists or label.casefold() == "labels"
    lines = [_line(record, (text, label), several, path, number) for number, record in records]
    if split and any(line.row.split for line in lines):
        raise DataError(f"is the {split} split by its name, and has a column split", path=path, fix="remove the column")
    lines = [replace(line, row=replace(line.row, split=split)) for line in lines] if split else lines
    refuse_gaps([(line.number, line.row) for line in lines], path)
    return several, lines


def _records(path: Path, chosen: Chosen, kinds: Sequence[str] = BOTH) -> list[tuple[int, Mapping[str, Any]]]:
    """Number and values of each line."""
    content = prose.read(path)
    values = _jsonl(content, path) if path.suffix.lower() == ".jsonl" else _separated(content, path, chosen, kinds)
    records = list(values)
    if not records:
        raise DataError("has no lines", path=path, fix="add some")
    return records


def _jsonl(content: str, path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(content.split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"line {number} is not JSON: {error}", path=path, fix="one object a line") from error
        if not isinstance(record, dict):
            raise DataError(f"line {number} is not a JSON object", path=path, fix='write {"text": ..., "label": ...}')
        yield number, record


def _separated(
    content: str, path: Path, chosen: Chosen, kinds: Sequence[str] = BOTH
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Lines as values by column name; where there is no header, by "1", "2", ..."""
    rows = _cells(content, path)
    if not rows:
        return
    first = [cell.strip() for cell in rows[0][1]]
    header = _has_header(first, chosen, kinds)
    names = first if header else [str(i) for i in range(1, len(first) + 1)]
    if len(set(names)) < len(names):
        raise DataError("line 1 has a column twice", path=path, fix="give each a name of its own")
    if not header and not (chosen.text or chosen.label):
        header, names = (False, ["text"]) if len(first) == 1 and kinds == ("text",) else _guessed(rows, path)
    for number, cells in rows[header:]:
        if len(cells) != len(names):
            what = f"line {number} has {len(cells)} columns, line 1 has {len(names)}"
            raise DataError(what, path=path, fix="quote texts that hold the separator or a new line")
        yield number, dict(zip(names, cells, strict=True))


def _cells(content: str, path: Path) -> list[tuple[int, list[str]]]:
    """Number of the line that each row ends in, and its cells; empty lines are left out."""
    file = io.StringIO(content, newline="")
    if path.suffix.lower() == ".tsv":
        reader = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(file, strict=True)
    try:
        return [(reader.line_num, cells) for cells in reader if cells]
    except csv.Error as error:
        raise DataError(f"line {reader.line_num}: {error}", path=path, fix="correct the quotes there") from error


def _has_header(first: Sequence[str], chosen: Chosen, kinds: Sequence[str]) -> bool:
    named = [name for name in (chosen.text, chosen.label) if name]
    if named:
        return set(named) <= set(first) or not all(name.isdecimal() for name in named)
    folded = {name.casefold() for name in first}
    return bool(folded & set(TEXT)) and ("label" not in kinds or bool(folded & set(LABEL)))


def _guessed(rows: Sequence[tuple[int, Sequence[str]]], path: Path) -> tuple[bool, list[str]]:
    """Whether line 1 is a header after all, and which of two columns is the text.

    Raises:
        DataError: there are not two, or line 1 seems to be a header, and none of its names is a usual one.
    """
    first = rows[0][1]
    if len(first) != 2:
        have = ", ".join(printable(cell[:40]) for cell in first[:10])
        what = f"has {len(first)} columns, and which hold the text and the label is not clear from line 1: {have}"
        raise DataError(what, path=path, fix=NAME_THEM)
    lengths = np.array([[len(cell) for cell in cells[:2]] for _, cells in rows if len(cells) == 2])
    names = ["label", "text"] if lengths[:, 1].sum() > lengths[:, 0].sum() else ["text", "label"]
    labels = [cells[names.index("label")] for _, cells in rows if len(cells) == 2]
    header = labels.count(labels[0]) == 1 and len(set(labels)) <= len(labels) / 2
    if header and not {cell.strip().casefold() for cell in first} & {*TEXT, *LABEL}:
        what = f"line 1 has the label {labels[0]!r}, which no other line has: is it a header?"
        raise DataError(what, path=path, fix=f"if it is, {NAME_THEM}; if not, remove the line")
    return header, names


def _names(record: Mapping[str, Any], path: Path, chosen: Chosen, kinds: Sequence[str] = BOTH) -> tuple[str, ...]:
    """The columns that hold the text and the label."""
    found: list[str] = []
    for kind in kinds:
        wanted, usual = (chosen.text, TEXT) if kind == "text" else (chosen.label, LABEL)
        folded = {name.casefold(): name for name in reversed(list(record))}
        name = wanted if wanted in record else "" if wanted else next((folded[u] for u in usual if u in folded), "")
        if not name:
            what = f"has no column {wanted!r}" if wanted else f"has no column that holds the {kind}"
            have = ", ".join(printable(each) for each in list(record)[:10])
            raise DataError(what, path=path, fix=f"it has {have}; {NAME_THEM}")
        found.append(name)
    if len(set(found)) < len(found):
        raise DataError(f"column {found[0]!r} is text and label", path=path, fix=NAME_THEM)
    return tuple(found)


def _line(record: Mapping[str, Any], names: Sequence[str], several: bool, path: Path, number: int) -> _Line:
    text = prose.refuse_odd(record.get(names[0]), str(path), number)
    split, group = ("" if record.get(name) is None else str(record[name]).strip() for name in ("split", "group"))
    labels = _labels(record.get(names[1]), several, path, number)
    row = Row(f"{path.name}#line={number}", labels, SPLITS.get(split.casefold(), split), group)
    return _Line(text, row, number)


def _labels(value: Any, several: bool, path: Path, number: int) -> tuple[str, ...]:
    if several and isinstance(value, list):
        return tuple(_label(each, path, number) for each in value)
    if several and isinstance(value, str):
        return split_labels(value)
    return (_label(value, path, number),)


def _label(value: Any, path: Path, number: int) -> str:
    """A label as a word: numbers and true or false, which JSON has, too."""
    if not isinstance(value, str | int | float) or not str(value).strip():
        what = f"line {number} has no label" if value in ("", None) else f"line {number} has {value!r} as a label"
        raise DataError(what, path=path, fix="fill it in or remove the line")
    return str(value).strip()
