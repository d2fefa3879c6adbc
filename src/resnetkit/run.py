"""A run folder: recipe.toml env.json results.csv metrics.json predictions.csv log.jsonl report.html model/ state/.

A training may be killed, and its disk may fill, at any moment: states are written and read here, without torch, so that
a test can do that to a process at each of its system calls.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from safetensors import SafetensorError

from resnetkit import files
from resnetkit.errors import ModelError, ResourceError, UsageError
from resnetkit.files import resource_errors, set_aside, write

log = logging.getLogger("resnetkit")
RECIPE, ENVIRONMENT = "recipe.toml", "env.json"
STATE = "state.json"
LOCK = ".lock"
KEPT = 2  # states
_told: set[Path] = set()  # records that could not be written
PACKAGES = ("resnetkit", "torch", "torchvision", "numpy", "pillow", "safetensors", "scikit-learn")


@dataclass(frozen=True)
class Run:
    """A run folder and its headline.

    Attributes:
        folder: the run folder; `resnetkit.load` and `evaluate` take it.
        metrics: as in metrics.json: name to value, n, low, high, method.
    """

    folder: Path
    metrics: Mapping[str, Mapping[str, Any]]


def refuse(
    folder: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    fix: str = "--resume to go on, --overwrite to move it aside, or another --out",
) -> None:
    """Refuse a folder before any work; `fix` is the way out of one that holds something, which not all verbs share.

    Raises:
        UsageError: it holds something and neither --resume nor --overwrite is given, or both are.
        ResourceError: it is a file.
    """
    if resume and overwrite:
        raise UsageError("--resume and --overwrite exclude each other", fix="give one of them")
    with resource_errors(folder):  # a name that is too long, a folder that is not ours
        is_no_folder = folder.exists() and not folder.is_dir()
        holds_something = folder.is_dir() and not all(map(_is_left_over, folder.iterdir()))
        what = "is a file" if folder.is_file() else "is not a folder"
    if is_no_folder:
        raise ResourceError(what, path=folder, fix="choose another folder with --out")
    if resume and not (folder / RECIPE).is_file():
        raise UsageError(
            "holds no run to resume", path=folder, fix="train without --resume, or name the run with --out"
        )
    if resume and (folder / "model").exists():
        raise UsageError("is finished already", path=folder, fix="--overwrite to start anew, or another --out")
    if holds_something and not (resume or overwrite):
        raise UsageError("holds something already", path=folder, fix=fix)


def _is_left_over(path: Path) -> bool:
    return path.name == LOCK or files.is_temporary(path)


def probe(folder: Path) -> None:
    """Make the run folder and a file in it, and remove both: what cannot be written to is found before any work.

    Raises:
        ResourceError: the folder cannot be made or written to.
    """
    made: list[Path] = []
    inside = files.temporary_beside(folder / "probe")
    try:
        with resource_errors(folder):
            for path in [*files.missing_folders(folder), inside]:
                path.mkdir(exist_ok=True)
                made.append(path)
            write(inside / "file", b"\0")
    except ResourceError as error:
        raise ResourceError(error.what, path=folder, fix=error.fix or "choose another folder with --out") from error
    finally:
        shutil.rmtree(inside, ignore_errors=True)
        for path in reversed(made):
            with suppress(OSError):  # another process may have begun to use it
                path.rmdir()


def check_space(folder: Path, needed: int) -> None:
    """Refuse a disk on which a saved state has no room; warn where there is none for two.

    Args:
        folder: the run folder, which need not exist.
        needed: bytes of a saved state.

    Raises:
        ResourceError: less than `needed` is free.
    """
    with resource_errors(folder):
        free = files.free_bytes(folder)
    room = files.room(folder, needed)
    if free < needed:
        fix = f"free some space: {room}; or choose a folder on another disk with --out"
        raise ResourceError("has no room for the state of this training", path=folder, fix=fix)
    if free < 2 * needed:
        log.warning(f"take care: the disk of {folder} is almost full: {room} for each saved state")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run folder, so that a second process that wants to write to it is refused; a killed process holds nothing.

    Raises:
        ResourceError: another process holds it, or the disk refuses.
    """
    with resource_errors(folder):
        path = _lock_file(folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            fix = "wait for it, or choose another folder with --out"
            raise ResourceError("is being written by another process", path=folder, fix=fix) from None
    try:
        yield
    finally:
        if os.name != "nt":  # before it is released: afterwards it may be another's
            with suppress(OSError):
                path.unlink(missing_ok=True)
        lock.release()


def _lock_file(folder: Path) -> Path:
    """Beside the folder, so that it stays in its place while --overwrite moves the folder aside and makes a new one.

    Inside it where the folder above cannot be written to, such as that of a mounted volume: nothing can be moved there.
    """
    path = Path(os.path.abspath(folder))
    if path.is_dir() and not os.access(path.parent, os.W_OK):
        return path / LOCK
    return path.with_name(f".{path.name}{LOCK}")


def prepare(folder: Path, *, resume: bool, overwrite: bool, data: str = "", device: str = "") -> Path | None:
    """Make the run folder; with overwrite an older one is moved aside, and where to is returned.

    To be called with the folder `locked`, since it removes what a killed process left. env.json says what
    `data`, the fingerprint of the examples, and `device` are.

    Raises:
        UsageError, ResourceError: as `refuse`, or it cannot be written to.
    """
    refuse(folder, resume=resume, overwrite=overwrite)
    aside = set_aside(folder) if overwrite else None
    with resource_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for place in (folder, folder / "state"):
        files.remove_temporaries(place)
    write(folder / ENVIRONMENT, json.dumps({**environment(), "device": device, "data": data}, indent=2) + "\n")
    return aside


def save_state(
    folder: Path, step: int, tensors: Mapping[str, Mapping[str, NDArray[Any]]], values: Mapping[str, Any]
) -> Path:
    """Write the state of a training as folder/<step>, published by one rename with a manifest; the two newest are kept.

    Args:
        folder: state/ of the run folder.
        step: steps done.
        tensors: groups of named arrays; each group is a file.
        values: what else there is; JSON without NaN.

    Raises:
        ResourceError: the disk refuses; the older states are intact.
    """
    target = folder / f"{step:08d}"
    with resource_errors(target):
        there = target.exists()
    if there:
        if _is_whole(target):
            return target
        files.remove(target)
    text = json.dumps({"step": step, **values}, allow_nan=False)
    size = sum(array.nbytes for group in tensors.values() for array in group.values()) + len(text)
    with files.new_folder(target, needed=size) as temporary:
        for name, group in tensors.items():
            contiguous = {key: np.asarray(array, order="C") for key, array in group.items()}
            (temporary / f"{name}.safetensors").write_bytes(safetensors.numpy.save(contiguous))
        (temporary / STATE).write_text(text, encoding="utf-8")
    with suppress(ResourceError):  # it is saved; an old one too many does no harm
        _prune(folder, step)
    return target


def _is_whole(state: Path) -> bool:
    try:
        return bool(files.verify_manifest(state))
    except ModelError:
        return False


def _prune(folder: Path, step: int) -> None:
    """Remove all but the newest states up to a step, and later ones that are damaged: a resume has passed them over."""
    states = saved_states(folder)
    past = [path for path in states if int(path.name) <= step]
    for path in [*past[:-KEPT], *(path for path in states[len(past) :] if not _is_whole(path))]:
        files.remove(path)


def saved_states(folder: Path) -> list[Path]:
    """Folders of the saved states, oldest first."""
    with resource_errors(folder):
        names = folder.iterdir() if folder.is_dir() else ()
        return sorted((p for p in names if p.name.isdecimal() and p.is_dir()), key=lambda p: int(p.name))


def read_state(folder: Path) -> tuple[dict[str, dict[str, NDArray[Any]]], dict[str, Any]]:
    """The tensors and values of a saved state.

    Raises:
        ModelError: a byte is changed, or it is not a state.
    """
    names = files.verify_manifest(folder)
    if STATE not in names:
        raise ModelError("is not the state of a training", path=folder, fix="give a folder of state/ of a run")
    try:
        values = json.loads((folder / STATE).read_text(encoding="utf-8"))
        tensors = {
            Path(name).stem: safetensors.numpy.load_file(folder / name)
            for name in names
            if Path(name).suffix == ".safetensors"
        }
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(
            f"cannot be read: {error}", path=folder, fix="copy the folder again from its source"
        ) from error
    return tensors, values


def trained_on(folder: Path) -> str:
    """Fingerprint of the data that a run was trained on; "" where it is not told."""
    try:
        return str(json.loads((folder / ENVIRONMENT).read_text(encoding="utf-8")).get("data", ""))
    except (OSError, ValueError, AttributeError):
        return ""


def environment() -> dict[str, Any]:
    """Versions, processor and command line: what one needs to make a run again."""
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "versions": versions,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def cell(value: Any) -> Any:
    """A CSV cell that no spreadsheet takes for a formula; None and NaN are empty."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return "'" + value
    return value


def plain(text: str) -> str:
    """A cell without the ' that keeps a spreadsheet from taking it for a formula."""
    return text[1:] if text[:1] == "'" and text[1:2] in ("=", "+", "-", "@") else text


def as_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as CSV with a header."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([cell(row.get(name)) for name in columns] for row in rows)
    return buffer.getvalue()


def write_json(path: Path, value: Any) -> None:
    """JSON, whole or not at all; a NaN in it is a bug of ours and raises ValueError."""
    write(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with None for NaN and infinity, for which JSON has no word."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()
    }


def log_event(folder: Path, event: str, values: Mapping[str, Any]) -> None:
    """Append a line to log.jsonl; a log that cannot be written is said once, and does not end a training."""
    line = json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "event": event, **finite(values)})
    path = folder / "log.jsonl"
    with _record(path), path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def log_rows(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as CSV; a file that cannot be written is said once, and does not end a training."""
    with _record(path):
        write(path, as_csv(columns, rows))


@contextmanager
def _record(path: Path) -> Iterator[None]:
    try:
        with resource_errors(path):
            yield
    except ResourceError as error:
        if path not in _told:
            _told.add(path)
            log.warning(f"{error}; going on without it")
