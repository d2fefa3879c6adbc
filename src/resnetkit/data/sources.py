"""What a sample is read from where it is no file of its own: a line of a table, or a part of a recording.

Both are asked for their bytes as files are (`open`), so what compares files by their bytes compares these too.
"""

from __future__ import annotations

import io
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

FRAGMENT = re.compile(r"(.+)#t=(\d+(?:\.\d+)?)(?:,(\d+(?:\.\d+)?))?")


@dataclass(frozen=True)
class Line:
    """A text and its name, as `train.csv#line=7`."""

    name: str
    text: str

    def __fspath__(self) -> str:
        return self.name

    def __str__(self) -> str:
        return self.name

    def open(self, mode: str = "rb") -> BinaryIO:
        """The text in UTF-8, as a file."""
        return io.BytesIO(self.text.encode("utf-8", "surrogatepass"))


@dataclass(frozen=True)
class Part:
    """A part of a file: the whole one, and which part in the form of `part_name`, `#t=1.5,4`."""

    whole: Path
    fragment: str

    def __fspath__(self) -> str:
        return f"{self.whole}{self.fragment}"

    def __str__(self) -> str:
        return self.__fspath__()

    def open(self, mode: str = "rb") -> BinaryIO:
        """The bytes of the whole file, and which part of them is meant: what tells this part from others."""
        return io.BytesIO(self.whole.read_bytes() + self.fragment.encode())


def part_name(path: str, start: float, end: float | None) -> str:
    """Name of a part of a file, from `start` to `end` seconds (None: to its end)."""
    return f"{path}#t={start:.6f}".rstrip("0").rstrip(".") + (
        "" if end is None else f",{end:.6f}".rstrip("0").rstrip(".")
    )


def part_of(root: Path, name: str) -> Part | None:
    """The part that a name below a folder means; None where it is a file's own name."""
    at = name.rfind("#t=")
    if at < 0 or FRAGMENT.fullmatch(name) is None or os.path.exists(root / name):
        return None
    return Part(root / name[:at], name[at:])
