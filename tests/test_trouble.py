"""The writer of training states is killed, and refused by the disk, at each of its system calls (C1-C5).

It needs no torch, so a process that has it loaded can be forked for every case in a few milliseconds.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resnetkit import run

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks the writer")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
CALLS = (
    *("open", "openat", "creat", "write", "pwrite64", "writev", "ftruncate", "fsync", "fdatasync", "mkdir", "mkdirat"),
    *("rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir", "link", "linkat", "symlink", "symlinkat"),
)
WRITER = """
import json, os, resource, signal, socket, sys
from pathlib import Path
import numpy as np
from resnetkit import run
from resnetkit.errors import ResnetkitError
from resnetkit.files import is_temporary

assert "torch" not in sys.modules

def tensors(step):
    return {
        "network": {"weight": np.full((40, 50), step, np.float32), "count": np.array(step)},
        "optimizer": {"0.momentum": np.full(700, -step, np.float32)},
        "best": {"weight": np.full((40, 50), step / 2, np.float32)},
    }

def save(folder, step):
    run.save_state(Path(folder), step, tensors(step), {"history": [{"epoch": step}]})

def attempt(folder, step):
    "Exit code and message, as the command line would have them."
    try:
        save(folder, step)
    except ResnetkitError as error:
        return error.exit_code, str(error)
    except BaseException as error:
        return 1, repr(error)
    return 0, ""

def forked(act):
    "The exit code of a child that does this, or minus the signal that ended it."
    child = os.fork()
    if not child:
        os._exit(act())
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""
# waits for a line, so that a tracer can be attached before anything is written; tells how it went by a socket, since
# write may be what fails
NURSERY = (
    WRITER
    + """
for line in sys.stdin:
    folder, step = json.loads(line)
    told, tells = socket.socketpair()
    told.setblocking(False)
    waits, opens = os.pipe()
    child = os.fork()
    if not child:
        os.read(waits, 1)
        code, message = attempt(folder, step)
        tells.send(message.encode() or b"-")
        os._exit(code)
    print(child, flush=True)
    sys.stdin.readline()
    os.write(opens, b"x")
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        message = told.recv(10000).decode()
    except BlockingIOError:
        message = ""
    print(json.dumps([code, message]), flush=True)
    for end in (told, tells): end.close()
    for end in (waits, opens): os.close(end)
"""
)


def template(root: Path) -> Path:
    """A run folder with two saved states, of steps 1 and 2."""
    folder = root / "whole"
    folder.mkdir(parents=True)
    (folder / run.RECIPE).write_text("")
    subprocess.run(
        [sys.executable, "-c", WRITER + "for step in (1, 2): save(sys.argv[1], step)", str(folder / "state")],
        check=True,
        env=ENVIRONMENT,
    )
    return folder


def steps(folder: Path) -> list[int]:
    """The saved states; each of them is whole, and is what was written."""
    found = []
    for path in run.saved_states(folder / "state"):
        tensors, values = run.read_state(path)
        step = values["step"]
        assert path.name == f"{step:08d}" and values["history"] == [{"epoch": step}]
        assert sorted(tensors) == ["best", "network", "optimizer"]
        assert np.array_equal(tensors["network"]["weight"], np.full((40, 50), step, np.float32))
        assert tensors["network"]["count"] == step and tensors["network"]["count"].shape == ()
        found.append(step)
    return found


def check_next_start(folder: Path) -> None:
    """Whatever happened, the next start cleans up and the training can go on."""
    before = steps(folder)
    assert before in ([1, 2], [1, 2, 3], [2, 3])
    run.prepare(folder, resume=True, overwrite=False)
    assert [int(name) for name in sorted(os.listdir(folder / "state"))] == before == steps(folder)
    assert sorted(os.listdir(folder)) == ["env.json", "recipe.toml", "state"]


@dataclass(frozen=True)
class Call:
    """A system call of a trace: the how manieth of its name, and the last path in it."""

    name: str
    number: int
    path: Path
    line: str

    def __str__(self) -> str:
        return f"{self.name} {self.number} {self.path.name}"


Write = Callable[..., tuple[int, str, list[Call]]]


@pytest.fixture(scope="module")
def traced_write(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Write]:
    """Write a state under strace, with an injection: exit code, message, system calls."""
    strace = shutil.which("strace")
    if not strace:
        pytest.skip("needs strace")
    trace = tmp_path_factory.mktemp("trace") / "calls"
    nursery = subprocess.Popen(
        [sys.executable, "-c", NURSERY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    assert nursery.stdin and nursery.stdout

    def tell(line: str) -> None:
        nursery.stdin.write(line + "\n")
        nursery.stdin.flush()

    def write(folder: Path, inject: str = "", step: int = 3) -> tuple[int, str, list[Call]]:
        tell(json.dumps([str(folder / "state"), step]))
        child = nursery.stdout.readline().strip()
        selected = ",".join("?" + name for name in CALLS)
        command = [strace, "-p", child, "-y", "-o", str(trace), "-e", f"trace={selected}"]
        command += ["-e", f"inject={inject}"] if inject else []
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
            said = tracer.stderr.readline()
            tell("go")
            code, message = json.loads(nursery.stdout.readline())
            tracer.wait(10)
        if "attached" not in said:
            pytest.skip(f"no tracing here: {said.strip()}")
        return code, message, parse(trace.read_text())

    yield write
    nursery.stdin.close()
    nursery.wait(10)
    nursery.stdout.close()


def parse(trace: str) -> list[Call]:
    calls, counts = [], Counter[str]()
    for line in trace.splitlines():
        if match := re.match(r"(\w+)\((.*)", line):
            name, rest = match.groups()
            counts[name] += 1
            # without the content of a write; `-y` gives descriptors as 3</path>
            paths = re.findall(r'^\d+<(/[^>]*)>|"(/[^"]*)"', rest.split(", ")[0] if name == "write" else rest)
            calls.append(Call(name, counts[name], Path(max(paths[-1])) if paths else Path(), line))
    return calls


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return template(tmp_path_factory.mktemp("template"))


@pytest.fixture
def fresh(whole: Path, tmp_path: Path) -> Iterator[Callable[[], Path]]:
    """Copies of a run folder with two saved states."""
    number = iter(range(10_000))
    yield lambda: shutil.copytree(whole, tmp_path / f"run{next(number)}")


def published(call: Call) -> bool:
    return call.name.startswith("rename") and call.path.name == "00000003"


def test_killed_at_every_system_call(traced_write: Write, fresh: Callable[[], Path]) -> None:
    """C1, C2: the state before is whole, or the new one is; a state is never half there."""
    code, message, calls = traced_write(fresh())
    assert (code, message) == (0, "-")
    assert {"openat", "write", "fsync", "rmdir"} <= {call.name for call in calls} and len(calls) > 30, calls
    first_after = calls.index(next(filter(published, calls))) + 1
    for index, call in enumerate(calls):
        folder = fresh()
        code, _, _ = traced_write(folder, f"{call.name}:signal=SIGKILL:when={call.number}")
        assert code == -9, call
        assert (3 in steps(folder)) == (index >= first_after), call
        check_next_start(folder)


def test_killed_at_every_event(whole: Path, tmp_path: Path) -> None:
    """C1, C2 without a tracer: killed before every opening, renaming and removing that Python tells of."""
    program = (
        WRITER
        + """
def killed_at(number, folder):
    left = number
    def count(event, arguments):
        nonlocal left
        if event == "open" or event.split(".")[0] in ("os", "shutil"):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(count)
    return attempt(folder, 3)[0]

for number in range(1, 1000):
    folder = f"{sys.argv[2]}/{number}"
    import shutil
    shutil.copytree(sys.argv[1], folder)
    if forked(lambda: killed_at(number, folder + "/state")) == 0:
        break
print(number)
"""
    )
    command = [sys.executable, "-c", program, str(whole), str(tmp_path)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert int(done.stdout) > 25
    outcomes = []
    for number in range(1, int(done.stdout) + 1):
        outcomes.append(3 in steps(tmp_path / str(number)))
        check_next_start(tmp_path / str(number))
    assert outcomes == sorted(outcomes) and set(outcomes) == {False, True}


def test_cut_off_at_any_byte(whole: Path, tmp_path: Path) -> None:
    """C4: a limit on the size of files ends a write in its middle, as a full disk does."""
    program = (
        WRITER
        + """
import shutil
def limited(size, folder):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    code, message = attempt(folder, 3)
    return code if "file too large (raise the limit" in message else 99
for size in [0, 1, 7, 8, 9, 100, 500, 2000, 4096, 8000, 8100]:
    shutil.copytree(sys.argv[1], f"{sys.argv[2]}/{size}")
    print(forked(lambda: limited(size, f"{sys.argv[2]}/{size}/state")))
"""
    )
    command = [sys.executable, "-c", program, str(whole), str(tmp_path)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["6"] * 11
    for folder in tmp_path.iterdir():
        assert steps(folder) == [1, 2] and sorted(os.listdir(folder / "state")) == ["00000001", "00000002"]


def test_flushed_before_it_is_renamed(traced_write: Write, fresh: Callable[[], Path], tmp_path: Path) -> None:
    """C3: every file, then the folder, then the rename, then the folder above; and new folders on the way."""
    _, _, calls = traced_write(fresh())
    rename = calls.index(next(filter(published, calls)))
    temporary = Path(re.findall(r'"([^"]+)"', calls[rename].line)[0])
    written = {call.path for call in calls if call.name == "write"}
    assert {path.name for path in written} == {
        *(f"{name}.safetensors" for name in ("network", "optimizer", "best")),
        "state.json",
        "manifest.json",
    }
    assert {path.parent for path in written} == {temporary}
    flushed = [(index, call.path) for index, call in enumerate(calls) if call.name == "fsync"]
    assert sorted(path for _, path in flushed) == sorted([*written, temporary, temporary.parent])
    order = {path: index for index, path in flushed}
    for path in written:
        last_write = max(index for index, call in enumerate(calls) if call.name == "write" and call.path == path)
        assert last_write < order[path] < rename
    named = max(index for index, call in enumerate(calls) if "O_CREAT" in call.line)
    assert named < order[temporary] < rename < order[temporary.parent]
    assert all(index > order[temporary.parent] for index, call in enumerate(calls) if call.name in ("unlink", "rmdir"))

    _, _, calls = traced_write(tmp_path / "new" / "run")
    made = {call.path.name: index for index, call in enumerate(calls) if call.name.startswith("mkdir")}
    for index, name in (
        (made["new"], tmp_path),
        (made["run"], tmp_path / "new"),
        (made["state"], tmp_path / "new/run"),
    ):
        assert (calls[index + 1].name, calls[index + 1].path) in (("openat", name), ("open", name))
        assert (calls[index + 2].name, calls[index + 2].path) == ("fsync", name)


def refusals(calls: list[Call]) -> Iterator[tuple[Call, str, str]]:
    """System calls, an error that the disk may answer with, and whether from there on or once."""
    for call in calls:
        if call.name == "write":
            yield call, "ENOSPC", "+"
            yield call, "EDQUOT", "+"
        elif call.name == "fsync":
            yield call, "EIO", "+"
            yield call, "EIO", ""
        elif call.name.startswith(("mkdir", "rename")):
            yield call, "ENOSPC", ""
        else:
            yield call, "ENOSPC" if "O_CREAT" in call.line else "EIO", ""


def test_refused_at_every_system_call(traced_write: Write, fresh: Callable[[], Path]) -> None:
    """C4, C5: no space, no quota and a broken disk are exit code 6 and a line of text; the states before are whole."""
    _, _, calls = traced_write(fresh())
    rename = calls.index(next(filter(published, calls)))
    for call, error, more in refusals(calls):
        folder = fresh()
        code, message, made = traced_write(folder, f"{call.name}:error={error}:when={call.number}{more}")
        index = calls.index(call)
        why = f"{call} {error}{more}: {code} {message}"
        if index <= rename:
            assert code == 6 and steps(folder) == [1, 2], why
            assert sorted(os.listdir(folder / "state")) == ["00000001", "00000002"], why
        elif call.name == "fsync":  # of the folder above: renamed, but not for certain
            assert code == 6 and steps(folder) == [1, 2, 3], why
        if code:
            check_message(folder, error, message)
        if call.name == "fsync":
            assert len({c.path for c in made if c.name == "fsync"}) == sum(c.name == "fsync" for c in made), why
        check_next_start(folder)


def check_message(folder: Path, error: str, message: str) -> None:
    what = os.strerror(getattr(errno, error)).lower()
    assert message.startswith(f"{folder / 'state' / '00000003'}: {what}") and "\n" not in message
    if error == "ENOSPC":
        # 2 x 8,000 and 2,800 bytes of f32, 8 of a count, and the JSON
        assert re.search(r"\(free some space: [\d.]+ (GB|MB|kB|bytes) free, 19 kB needed\)$", message), message
    assert error != "EDQUOT" or "quota" in message


def test_a_damaged_state_of_this_step_or_a_later_one_is_replaced(whole: Path, tmp_path: Path) -> None:
    """What a resume has passed over must not stand in the way of what is saved after it."""
    folder = shutil.copytree(whole, tmp_path / "run") / "state"
    arrays, _ = run.read_state(folder / "00000001")
    tensors: dict[str, Any] = arrays
    (folder / "00000002" / "best.safetensors").write_bytes(b"")
    shutil.copytree(folder / "00000002", folder / "00000009")
    shutil.copytree(folder / "00000001", folder / "00000008")
    for _ in range(2):
        assert run.save_state(folder, 2, tensors, {"a": 1}) == folder / "00000002"
        assert [path.name for path in run.saved_states(folder)] == ["00000001", "00000002", "00000008"]
        assert run.read_state(folder / "00000002")[1] == {"step": 2, "a": 1}
