"""A folder or an archive whose files are read in place by their names, and what is found on the way."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from resnetkit.data.archive import ArchiveTree, Member, is_archive
from resnetkit.data.dataset import File
from resnetkit.data.formats import EXTENSIONS
from resnetkit.data.names import Names
from resnetkit.data.tree import SPLIT_FOLDERS, SYSTEM_FILES, FolderTree, Tree
from resnetkit.errors import DataError, printable
from resnetkit.files import read_errors

MOST_EXAMPLES = 10
A_PLACE = "give a folder, a .zip or a .tar"


@dataclass(frozen=True)
class Finding:
    """Something that was left out, changed, or worth a look: what, how often, and the first ten of them."""

    what: str
    count: int
    examples: tuple[str, ...]


@dataclass
class Findings:
    """What is found while a data set is being read."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, what: str, where: str) -> None:
        """One more of a kind."""
        self.counts[what] += 1
        shown = self.examples.setdefault(what, [])
        if len(shown) < MOST_EXAMPLES:
            shown.append(where)

    def told(self) -> tuple[Finding, ...]:
        """All kinds, the most frequent one first."""
        return tuple(Finding(what, count, tuple(self.examples[what])) for what, count in self.counts.most_common())


@dataclass(frozen=True)
class Place:
    """Where a data set lies.

    Attributes:
        root: the folder, or the archive.
        tree: the folders in it.
        base: where it begins, below the one folder that a packed folder often is inside its archive.
    """

    root: Path
    tree: Tree
    base: str = ""

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Paths of all files below the root that are not hidden, in order."""
        return tuple(sorted(_below(self.tree, self.base)))

    @cached_property
    def known(self) -> frozenset[str]:
        """The same, to look things up."""
        return frozenset(self.names)

    @cached_property
    def images(self) -> dict[str, list[str]]:
        """The image files by their name without folder."""
        found: dict[str, list[str]] = {}
        for name in self.names:
            if PurePosixPath(name).suffix.lower() in EXTENSIONS:
                found.setdefault(name.rpartition("/")[2], []).append(name)
        return found

    @cached_property
    def folders(self) -> dict[str, list[str]]:
        """Names of the folders in each folder, in order; of those that files lie in or below."""
        found: dict[str, set[str]] = {}
        for folder in {name.rpartition("/")[0] for name in self.names}:
            inner = folder
            while inner:
                above, _, own = inner.rpartition("/")
                found.setdefault(above, set()).add(own)
                inner = above
        return {folder: sorted(names) for folder, names in found.items()}

    def ending(self, *endings: str) -> list[str]:
        """The files with one of these endings, which are in lower case."""
        return [name for name in self.names if name.lower().endswith(endings)]

    def under(self, name: str) -> str:
        """The path of a name that is below the base."""
        return f"{self.base}/{name}" if self.base else name

    def path(self, name: str) -> Path:
        """What a file is called in a message."""
        return self.root / name

    def file(self, name: str) -> File:
        """What a file is read from."""
        return self.tree.members[name] if isinstance(self.tree, ArchiveTree) else self.root / name

    def read(self, name: str, most: int) -> bytes:
        """The bytes of a file.

        Raises:
            DataError: it is larger than `most`.
            ResourceError: it cannot be read.
        """
        file = self.file(name)
        with read_errors(self.path(name)):
            size = file.size if isinstance(file, Member) else os.stat(file).st_size
            if size > most:
                raise DataError(f"is over {most:,} bytes", path=self.path(name), fix="split it")
            with file.open("rb") as stream:
                return stream.read()

    def lines(self, name: str, most: int = 2**26) -> list[str]:
        """The lines of a text file in UTF-8.

        Raises:
            DataError: it is no text, or larger than `most` bytes.
        """
        try:
            return self.read(name, most).decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise DataError(f"is not text in UTF-8: {error}", path=self.path(name), fix="save it as UTF-8") from error

    def spans(self, names: Names) -> NDArray[np.int64] | None:
        """Where files lie in an archive, as `dataset.Dataset` has it; None in a folder."""
        if not isinstance(self.tree, ArchiveTree):
            return None
        found = (self.tree.members[name] for name in names)
        return np.array([(m.offset, m.size, m.packed, m.crc) for m in found], np.int64).reshape(-1, 4)


def opened(source: Path, *, follow_links: bool = False) -> Place:
    """A folder or an archive as a place.

    Raises:
        DataError: there is no such thing, or it is an archive that is refused.
    """
    if not source.exists():
        raise DataError("there is no such file or folder", path=source, fix=A_PLACE)
    if source.is_dir():
        return Place(source, FolderTree(source, follow_links=follow_links))
    if not is_archive(source):
        raise DataError("is a file", path=source, fix=A_PLACE)
    tree, base = ArchiveTree(source), ""
    while len(_visible(tree.children(base)[0])) == 1 and not _visible(tree.children(base)[1]):
        inner = _visible(tree.children(base)[0])[0]
        base = f"{base}/{inner}" if base else inner
    return Place(source, tree, base)


def _visible(names: Sequence[str]) -> list[str]:
    return [name for name in names if not name.startswith(".") and name.casefold() not in SYSTEM_FILES]


def _below(tree: Tree, base: str) -> Iterator[str]:
    waiting = [base]
    while waiting:
        folder = waiting.pop()
        if len(folder.encode("utf-8", "surrogateescape")) > 4000:
            raise DataError("is nested too deep", path=f"{printable(folder[:200])}...", fix="move the files up")
        folders, files = map(_visible, tree.children(folder))
        yield from (f"{folder}/{name}" if folder else name for name in files)
        waiting += [f"{folder}/{name}" if folder else name for name in folders]


def split_in(name: str) -> str:
    """The split that a folder of a path is named after: "train" of a/training/b.jpg; "" where there is none."""
    parts = name.casefold().split("/")[:-1]
    return next((SPLIT_FOLDERS[part] for part in reversed(parts) if part in SPLIT_FOLDERS), "")
