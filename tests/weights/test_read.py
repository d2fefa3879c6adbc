"""Weights files: the good ones load, every other is refused with exit code 5 and runs nothing."""

import argparse
import functools
import importlib
import os
import pickle
import pkgutil
import random
import sys
import zipfile
from importlib.util import find_spec

import pytest
import torch
from safetensors.torch import save, save_file

from resnetkit.errors import ModelError
from resnetkit.weights.read import WRAPPERS, read_state
from weights.conftest import python
from weights.headers import MEASURE, check_measured, hostile

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
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "_orig_mod.module."])
@pytest.mark.parametrize("wrapper", [None, *WRAPPERS])
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
def test_truncations_are_refused(tmp_path, form):
    SAVE[form](STATE, tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    path = tmp_path / f"cut.{form}"
    for size in (*range(0, len(whole), 5), len(whole) - 1):
        path.write_bytes(whole[:size])
        refused(path)


@FORMATS
@pytest.mark.filterwarnings("ignore::UserWarning")  # torch wonders about the pickle protocol
def test_flipped_bytes_load_or_are_refused(tmp_path, form):
    SAVE[form](STATE, tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    path = tmp_path / f"flipped.{form}"
    outcomes = set()
    for index in range(0, len(whole), 3):
        path.write_bytes(whole[:index] + bytes([whole[index] ^ (1 << index % 8)]) + whole[index + 1 :])
        try:
            outcomes.add(type(read_state(path)))
        except ModelError:
            outcomes.add(ModelError)
    assert outcomes == {dict, ModelError}, "any other exception would have ended the test"


class Evil:
    """A pickle that makes a file when it is loaded, by one of the ways that scanners have missed."""

    def __init__(self, canary, way):
        self.canary, self.way = str(canary), way

    def __reduce__(self):
        if self.way == "pip.main":
            main = importlib.import_module("pip").main
            return main, (["config", "debug", "--log", self.canary, "--quiet"],)
        return {
            "os.system": (os.system, (f"touch '{self.canary}'",)),
            "exec": (exec, (f"open({self.canary!r}, 'w').close()",)),
            "pkgutil": (Resolved("os:mkdir"), (self.canary,)),
            "partial": (functools.partial(os.mkdir, self.canary), ()),
            "namespace": (setattr, (argparse.Namespace(), "x", Mkdir(self.canary))),
        }[self.way]


class Mkdir:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


class Resolved:
    """Pickled as the call pkgutil.resolve_name(name), which gives a function that no scanner sees by its name."""

    def __init__(self, name):
        self.name = name

    def __call__(self, *_):
        """Only so that pickle takes it for a function."""

    def __reduce__(self):
        return pkgutil.resolve_name, (self.name,)


PIP = pytest.param("pip.main", marks=pytest.mark.skipif(find_spec("pip") is None, reason="there is no pip here"))


@pytest.mark.parametrize("name", ["evil.pth", "evil.safetensors"])
@pytest.mark.parametrize("way", ["os.system", "exec", PIP, "pkgutil", "partial", "namespace"])
@pytest.mark.parametrize("form", ["pth", "legacy.pth", "pickle"])
def test_malicious_pickle_runs_nothing(tmp_path, form, way, name):
    canary, path = tmp_path / "canary", tmp_path / name
    content = {"a": torch.zeros(2), "state_dict": Evil(canary, way)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(content))
        pickle.loads(path.read_bytes())
    else:
        SAVE[form](content, path)
        with path.open("rb") as file:  # by its name, torch would take .safetensors for safetensors
            torch.load(file, weights_only=False)
    assert canary.exists(), "the bait is armed"
    canary.rmdir() if canary.is_dir() else canary.unlink()
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


def evil_archive(path, canary):
    torch.save({"a": torch.zeros(2), "state_dict": Evil(canary, "os.system")}, path)
    return path.read_bytes()


def test_archives_that_scanners_cannot_open_run_nothing(tmp_path):
    """A wrong CRC or name length ends the scan of some scanners, and torch loads the file all the same."""
    canary, path = tmp_path / "canary", tmp_path / "w.pt"
    whole = evil_archive(path, canary)
    start = whole.index(b"data.pkl") - 30
    central = whole.rindex(b"PK\x01\x02", 0, whole.rindex(b"data.pkl"))
    for offset in (start + 14, central + 16, start + 6, central + 8, start + 8, start + 26):
        path.write_bytes(whole[:offset] + bytes([whole[offset] ^ 1]) + whole[offset + 1 :])
        refused(path)
    path.write_bytes(b"7z\xbc\xaf\x27\x1c" + whole)
    refused(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w/data.pkl", pickle.dumps(Evil(canary, "os.system")))
        archive.writestr("w/version", "3")
    refused(path)
    assert not canary.exists()


def test_a_file_that_is_both_runs_nothing(tmp_path):
    canary, path = tmp_path / "canary", tmp_path / "w.safetensors"
    archive = evil_archive(path, canary)
    for content in (save(STATE) + archive, archive + save(STATE)):
        path.write_bytes(content)
        refused(path)
    assert not canary.exists()


def test_settings_beside_the_weights_are_passed_over(tmp_path):
    """As the training script of torchvision saves them."""
    torch.save({"model": STATE, "args": argparse.Namespace(lr=0.1, model="resnet34"), "epoch": 3}, tmp_path / "w.pth")
    assert read_state(tmp_path / "w.pth").keys() == STATE.keys()


def test_the_moving_average_is_preferred(tmp_path, caplog):
    average = {**{f"module.{name}": tensor + 1 for name, tensor in STATE.items()}, "n_averaged": torch.tensor(7)}
    torch.save({"model": STATE, "model_ema": average}, tmp_path / "w.pth")
    loaded = read_state(tmp_path / "w.pth")
    assert loaded.keys() == STATE.keys() and torch.equal(loaded["b"], STATE["b"] + 1)
    assert "took the moving average of the weights, model_ema" in caplog.text


def test_a_name_with_and_without_a_prefix(tmp_path):
    save_file({"a": torch.zeros(1), "module.a": torch.ones(1)}, tmp_path / "w.safetensors")
    refused(tmp_path / "w.safetensors")


DTYPES = ("float16", "bfloat16", "float64", "float8_e4m3fn", "float8_e5m2")


@pytest.mark.parametrize("form", ["safetensors", "pth"])
@pytest.mark.parametrize("name", DTYPES)
def test_floats_of_every_size(tmp_path, form, name):
    state = {"a": torch.tensor([0.5, -2.0, 1.0]).to(getattr(torch, name))}
    SAVE[form](state, tmp_path / "w")
    (loaded,) = read_state(tmp_path / "w").values()
    assert loaded.dtype == state["a"].dtype and loaded.float().tolist() == [0.5, -2.0, 1.0]


@pytest.mark.parametrize(("order", "expected"), [(b"little", [1, 2]), (b"big", [1, 2]), (b"other", None)])
def test_byte_order(tmp_path, order, expected):
    """Tensors that a big-endian machine wrote are turned; an unknown order is refused."""
    torch.save({"a": torch.tensor([1, 2], dtype=torch.int32)}, tmp_path / "w")
    with zipfile.ZipFile(tmp_path / "w") as archive:
        records = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(tmp_path / "other", "w") as archive:
        for name, content in records.items():
            content = order if name.endswith("byteorder") else content
            swapped = b"".join(content[i : i + 4][::-1] for i in range(0, len(content), 4))
            archive.writestr(name, swapped if order == b"big" and "/data/" in name else content)
    if expected is None:
        refused(tmp_path / "other")
    else:
        assert read_state(tmp_path / "other")["a"].tolist() == expected


def test_a_file_that_may_not_be_read(tmp_path):
    save_file(STATE, tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").chmod(0)
    tmp_path.chmod(0o755)
    inside = f"{os.path.relpath(tmp_path / 'w.safetensors', tmp_path)}"
    code = """
import os
from pathlib import Path
from resnetkit.weights.read import read_state
if os.geteuid() == 0:
    os.seteuid(65534)
read_state(Path(sys.argv[1]))
"""
    done = python(code, inside, cwd=tmp_path)
    assert done.returncode == 6, done.stderr
    assert done.stdout == "w.safetensors: cannot be read: permission denied (give yourself access to it)\n"


def test_folders_are_named_as_such(tmp_path):
    with pytest.raises(ModelError, match="is a folder, not a weights file"):
        read_state(tmp_path)
    refused(tmp_path / ("x" * 5000))


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux only")
def test_hostile_headers_are_refused_at_once_and_in_little_memory(tmp_path):
    names = set()
    for name, content in hostile():
        (tmp_path / f"{name}.safetensors").write_bytes(content)
        names.add(name)
    done = python("from resnetkit.weights.read import read_state as read" + MEASURE, *tmp_path.glob("*.safetensors"))
    assert done.returncode == 0, done.stderr
    check_measured(done.stdout, names)
