"""auto is the fastest backend that gives torch's answers: measured once, remembered, and said."""

import json
import logging
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from resnetkit import models
from resnetkit.checkpoint import read
from resnetkit.data.image import Preprocess
from resnetkit.errors import ResourceError
from resnetkit.runtime import backends, choice
from resnetkit.runtime.backends import TorchBackend, _engine, open_backend
from resnetkit.runtime.engines import Engine
from resnetkit.runtime.save import save


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    return read(save(models.resnet18(num_classes=4).eval(), tmp_path / "model", preprocess=Preprocess(size=32)))


@pytest.fixture
def home(tmp_path):
    return tmp_path / "cache-home" / choice.MEMORY


def logits(batch):
    time.sleep(0.02)
    return np.stack([batch.mean((1, 2, 3)) - 127, np.zeros(len(batch))], 1)


def quick(batch):
    return np.stack([batch.mean((1, 2, 3)) - 127, np.zeros(len(batch))], 1)


def missing():
    raise ResourceError("is not installed")


def test_the_fastest_that_agrees(checkpoint, caplog):
    openers = {
        "quick": lambda: quick,
        "wrong": lambda: lambda batch: quick(batch) * 1.01,
        "other": lambda: lambda batch: quick(batch)[:, ::-1],
        "nan": lambda: lambda batch: quick(batch) * np.nan,
        "small": lambda: lambda batch: quick(batch)[:, :1],
        "missing": lambda: missing(),
        "broken": lambda: 1 / 0,
    }
    with caplog.at_level(logging.WARNING, "resnetkit"):
        assert choice.fastest(checkpoint, logits, openers) == ("quick", quick)
    (told,) = caplog.messages
    assert "runs on quick" in told and "torch" in told
    for name, why in (
        ("wrong", "differ by 1.0e-02"),
        ("other", "differ by"),
        ("nan", "no numbers"),
        ("missing", "is not"),
        ("broken", "division"),
    ):
        assert f"{name} left out: " in told and why in told


def test_near_ties_must_be_the_same_too():
    one, other = np.array([[1.0, 1.0001]]), np.array([[1.0001, 1.0]])
    assert choice.disagreement(one, other) == "another top-1" and choice.disagreement(one, one) == ""


def test_torch_may_be_the_fastest(checkpoint):
    assert choice.fastest(checkpoint, quick, {"slow": lambda: logits}) == ("torch", quick)


def broken_once():
    """An engine that cannot be opened the first time, as after an update of its package."""
    calls = []

    def opener(*how):
        calls.append(how)
        if len(calls) == 1:
            raise RuntimeError("another version")
        return _engine(*how)

    return opener


def test_measured_once_and_remembered(checkpoint, home, monkeypatch, caplog):
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    monkeypatch.setattr(choice, "installed", lambda: ("onnxruntime",))
    monkeypatch.setattr(choice, "_speeds", lambda running, *_: {name: float(len(name)) for name in running})
    with caplog.at_level(logging.WARNING, "resnetkit"):
        assert isinstance(open_backend(checkpoint), Engine)
    assert len(caplog.messages) == 1 and list(json.loads(home.read_text()).values()) == ["onnxruntime"]
    with monkeypatch.context() as patch:
        patch.setattr(backends, "open_network", lambda *_: pytest.fail("torch is not needed any more"))
        assert isinstance(open_backend(checkpoint), Engine)
        patch.setattr(choice, "may_have_gpu", lambda device: device == "auto")
        with pytest.raises(pytest.fail.Exception):
            open_backend(checkpoint)  # a GPU would be better than what was remembered of the CPU
        assert isinstance(open_backend(checkpoint, device="cpu"), Engine)
    with monkeypatch.context() as patch:
        patch.setattr(backends, "_engine", broken_once())
        assert isinstance(open_backend(checkpoint), Engine)
    home.write_text("[]")
    monkeypatch.undo()
    assert choice.remembered(choice.key_of(checkpoint, ())) is None


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"key": 3}', '{"key": "tensorrt"}', '{"key": "ncnn"}'])
def test_a_memory_that_is_none(home, text):
    home.parent.mkdir()
    home.write_text(text)
    assert choice.remembered("key") is None  # ncnn is not installed here
    choice.remember("other", "torch")
    assert choice.remembered("other") == "torch"


def test_a_cache_that_cannot_be_written_to_is_no_error(home):
    home.parent.write_text("a file")
    choice.remember("key", "torch")
    assert choice.remembered("key") is None


def test_what_a_choice_depends_on(checkpoint, monkeypatch):
    key = choice.key_of(checkpoint, ())
    assert choice.key_of(checkpoint, ()) == key
    with monkeypatch.context() as patch:
        patch.setenv("RESNETKIT_THREADS", "7")
        assert choice.key_of(checkpoint, ()) != key
    tensors = {**checkpoint.tensors, "fc.bias": checkpoint.tensors["fc.bias"] + 1}
    assert choice.key_of(replace(checkpoint, tensors=tensors), ()) != key
    assert choice.key_of(checkpoint, ("no such package",)) != key  # one that comes under another name


def test_without_engines_and_on_other_devices_it_is_torch(checkpoint):
    assert isinstance(open_backend(checkpoint), TorchBackend)
