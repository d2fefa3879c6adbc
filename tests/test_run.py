"""A run folder is never overwritten, and what is written into it is safe to open."""

import csv
import io
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from resnetkit import __version__, files, run
from resnetkit.errors import ModelError, ResourceError, UsageError

POSIX = pytest.mark.skipif(os.name == "nt", reason="of POSIX")


def prepare(folder, resume=False, overwrite=False):
    return run.prepare(folder, resume=resume, overwrite=overwrite)


def refused(kind, folder, message, **flags):
    before = sorted(folder.rglob("*")) if folder.is_dir() else None
    for call in (run.refuse, run.prepare):
        with pytest.raises(kind) as caught:
            call(folder, **{"resume": False, "overwrite": False, **flags})
        assert message in str(caught.value) and caught.value.fix
    assert before is None or sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("there", [False, True])
def test_prepare_makes_the_folder(tmp_path, there):
    folder = tmp_path / "runs" / "deep" / "mine"
    if there:
        folder.mkdir(parents=True)
    assert prepare(folder) is None and os.listdir(folder) == ["env.json"]


def test_what_is_there_is_kept(tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    refused(UsageError, tmp_path, "holds something already (--resume to go on, --overwrite to move it aside")
    refused(UsageError, tmp_path, "holds no run to resume", resume=True)
    refused(UsageError, tmp_path, "exclude each other", resume=True, overwrite=True)
    refused(UsageError, tmp_path / "gone", "holds no run to resume", resume=True)
    refused(ResourceError, tmp_path / "note.txt", "is a file")
    (tmp_path / "recipe.toml").touch()
    (tmp_path / "model").mkdir()
    refused(UsageError, tmp_path, "is finished already", resume=True)


def test_names_the_disk_refuses(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match="too long"):
        run.refuse(tmp_path / ("x" * 300), resume=False, overwrite=False)
    with pytest.raises(ResourceError, match="not a directory"):
        prepare(tmp_path / "file" / "run")


def test_overwrite_moves_aside(tmp_path):
    folder = tmp_path / "run"
    for number in (1, 2):
        prepare(folder, overwrite=number > 1)
        (folder / "note.txt").write_text(str(number))
    assert prepare(folder, overwrite=True) == tmp_path / "run.2"
    assert [(tmp_path / f"run.{n}" / "note.txt").read_text() for n in (1, 2)] == ["1", "2"]
    assert os.listdir(folder) == ["env.json"]


def test_resume_removes_what_a_kill_left_and_nothing_else(tmp_path):
    (tmp_path / "recipe.toml").write_text("x")
    for name in (".model.tmp-17", "state/.5.tmp-17", "state/4"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "weights").touch()
    for name in (".results.csv.tmp-17", "results.csv", ".mine"):
        (tmp_path / name).touch()
    prepare(tmp_path, resume=True)
    assert sorted(os.listdir(tmp_path)) == [".mine", "env.json", "recipe.toml", "results.csv", "state"]
    assert os.listdir(tmp_path / "state") == ["4"] and os.listdir(tmp_path / "state" / "4") == ["weights"]


def test_environment(tmp_path):
    prepare(tmp_path)
    found = json.loads((tmp_path / "env.json").read_text())
    assert found["versions"].keys() == set(run.PACKAGES) and all(found["versions"].values())
    assert found["versions"]["resnetkit"] == __version__
    assert found["cores"] >= 1 and found["command"] and found["python"] and found["started"][:2] == "20"


def test_environment_without_a_package(monkeypatch):
    monkeypatch.setattr(run, "PACKAGES", ("not-installed-anywhere",))
    assert run.environment()["versions"] == {"not-installed-anywhere": None}


@pytest.mark.parametrize("value", ["=cmd()", "+1", "-1", "@x", "\tx", "\r=x"])
def test_no_cell_is_a_formula(value):
    assert run.cell(value) == "'" + value


@pytest.mark.parametrize(("value", "expected"), [(None, ""), (math.nan, ""), (-1.5, -1.5), ("a=b", "a=b"), ("", "")])
def test_other_cells(value, expected):
    assert run.cell(value) == expected


def test_as_csv():
    names = ['"q"', "a,b", "two\nlines", "🐈", "<b>", "=1"]
    text = run.as_csv(("name", "value"), [{"name": name, "value": 0.5, "extra": 1} for name in names] + [{}])
    found = list(csv.reader(io.StringIO(text)))
    assert found == [["name", "value"], *([name.replace("=", "'="), "0.5"] for name in names), ["", ""]]


@pytest.mark.parametrize("value", [math.nan, math.inf, {"a": [-math.inf]}])
def test_write_json_refuses_what_is_no_json(tmp_path, value):
    with pytest.raises(ValueError):
        run.write_json(tmp_path / "a.json", value)
    assert os.listdir(tmp_path) == []


def test_write_json(tmp_path):
    run.write_json(tmp_path / "a.json", {"é": None})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "é": null\n}\n'


def test_log_event(tmp_path):
    for step in (1, 2):
        run.log_event(tmp_path, "saved", {"step": step, "name": "\udcff\n"})
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(line["event"], line["step"], line["name"]) for line in lines] == [("saved", n, "\udcff\n") for n in (1, 2)]
    run.log_event(tmp_path, "epoch", {"loss": math.nan})
    assert json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])["loss"] is None


@POSIX
def test_a_record_that_cannot_be_written_is_said_once(tmp_path, caplog):
    """C4, C27: neither log.jsonl nor results.csv ends a training."""
    (tmp_path / "log.jsonl").symlink_to("/dev/full")
    for number in range(3):
        run.log_event(tmp_path, "epoch", {"epoch": number})
        run.log_rows(tmp_path / "gone" / "results.csv", ("epoch",), [{"epoch": number}])
    full, gone = caplog.messages
    if Path("/dev/full").exists():
        assert full.startswith(f"{tmp_path / 'log.jsonl'}: no space left on device (free some space: ")
    assert gone == f"{tmp_path / 'gone' / 'results.csv'}: no such file or directory; going on without it"


def test_log_rows(tmp_path):
    run.log_rows(tmp_path / "results.csv", ("a",), [{"a": 1}])
    assert (tmp_path / "results.csv").read_text() == "a\n1\n"


def python(program, *arguments, **options):
    """Run a program in a process of its own: exit code, stdout; torch is not loaded there."""
    opening = (
        "import os, sys, time\nfrom pathlib import Path\nfrom resnetkit import run\nfrom resnetkit.errors import *\n"
    )
    command = [sys.executable, "-c", opening + program + "\nassert 'torch' not in sys.modules", *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options)


def output(program, *arguments, **options):
    """What a program prints that ends well."""
    process = python(program, *arguments, **options)
    out, _ = process.communicate()
    assert process.returncode == 0
    return out


REFUSED = """
def refusal(act):
    try:
        act()
    except ResourceError as error:
        return str(error)
    raise AssertionError("not refused")
"""


def unwritable(folder):
    """Refused by `probe`: the message after the path, and nothing has changed."""
    with pytest.raises(ResourceError) as caught:
        run.probe(folder)
    assert caught.value.exit_code == 6 and caught.value.fix
    assert str(caught.value).startswith(f"{folder}: ")
    return str(caught.value).removeprefix(f"{folder}: ")


def test_probe_leaves_nothing(tmp_path):
    """C6."""
    for name in ("", "runs/deep/mine"):
        run.probe(tmp_path / name)
        assert os.listdir(tmp_path) == []
    (tmp_path / "note.txt").write_text("mine")
    run.probe(tmp_path)
    run.probe(Path("relative"))
    assert os.listdir(tmp_path) == ["note.txt"]


@POSIX
def test_probe_of_what_is_no_folder(tmp_path):
    """C6: a file, a path below one, a FIFO, a link to nowhere, a name that is too long."""
    (tmp_path / "file").write_text("mine")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for name in ("file", "file/run", "fifo", "fifo/run"):
        assert unwritable(tmp_path / name).startswith("not a directory (a part of this path is a file")
    assert unwritable(tmp_path / "link") == "file exists (choose another folder with --out)"
    assert unwritable(tmp_path / "new" / ("x" * 300)).startswith("file name too long (")
    assert sorted(os.listdir(tmp_path)) == ["fifo", "file", "link"] and (tmp_path / "file").read_text() == "mine"
    with pytest.raises(ResourceError, match=r"fifo: is not a folder \("):
        run.refuse(tmp_path / "fifo", resume=False, overwrite=False)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
def test_probe_where_no_file_can_be_made():
    """C6: nobody can here, not even root, whom permissions do not stop."""
    for folder in (Path("/proc"), Path("/proc/self/runs/mine"), Path("/sys/kernel")):
        assert unwritable(folder).endswith("--out)") or "--out, or" in unwritable(folder)


@POSIX
def test_probe_of_folders_of_others():
    """C6, as somebody who is not root: a folder that may only be read, one above, and one of somebody else."""
    root = Path(tempfile.mkdtemp())  # tmp_path is in a folder that is closed to others
    try:
        root.chmod(0o755)
        (root / "readable").mkdir(mode=0o555)
        (root / "closed").mkdir(mode=0o700 if os.geteuid() == 0 else 0)
        program = (
            REFUSED
            + """
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
for name in ("readable", "readable/runs/mine", "closed", "closed/run"):
    print(refusal(lambda: run.probe(Path(sys.argv[1], name))))
"""
        )
        out = output(program, root)
        fix = "choose another folder with --out, or change its permissions"
        assert out.splitlines() == [
            f"{root / name}: permission denied ({fix})"
            for name in ("readable", "readable/runs/mine", "closed", "closed/run")
        ]
        assert sorted(os.listdir(root)) == ["closed", "readable"] and os.listdir(root / "readable") == []
    finally:
        (root / "closed").chmod(0o700)
        shutil.rmtree(root)


def test_room_for_a_state(tmp_path, caplog):
    """C7: refused below one, warned of below two; with both numbers."""
    free = shutil.disk_usage(tmp_path).free
    folder = tmp_path / "runs" / "mine"
    with pytest.raises(ResourceError, match=r"free some space: [\d.]+ [GM]B free, [\d.]+ [GM]B needed; or") as caught:
        run.check_space(folder, 2 * free)
    assert caught.value.exit_code == 6 and str(folder) in str(caught.value)
    assert caplog.messages == []
    run.check_space(folder, int(0.6 * free))
    (said,) = caplog.messages
    assert (
        said.startswith(f"take care: the disk of {folder} is almost full: ") and "needed for each saved state" in said
    )
    caplog.clear()
    run.check_space(folder, int(0.1 * free))
    assert caplog.messages == [] and os.listdir(tmp_path) == []


HOLD = """
with run.locked(Path(sys.argv[1])):
    run.prepare(Path(sys.argv[1]), resume=False, overwrite=len(sys.argv) > 2)
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.parametrize("more", [(), ("overwrite",)])
def test_a_second_process_is_refused(tmp_path, more):
    """C9: also while the first one has moved an older run aside; a killed one is not in the way."""
    folder = tmp_path / "runs" / "mine"
    if more:
        prepare(folder)
    holder = python(HOLD, folder, *more)
    assert holder.stdout.readline() == "held\n"
    other = (
        REFUSED
        + """
def take():
    with run.locked(Path(sys.argv[1])):
        pass
print(refusal(take))
"""
    )
    out = output(other, folder)
    fix = "wait for it, or choose another folder with --out"
    assert out == f"{folder}: is being written by another process ({fix})\n"
    with pytest.raises(ResourceError, match="another process"), run.locked(folder):
        pass
    with run.locked(tmp_path / "runs" / "other"):  # another folder is free
        pass
    holder.kill()
    holder.communicate()
    assert sorted(os.listdir(folder.parent)) == [".mine.lock", "mine", "mine.1"][: 3 if more else 2]
    with run.locked(folder):
        assert prepare(folder, overwrite=True) == folder.with_name(f"mine.{2 if more else 1}")
    assert "mine" in os.listdir(folder.parent)
    if os.name != "nt":
        assert ".mine.lock" not in os.listdir(folder.parent)


def test_the_lock_is_given_back_after_an_error(tmp_path):
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), run.locked(tmp_path / "run"):
            _ = 1 / 0


@POSIX
def test_the_lock_of_a_mounted_folder_is_in_it():
    """Where the folder above cannot be written to; the lock of a killed process does not count as content."""
    root = Path(tempfile.mkdtemp())
    try:
        (root / "volume").mkdir()
        (root / "volume").chmod(0o777)
        root.chmod(0o555)
        program = """
import signal
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
folder = Path(sys.argv[1])
for number in range(2):
    run.refuse(folder, resume=False, overwrite=False)
    with run.locked(folder):
        print(*sorted(os.listdir(folder)), flush=True)
        run.refuse(folder, resume=False, overwrite=False)
        if number:
            os.kill(os.getpid(), signal.SIGKILL)
"""
        for _ in range(2):
            out, _ = python(program, root / "volume").communicate()
            assert out == ".lock\n.lock\n"
        assert os.listdir(root) == ["volume"]
    finally:
        root.chmod(0o755)
        shutil.rmtree(root)


@POSIX
def test_a_working_folder_that_is_gone(tmp_path):
    """J6: a run elsewhere is made; one below the folder that is gone is refused. C26: nothing is written to TMPDIR."""
    (tmp_path / "gone").mkdir()
    program = (
        REFUSED
        + """
os.rmdir(os.getcwd())
folder = Path(sys.argv[1])
run.probe(folder)
run.check_space(folder, 1)
with run.locked(folder):
    run.prepare(folder, resume=False, overwrite=False)
run.save_state(folder / "state", 1, {}, {})
for act in (run.probe, lambda folder: run.check_space(folder, 1), lambda folder: run.locked(folder).__enter__(),
            lambda folder: run.prepare(folder, resume=False, overwrite=False)):
    print(refusal(lambda: act(Path("here"))))
"""
    )
    environment = {**os.environ, "TMPDIR": "/dev/full", "TMP": "/dev/full", "TEMP": "/dev/full"}
    out = output(program, tmp_path / "run", cwd=tmp_path / "gone", env=environment)
    assert out.startswith("here: no such file or directory (choose another folder with --out)\n")
    assert out.count("here: no such file or directory") == 4
    assert sorted(os.listdir(tmp_path / "run")) == ["env.json", "state"]


def test_what_a_kill_left_is_no_content(tmp_path):
    """A run folder in which only a probe was killed can be used as it is."""
    files.temporary_beside(tmp_path / "probe").mkdir()
    (tmp_path / ".lock").touch()
    prepare(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".lock", "env.json"]


def test_arrays_come_back(tmp_path):
    """Of every kind that a state has, in C order or not."""
    group = {
        "f32": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "f16": np.array([0.5, np.nan, np.inf], np.float16),
        "count": np.array(7),
        "none": np.zeros((0, 3), np.float32),
    }
    folder = run.save_state(tmp_path / "state", 7, {"a": group, "empty": {}}, {"text": "é\n"})
    tensors, values = run.read_state(folder)
    assert values == {"step": 7, "text": "é\n"} and tensors["empty"] == {}
    for name, array in group.items():
        assert tensors["a"][name].dtype == array.dtype and tensors["a"][name].shape == array.shape
        assert np.array_equal(tensors["a"][name], array, equal_nan=array.dtype.kind == "f")


@pytest.mark.parametrize("value", [math.nan, math.inf, {"a": [-math.inf]}])
def test_a_state_is_strict_json(tmp_path, value):
    with pytest.raises(ValueError):
        run.save_state(tmp_path, 1, {}, {"a": value})
    assert os.listdir(tmp_path) == []


def test_finite():
    assert run.finite({"a": math.nan, "b": -math.inf, "c": 1.5, "d": "x"}) == {"a": None, "b": None, "c": 1.5, "d": "x"}


def test_saved_states_are_in_the_order_of_their_numbers(tmp_path):
    for name in ("00000009", "00000010", "100000000", "99999999", ".00000011.tmp-1", "12.bak", "x"):
        (tmp_path / name).mkdir()
    (tmp_path / "13").touch()
    assert [path.name for path in run.saved_states(tmp_path)] == ["00000009", "00000010", "99999999", "100000000"]
    assert run.saved_states(tmp_path / "gone") == []


@pytest.mark.parametrize("name", ["state.json", "network.safetensors", "manifest.json"])
@pytest.mark.parametrize("damage", ["missing", "short", "changed", "forged"])
def test_a_damaged_state_is_refused(tmp_path, name, damage):
    folder = run.save_state(tmp_path, 1, {"network": {"a": np.ones(9)}}, {})
    path = folder / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content[:-5] if damage == "short" else content.replace(b"{", b"[", 1))
    if damage == "forged":  # with sums that fit; without a state.json in the third case
        (folder / "manifest.json").unlink()
        if name == "manifest.json":
            (folder / "state.json").unlink()
        files._write_manifest(folder)
    with pytest.raises(ModelError) as caught:
        run.read_state(folder)
    assert caught.value.exit_code == 5 and caught.value.fix


def test_no_torch_is_needed():
    """So that the writer of states can be killed at each of its system calls in seconds: test_trouble.py."""
    assert output("print(run.KEPT)") == "2\n"
