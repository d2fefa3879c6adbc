"""Class folders, an archive of them, or a CSV of paths and labels, as one frozen value with one list of classes.

Classes are aligned by name across splits, in natural order ("2" before "10"), and stored by name; samples come folder
by folder, in the order of their names. A million samples take some 60 MB: columns instead of objects.
"""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import overload

import numpy as np
from natsort import natsorted
from numpy.typing import NDArray

from resnetkit.data import table
from resnetkit.data.archive import ArchiveTree, Member, is_archive
from resnetkit.data.names import Names
from resnetkit.data.tree import SPLITS, FolderTree, Tree, class_folders, files_below
from resnetkit.errors import DataError, printable

File = Path | Member
CODES = ("", *SPLITS)  # a split as one byte
A_SOURCE = "give a folder of class folders, a .zip or .tar of them, or a .csv of path,label"


@dataclass(frozen=True)
class Dataset:
    """Examples of one or more splits.

    Attributes:
        root: folder that the paths are relative to, or the archive that they are in.
        classes: names, in natural order; a target is an index into them.
        names: path of each sample below the root [n].
        targets: class index of each sample [n].
        splits: of each sample, as an index into `CODES` [n].
        ignored: what was passed over and how often ("hidden or system files": 2).
        spans: where the root is an archive: offset, size, packed size and CRC of each sample [n, 4].
    """

    root: Path
    classes: tuple[str, ...]
    names: Names
    targets: NDArray[np.int64]
    splits: NDArray[np.int8]
    ignored: tuple[tuple[str, int], ...] = ()
    spans: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def has_splits(self) -> bool:
        """Whether it is said which sample belongs to which split."""
        return bool(self.splits.any())

    @property
    def given_splits(self) -> tuple[str, ...]:
        """Names of the splits that have samples."""
        return tuple(CODES[code] for code in np.unique(self.splits) if code)

    @property
    def files(self) -> Sequence[File]:
        """What each sample is read from."""
        return Files(self)

    def fingerprint(self) -> str:
        """A digest of classes, names, targets, splits and file sizes, by which other data is noticed."""
        digest = hashlib.blake2b("\0".join(self.classes).encode(), digest_size=16)
        for name in self.names:
            digest.update(os.fsencode(name) + b"\0")
        for column in (self.targets, self.splits, self.sizes()):
            digest.update(column.tobytes())
        return digest.hexdigest()

    def counts(self, split: str) -> NDArray[np.int64]:
        """Number of samples of each class [K] in a split."""
        return np.bincount(self.targets[self.splits == CODES.index(split)], minlength=len(self.classes))

    def select(self, split: str) -> Dataset:
        """The samples of one split."""
        return self.take(np.flatnonzero(self.splits == CODES.index(split)))

    def take(self, rows: NDArray[np.integer]) -> Dataset:
        """Some samples, in the order of the rows."""
        spans = None if self.spans is None else self.spans[rows]
        names, targets, splits = self.names.take(rows), self.targets[rows], self.splits[rows]
        return replace(self, names=names, targets=targets, splits=splits, spans=spans)

    def file_named(self, name: str) -> File:
        """What the sample of this name is read from."""
        return self.root / name if self.spans is None else self.files[self.names.index(name)]

    def sizes(self) -> NDArray[np.int64]:
        """Bytes of each file [n]; -1 where it cannot be told."""
        if self.spans is not None:
            return self.spans[:, 1]
        return np.fromiter((_size(self.root, name) for name in self.names), np.int64, len(self))


def _size(root: Path, name: str) -> int:
    try:
        return os.stat(os.path.join(root, name)).st_size
    except OSError:
        return -1


@dataclass(frozen=True)
class Files(Sequence[File]):
    """The files of a data set, made when asked for."""

    dataset: Dataset

    def __len__(self) -> int:
        return len(self.dataset)

    @overload
    def __getitem__(self, row: int) -> File: ...
    @overload
    def __getitem__(self, row: slice) -> Files: ...
    def __getitem__(self, row: int | slice) -> File | Files:
        if isinstance(row, slice):
            return Files(self.dataset.take(np.arange(len(self))[row]))
        name, spans = self.dataset.names[row], self.dataset.spans
        if spans is None:
            return self.dataset.root / name
        return Member(self.dataset.root, name, *spans[row].tolist())


@dataclass
class _Columns:
    """A data set while it is being read."""

    labels: list[str] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)  # samples of each run of one label and split
    splits: list[int] = field(default_factory=list)

    def add(self, label: str, split: str, count: int) -> None:
        self.labels.append(label)
        self.splits.append(CODES.index(split))
        self.counts.append(count)


def scan(source: Path, extensions: Sequence[str], *, follow_links: bool = False) -> Dataset:
    """Read class folders (with or without train/ val/ test/), a .zip or .tar of them, or a CSV with path,label[,split].

    Args:
        source: folder, archive or .csv file.
        extensions: endings of the files that count, in lower case.
        follow_links: follow links to files outside the folder.

    Raises:
        DataError: there is nothing to learn from: no such path, no classes, colliding names, a dangerous archive.
    """
    if not source.exists():
        raise DataError("there is no such file or folder", path=source, fix=A_SOURCE)
    if source.is_file() and source.suffix.lower() == ".csv":
        dataset = _from_table(source)
    elif is_archive(source):
        dataset = _from_tree(source, ArchiveTree(source), extensions)
    elif source.is_file():
        packed = source.suffix.lower() in (".gz", ".tgz", ".bz2", ".xz", ".zst", ".rar", ".7z")
        raise DataError(
            "is an archive that cannot be read in place" if packed else "is a file", path=source, fix=A_SOURCE
        )
    else:
        dataset = _from_tree(source, FolderTree(source, follow_links=follow_links), extensions)
    _refuse_names(dataset.classes, source)
    if not len(dataset):
        fix = f"make one folder a class, of files ending in {' '.join(extensions)}"
        raise DataError(f"holds no class folders with images{_seen(dataset)}", path=source, fix=fix)
    return dataset


def _seen(dataset: Dataset) -> str:
    """What there was instead of images."""
    return "".join(f"; ignored: {count:,} {what}" for what, count in dataset.ignored)


def _from_table(source: Path) -> Dataset:
    rows = sorted(table.read(source), key=lambda row: row.path)
    columns = _Columns()
    for row in rows:
        columns.add(row.label, row.split, 1)
    return _dataset(source.parent, columns, Names(row.path for row in rows))


def _from_tree(source: Path, tree: Tree, extensions: Sequence[str]) -> Dataset:
    columns = _Columns()
    ignored: Counter[str] = Counter()

    def found() -> Iterator[str]:
        for path, label, split in class_folders(tree, ignored):
            count = 0
            for name in files_below(tree, path, extensions, ignored):
                count += 1
                yield name
            columns.add(label, split, count)

    names = Names(found())
    dataset = _dataset(source, columns, names)
    spans = None
    if isinstance(tree, ArchiveTree):
        found_members = (tree.members[name] for name in names)
        spans = np.array([(m.offset, m.size, m.packed, m.crc) for m in found_members], np.int64).reshape(-1, 4)
    ignored.update(tree.ignored)
    return replace(dataset, ignored=tuple(sorted(ignored.items())), spans=spans)


def _dataset(root: Path, columns: _Columns, names: Names) -> Dataset:
    classes = tuple(natsorted(set(columns.labels)))
    index = {name: i for i, name in enumerate(classes)}
    runs = np.array([index[label] for label in columns.labels], np.int64)
    targets = np.repeat(runs, columns.counts)
    splits = np.repeat(np.array(columns.splits, np.int8), columns.counts)
    return Dataset(root, classes, names, targets, splits)


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
        what = f"has one class only, {dataset.classes[0]!r}"
        raise DataError(what, path=source, fix="two classes at least are needed")
    given = dataset.given_splits
    if given and "train" not in given:
        raise DataError("has no train split", path=source, fix="mark some rows as train")
    for split in given or ("",):
        lacking = np.flatnonzero(dataset.counts(split) == 0)
        elsewhere = [int(k) for k in lacking if split == "train" and (dataset.targets == k).any()]
        if elsewhere:
            what = f"class {dataset.classes[elsewhere[0]]!r} is in val or test, but not in train"
            raise DataError(what, path=source, fix="move it or remove it")
        if len(lacking) and not allow_empty_class:
            where = f"split {split!r} has" if split else "has"
            what = f"{where} no images of class {dataset.classes[int(lacking[0])]!r}"
            raise DataError(what, path=source, fix="add some, or allow it: --set data.allow_empty_class=true")


def assign_splits(
    dataset: Dataset, *, val: float, test: float, seed: int, first: NDArray[np.intp] | None = None
) -> Dataset:
    """Give every sample a split, class by class, reproducibly from the seed.

    A data set without splits is cut into train, val and test; one with train and no val gives `val` of its train
    samples to val; a given test split, or its absence beside a given val, stays as it is. A class with one or two
    images keeps them in train.

    Args:
        dataset: what `scan` read.
        val: share, 0..1.
        test: share, 0..1.
        seed: of the choice.
        first: for each sample the first one with the same bytes [n]: copies stay on one side.
    """
    given = dataset.given_splits
    if "val" in given:
        return dataset
    test = 0.0 if given else test
    rows = np.arange(len(dataset))
    first = rows if first is None else first
    splits = np.where(dataset.splits == 0, CODES.index("train"), dataset.splits).astype(np.int8)
    free = (splits == CODES.index("train")) & (first == rows)
    for target in range(len(dataset.classes)):
        order = np.random.default_rng([seed, target]).permutation(np.flatnonzero((dataset.targets == target) & free))
        num_test, num_val = held_out(len(order), test), held_out(len(order), val)
        splits[order[:num_test]] = CODES.index("test")
        splits[order[num_test : num_test + num_val]] = CODES.index("val")
    copies = dataset.splits == dataset.splits[first]  # a copy of a given test image stays where it was given
    return replace(dataset, splits=np.where(copies, splits[first], splits))


def held_out(n: int, share: float) -> int:
    """How many of a class's n samples a split takes: the share, one at least from three samples on, never all."""
    if share == 0 or n < 3:
        return 0
    return min(max(1, round(n * share)), (n - 1) // 2)
