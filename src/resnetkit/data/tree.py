"""Walk through class folders, on disk or in an archive, and find the files that count; the others are counted."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from resnetkit.errors import DataError, printable
from resnetkit.files import read_errors

SPLITS = ("train", "val", "test")
SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
SYSTEM_FILES = {"thumbs.db", "desktop.ini", "__macosx"}
LINKS_OUT = "links out of the folder (follow them: --set data.follow_links=true)"


class Tree(Protocol):
    """Folders within folders.

    Attributes:
        ignored: what the tree itself leaves out, and how often.
    """

    ignored: Counter[str]

    def children(self, folder: str) -> tuple[list[str], list[str]]:
        """Names of the folders and of the files in a folder ("" is the root), each sorted."""
        ...


class FolderTree:
    """Folders on disk. Links to folders are not followed, links to files only inside the root (or all, on demand)."""

    def __init__(self, root: Path, *, follow_links: bool = False) -> None:
        self.ignored: Counter[str] = Counter()
        self._root, self._real, self._follow_links = root, os.path.realpath(root), follow_links

    def children(self, folder: str) -> tuple[list[str], list[str]]:
        """Names of the folders and of the files in a folder, each sorted."""
        folders: list[str] = []
        files: list[str] = []
        path = os.path.join(self._root, folder)
        with read_errors(path), os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.name)
                elif entry.is_file(follow_symlinks=False) or self._is_good_link(entry):
                    files.append(entry.name)
        return sorted(folders), sorted(files)

    def _is_good_link(self, entry: os.DirEntry[str]) -> bool:
        """Whether it is a link to a file that may be followed; the others, devices and pipes too, are counted."""
        if _is_hidden(entry.name):
            reason = "hidden or system files"
        elif os.path.isdir(entry.path):  # which, unlike entry.is_dir, is False for a link to itself
            reason = "links to folders"
        elif not os.path.isfile(entry.path):
            reason = "neither files nor folders"
        elif not self._follow_links and not _is_below(os.path.realpath(entry.path), self._real):
            reason = LINKS_OUT
        else:
            return True
        self.ignored[reason] += 1
        return False


def _is_below(path: str, root: str) -> bool:
    return path.startswith(os.path.join(root, ""))


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.casefold() in SYSTEM_FILES


def _visible(names: Sequence[str], ignored: Counter[str]) -> list[str]:
    visible = [name for name in names if not _is_hidden(name)]
    if len(visible) < len(names):
        ignored["hidden or system files"] += len(names) - len(visible)
    return visible


def class_folders(tree: Tree, ignored: Counter[str]) -> Iterator[tuple[str, str, str]]:
    """Path, class and split ("" where none is given) of every class folder."""
    top = _top(tree, ignored)
    folders, files = (_visible(names, ignored) for names in tree.children(top))
    given = [name for name in folders if name.casefold() in SPLIT_FOLDERS and tree.children(_join(top, name))[0]]
    if not any(SPLIT_FOLDERS[name.casefold()] == "train" for name in given):
        given = []
    loose = len(files)
    if given:
        ignored.update({f"folder {printable(name)} beside the splits": 1 for name in folders if name not in given})
    else:
        yield from ((_join(top, name), name, "") for name in folders)
    for part in given:
        folders, files = (_visible(names, ignored) for names in tree.children(_join(top, part)))
        loose += len(files)
        yield from ((_join(_join(top, part), name), name, SPLIT_FOLDERS[part.casefold()]) for name in folders)
    if loose:
        ignored["files outside class folders"] += loose


def _top(tree: Tree, ignored: Counter[str]) -> str:
    """Where the class folders begin: below the one folder that a packed folder often is inside its archive."""
    if isinstance(tree, FolderTree):
        return ""
    nothing: Counter[str] = Counter()
    folders = _visible(tree.children("")[0], nothing)
    inner = tree.children(folders[0])[0] if len(folders) == 1 else []
    if len(inner) < 2 and not any(name.casefold() in SPLIT_FOLDERS for name in inner):
        return ""
    ignored.update(nothing)
    return folders[0]


def files_below(tree: Tree, folder: str, extensions: Sequence[str], ignored: Counter[str]) -> Iterator[str]:
    """Paths of the files below a folder, deep, whose ending is accepted."""
    waiting = [folder]
    while waiting:
        path = waiting.pop()
        if len(os.fsencode(path)) > 4000:
            raise DataError("is nested too deep", path=f"{path[:200]}...", fix="move the files up")
        folders, files = (_visible(names, ignored) for names in tree.children(path))
        for name in files:
            ending = os.path.splitext(name)[1].lower()
            if ending in extensions:
                yield f"{path}/{name}"
            else:
                ignored[f"{printable(ending) or 'endless'} files"] += 1
        waiting += [f"{path}/{name}" for name in reversed(folders)]


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
