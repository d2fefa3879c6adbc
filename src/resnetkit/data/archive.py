"""A .zip or .tar of class folders, read in place: members by their offset, nothing unpacked, nothing written.

What makes archives dangerous is refused when they are opened: names that lead out, links, two members of one name,
encryption, and sizes that only a bomb announces.
"""

from __future__ import annotations

import io
import os
import struct
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from resnetkit.errors import DataError, printable
from resnetkit.files import read_errors

ENDINGS = (".zip", ".tar")
MAX_MEMBER = 512 * 2**20  # bytes of one file, unpacked
MAX_RATIO = 100  # of all that is compressed; photos reach 1.1, uncompressed drawings 50
COPY_AGAIN = "make the archive again, or unpack it and give the folder"
BLOCK = 512  # of a tar
_LOCAL_HEADER = 30  # bytes before a zip member's name, whose length and that of the extra field stand at 26


@dataclass(frozen=True)
class Member:
    """A file inside an archive.

    Attributes:
        archive: the archive.
        name: inside it, with "/".
        offset: of its bytes in the archive.
        size: in bytes, unpacked.
        packed: bytes of the deflated form, or 0 where it is stored as it is.
        crc: CRC-32 of its bytes, or -1 where the archive has none.
    """

    archive: Path
    name: str
    offset: int
    size: int
    packed: int = 0
    crc: int = -1

    def __fspath__(self) -> str:
        return f"{self.archive}/{self.name}"

    def __str__(self) -> str:
        return self.__fspath__()

    def open(self, mode: str = "rb") -> BinaryIO:
        """Its bytes, as a file.

        Raises:
            OSError: the archive ends before the member does, or its data is damaged.
        """
        with self.archive.open("rb") as file:
            file.seek(self.offset)
            content = file.read(self.packed or self.size)
        if self.packed:
            try:
                content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, self.size)
            except zlib.error as error:
                raise OSError(f"damaged in the archive: {error}") from error
        if len(content) != self.size:
            raise OSError(f"cut short in the archive: {len(content):,} of {self.size:,} bytes")
        if self.crc >= 0 and zlib.crc32(content) != self.crc:
            raise OSError("damaged in the archive: its CRC is another")
        return io.BytesIO(content)


def members(path: Path) -> Mapping[str, Member]:
    """The files of an archive by name, in the archive's order.

    Raises:
        DataError: it is damaged, of another kind, or dangerous.
        ResourceError: it cannot be read.
    """
    found: dict[str, Member] = {}
    with read_errors(path), _damage_told(path):
        size = path.stat().st_size
        for announced in (_zip_members if path.suffix.lower() == ".zip" else _tar_members)(path):
            _refuse(announced, path)
            plain = "/".join(part for part in announced.name.split("/") if part not in ("", "."))
            if plain in found:
                raise DataError(f"holds {printable(plain)} twice", path=path, fix=COPY_AGAIN)
            found[plain] = replace(announced, name=plain)
    packed = [member for member in found.values() if member.packed]
    compressed = sum(member.packed for member in packed)
    if compressed > size or sum(member.size for member in packed) > MAX_RATIO * max(compressed, 2**20):
        raise DataError("announces more content than its size can hold", path=path, fix="do not trust this archive")
    return found


@contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, tarfile.TarError, struct.error, NotImplementedError, EOFError, ValueError) as error:
        what = f"is not a {path.suffix.lower()} archive, or a damaged one: {error}"
        raise DataError(what, path=path, fix=COPY_AGAIN) from error


def _zip_members(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        for info in archive.infolist():
            if info.is_dir():
                continue
            if info.flag_bits & 1:
                raise DataError(f"member {printable(info.filename)} is encrypted", path=path, fix=COPY_AGAIN)
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                what = f"member {printable(info.filename)} is compressed in a way that is not supported"
                raise DataError(what, path=path, fix="make the archive again with zip's usual method")
            if (info.external_attr >> 16) & 0o170000 == 0o120000:
                raise DataError(f"member {printable(info.filename)} is a link", path=path, fix=COPY_AGAIN)
            file.seek(info.header_offset + 26)
            name, extra = struct.unpack("<HH", file.read(4))
            packed = info.compress_size if info.compress_type == zipfile.ZIP_DEFLATED else 0
            offset = info.header_offset + _LOCAL_HEADER + name + extra
            yield Member(path, info.filename, offset, info.file_size, packed, info.CRC)


def _tar_members(path: Path) -> Iterator[Member]:
    with tarfile.open(path, "r:") as archive:
        end = 0
        for info in archive:
            end = info.offset_data + (-(-info.size // BLOCK) * BLOCK if info.isreg() else 0)
            if info.isdir():
                continue
            if not info.isreg() or info.sparse is not None:
                what = f"member {printable(info.name)} is a link, a device or sparse"
                raise DataError(what, path=path, fix=COPY_AGAIN)
            yield Member(path, info.name, info.offset_data, info.size)
    with path.open("rb") as file:
        file.seek(end)
        if file.read(BLOCK) != bytes(BLOCK):  # which tarfile takes for the end, whatever it is
            raise EOFError("it is cut short or damaged after its last readable member")


def _refuse(member: Member, path: Path) -> None:
    """A name that leads out of the archive, or a size that no picture has."""
    name = member.name
    leads_out = name.startswith(("/", "\\")) or ".." in PurePosixPath(name.replace("\\", "/")).parts
    if leads_out or "\0" in name or name[1:2] == ":":
        raise DataError(f"member {printable(name)} leads out of the archive", path=path, fix="do not trust it")
    if member.size > MAX_MEMBER:
        what = f"member {printable(name)} is of {member.size:,} bytes, over {MAX_MEMBER:,}"
        raise DataError(what, path=path, fix="make it smaller")


class ArchiveTree:
    """The folders of an archive, as a `tree.Tree`.

    Args:
        path: of the archive.

    Raises:
        DataError, ResourceError: as `members`.
    """

    def __init__(self, path: Path) -> None:
        self.members = members(path)
        self.ignored: Counter[str] = Counter()
        self._children: dict[str, tuple[dict[str, None], list[str]]] = {"": ({}, [])}
        for name in self.members:
            folder = ""
            *parents, last = name.split("/")
            for part in parents:
                self._children[folder][0][part] = None
                folder = f"{folder}/{part}" if folder else part
                self._children.setdefault(folder, ({}, []))
            self._children[folder][1].append(last)

    def children(self, folder: str) -> tuple[list[str], list[str]]:
        """Names of the folders and of the files in a folder."""
        folders, files = self._children.get(folder, ({}, []))
        return sorted(folders), sorted(files)


def is_archive(path: Path) -> bool:
    """Whether a path is one that this module reads, by its ending."""
    return path.suffix.lower() in ENDINGS and os.path.isfile(path)
