"""Class folders, an archive of them, or a CSV of paths and labels, as one frozen value with one list of classes.

A sample has one class, or several labels or none: "classes" are then all the labels. Classes are aligned by name across
splits, in natural order ("2" before "10"), and stored by name; samples come folder by folder, in the order of their
names. A million samples take some 60 MB: columns instead of objects.
"""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import overload

import numpy as np
from natsort import natsorted
from numpy.typing import NDArray

from resnetkit.data import table
from resnetkit.data.archive import ArchiveTree, Member, is_archive
from resnetkit.data.names import Names
from resnetkit.data.sources import Line, Part, part_of
from resnetkit.data.stratify import by_class, by_labels
from resnetkit.data.stratify import held_out as held_out
from resnetkit.data.table import SEPARATOR as SEPARATOR
from resnetkit.data.table import split_labels as split_labels
from resnetkit.data.tree import SPLITS, FolderTree, Tree, class_folders, files_below
from resnetkit.errors import DataError, printable

File = Path | Member | Line | Part
CODES = ("", *SPLITS)  # a split as one byte
A_SOURCE = "give a folder of class folders, a .zip or .tar of them, or a .csv of path,label or path,labels"


@dataclass(frozen=True)
class Dataset:
    """Examples of one or more splits.

    Attributes:
        root: folder that the paths are relative to, or the archive that they are in.
        classes: names, in natural order; a target is an index into them.
        names: path of each sample below the root [n].
        targets: class index of each sample [n], or whether it has each of several labels, 0 or 1 [n, K].
        splits: of each sample, as an index into `CODES` [n].
        ignored: what was passed over and how often ("hidden or system files": 2).
        spans: where the root is an archive: offset, size, packed size and CRC of each sample [n, 4].
        groups: number of the group that each sample belongs to [n], where they are given.
        texts: of each sample [n], where it is a text.
        noun: what the samples are, in messages.
    """

    root: Path
    classes: tuple[str, ...]
    names: Names
    targets: NDArray[np.integer]
    splits: NDArray[np.int8]
    ignored: tuple[tuple[str, int], ...] = ()
    spans: NDArray[np.int64] | None = None
    groups: NDArray[np.int64] | None = None
    texts: tuple[str, ...] | None = field(default=None, kw_only=True)
    noun: str = field(default="images", kw_only=True)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def several(self) -> bool:
        """Whether a sample may have several labels, or none."""
        return self.targets.ndim == 2

    @property
    def fewest_classes(self) -> int:
        """Classes without which there is nothing to learn."""
        return 1 if self.several else 2

    @property
    def strata(self) -> NDArray[np.integer]:
        """By what splits are made even: the class of each sample [n], or whether it has each of several [n, K]."""
        return self.targets

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
        """A digest of classes, names, targets, splits and file sizes or texts, by which other data is noticed."""
        digest = hashlib.blake2b("\0".join(self.classes).encode(), digest_size=16)
        for name in self.names:
            digest.update(os.fsencode(name) + b"\0")
        for column in (self.targets, self.splits, self.sizes()):
            digest.update(column.tobytes())
        for text in self.texts or ():
            digest.update(hashlib.blake2b(text.encode(), digest_size=16).digest())
        return digest.hexdigest()

    def num_samples(self, split: str) -> int:
        """Number of samples in a split."""
        return int((self.splits == CODES.index(split)).sum())

    def counts(self, split: str) -> NDArray[np.int64]:
        """Number of samples of each class, or with each label, [K] in a split."""
        return _counts(self.targets[self.splits == CODES.index(split)], len(self.classes))

    def select(self, split: str) -> Dataset:
        """The samples of one split."""
        return self.take(np.flatnonzero(self.splits == CODES.index(split)))

    def take(self, rows: NDArray[np.integer]) -> Dataset:
        """Some samples, in the order of the rows."""
        spans, groups = (None if each is None else each[rows] for each in (self.spans, self.groups))
        names, targets, splits = self.names.take(rows), self.targets[rows], self.splits[rows]
        texts = None if self.texts is None else tuple(self.texts[row] for row in rows.tolist())
        return replace(self, names=names, targets=targets, splits=splits, spans=spans, groups=groups, texts=texts)

    def file_named(self, name: str) -> File:
        """What the sample of this name is read from."""
        if self.spans is None and self.texts is None:
            return part_of(self.root, name) or self.root / name
        return self.files[self.names.index(name)]

    def sizes(self) -> NDArray[np.int64]:
        """Bytes of each file [n]; -1 where it cannot be told."""
        if self.texts is not None:
            return np.fromiter((len(text.encode()) for text in self.texts), np.int64, len(self))
        if self.spans is not None:
            return self.spans[:, 1]
        return np.fromiter((_size(self.root, name) for name in self.names), np.int64, len(self))


def _counts(targets: NDArray[np.integer], num_classes: int) -> NDArray[np.int64]:
    return targets.sum(0, np.int64) if targets.ndim == 2 else np.bincount(targets, minlength=num_classes)


def _size(root: Path, name: str) -> int:
    try:
        return os.stat(os.path.join(root, name)).st_size
    except OSError:
        part = part_of(Path(root), name)
        return -1 if part is None or not part.whole.is_file() else part.whole.stat().st_size + len(part.fragment)


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
        if self.dataset.texts is not None:
            return Line(name, self.dataset.texts[row])
        if spans is None:
            return part_of(self.dataset.root, name) or self.dataset.root / name
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


def scan(source: Path, extensions: Sequence[str], *, follow_links: bool = False, noun: str = "images") -> Dataset:
    """Read class folders (with or without train/ val/ test/), a .zip or .tar of them, or a CSV, see `table`.

    Args:
        source: folder, archive or .csv file.
        extensions: endings of the files that count, in lower case.
        follow_links: follow links to files outside the folder.
        noun: what the files are, for messages.

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
        raise DataError(f"holds no class folders with {noun}{_seen(dataset)}", path=source, fix=fix)
    return replace(dataset, noun=noun)


def _seen(dataset: Dataset) -> str:
    """What there was instead of images."""
    return "".join(f"; ignored: {count:,} {what}" for what, count in dataset.ignored)


def _from_table(source: Path) -> Dataset:
    form, rows = table.read(source)
    rows.sort(key=lambda row: row.path)
    names = Names(row.path for row in rows)
    grouped = any(row.group for row in rows)
    groups = np.unique([row.group for row in rows], return_inverse=True)[1] if grouped else None
    if form.several:
        splits = np.array([CODES.index(row.split) for row in rows], np.int8)
        bare = Dataset(source.parent, form.columns, names, np.arange(len(rows)), splits, groups=groups)
        return _labelled(bare, [row.labels for row in rows])
    columns = _Columns()
    for row in rows:
        columns.add(row.labels[0], row.split, 1)
    return replace(_dataset(source.parent, columns, names), groups=groups)


def _labelled(dataset: Dataset, found: Sequence[tuple[str, ...]]) -> Dataset:
    """With the labels of `found`, of which each sample's target is the index; its classes are kept, if used or not."""
    classes = tuple(natsorted({*dataset.classes, *chain.from_iterable(found)}))
    index = {name: i for i, name in enumerate(classes)}
    has = np.zeros((len(found), len(classes)), np.int8)
    for row, labels in zip(has, found, strict=True):
        row[[index[label] for label in labels]] = 1
    return replace(dataset, classes=classes, targets=has[dataset.targets])


def several_labels(dataset: Dataset) -> Dataset:
    """A data set of one class a sample, as one of several labels: "cat|dog" is two of them.

    Raises:
        DataError: a class is no label, as "|".
    """
    found = [split_labels(name) for name in dataset.classes]
    for name, labels in zip(dataset.classes, found, strict=True):
        if not labels:
            raise DataError(f"the class {name!r} holds no label", path=dataset.root, fix="rename it")
    return _labelled(replace(dataset, classes=()), found)


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
        DataError: fewer than two classes, or no label; a class without samples, or that a given split lacks; a label
            that no sample has, or none to train on.
    """
    noun = "label" if dataset.several else "class"
    if len(dataset.classes) < dataset.fewest_classes:
        what = f"has one class only, {dataset.classes[0]!r}" if dataset.classes else "has no label at all"
        raise DataError(what, path=source, fix="one label or two classes at least are needed")
    given = dataset.given_splits
    if given and "train" not in given:
        raise DataError("has no train split", path=source, fix="mark some rows as train")
    total = np.sum([dataset.counts(split) for split in CODES], axis=0)
    looked_at = ("train",) if given and dataset.several else given or ("",)
    for split in looked_at:  # of several labels a held-out split need not have each
        lacking = np.flatnonzero(dataset.counts(split) == 0)
        elsewhere = [int(k) for k in lacking if split == "train" and total[k]]
        if elsewhere:
            what = f"{noun} {dataset.classes[elsewhere[0]]!r} is in val or test, but not in train"
            raise DataError(what, path=source, fix="move it or remove it")
        if len(lacking) and not allow_empty_class:
            where = f"split {split!r} has" if split else "has"
            what = f"{where} no {dataset.noun} of {noun} {dataset.classes[int(lacking[0])]!r}"
            raise DataError(what, path=source, fix="add some, or allow it: --set data.allow_empty_class=true")


def assign_splits(
    dataset: Dataset, *, val: float, test: float, seed: int, first: NDArray[np.intp] | None = None
) -> Dataset:
    """Give every sample a split, class by class, reproducibly from the seed.

    A data set without splits is cut into train, val and test; one with train and no val gives `val` of its train
    samples to val; a given test split, or its absence beside a given val, stays as it is. A class with one or two
    images keeps them in train, and a label one at least.

    Args:
        dataset: what `scan` read.
        val: share, 0..1.
        test: share, 0..1.
        seed: of the choice.
        first: for each sample the first one that it stays together with [n], see `stratify.together`.
    """
    given = dataset.given_splits
    if "val" in given:
        return dataset
    test = 0.0 if given else test
    rows = np.arange(len(dataset))
    first = rows if first is None else first
    splits = np.where(dataset.splits == 0, CODES.index("train"), dataset.splits).astype(np.int8)
    free = (splits == CODES.index("train")) & (first == rows)
    strata = dataset.strata
    cut = by_labels if strata.ndim == 2 else by_class
    in_val, in_test = cut(strata, np.flatnonzero(free), (val, test), seed)
    splits[in_val], splits[in_test] = CODES.index("val"), CODES.index("test")
    copies = dataset.splits == dataset.splits[first]  # a copy of a given test image stays where it was given
    return replace(dataset, splits=np.where(copies, splits[first], splits))
