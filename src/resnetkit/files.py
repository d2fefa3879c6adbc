"""Files that are whole or not there: atomic writes, folders published by one rename, manifests of SHA-256 sums.

The order is that of a crash-safe writer: temporary name in the same folder, write, fsync, rename, fsync of the parent.
A file whose fsync failed is given up, never flushed again: the second try would report success for pages that are lost.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from resnetkit.errors import ModelError, ResourceError

MANIFEST = "manifest.json"
FORMAT = 1  # of manifest.json
_TEMPORARY = re.compile(r"\..+\.tmp-\d+")
_ADVICE = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space: the quota is used up",
    errno.EFBIG: "raise the limit on the size of files: ulimit -f",
    errno.EROFS: "choose another folder with --out: this disk is read-only",
    errno.EACCES: "choose another folder with --out, or change its permissions",
    errno.EPERM: "choose another folder with --out, or change its permissions",
    errno.ENOTDIR: "a part of this path is a file: choose another folder",
}


@contextmanager
def read_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn an OSError of reading into a ResourceError that names `path`."""
    try:
        yield
    except OSError as error:
        what = (error.strerror or str(error)).lower()
        raise ResourceError(what, path=path, fix="check its permissions, and that the disk is there") from error


@contextmanager
def resource_errors(path: str | os.PathLike[str], needed: int = 0) -> Iterator[None]:
    """Turn an OSError inside the block into a ResourceError that names `path` and the way out.

    Args:
        path: what is read or written.
        needed: bytes to be written, where known: a full disk is then reported with both numbers.
    """
    try:
        yield
    except OSError as error:
        what = error.strerror or str(error)
        fix = _ADVICE.get(error.errno or 0, "")
        if error.errno == errno.ENOSPC:
            fix += ": " + room(path, needed)
        raise ResourceError(what.lower(), path=path, fix=fix) from error


def room(path: str | os.PathLike[str], needed: int) -> str:
    """What the disk of `path` has free and what is needed of it (0: not known), in words."""
    words = []
    with suppress(OSError):  # this is said when something failed already
        words.append(f"{in_words(free_bytes(path))} free")
    return ", ".join([*words, f"{in_words(needed)} needed"] if needed else words)


def in_words(size: int) -> str:
    """A number of bytes as one reads it: 1.5 GB."""
    for divisor, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= divisor:
            return f"{size / divisor:.{int(size < 10 * divisor)}f} {unit}"
    return f"{size} bytes"


def free_bytes(path: str | os.PathLike[str]) -> int:
    """Bytes that may be written on the disk that `path` is on, or would be on."""
    absolute = Path(path).absolute()
    return shutil.disk_usage(next(p for p in (absolute, *absolute.parents) if p.exists())).free


def cache_home() -> Path | None:
    """Where what can be made again is kept: RESNETKIT_CACHE, or the user's cache folder; None where there is none."""
    own, shared = os.environ.get("RESNETKIT_CACHE"), os.environ.get("XDG_CACHE_HOME")
    if own:
        return Path(own)
    if shared:
        return Path(shared) / "resnetkit"
    try:
        return Path.home() / ".cache" / "resnetkit"
    except RuntimeError:  # there is no home
        return None


def missing_folders(path: Path) -> list[Path]:
    """The folders that have to be made for `path` to be one, uppermost first."""
    return [p for p in (path, *path.parents) if not p.exists()][::-1]


def temporary_beside(path: Path) -> Path:
    """A name under which to make `path`, that no other process has: containers on one disk may share process ids."""
    return path.with_name(f".{path.name}.tmp-{os.getpid()}{secrets.randbelow(10**6):06d}")


def is_temporary(path: Path) -> bool:
    """Whether a name is one of `temporary_beside`, of whatever process: left by a killed one, if none is at work."""
    return _TEMPORARY.fullmatch(path.name) is not None


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    """Flush a file, or a folder's list of names, to the disk (a folder cannot be opened on Windows: skipped there)."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # some network file systems cannot flush a folder; an error of the disk is never passed over
        if not (path.is_dir() and error.errno in (errno.EINVAL, errno.ENOTSUP)):
            raise
    finally:
        os.close(descriptor)


@contextmanager
def new_file(path: Path, needed: int = 0) -> Iterator[BinaryIO]:
    """Give a file to write piece by piece; it takes the name `path` when the block ends well, else nothing is left.

    Args:
        path: the file to be; at every moment either the old content is there or the new one.
        needed: bytes to be written, where known: a full disk is then reported with both numbers.

    Raises:
        ResourceError: no such folder, no space, no permission.
    """
    temporary = temporary_beside(path)
    with resource_errors(path, needed):
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            with suppress(OSError):  # the first error is the one to report
                temporary.unlink(missing_ok=True)
        _fsync(path.parent)


def write(path: Path, content: bytes | str) -> None:
    """Write a file so that at every moment either the old content or the new one is there.

    Raises:
        ResourceError: no space, no permission.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    with new_file(path, len(data)) as file:
        file.write(data)


@contextmanager
def new_folder(path: Path, *, manifest: bool = True, needed: int = 0) -> Iterator[Path]:
    """Give a temporary folder beside `path` to fill; it takes that name, with a manifest, when the block ends well.

    Args:
        path: the folder to be.
        manifest: add manifest.json with the SHA-256 of each file; then the folder must hold files only.
        needed: bytes to be written, where known: a full disk is then reported with both numbers.

    Raises:
        ResourceError: `path` exists and is not empty, or the disk refuses.
    """
    temporary = temporary_beside(path)
    with resource_errors(path, needed):
        for folder in missing_folders(path.parent):
            folder.mkdir(exist_ok=True)
            _fsync(folder.parent)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            yield temporary
            if manifest:
                _write_manifest(temporary)
            for file in [*temporary.rglob("*"), temporary]:
                _fsync(file)
            temporary.rename(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        _fsync(path.parent)


def remove(path: Path) -> None:
    """Remove a folder so that at every moment it is whole or not there; one that cannot be removed is left."""
    doomed = temporary_beside(path)
    with suppress(OSError):
        path.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def remove_temporaries(folder: Path) -> None:
    """Remove what killed processes left in a folder under temporary names; the caller knows that none is at work."""
    with suppress(OSError):  # what cannot be removed does no harm
        for path in filter(is_temporary, folder.iterdir()):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _write_manifest(folder: Path) -> None:
    files = {f.name: {"bytes": f.stat().st_size, "sha256": sha256(f)} for f in sorted(folder.iterdir())}
    (folder / MANIFEST).write_text(json.dumps({"format": FORMAT, "files": files}, indent=2) + "\n", encoding="utf-8")


def verify_manifest(folder: Path) -> list[str]:
    """Check every file of a folder against its manifest; the names of these files are returned.

    Raises:
        ModelError: a file is missing, shorter, longer or changed, or the manifest itself cannot be read.
    """
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = int(content.get("format", FORMAT))
        entries = content["files"].items() if found <= FORMAT else ()
        expected = {Path(name).name: (int(entry["bytes"]), str(entry["sha256"])) for name, entry in entries}
    except FileNotFoundError:
        raise ModelError("has no manifest.json", path=folder, fix="give a folder that resnetkit wrote") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ModelError("manifest cannot be read", path=path, fix="copy the folder again from its source") from error
    if found > FORMAT:
        raise ModelError(f"is of format {found}, this version reads {FORMAT}", path=path, fix="update resnetkit")
    for name, (size, digest) in expected.items():
        _verify(folder / name, size, digest)
    return list(expected)


def _verify(path: Path, size: int, digest: str) -> None:
    fix = "copy the folder again from its source"
    if not path.is_file():
        raise ModelError("is missing", path=path, fix=fix)
    try:
        found = path.stat().st_size
        same = found == size and sha256(path) == digest
    except OSError as error:
        raise ModelError(f"cannot be read: {error.strerror}", path=path, fix=fix) from error
    if found != size:
        raise ModelError(f"corrupt: {found:,} of {size:,} bytes", path=path, fix=fix)
    if not same:
        raise ModelError("corrupt: its SHA-256 is not the one in manifest.json", path=path, fix=fix)


def set_aside(path: Path) -> Path | None:
    """Rename an existing file or folder to the first free of name.1, name.2, ...; None if there is nothing there."""
    with resource_errors(path):
        if not path.exists():
            return None
        number = next(n for n in range(1, 10_000) if not path.with_name(f"{path.name}.{n}").exists())
        aside = path.with_name(f"{path.name}.{number}")
        path.rename(aside)
    return aside
