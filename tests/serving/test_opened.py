"""A model that is open: measured, and described without a word on where it lies."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from resnetkit.runtime.backends import mirrored
from resnetkit.serving.limits import Limits
from resnetkit.serving.opened import Explainer, Opened, Opening, open_model
from resnetkit.serving.refusal import Refused


def opened(path: Path, batch: int = 8) -> Opened:
    return open_model(Opening("m", str(path), "torch", "cpu", False, Limits(batch=batch)))


@pytest.mark.parametrize(("together", "expected"), [(3.0, 8), (7.0, 8), (7.9, 1), (9.0, 1)])
def test_a_batch_only_where_it_pays(
    trained: Path, monkeypatch: pytest.MonkeyPatch, together: float, expected: int
) -> None:
    monkeypatch.setattr(Opened, "_seconds", lambda self, number: 1.0 if number == 1 else together)
    assert opened(trained).batch() == expected
    assert opened(trained, batch=1).batch() == 1
    known = open_model(Opening("m", str(trained), "torch", "cpu", False, Limits(batch=8), together=8))
    assert known.batch() == 8


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
    assert model.explainer.model() is model.own


def test_an_explainer_beside_another_backend_is_opened_in_the_background(trained: Path) -> None:
    own = opened(trained).own
    explainer = Explainer(replace(own, backend=mirrored(own.backend)), "cpu")
    with pytest.raises(Refused) as caught:
        explainer.model()
    assert caught.value.status == 503 and caught.value.retry_after
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            assert explainer.model().backend.name == "torch"
            return
        except Refused:
            time.sleep(0.05)
    raise AssertionError("it was never opened")
