"""Processes that decode, where the decoded images do not fit the cache: a decoder that crashes ends one of them only.

No torch here: a worker starts in half a second and holds nothing but the decoder.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnetkit.data import example
from resnetkit.data.archive import Member
from resnetkit.data.dataset import File
from resnetkit.data.prepared import Prepared
from resnetkit.data.sources import Line, Part
from resnetkit.errors import DataError, ResourceError, printable

Squares = NDArray[Any]
HUNG = 120.0  # seconds after which a file that is still being read is given up


def changed(file: File) -> DataError:
    """The error of a file that is no longer what it was."""
    what, fix = "has changed since the training began", "start the training again, with data that stays"
    return DataError(what, path=file, fix=fix)


def stamps(files: Sequence[File]) -> NDArray[np.int64]:
    """Size and time of change of each file [n, 2], by which a later change is noticed; those of its archive."""
    archives: dict[Path, tuple[int, int]] = {}
    found = np.zeros((len(files), 2), np.int64)
    for row, file in enumerate(files):
        if not isinstance(file, Member):
            found[row] = _stamp_of(file)
        else:
            found[row] = archives.get(file.archive) or archives.setdefault(file.archive, _stamp(file.archive))
    return found


def _stamp_of(file: File) -> tuple[int, int]:
    """Of a file, its archive, or the file that it is a part of; a text is in memory and stays what it is."""
    if isinstance(file, Line):
        return 0, 0
    return _stamp(file.archive if isinstance(file, Member) else file.whole if isinstance(file, Part) else file)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _work(items: list[tuple[File, tuple[int, int]]], preprocess: Prepared) -> Squares:
    """In a worker: some files to their squares; a file that is no longer what it was is an error."""
    for file, stamp in items:
        if _stamp_of(file) != stamp:
            raise changed(file)
    return np.stack([example.of(file, preprocess)[0] for file, _ in items])


def _begin() -> None:
    """In a worker: leave Ctrl-C to the parent, and end when it has ended, however that was."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class Workers:
    """Processes that decode; one that dies is replaced once, one that hangs is given up, both with their files named.

    What they decode comes through pipes, so a small /dev/shm does not matter.
    """

    def __init__(self, files: Sequence[File], stamps: NDArray[np.int64], preprocess: Prepared, number: int) -> None:
        self._files, self._stamps, self._preprocess, self._number = files, stamps, preprocess, number
        self._pool = self._new_pool()
        self._generation = 0
        self._replacing = threading.Lock()  # several threads may wait for what the same process was to decode

    def _new_pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self._number, get_context("spawn"), _begin)

    def start(self, rows: NDArray[np.intp]) -> Callable[[], Squares]:
        """Begin to decode some rows; gives a function that waits for them [n, S, S, C]."""
        parts = [part for part in np.array_split(rows, self._number) if len(part)]
        waiting = [(part, *self._submit(part)) for part in parts]
        return lambda: np.concatenate([self._result(*each) for each in waiting])

    def _submit(self, rows: NDArray[np.intp]) -> tuple[Future[Squares], int]:
        """What some rows will be, and the generation of the processes that decode them."""
        items = [(self._files[row], (int(self._stamps[row][0]), int(self._stamps[row][1]))) for row in rows.tolist()]
        with self._replacing:
            try:
                return self._pool.submit(_work, items, self._preprocess), self._generation
            except BrokenProcessPool as error:  # noticed when its result is asked for
                broken: Future[Squares] = Future()
                broken.set_exception(error)
                return broken, self._generation

    def _result(self, rows: NDArray[np.intp], future: Future[Squares], generation: int) -> Squares:
        try:
            return future.result(HUNG + len(rows))
        except TimeoutError:
            self.close()
            raise ResourceError(f"reading hangs: {self._named(rows)}", fix="is the disk still there?") from None
        except BrokenProcessPool as error:
            if generation == self._generation == 1:
                what = f"a worker process died twice, with these files in hand: {self._named(rows)}"
                fix = (
                    "more memory, fewer train.workers, or remove the file that ends it; a script of yours has to call "
                    'train() under `if __name__ == "__main__":`, as for every spawned process'
                )
                raise ResourceError(what, fix=fix) from error
            with self._replacing:
                if generation == self._generation:
                    self.close()
                    self._pool, self._generation = self._new_pool(), self._generation + 1
            return self._result(rows, *self._submit(rows))

    def _named(self, rows: NDArray[np.intp]) -> str:
        more = f" and {len(rows) - 10} more" if len(rows) > 10 else ""
        return ", ".join(printable(self._files[row]) for row in rows.tolist()[:10]) + more

    def close(self) -> None:
        """End them, also those that hang."""
        processes = list((self._pool._processes or {}).values())
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.kill()  # one that is stopped would not hear a milder word
