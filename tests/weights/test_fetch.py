"""Weights files: the good ones load, every other is refused with exit code 5 and runs nothing."""

import os
import pickle
import random

import pytest
import torch
from safetensors.torch import save_file

from resnetkit.errors import ModelError
from resnetkit.weights.fetch import offline, read_state

STATE = {"a.weight": torch.arange(12.0).reshape(3, 4), "b": torch.ones(2, dtype=torch.float16), "n": torch.tensor(3)}
SAVE = {
    "safetensors": save_file,
    "pth": torch.save,
    "legacy.pth": lambda content, path: torch.save(content, path, _use_new_zipfile_serialization=False),
}
FORMATS = pytest.mark.parametrize("form", SAVE)


def refused(path):
    with pytest.raises(ModelError) as caught:
        read_state(path)
    assert caught.value.exit_code == 5
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@FORMATS
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrapper", [None, "state_dict"])
def test_state_is_read(tmp_path, form, prefix, wrapper):
    wrapped = wrapper and form != "safetensors"  # which cannot be nested
    path = tmp_path / f"w.{form}"
    state = {prefix + name: tensor for name, tensor in STATE.items()}
    SAVE[form]({"state_dict": state, "epoch": 3} if wrapped else state, path)
    loaded = read_state(path)
    assert loaded.keys() == STATE.keys()
    assert all(torch.equal(loaded[n], STATE[n]) and loaded[n].dtype == STATE[n].dtype for n in STATE)


@FORMATS
def test_content_counts_and_not_the_name(tmp_path, form):
    SAVE[form](STATE, tmp_path / "w")
    path = (tmp_path / "w").rename(tmp_path / ("w.pth" if form == "safetensors" else "w.safetensors"))
    assert read_state(path).keys() == STATE.keys()


@FORMATS
def test_every_truncation_is_refused(tmp_path, form):
    SAVE[form](STATE, tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    path = tmp_path / f"cut.{form}"
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        refused(path)


@FORMATS
@pytest.mark.filterwarnings("ignore::UserWarning")  # torch wonders about the pickle protocol
def test_flipped_bytes_load_or_are_refused(tmp_path, form):
    SAVE[form](STATE, tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    path = tmp_path / f"flipped.{form}"
    outcomes = set()
    for index in range(len(whole)):
        path.write_bytes(whole[:index] + bytes([whole[index] ^ (1 << index % 8)]) + whole[index + 1 :])
        try:
            outcomes.add(type(read_state(path)))
        except ModelError:
            outcomes.add(ModelError)
    assert outcomes == {dict, ModelError}, "any other exception would have ended the test"


class Evil:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch '{self.canary}'",)


@pytest.mark.parametrize("name", ["evil.pth", "evil.safetensors"])
@pytest.mark.parametrize("form", ["pth", "legacy.pth", "pickle"])
def test_malicious_pickle_runs_nothing(tmp_path, form, name):
    canary, path = tmp_path / "canary", tmp_path / name
    content = {"a": torch.zeros(2), "state_dict": Evil(canary)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(content))
        pickle.loads(path.read_bytes())
    else:
        SAVE[form](content, path)
        with path.open("rb") as file:  # by its name, torch would take .safetensors for safetensors
            torch.load(file, weights_only=False)
    assert canary.exists(), "the bait is armed"
    canary.unlink()
    refused(path)
    assert not canary.exists()


@pytest.mark.parametrize(
    "head", [b"", b"\x80", b"\x80\x02", b"PK\x03\x04", b"\xff" * 8 + b"{", b"\x40" + b"\0" * 7 + b"{"]
)
def test_random_bytes_are_refused(tmp_path, head):
    path = tmp_path / "noise.pth"
    for seed in range(50):
        path.write_bytes(head + random.Random(seed).randbytes(seed))
        refused(path)


@pytest.mark.parametrize("content", [[torch.zeros(2)], {"a": 1}, {"state_dict": {"a": "b"}}, torch.zeros(2), 3])
def test_pickles_of_other_things_are_refused(tmp_path, content):
    torch.save(content, tmp_path / "other.pth")
    refused(tmp_path / "other.pth")


def test_no_file_is_refused(tmp_path):
    refused(tmp_path / "none.safetensors")
    refused(tmp_path)


@pytest.mark.parametrize("name", ["RESNETKIT_OFFLINE", "HF_HUB_OFFLINE"])
@pytest.mark.parametrize(("value", "expected"), [("1", True), ("0", False), ("", False)])
def test_offline(monkeypatch, name, value, expected):
    for variable in ("RESNETKIT_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv(name, value)
    assert offline() is expected
