"""serve: names of models, and what is refused before anything is opened."""

from __future__ import annotations

from pathlib import Path

import pytest

import resnetkit
from resnetkit.errors import UsageError
from resnetkit.verbs.serve import named


def test_names(tmp_path: Path) -> None:
    (tmp_path / "runs" / "photos" / "model").mkdir(parents=True)
    (tmp_path / "a=b").mkdir()
    runs = tmp_path / "runs"
    given = [runs / "photos", f"{runs}/photos/model", "best=runs/x", "b=a=b"]
    assert [name for name, _ in named(given)] == ["photos", "photos", "best", "b"]
    assert [str(path) for _, path in named(given)][2:] == ["runs/x", "a=b"]


@pytest.mark.parametrize("text", ["../x=runs/a", "a b=runs/a", "=runs/a", "é=runs/a", "x" * 65 + "=runs/a"])
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(UsageError, match="no name"):
        list(named([text]))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"token": "short"}, "8 to 512"),
        ({"token": "with a space"}, "8 to 512"),
        ({"root_path": "photos"}, "root-path"),
        ({"root_path": "/a/../b c"}, "root-path"),
        ({"settings": {"serve.max_byte": 1}}, "serve.max_bytes"),
    ],
)
def test_options_that_cannot_be(trained: Path, options: dict[str, object], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        resnetkit.serve(trained, port=0, **options)


def test_two_of_one_name(trained: Path) -> None:
    with pytest.raises(UsageError, match="name of its own"):
        resnetkit.serve([trained, trained], port=0)
