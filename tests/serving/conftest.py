"""A server that several tests share, and a file that its model knows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import resnetkit
from servers import Live, living


@pytest.fixture(scope="session")
def server(trained: Path) -> Iterator[Live]:
    """One server for all tests that leave it as it was."""
    with living(("photos", trained)) as live:
        yield live


@pytest.fixture(scope="session")
def photo(trained: Path) -> bytes:
    """A file that the model calls red."""
    files = sorted((trained.parent.parent / "photos").rglob("*.png"))
    answers = resnetkit.load(trained, backend="torch").predict(files)
    return next(file for file, answer in zip(files, answers, strict=True) if answer.label == "red").read_bytes()
