"""A folder of class folders, or a CSV of paths and labels, as one frozen value with one list of classes.

Classes are aligned by name across splits, in natural order ("2" before "10"), and stored by name.
"""

from __future__ import annotations

import csv
import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from natsort import natsorted
from numpy.typing import NDArray

from resnetkit.errors import DataError, printable
from resnetkit.files import resource_errors

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
SPLIT_FOLDERS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
SYSTEM_FILES = {"thumbs.db", "desktop.ini", "__macosx"}


@dataclass(frozen=True)
class Sample:
    """One example: its path below the root, its label, and the split that it was given ("" where none was)."""

    path: str
    label: str
    split: str = ""


@dataclass(frozen=True)
class Dataset:
    """Examples of one or more splits.

    Attributes:
        root: folder that the paths are relative to.
        classes: names, in natural order; a target is an index into them.
        samples: in natural order of their paths.
        targets: class index of each sample [n].
        ignored: what was passed over and how often ("hidden files": 2).
    """

    root: Path
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    targets: NDArray[np.int64]
    ignored: tuple[tuple[str, int], ...] = ()

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def has_splits(self) -> bool:
        """Whether the data says itself which sample belongs to which split."""
        return any(sample.split for sample in self.samples)

    @property
    def paths(self) -> list[Path]:
        """Full path of each sample."""
        return [self.root / sample.path for sample in self.samples]

    def counts(self, split: str) -> NDArray[np.int64]:
        """Number of samples of each class [K] in a split."""
        mask = np.array([sample.split == split for sample in self.samples], bool)
        return np.bincount(self.targets[mask], minlength=len(self.classes))

    def select(self, split: str) -> Dataset:
        """The samples of one split."""
        keep = [i for i, sample in enumerate(self.samples) if sample.split == split]
        return replace(self, samples=tuple(self.samples[i] for i in keep), targets=self.targets[keep])


def scan(source: Path, extensions: Sequence[str]) -> Dataset:
    """Read a folder of class folders (with or without train/ val/ test/), or a CSV with path,label[,split].

    Args:
        source: folder or .csv file.
        extensions: endings of the files that count, in lower case.

    Raises:
        DataError: there is nothing to learn from: no such path, no classes, an empty class, colliding names.
    """
    if not source.exists():
        raise DataError("there is no such file or folder", path=source, fix="give a folder of class folders, or a CSV")
    ignored: Counter[str] = Counter()
    if source.is_file():
        if source.suffix.lower() != ".csv":
            raise DataError("is a file", path=source, fix="give a folder of class folders, or a .csv of path,label")
        root, samples = source.parent, _read_csv(source)
        empty: list[str] = []
    else:
        root = source
        with resource_errors(source):
            samples, empty = _walk(source, extensions, ignored)
    names = natsorted({sample.label for sample in samples} | set(empty))
    _refuse_names(names, source)
    if not samples:
        raise DataError(
            "holds no class folders with images",
            path=source,
            fix=f"make one folder a class, of files ending in {' '.join(extensions)}",
        )
    samples = natsorted(samples, key=lambda sample: sample.path)
    index = {name: i for i, name in enumerate(names)}
    targets = np.array([index[sample.label] for sample in samples], np.int64)
    return Dataset(root, tuple(names), tuple(samples), targets, tuple(sorted(ignored.items())))


def _visible(folder: Path, ignored: Counter[str]) -> Iterator[os.DirEntry[str]]:
    """Entries of a folder in a fixed order; hidden and system files and links are counted instead."""
    with os.scandir(folder) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        if entry.name.startswith(".") or entry.name.casefold() in SYSTEM_FILES:
            ignored["hidden or system files"] += 1
        elif entry.is_symlink() and entry.is_dir():
            ignored["links to folders"] += 1
        elif entry.is_dir() or entry.is_file():
            yield entry
        else:
            ignored["neither files nor folders"] += 1


def _walk(root: Path, extensions: Sequence[str], ignored: Counter[str]) -> tuple[list[Sample], list[str]]:
    """Samples under class folders, and the names of class folders without any."""
    folders = [entry.name for entry in _visible(root, ignored) if entry.is_dir()]
    given = [name for name in folders if name.casefold() in SPLIT_FOLDERS and _has_folders(root / name)]
    if not any(SPLIT_FOLDERS[name.casefold()] == "train" for name in given):
        given = []
    if given:
        ignored.update({f"folder {printable(name)} beside the splits": 1 for name in folders if name not in given})
    parts = [(root / name, str(SPLIT_FOLDERS[name.casefold()])) for name in given] or [(root, "")]
    samples: list[Sample] = []
    empty: list[str] = []
    for part, split in parts:
        for entry in _visible(part, Counter() if part == root else ignored):
            if not entry.is_dir():
                ignored["files outside class folders"] += 1
                continue
            found = [
                Sample(str(path.relative_to(root)), entry.name, split)
                for path in _files(Path(entry.path), extensions, ignored)
            ]
            samples += found
            empty += [] if found else [entry.name]
    return samples, empty


def _has_folders(folder: Path) -> bool:
    return any(entry.is_dir() for entry in _visible(folder, Counter()))


def _files(folder: Path, extensions: Sequence[str], ignored: Counter[str]) -> Iterator[Path]:
    """Files below a folder, deep, whose ending is accepted."""
    for entry in _visible(folder, ignored):
        if entry.is_dir():
            yield from _files(Path(entry.path), extensions, ignored)
        elif Path(entry.name).suffix.lower() in extensions:
            yield Path(entry.path)
        else:
            ignored[f"{printable(Path(entry.name).suffix.lower()) or 'endless'} files"] += 1


def _read_csv(path: Path) -> list[Sample]:
    """Rows of path,label[,split]; paths are relative to the CSV's folder."""
    try:
        with resource_errors(path), path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(_rows(csv.DictReader(file), path))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"is not a CSV in UTF-8: {error}", path=path, fix="save it as CSV, UTF-8") from error
    seen: dict[str, int] = {}
    split = any(sample.split for _, sample in rows)
    for line, sample in rows:
        first = seen.setdefault(os.path.normpath(sample.path), line)
        if first != line:
            what = f"line {line} names {printable(sample.path)} again, after line {first}"
            raise DataError(what, path=path, fix="remove one of both")
        if split and not sample.split:
            fix = f"one of {', '.join(SPLITS)} in every line, or in none"
            raise DataError(f"line {line} has no split, but others do", path=path, fix=fix)
    return [sample for _, sample in rows]


def _rows(reader: csv.DictReader[str], path: Path) -> Iterator[tuple[int, Sample]]:
    missing = {"path", "label"} - set(reader.fieldnames or ())
    if missing:
        raise DataError(
            f"line 1 has no column {' or '.join(sorted(missing))}", path=path, fix="start it with path,label"
        )
    for row in reader:
        yield reader.line_num, _row(row, path, reader.line_num)


def _row(row: dict[str, str | None], path: Path, line: int) -> Sample:
    split = (row.get("split") or "").strip()
    if not row["path"] or not row["label"]:
        raise DataError(f"line {line} has no path or no label", path=path, fix="fill it in or remove the line")
    if split and split not in SPLITS:
        raise DataError(
            f"line {line} has the split {split!r}", path=path, fix=f"one of {', '.join(SPLITS)}, or nothing"
        )
    if not os.path.isfile(path.parent / row["path"]):
        raise DataError(
            f"line {line}: there is no file {printable(row['path'])}", path=path, fix="paths start at the CSV's folder"
        )
    return Sample(row["path"], row["label"], split)


def _refuse_names(names: Sequence[str], source: Path) -> None:
    """Cat and cat, or one accent written in two ways, are one class to their owner and two to us."""
    seen: dict[str, str] = {}
    for name in names:
        if name.encode("utf-8", "ignore").decode() != name:
            raise DataError(f"class {printable(name)} is not valid UTF-8", path=source, fix="rename it")
        key = unicodedata.normalize("NFC", name).casefold()
        if key in seen:
            raise DataError(
                f"classes {seen[key]!r} and {name!r} differ only in case or in how accents are stored",
                path=source,
                fix="rename or join them",
            )
        seen[key] = name


def refuse_untrainable(dataset: Dataset, source: Path, *, allow_empty_class: bool = False) -> None:
    """Refuse what cannot be learnt from.

    Raises:
        DataError: fewer than two classes, an empty class folder, a class that a given split lacks.
    """
    if len(dataset.classes) < 2:
        raise DataError(
            f"has one class only, {dataset.classes[0]!r}", path=source, fix="two classes at least are needed"
        )
    allow = "or allow it: --set data.allow_empty_class=true"
    present = {sample.split for sample in dataset.samples}
    if dataset.has_splits and "train" not in present:
        raise DataError("has no train split", path=source, fix="mark some rows as train")
    for split in SPLITS if dataset.has_splits else ("",):
        lacking = [name for name, n in zip(dataset.classes, dataset.counts(split), strict=True) if not n]
        if split not in present or not lacking:
            continue
        if split == "train" and any(
            split and n for split in ("val", "test") for n in [_count(dataset, split, lacking)]
        ):
            raise DataError(
                f"class {lacking[0]!r} is in val or test, but not in train", path=source, fix="move it or remove it"
            )
        if not allow_empty_class:
            where = f"split {split!r} has" if split else "has"
            raise DataError(f"{where} no images of class {lacking[0]!r}", path=source, fix=f"add some, {allow}")


def _count(dataset: Dataset, split: str, names: Sequence[str]) -> int:
    return sum(sample.split == split and sample.label in names for sample in dataset.samples)


def assign_splits(dataset: Dataset, *, val: float, test: float, seed: int) -> Dataset:
    """Give every sample a split, class by class, reproducibly from the seed.

    A data set without splits is cut into train, val and test; one with train and no val gives `val` of its train
    samples to val; a given test split, or its absence beside a given val, stays as it is. A class with one image keeps
    it in train.
    """
    given = {sample.split for sample in dataset.samples} - {""}
    if "val" in given:
        return dataset
    test = 0.0 if given else test
    splits = np.array([sample.split or "train" for sample in dataset.samples], object)
    for target in range(len(dataset.classes)):
        members = np.flatnonzero((dataset.targets == target) & (splits == "train"))
        order = np.random.default_rng([seed, target]).permutation(members)
        num_test, num_val = held_out(len(order), test), held_out(len(order), val)
        splits[order[:num_test]] = "test"
        splits[order[num_test : num_test + num_val]] = "val"
    samples = tuple(replace(s, split=str(split)) for s, split in zip(dataset.samples, splits, strict=True))
    return replace(dataset, samples=samples)


def held_out(n: int, share: float) -> int:
    """How many of a class's n samples a split takes: the share, one at least from three samples on, never all."""
    if share == 0 or n < 3:
        return 0
    return min(max(1, round(n * share)), (n - 1) // 2)
