"""A run folder: recipe.toml env.json results.csv metrics.json predictions.csv log.jsonl report.html model/ state/."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from resnetkit.errors import ResourceError, UsageError
from resnetkit.files import resource_errors, set_aside, write

RECIPE = "recipe.toml"
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


def refuse(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse a run folder before any work.

    Raises:
        UsageError: it holds something and neither --resume nor --overwrite is given, or both are.
        ResourceError: it is a file.
    """
    if resume and overwrite:
        raise UsageError("--resume and --overwrite exclude each other", fix="give one of them")
    with resource_errors(folder):  # a name that is too long, a folder that is not ours
        is_file = folder.exists() and not folder.is_dir()
        holds_something = folder.is_dir() and any(folder.iterdir())
    if is_file:
        raise ResourceError("is a file", path=folder, fix="choose another folder with --out")
    if resume and not (folder / RECIPE).is_file():
        raise UsageError(
            "holds no run to resume", path=folder, fix="train without --resume, or name the run with --out"
        )
    if resume and (folder / "model").exists():
        raise UsageError("is finished already", path=folder, fix="--overwrite to start anew, or another --out")
    if holds_something and not (resume or overwrite):
        fix = "--resume to go on, --overwrite to move it aside, or another --out"
        raise UsageError("holds something already", path=folder, fix=fix)


def prepare(folder: Path, *, resume: bool, overwrite: bool) -> Path | None:
    """Make the run folder; with overwrite an older one is moved aside, and where to is returned.

    Raises:
        UsageError, ResourceError: as `refuse`, or it cannot be written to.
    """
    refuse(folder, resume=resume, overwrite=overwrite)
    aside = set_aside(folder) if overwrite else None
    with resource_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for stale in [*folder.glob(".*.tmp-*"), *folder.glob("state/.*.tmp-*")]:
            shutil.rmtree(stale, ignore_errors=True) if stale.is_dir() else stale.unlink(missing_ok=True)
    write(folder / "env.json", json.dumps(environment(), indent=2) + "\n")
    return aside


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


def log_event(folder: Path, event: str, values: Mapping[str, Any]) -> None:
    """Append a line to log.jsonl; a log that cannot be written must not end a training."""
    line = json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "event": event, **values})
    try:
        with (folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:
        print(f"note: log.jsonl cannot be written: {error.strerror}", file=sys.stderr)
