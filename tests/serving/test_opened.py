"""A model that is open: measured, and described without a word on where it lies."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from resnetkit.serving.limits import Limits
from resnetkit.serving.opened import Opened, Opening, open_model


def opened(path: Path, batch: int = 8) -> Opened:
    return open_model(Opening("m", str(path), "torch", "cpu", False, Limits(batch=batch)))


@pytest.mark.parametrize(("together", "expected"), [(3.0, 8), (7.0, 8), (7.9, 1), (9.0, 1)])
def test_a_batch_only_where_it_pays(
    trained: Path, monkeypatch: pytest.MonkeyPatch, together: float, expected: int
) -> None:
    monkeypatch.setattr(Opened, "_seconds", lambda self, number: 1.0 if number == 1 else together)
    assert opened(trained).batch() == expected
    assert opened(trained, batch=1).batch() == 1


def test_what_is_told_of_it(trained: Path, tmp_path: Path) -> None:
    """I34."""
    model = opened(trained)
    info = model.described(model.warm())
    text = json.dumps(info)
    assert str(trained) not in text and str(Path.home()) not in text
    assert info["overlay"] and info["calibrated"] and info["classes"] == ["blue", "green", "red"]
    copy = tmp_path / "elsewhere"
    shutil.copytree(trained / "model", copy)
    assert opened(copy).described(model.warm()) == info


def test_the_explainer_is_the_model_itself_in_torch(trained: Path) -> None:
    model = opened(trained)
    assert model.explainer is model.own
