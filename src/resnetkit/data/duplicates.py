"""The same picture twice: exactly, by its bytes, and nearly, by a hash of how its brightness changes."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnetkit.data.dataset import CODES, Dataset, File
from resnetkit.errors import DataError, printable

Pair = tuple[int, int]
TAIL = 4096  # bytes at a file's end; at its beginning there may be the same camera's header
CHUNK = 32  # files a task: one each would cost as much as reading them
NEAR_BITS = 2  # of 64 that may differ between near-duplicates
SMALLEST = 32  # px
PLAIN_BITS = 4  # a picture with fewer bits than these is plain
MOST_FOUND = 10_000
PAIRS_AT_ONCE = 10_000_000
MAX_PAIRS = 4_000_000_000  # about ten seconds; of larger data only equal hashes are looked for


def first_copies(dataset: Dataset, threads: int) -> NDArray[np.intp]:
    """For each sample the first one with the same bytes, itself where there is none before it [n].

    Only files of equal size are opened, and only those whose ends agree too are read whole.
    """
    sizes = dataset.sizes()
    first = np.arange(len(dataset))
    order = np.argsort(sizes, kind="stable")
    equal = np.flatnonzero(np.diff(sizes[order]) == 0)
    candidates = [int(row) for row in order[np.union1d(equal, equal + 1)] if sizes[row] > 0]
    ends = _digests(dataset.files, candidates, threads, TAIL)
    groups = _groups((int(sizes[row]), end, row) for row, end in zip(candidates, ends, strict=True))
    alike = [row for rows in groups for row in rows]
    wholes = _digests(dataset.files, alike, threads, 0)
    for rows in _groups((int(sizes[row]), whole, row) for row, whole in zip(alike, wholes, strict=True)):
        first[rows] = min(rows)
    return first


def _groups(keyed: Iterable[tuple[Hashable, Hashable, int]]) -> list[list[int]]:
    """Rows that share a key, where it is more than one."""
    groups: defaultdict[Hashable, list[int]] = defaultdict(list)
    for size, digest, row in keyed:
        groups[size, digest].append(row)
    return [rows for rows in groups.values() if len(rows) > 1]


def _digests(files: Sequence[File], rows: Sequence[int], threads: int, tail: int) -> Iterator[bytes]:
    """A digest of the last `tail` bytes of some files, or of all of them; an unreadable one is like no other."""

    def digest(row: int) -> bytes:
        try:
            with files[row].open("rb") as file:
                if tail:
                    file.seek(max(0, file.seek(0, os.SEEK_END) - tail))
                return hashlib.blake2b(file.read(), digest_size=16).digest()
        except OSError:  # it will be named when it is decoded
            return b"%d" % row

    def digests(chunk: Sequence[int]) -> list[bytes]:
        return [digest(row) for row in chunk]

    chunks = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
    with ThreadPoolExecutor(threads) as pool:
        for found in pool.map(digests, chunks):
            yield from found


def content_digest(files: Sequence[File], threads: int) -> bytes:
    """One digest of the bytes of all files, in their order."""
    return hashlib.blake2b(b"".join(_digests(files, range(len(files)), threads, 0)), digest_size=16).digest()


def across_splits(dataset: Dataset, first: NDArray[np.intp]) -> list[Pair]:
    """Pairs of samples with the same bytes in two splits that were given."""
    rows = np.flatnonzero((dataset.splits != dataset.splits[first]) & (dataset.splits > 0))
    return [(int(first[row]), int(row)) for row in rows]


def of_two_labels(dataset: Dataset, first: NDArray[np.intp]) -> list[Pair]:
    """Pairs of samples with the same bytes and different labels."""
    differ = (dataset.targets != dataset.targets[first]).reshape(len(first), -1).any(1)
    return [(int(first[row]), int(row)) for row in np.flatnonzero(differ)]


def listed(dataset: Dataset, pairs: Sequence[Pair], most: int = 10) -> str:
    """The first pairs in words."""
    named = [f"{printable(dataset.names[a])} = {printable(dataset.names[b])}" for a, b in pairs[:most]]
    return "; ".join(named) + (f"; and {len(pairs) - most} more" if len(pairs) > most else "")


def refuse_leaks(dataset: Dataset, first: NDArray[np.intp]) -> None:
    """Refuse given splits that share pictures: the score on one would be that of remembering the other.

    Raises:
        DataError: lists the first ten pairs.
    """
    pairs = across_splits(dataset, first)
    if pairs:
        what = f"the same image is in two splits {len(pairs)} times: {listed(dataset, pairs)}"
        raise DataError(what, path=dataset.root, fix="remove one of each, or go on with --set data.allow_leak=true")


def difference_hash(image: Image.Image) -> int:
    """64 bits: for 8 x 8 places whether the picture is brighter there than one to the right; 0 for a plain one.

    One under 32 px counts as plain: with four pixels a place or fewer, different icons and digits are alike.
    """
    if min(image.size) < SMALLEST:
        return 0
    # 64 points of each place instead of all its pixels, which would cost as much as a tenth of decoding
    points = image.resize((72, 64), Image.Resampling.NEAREST).convert("L")
    grey = np.asarray(points.resize((9, 8), Image.Resampling.BOX), np.int16)
    return int.from_bytes(np.packbits(grey[:, :-1] > grey[:, 1:]).tobytes(), "big")


def near_pairs(hashes: NDArray[np.uint64], splits: NDArray[np.int8]) -> list[tuple[int, int, int]]:
    """Near-duplicates between train and the other splits: row in train, row elsewhere, bits that differ.

    Plain pictures are like every other plain one, and are left out. At most `MOST_FOUND` pairs are given.
    """
    told_apart = np.bitwise_count(hashes) >= PLAIN_BITS
    train = np.flatnonzero((splits == CODES.index("train")) & told_apart)
    others = np.flatnonzero((splits > CODES.index("train")) & told_apart)
    if not len(train) or not len(others):
        return []
    if len(train) * len(others) > MAX_PAIRS:
        others = others[np.isin(hashes[others], hashes[train])]
    found: list[tuple[int, int, int]] = []
    step = max(1, PAIRS_AT_ONCE // len(train))
    for start in range(0, len(others), step):
        block = others[start : start + step]
        bits = np.bitwise_count(hashes[block, None] ^ hashes[None, train])
        near = np.argwhere(bits <= NEAR_BITS)[: MOST_FOUND - len(found)]
        found += [(int(train[t]), int(block[b]), int(bits[b, t])) for b, t in near]
        if len(found) == MOST_FOUND:
            break
    return found
