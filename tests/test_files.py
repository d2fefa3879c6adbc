"""Files are whole or not there, at whatever point the writing fails."""

import errno
import hashlib
import json
import os
from pathlib import Path

import pytest

from resnetkit import files
from resnetkit.errors import ModelError, ResourceError
from resnetkit.files import MANIFEST, new_file, new_folder, resource_errors, set_aside, sha256, verify_manifest, write

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def failing(error):
    def fail(*args):
        raise error

    return fail


@pytest.mark.parametrize(("content", "expected"), [("grün\n", b"gr\xc3\xbcn\n"), (b"\0\r\n", b"\0\r\n")])
def test_write(tmp_path, content, expected):
    for _ in range(2):  # the second time over the first
        write(tmp_path / "file", content)
        assert (tmp_path / "file").read_bytes() == expected
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("target", [(os, "fsync"), (Path, "replace")], ids=["fsync", "rename"])
@pytest.mark.parametrize(("error", "raised"), [(FULL, ResourceError), (KeyboardInterrupt(), KeyboardInterrupt)])
@pytest.mark.parametrize("old", [None, b"old"])
def test_write_that_fails_in_the_middle_changes_nothing(tmp_path, monkeypatch, target, error, raised, old):
    path = tmp_path / "file"
    if old is not None:
        path.write_bytes(old)
    monkeypatch.setattr(*target, failing(error))
    with pytest.raises(raised):
        write(path, b"new")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == ({} if old is None else {"file": old})


def test_write_flushes_before_it_renames(tmp_path, monkeypatch):
    order = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (order.append("fsync"), fsync(descriptor)))
    monkeypatch.setattr(Path, "replace", lambda *args: (order.append("rename"), replace(*args)))
    write(tmp_path / "file", "x")
    assert order == ["fsync", "rename", "fsync"]


@pytest.mark.parametrize("parent", ["none", "file"])
def test_write_where_there_is_no_folder(tmp_path, parent):
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError) as caught:
        write(tmp_path / parent / "x", "x")
    assert str(tmp_path / parent / "x") in str(caught.value)


@pytest.mark.parametrize("error", [ValueError(), KeyboardInterrupt()])
def test_new_file_is_published_at_the_end_or_leaves_nothing(tmp_path, error):
    path = tmp_path / "file"
    with new_file(path) as file:
        file.write(b"12")
        assert not path.exists()
        file.write(b"345")
    with pytest.raises(type(error)), new_file(path) as file:
        file.write(b"6")
        raise error
    assert os.listdir(tmp_path) == ["file"] and path.read_bytes() == b"12345"


def test_new_folder_is_published_at_the_end(tmp_path):
    path = tmp_path / "runs" / "model"
    with new_folder(path) as folder:
        assert folder.parent == path.parent
        (folder / "a").write_bytes(b"12345")
        assert not path.exists()
    assert os.listdir(path.parent) == ["model"]
    manifest = json.loads((path / MANIFEST).read_text())
    assert manifest["files"] == {"a": {"bytes": 5, "sha256": hashlib.sha256(b"12345").hexdigest()}}
    assert sha256(path / "a") == manifest["files"]["a"]["sha256"]
    verify_manifest(path)


@pytest.mark.parametrize(
    ("error", "raised"), [(ValueError(), ValueError), (KeyboardInterrupt(), KeyboardInterrupt), (FULL, ResourceError)]
)
@pytest.mark.parametrize("where", ["block", "end"])
def test_new_folder_that_fails_leaves_nothing(tmp_path, monkeypatch, error, raised, where):
    if where == "end":
        monkeypatch.setattr(files, "_write_manifest", failing(error))
    with pytest.raises(raised), new_folder(tmp_path / "model") as folder:
        (folder / "a").write_bytes(b"12345")
        if where == "block":
            raise error
    assert not os.listdir(tmp_path)


def test_new_folder_without_manifest_may_hold_folders(tmp_path):
    with new_folder(tmp_path / "run", manifest=False) as folder:
        (folder / "state").mkdir()
        (folder / "state" / "a").touch()
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == [
        "run",
        "run/state",
        "run/state/a",
    ]


def test_new_folder_does_not_replace_another(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old").touch()
    with pytest.raises(ResourceError), new_folder(tmp_path / "model") as folder:
        (folder / "new").touch()
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == ["model", "model/old"]


@pytest.fixture
def model(tmp_path):
    """A folder with a manifest of one file of 48 bytes."""
    with new_folder(tmp_path / "model") as folder:
        (folder / "weights").write_bytes(bytes(range(48)))
    return tmp_path / "model"


def refused(folder, match):
    with pytest.raises(ModelError, match=match) as caught:
        verify_manifest(folder)
    assert caught.value.exit_code == 5


def test_every_damage_is_refused(model):
    path = model / "weights"
    whole = path.read_bytes()
    for index, byte in enumerate(whole):
        for mask in (0x01, 0x80, 0xFF):
            path.write_bytes(whole[:index] + bytes([byte ^ mask]) + whole[index + 1 :])
            refused(model, "SHA-256")
        path.write_bytes(whole[:index])
        refused(model, f"{index} of 48 bytes")
    path.write_bytes(whole + b"\0")
    refused(model, "49 of 48 bytes")
    path.unlink()
    refused(model, "weights: is missing")
    path.write_bytes(whole)
    verify_manifest(model)


def test_a_flipped_byte_of_the_manifest_is_refused_or_harmless(model):
    path = model / MANIFEST
    whole = path.read_bytes()
    expected = json.loads(whole)["files"]
    for index, byte in enumerate(whole):
        path.write_bytes(whole[:index] + bytes([byte ^ 1]) + whole[index + 1 :])
        try:
            verify_manifest(model)
        except ModelError:
            continue
        assert json.loads(path.read_bytes())["files"] == expected


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b'{"files": 3}',
        b'{"files": {"weights": 3}}',
        b'{"files": {"weights": {"bytes": "many", "sha256": ""}}}',
        b'{"files": {"weights": {"bytes": 1e999, "sha256": ""}}}',
        b"[" * 100_000,
    ],
    ids=lambda content: content[:40].decode("latin-1"),
)
def test_broken_manifest_is_refused(model, content):
    (model / MANIFEST).write_bytes(content)
    refused(model, "manifest cannot be read")


def test_a_manifest_of_a_newer_format_is_refused(model):
    """D: by its format, whatever else has changed in it."""
    (model / MANIFEST).write_text('{"format": 2, "sums": {}}')
    refused(model, "manifest.json: is of format 2, this version reads 1 ")


def test_the_names_in_the_manifest_are_told(model):
    (model / "more").touch()
    assert verify_manifest(model) == ["weights"]


def test_a_file_that_cannot_be_read(model, monkeypatch):
    monkeypatch.setattr(files, "sha256", failing(OSError(errno.EIO, "Input/output error")))
    refused(model, "weights: cannot be read: Input/output error")


def test_folder_without_manifest_is_refused(tmp_path):
    refused(tmp_path, "has no manifest.json")


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_set_aside_takes_the_first_free_name(tmp_path, kind):
    path = tmp_path / "run.v1"
    for number in (1, 2, 3):
        path.write_text(str(number)) if kind == "file" else (path / str(number)).mkdir(parents=True)
        assert set_aside(path) == tmp_path / f"run.v1.{number}"
    assert set_aside(path) is None
    assert sorted(os.listdir(tmp_path)) == ["run.v1.1", "run.v1.2", "run.v1.3"]
    second = tmp_path / "run.v1.2"
    assert second.read_text() == "2" if kind == "file" else os.listdir(second) == ["2"]


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "free some space: "),
        (errno.EFBIG, "ulimit"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "--out"),
        (errno.EACCES, "permissions"),
        (errno.EPERM, "permissions"),
        (errno.EIO, None),
    ],
)
def test_resource_errors(number, advice):
    cause = OSError(number, os.strerror(number))
    with pytest.raises(ResourceError) as caught, resource_errors("runs/a"):
        raise cause
    assert caught.value.exit_code == 6
    assert caught.value.__cause__ is cause
    assert str(caught.value).startswith(f"runs/a: {os.strerror(number).lower()}")
    assert advice in caught.value.fix if advice else not caught.value.fix


def test_a_full_disk_is_told_in_numbers(tmp_path, monkeypatch):
    """C4: bytes free and bytes needed, of the disk that the path would be on."""
    places = []
    usage = type("", (), {"free": 12_400_000})
    monkeypatch.setattr(files.shutil, "disk_usage", lambda place: places.append(place) or usage)
    for needed, words in (
        (88_000_000, "12 MB free, 88 MB needed"),
        (0, "12 MB free"),
        (999, "12 MB free, 999 bytes needed"),
    ):
        told = rf"no space left on device \(free some space: {words}\)"
        with pytest.raises(ResourceError, match=told), resource_errors(tmp_path / "runs" / "a", needed):
            raise FULL
    assert places == [tmp_path] * 3
    monkeypatch.setattr(files.shutil, "disk_usage", failing(OSError()))
    assert files.room(tmp_path, 5_200) == "5.2 kB needed"
    monkeypatch.setattr(files.os, "fsync", failing(FULL))
    with pytest.raises(ResourceError, match="free some space: 5 bytes needed"):
        write(tmp_path / "file", "12345")
    with (
        pytest.raises(ResourceError, match="free some space: 2.0 GB needed"),
        new_folder(tmp_path / "a", needed=2 * 10**9),
    ):
        pass
    assert os.listdir(tmp_path) == []


def test_only_what_is_ours_is_removed(tmp_path):
    ours = [".model.tmp-17", ".results.csv.tmp-1"]
    others = [".tmp-17", "model.tmp-17", ".model.tmp-x", ".model.tmp-17.bak", ".notes"]
    for name in ours + others:
        (tmp_path / name).mkdir() if "model" in name else (tmp_path / name).touch()
    (tmp_path / ".model.tmp-17" / "weights").touch()
    files.remove_temporaries(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(others)
    files.remove_temporaries(tmp_path / "gone")
    assert files.is_temporary(files.temporary_beside(tmp_path / "a.b"))


def test_remove_first_takes_the_name(tmp_path, monkeypatch, model):
    monkeypatch.setattr(files.shutil, "rmtree", lambda path, ignore_errors: None)  # killed before it
    files.remove(model)
    assert [files.is_temporary(path) for path in tmp_path.iterdir()] == [True]
    files.remove(model)  # there is nothing: no error


def test_a_folder_that_cannot_be_flushed(tmp_path, monkeypatch):
    """Some network file systems cannot; an error of the disk is always one."""
    fsync = os.fsync

    def refusing(number):
        def call(descriptor):
            if os.path.isdir(f"/proc/self/fd/{descriptor}"):
                raise OSError(number, os.strerror(number))
            fsync(descriptor)

        return call

    monkeypatch.setattr(os, "fsync", refusing(errno.EINVAL))
    write(tmp_path / "file", "x")
    monkeypatch.setattr(os, "fsync", refusing(errno.EIO))
    with pytest.raises(ResourceError, match="input/output error"):
        write(tmp_path / "file", "x")


def test_resource_errors_leave_other_errors_alone():
    with pytest.raises(ZeroDivisionError), resource_errors("runs/a"):
        _ = 1 / 0
