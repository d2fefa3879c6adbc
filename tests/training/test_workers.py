"""Workers in trouble: they die, hang, outlive their parent; each is told with the files in hand."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from resnetkit.data.dataset import scan
from resnetkit.data.image import EXTENSIONS, Preprocess
from resnetkit.errors import ResourceError
from resnetkit.training import workers
from resnetkit.training.pixels import decoded_each_time

SQUARE = Preprocess(size=24, resize="squash")
ROWS = np.array([3, 0, 35])


def silent(now: int) -> None:
    """No progress."""


def files_of(photos: Path):
    return scan(photos, EXTENSIONS).files


def processes_of(found) -> list[int]:
    return list(found.workers._pool._processes)


def kill(found) -> None:
    """Kill the workers, and wait until the pool has noticed, so that no test depends on which is quicker."""
    for process in processes_of(found):
        os.kill(process, signal.SIGKILL)
    while not found.workers._pool._broken:
        time.sleep(0.01)


def test_a_killed_worker_is_replaced_once(photos: Path) -> None:
    """C18: the second death ends the training in seconds, and names the files in hand."""
    found = decoded_each_time(files_of(photos), SQUARE, 2, silent)
    try:
        before = found.store(ROWS)
        kill(found)
        assert np.array_equal(found.store(ROWS), before)
        kill(found)
        started = time.monotonic()
        with pytest.raises(ResourceError, match=r"died twice, with these files in hand: .*photos/"):
            found.store(ROWS)
        assert time.monotonic() - started < 10
    finally:
        found.close()


def test_threads_that_wait_for_the_same_dead_workers_replace_them_once(photos: Path, monkeypatch) -> None:
    """As on a GPU, where several make batches."""
    found = decoded_each_time(files_of(photos), SQUARE, 2, silent)
    made, new_pool = [], found.workers._new_pool

    def slow_pool():  # so that all have noticed before one has replaced them
        made.append(1)
        time.sleep(0.3)
        return new_pool()

    monkeypatch.setattr(found.workers, "_new_pool", slow_pool)
    try:
        before = found.store(ROWS)
        kill(found)
        waiting = [found.start(ROWS) for _ in range(6)]
        with ThreadPoolExecutor(6) as pool:
            assert all(np.array_equal(squares, before) for squares in pool.map(lambda wait: wait(), waiting))
        assert len(made) == 1
    finally:
        found.close()


def test_a_worker_that_hangs_is_given_up(photos: Path, monkeypatch) -> None:
    """C20: as on a disk that does not answer."""
    files = files_of(photos)
    found = decoded_each_time(files, SQUARE, 1, silent)
    found.store(ROWS)
    stopped = processes_of(found)[0]
    os.kill(stopped, signal.SIGSTOP)
    monkeypatch.setattr(workers, "HUNG", 0.5)
    with pytest.raises(ResourceError, match=r"reading hangs: .*blue/11.png, .*blue/0.png, .*red/9.png"):
        found.store(ROWS)
    while _alive(stopped):  # or else this process could not end either
        time.sleep(0.01)


SCRIPT = """
import sys, time, numpy as np
from pathlib import Path
from resnetkit.data.dataset import scan
from resnetkit.data.image import EXTENSIONS, Preprocess
from resnetkit.training.pixels import decoded_each_time
if __name__ == "__main__":
    found = decoded_each_time(scan(Path(sys.argv[1]), EXTENSIONS).files, Preprocess(size=24), 2, lambda n: None)
    found.store(np.arange(36))
    print(*found.workers._pool._processes, "torch" in sys.modules, flush=True)
    time.sleep(60)
"""


def test_workers_end_with_their_parent_and_load_no_torch(photos: Path, tmp_path: Path) -> None:
    """Also when it is killed, which no handler sees."""
    (tmp_path / "script.py").write_text(SCRIPT)
    parent = subprocess.Popen([sys.executable, "script.py", photos], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    with parent.stdout as stdout:
        *workers, torch = stdout.readline().split()
    assert len(workers) == 2 and torch == "False"
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while any(_alive(int(worker)) for worker in workers):
        assert time.monotonic() < deadline, "workers outlive their parent"
        time.sleep(0.05)


def _alive(process: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False


def test_nothing_is_kept_in_shared_memory(photos: Path) -> None:
    """C19: a small /dev/shm does not matter, since results come through pipes."""
    before = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    found = decoded_each_time(files_of(photos), SQUARE, 2, silent)
    try:
        batches = [found.start(np.arange(36)) for _ in range(4)]
        during = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
        sizes = [os.stat(f"/dev/shm/{name}").st_size for name in during - before if os.path.exists(f"/dev/shm/{name}")]
        assert sum(sizes) < 4096, "semaphores only"
        assert all(len(wait()) == 36 for wait in batches)
    finally:
        found.close()
