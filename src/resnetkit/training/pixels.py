"""Where training examples come from: decoded once into a memory-mapped file, or anew in each epoch by `workers`."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import time
import zipfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from resnetkit.data import example
from resnetkit.data.dataset import File
from resnetkit.data.duplicates import content_digest
from resnetkit.data.formats import REPLACE
from resnetkit.data.prepared import Prepared
from resnetkit.errors import DataError, ResourceError, printable
from resnetkit.files import new_folder, resource_errors
from resnetkit.runtime.pipeline import num_threads, read_ahead
from resnetkit.training.workers import Squares, Workers, changed, stamps

Progress = Callable[[int], None]
FORMAT = 3
CHUNK = 8  # files a task
OURS = re.compile(r"[0-9a-f]{32}")
DAY = 86_400.0
FLUSHED = 32_000_000  # bytes after which a cache that is being made is flushed to the disk
SPARE = 500_000_000  # bytes that a cache leaves free on the disk


@dataclass(frozen=True)
class Pixels:
    """The decoded images of a split, or the clips, or the tokens of texts.

    Attributes:
        start: begin to fetch the squares of some rows; gives a function that waits for them: uint8 [n, H, W, C], or
            int16 [n, samples], or uint16 [n, length].
        aspects: width / height of each original, or its length over that of what is kept [n]; NaN where it cannot be
            read.
        hashes: perceptual hash of each [n].
        failed: rows that cannot be read, and why.
        workers: the processes behind `start`, or None.
    """

    start: Callable[[NDArray[np.intp]], Callable[[], Squares]]
    aspects: NDArray[np.float64]
    hashes: NDArray[np.uint64]
    failed: tuple[tuple[int, DataError], ...] = ()
    workers: Workers | None = None

    def store(self, rows: NDArray[np.intp]) -> Squares:
        """The squares of some rows [n, H, W, C]."""
        return self.start(rows)()

    def each(self, batches: Sequence[NDArray[np.intp]]) -> Iterator[Squares]:
        """The squares of each batch of rows; the next ones are being fetched meanwhile."""
        begun = (self.start(rows) for rows in batches)
        coming = deque(islice(begun, 2))
        while coming:
            yield coming.popleft()()
            coming.extend(islice(begun, 1))

    def take(self, rows: NDArray[np.intp]) -> Pixels:
        """The images of some rows."""
        start = self.start
        return Pixels(lambda chosen: start(rows[chosen]), self.aspects[rows], self.hashes[rows], workers=self.workers)

    def close(self) -> None:
        """End the worker processes, if there are any."""
        if self.workers is not None:
            self.workers.close()


def bytes_of(number: int, preprocess: Prepared) -> int:
    """Bytes of so many decoded files."""
    return number * math.prod(preprocess.shape) * np.dtype(preprocess.dtype).itemsize


def _slices(squares: Squares) -> Callable[[NDArray[np.intp]], Callable[[], Squares]]:
    return lambda rows: lambda: squares[rows]


def _refuse_changes(files: Sequence[File], before: NDArray[np.int64]) -> None:
    rows = np.flatnonzero((stamps(files) != before).any(1))
    if len(rows):
        raise changed(files[int(rows[0])])


def _attempt(file: File, preprocess: Prepared) -> example.Example | DataError:
    try:
        return example.of(file, preprocess)
    except DataError as error:
        return error


@dataclass
class _Columns:
    """What decoding finds beside the pixels."""

    aspects: NDArray[np.float64]
    hashes: NDArray[np.uint64]
    failed: list[tuple[int, DataError]] = field(default_factory=list)


def _decode(
    files: Sequence[File], preprocess: Prepared, put: Callable[[int, Squares], object], progress: Progress
) -> _Columns:
    """Decode every file once, in threads, and hand its square to `put`, in order."""
    columns = _Columns(np.full(len(files), np.nan), np.zeros(len(files), np.uint64))
    blank = np.zeros(preprocess.shape, preprocess.dtype)

    def read(rows: range) -> list[example.Example | DataError]:
        return [_attempt(files[row], preprocess) for row in rows]

    chunks = (range(start, min(start + CHUNK, len(files))) for start in range(0, len(files), CHUNK))
    chunked = (found for _, found in read_ahead(chunks, read, 2 * num_threads()) if isinstance(found, list))
    for row, result in enumerate(chain.from_iterable(chunked)):
        square = blank
        if isinstance(result, DataError):
            columns.failed.append((row, result))
        else:
            square, columns.aspects[row], columns.hashes[row] = result
        put(row, square)
        progress(row + 1)
    return columns


def in_memory(files: Sequence[File], preprocess: Prepared, progress: Progress) -> Pixels:
    """Decode every image once, into memory.

    Raises:
        ResourceError: they do not fit.
    """
    try:
        squares = np.empty((len(files), *preprocess.shape), preprocess.dtype)
    except MemoryError as error:
        what = f"{bytes_of(len(files), preprocess) / 1e9:.1f} GB of decoded files do not fit in memory"
        raise ResourceError(what, fix="lower cache.gb: they are then decoded anew in each epoch") from error
    columns = _decode(files, preprocess, squares.__setitem__, progress)
    return Pixels(_slices(squares), columns.aspects, columns.hashes, tuple(columns.failed))


def key_of(files: Sequence[File], preprocess: Prepared) -> str:
    """Name of the cache of these files: their bytes, how they are prepared, and by which decoder."""
    parts = {"format": FORMAT, **example.made_by(preprocess), "preprocess": preprocess.as_dict()}
    digest = hashlib.blake2b(content_digest(files, num_threads()), digest_size=16)
    digest.update(json.dumps(parts, sort_keys=True).encode())
    return digest.hexdigest()


def cached(files: Sequence[File], preprocess: Prepared, folder: Path, progress: Progress) -> Pixels:
    """The images from their cache, which is made where it is missing or damaged.

    Args:
        files: of the images.
        preprocess: to arrays of one shape.
        folder: of this cache: its parent and `key_of`.
        progress: called with the number of images done.

    Raises:
        ResourceError: the disk refuses.
        DataError: a file has changed meanwhile.
    """
    found = _opened(files, preprocess, folder)
    if found is None:
        shutil.rmtree(folder, ignore_errors=True)
        try:
            _make(files, preprocess, folder, progress)
        except ResourceError:
            if not folder.exists():  # or else another process was quicker
                raise
        found = _opened(files, preprocess, folder)
        if found is None:
            raise ResourceError("went away while it was made", path=folder, fix="start again")
        return found
    progress(len(files))
    return found


def _make(files: Sequence[File], preprocess: Prepared, folder: Path, progress: Progress) -> None:
    before, flush_every = stamps(files), max(1, FLUSHED // bytes_of(1, preprocess))
    with new_folder(folder, manifest=False) as temporary:
        shape, kind = (len(files), *preprocess.shape), np.lib.format.dtype_to_descr(np.dtype(preprocess.dtype))
        # written in order, not mapped: a full disk is then an error and not the end of the process
        with (temporary / "pixels.npy").open("wb") as out, ThreadPoolExecutor(1) as flusher:
            np.lib.format.write_array_header_1_0(out, {"descr": kind, "fortran_order": False, "shape": shape})

            flushed: list[Future[None]] = []

            def put(row: int, square: Squares) -> None:
                out.write(np.ascontiguousarray(square).data)
                if row % flush_every == flush_every - 1:  # while others decode, so that little is left for the end
                    flushed.append(flusher.submit(os.fsync, out.fileno()))

            columns = _decode(files, preprocess, put, progress)
            for each in flushed:
                each.result()  # an error is told once: a later flush of the same file may know nothing of it
        _refuse_changes(files, before)
        np.savez(temporary / "index.npz", aspects=columns.aspects, hashes=columns.hashes)


def _opened(files: Sequence[File], preprocess: Prepared, folder: Path) -> Pixels | None:
    """A cache that is there, whole, and of what can be read today, or None."""
    try:
        squares = np.load(folder / "pixels.npy", mmap_mode="r")
        with (folder / "index.npz").open("rb") as file, np.load(file) as index:
            aspects, hashes = index["aspects"], index["hashes"]
        os.utime(folder)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    if len(squares) != len(files) or len(aspects) != len(files):
        return None
    failed: list[tuple[int, DataError]] = []
    for row in np.flatnonzero(np.isnan(aspects)).tolist():
        again = _attempt(files[row], preprocess)
        if not isinstance(again, DataError):  # an optional package was installed since
            return None
        failed.append((row, again))
    return Pixels(_slices(squares), aspects, hashes, tuple(failed))


def make_room(folder: Path, needed: int, limit: int) -> None:
    """Drop the caches that were not used for longest, until the new one fits under the limit; and what a kill left.

    Args:
        folder: of all caches.
        needed: bytes of the new one.
        limit: bytes of all together.

    Raises:
        ResourceError: the disk is too full, or refuses.
    """
    with resource_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(".*.tmp-*"):
            if OURS.fullmatch(left.name.split(".")[1]) and time.time() - left.stat().st_mtime > DAY:
                shutil.rmtree(left, ignore_errors=True)
        # nothing that is not ours: the folder may be one of the user's
        named = (path for path in folder.iterdir() if OURS.fullmatch(path.name) and any(path.rglob("*.npy")))
        caches = sorted(named, key=lambda path: path.stat().st_mtime)
        sizes = [sum(file.stat().st_size for file in cache.rglob("*") if file.is_file()) for cache in caches]
    while caches and sum(sizes) + needed > limit:
        shutil.rmtree(caches.pop(0), ignore_errors=True)
        sizes.pop(0)
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE:
        what = f"{free / 1e6:,.0f} MB are free, {needed / 1e6:,.0f} MB are needed"
        raise ResourceError(what, path=folder, fix="free some space, or --set cache.folder=DIR")


def decoded_each_time(files: Sequence[File], preprocess: Prepared, workers: int, progress: Progress) -> Pixels:
    """Decode every image once to check it, and anew whenever it is asked for.

    Args:
        files: of the images.
        preprocess: to arrays of one shape.
        workers: number of processes.
        progress: called with the number of images done.
    """
    before = stamps(files)
    columns = _decode(files, preprocess, lambda row, square: None, progress)
    pool = Workers(files, before, preprocess, workers)
    return Pixels(pool.start, columns.aspects, columns.hashes, tuple(columns.failed), pool)


def refuse_unreadable(
    failed: Sequence[tuple[int, DataError]], total: int, max_bad: float, noun: str = "images"
) -> None:
    """Refuse more unreadable images, or whatever they are called, than the allowed share.

    Raises:
        DataError: the first ten are named.
    """
    errors = [error for _, error in failed]
    if len(errors) <= math.floor(max_bad * total):
        return
    if len(errors) == 1:
        raise errors[0]
    listed = "; ".join(f"{printable(error.path or '')}: {error.what}" for error in errors[:10])
    more = f"; and {len(errors) - 10} more" if len(errors) > 10 else ""
    ways = {error.fix for error in errors} - {REPLACE}  # one way out for all of them, as another image.channels
    fix = "remove or replace them, or leave out up to a share of them: --set data.max_bad=0.01"
    fix = ways.pop() or fix if len(ways) == 1 and len(errors) == total else fix
    raise DataError(f"{len(errors)} of {total} {noun} cannot be read: {listed}{more}", fix=fix)
