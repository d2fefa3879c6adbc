"""Machines that are not as one would wish: little memory, few files, no home, an odd clock, an old torch."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import tiny, write_classes
from resnetkit.runtime.backends import refuse_old_torch

SOURCE = Path(__file__).parent.parent / "src" / "resnetkit"
BARE = {"PATH": os.environ.get("PATH", ""), "LANG": "C", "LC_ALL": "C", "RESNETKIT_OFFLINE": "1"}


def shell(
    line: str, *argv: object, env: dict[str, str] = BARE, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """A command after a line of shell that changes its surroundings; no terminal, nothing on standard input."""
    command = ["bash", "-c", f'{line}; exec "$@"', "bash", sys.executable, "-m", "resnetkit", *map(str, argv)]
    return subprocess.run(
        command, env=BARE, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False
    )


def test_few_files_one_core_no_home_no_terminal_no_locale_no_temporary_folder(tmp_path: Path) -> None:
    """C26, J6: train from the first byte to the report, with names that the locale cannot print."""
    write_classes(tmp_path / "fötos", 8, classes={"grün": (30, 180, 60), "rot": (220, 50, 40)})
    one_core = f"taskset -cp {min(os.sched_getaffinity(0))} $$ > /dev/null"
    flags = tiny("train.epochs=1", "cache.gb=0", "train.workers=2")
    line = f"ulimit -n 256; {one_core}; umask 077; export TMPDIR=/nowhere"
    done = shell(line, "train", tmp_path / "fötos", *flags, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stdout and "\x1b" not in done.stdout + done.stderr, "no colours without a terminal"
    assert "grün" in (tmp_path / "run" / "model" / "model.json").read_text(encoding="utf-8")


def test_a_working_folder_that_is_gone(tmp_path: Path) -> None:
    """J6."""
    write_classes(tmp_path / "photos", 4)
    gone = tmp_path / "gone"
    gone.mkdir()
    done = shell(f"cd {gone} && rmdir {gone}", "train", tmp_path / "photos", *tiny("train.epochs=1"))
    assert (done.returncode, done.stderr) == (6, "error: the working folder is gone (cd to one that is there)\n")


def test_a_working_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    """J6: said before any work."""
    write_classes(tmp_path / "photos", 4)
    done = shell("cd /proc", "train", tmp_path / "photos", *tiny("train.epochs=1"))
    assert done.returncode == 6 and done.stderr.startswith("error: runs/photos: "), done.stderr
    assert done.stderr.count("\n") == 1


def test_little_address_space_is_an_error_in_one_line() -> None:
    """C26: under `ulimit -v` torch itself cannot be loaded."""
    done = shell("ulimit -v 400000", "predict", "runs/none", "x.png")
    assert done.returncode in (5, 6) and done.stderr.startswith("error: ") and "Traceback" not in done.stderr


MEMORY = """
import resource, sys
from resnetkit import cli
import resnetkit.verbs.train
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 700 * 2**20,) * 2)
cli.main(sys.argv[1:])
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="measures its address space in /proc")
def test_a_batch_that_does_not_fit_in_memory(tmp_path: Path) -> None:
    """C21: the way out is said, and nothing is made smaller behind the user's back."""
    write_classes(tmp_path / "photos", 30)
    flags = tiny("model.variant=resnet50", "image.size=256", "train.batch_size=64", "train.memory_format=contiguous")
    command = [sys.executable, "-c", MEMORY, "train", "photos", *flags, "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 6, done.stderr
    assert "out of memory in a training step (a smaller --batch-size" in done.stderr and "Traceback" not in done.stderr


def test_a_clock_that_jumps_back(tmp_path: Path, run_cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """C23: durations are measured on a clock that only runs forward."""
    write_classes(tmp_path / "photos", 8)
    true = time.time
    monkeypatch.setattr(time, "time", lambda: 4e9 - 1000 * (true() % 1e6))  # beyond 2038, and backward
    # the limit counts from the import of the command line, which in this process may be minutes ago
    code, _, err = run_cli("train", "photos", *tiny("train.epochs=2"), "--time-limit", "9h")
    assert code == 0, err
    seconds = [float(line.split(",")[-1]) for line in Path("runs/photos/results.csv").read_text().splitlines()[1:]]
    assert 0 <= seconds[0] <= seconds[1] < 300
    users = [path.name for path in SOURCE.rglob("*.py") if re.search(r"\btime\.time\(", path.read_text())]
    assert sorted(users) == ["log.py", "pixels.py"], "which tell the time of day, and compare with the age of files"


@pytest.mark.parametrize("version", ["1.13.1", "2.3.0", "2.9.1+cu121"])
def test_an_old_torch_is_refused(version: str) -> None:
    """J5."""
    with pytest.raises(Exception, match=r"torch .* is too old \(pip install 'torch>=2.10'") as caught:
        refuse_old_torch(version)
    assert caught.value.exit_code == 6  # type: ignore[attr-defined]
    for good in ("2.10.0", "2.14.1+cpu", "3.0", "2.15.0a0+git1234"):
        refuse_old_torch(good)


def test_an_old_torch_is_refused_by_the_command(tmp_path: Path, run_cli, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    write_classes(tmp_path / "photos", 4)
    monkeypatch.setattr(torch, "__version__", "2.5.1")
    code, _, err = run_cli("train", "photos", *tiny())
    assert code == 6 and "torch 2.5.1 is too old" in err and not Path("runs").exists()


def test_limits_are_as_they_were() -> None:
    """No test of this file may have changed those of the test process."""
    assert resource.getrlimit(resource.RLIMIT_AS)[0] in (-1, resource.RLIM_INFINITY)
