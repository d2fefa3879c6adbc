"""What a source of examples holds: images, sounds or texts, told by names and by the first line of a table."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from resnetkit.data import audio, image, text
from resnetkit.data.archive import ArchiveTree, is_archive
from resnetkit.errors import DataError

LOOKED_AT = 2_000  # files of a folder
KINDS = {"images": image.EXTENSIONS, audio.NOUN: audio.EXTENSIONS, text.NOUN: text.EXTENSIONS}
HEAD = 1 << 16  # bytes of a table


def recognised(source: Path, columns: text.Chosen = text.Chosen()) -> str:  # noqa: B008  frozen
    """The noun of the modality of a source: "images" where it holds nothing else, or nothing at all.

    Args:
        source: folder, archive or table; need not be there.
        columns: of texts, as they are named; a table in which somebody names them is one of texts.
    """
    if source.is_file() and text.is_table(source):
        return _of_table(source, columns)
    if source.is_dir() and any(text.is_table(path) and path.stem.casefold() == "train" for path in _files(source)):
        tables = [path for path in _files(source) if text.is_table(path) and path.stem.casefold() == "train"]
        return _of_table(tables[0], columns)
    endings = Counter(os.path.splitext(name)[1].lower() for name in islice(_names(source), LOOKED_AT))
    counts = {noun: sum(endings[ending] for ending in known) for noun, known in KINDS.items()}
    return max(counts, key=counts.__getitem__)  # the first of equal ones: images with a .txt each are images


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_file())
    except OSError:  # told when it is read
        return []


def _names(source: Path) -> Iterator[str]:
    if source.is_dir():
        for _, folders, files in os.walk(source):
            folders.sort()
            yield from files
    elif source.is_file():
        try:
            yield from ArchiveTree(source).members if is_archive(source) else ()
        except (DataError, OSError):  # told when it is read
            return


def _of_table(path: Path, columns: text.Chosen) -> str:
    """Of a .csv of paths by the endings of these; any other table is one of texts."""
    if path.suffix.lower() != ".csv" or columns.text or columns.label:
        return text.NOUN
    try:
        with path.open("rb") as file:
            lines = file.read(HEAD).decode("utf-8-sig", "replace").splitlines()
    except OSError:
        return "images"
    names = [name.strip().strip('"').casefold() for name in lines[0].split(",")] if lines else []
    if "path" in names:
        cells = [line.split(",")[names.index("path") :][:1] for line in lines[1:]]
        endings = Counter(os.path.splitext(cell[0].strip().strip('"'))[1].lower() for cell in cells if cell)
        counts = {noun: sum(endings[ending] for ending in KINDS[noun]) for noun in ("images", audio.NOUN)}
        return max(counts, key=counts.__getitem__)
    if names and set(names) & set(text.TEXT) and set(names) & set(text.LABEL):
        return text.NOUN
    every = (cell.strip().strip('"') for line in lines for cell in line.split(","))
    if any(os.path.splitext(cell)[1].lower() in (*image.EXTENSIONS, *audio.EXTENSIONS) for cell in every):
        return "images"  # paths without a header, which is told when it is read
    # a text whose label has a name of its own, or without a header: a text and its label, two columns
    return text.NOUN if set(names) & set(text.TEXT) or _looks_like_texts(path) else "images"


def _looks_like_texts(path: Path) -> bool:
    """Whether a .csv without a known header is a label and a text in each line."""
    try:
        return bool(len(text.scan(path)))
    except DataError:
        return False
