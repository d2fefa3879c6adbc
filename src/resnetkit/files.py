"""Files that are whole or not there: atomic writes, folders published by one rename, manifests of SHA-256 sums.

The order is that of a crash-safe writer: temporary name in the same folder, write, fsync, rename, fsync of the parent.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from resnetkit.errors import ModelError, ResourceError

MANIFEST = "manifest.json"
_ADVICE = {
    errno.ENOSPC: "free some space on the disk",
    errno.EDQUOT: "free some space: the quota is used up",
    errno.EROFS: "choose another folder with --out: this disk is read-only",
    errno.EACCES: "choose another folder with --out, or change its permissions",
    errno.EPERM: "choose another folder with --out, or change its permissions",
    errno.ENOTDIR: "a part of this path is a file: choose another folder",
}


@contextmanager
def resource_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn an OSError inside the block into a ResourceError that names `path` and the way out."""
    try:
        yield
    except OSError as error:
        what = error.strerror or str(error)
        raise ResourceError(what.lower(), path=path, fix=_ADVICE.get(error.errno or 0, "")) from error


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    """Flush a file, or a folder's list of names, to the disk (a folder cannot be opened on Windows: skipped there)."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write(path: Path, content: bytes | str) -> None:
    """Write a file so that at every moment either the old content or the new one is there.

    Raises:
        ResourceError: no space, no permission.
    """
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    data = content.encode("utf-8") if isinstance(content, str) else content
    with resource_errors(path):
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        _fsync(path.parent)


@contextmanager
def new_folder(path: Path, *, manifest: bool = True) -> Iterator[Path]:
    """Give a temporary folder beside `path` to fill; it takes that name, with a manifest, when the block ends well.

    Args:
        path: the folder to be.
        manifest: add manifest.json with the SHA-256 of each file; then the folder must hold files only.

    Raises:
        ResourceError: `path` exists and is not empty, or the disk refuses.
    """
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    with resource_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
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


def _write_manifest(folder: Path) -> None:
    files = {f.name: {"bytes": f.stat().st_size, "sha256": sha256(f)} for f in sorted(folder.iterdir())}
    (folder / MANIFEST).write_text(json.dumps({"format": 1, "files": files}, indent=2) + "\n", encoding="utf-8")


def verify_manifest(folder: Path) -> None:
    """Check every file of a folder against its manifest.

    Raises:
        ModelError: a file is missing, shorter, longer or changed, or the manifest itself cannot be read.
    """
    path = folder / MANIFEST
    try:
        files = json.loads(path.read_text(encoding="utf-8"))["files"]
        expected = {str(name): (int(entry["bytes"]), str(entry["sha256"])) for name, entry in files.items()}
    except FileNotFoundError:
        raise ModelError("has no manifest.json", path=folder, fix="give a folder that resnetkit wrote") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ModelError("manifest cannot be read", path=path, fix="copy the folder again from its source") from error
    for name, (size, digest) in expected.items():
        _verify(folder / Path(name).name, size, digest)


def _verify(path: Path, size: int, digest: str) -> None:
    fix = "copy the folder again from its source"
    if not path.is_file():
        raise ModelError("is missing", path=path, fix=fix)
    found = path.stat().st_size
    if found != size:
        raise ModelError(f"corrupt: {found:,} of {size:,} bytes", path=path, fix=fix)
    if sha256(path) != digest:
        raise ModelError("corrupt: its SHA-256 is not the one in manifest.json", path=path, fix=fix)


def set_aside(path: Path) -> Path | None:
    """Rename an existing file or folder to the first free of name.1, name.2, ...; None if there is nothing there."""
    if not path.exists():
        return None
    number = next(n for n in range(1, 10_000) if not path.with_name(f"{path.name}.{n}").exists())
    aside = path.with_name(f"{path.name}.{number}")
    with resource_errors(path):
        path.rename(aside)
    return aside
