"""A server that several tests share, and a file that its model knows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import resnetkit
from resnetkit import api
from resnetkit.recipe import parse_setting
from senses import TINY, data_of
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


def learnt(kind: str, root: Path) -> Path:
    """A run on sounds or texts."""
    settings = dict(map(parse_setting, TINY[kind]))
    return api.train(data_of(kind, root), out=root / "runs" / kind, settings=settings, quiet=True).folder


@pytest.fixture(scope="session")
def senses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server of a model of tones and one of sentences."""
    pytest.importorskip("soundfile")
    pytest.importorskip("tokenizers")
    root = tmp_path_factory.mktemp("senses")
    with living(("tones", learnt("sounds", root)), ("words", learnt("texts", root))) as live:
        yield live
