"""The same picture twice: exactly, by its bytes, and nearly, by a hash of its low frequencies and then by its look."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnetkit.data.dataset import CODES, Dataset, File
from resnetkit.data.image import Preprocess, decode, shown
from resnetkit.errors import DataError, printable

Pair = tuple[int, int]
TAIL = 4096  # bytes at a file's end; at its beginning there may be the same camera's header
CHUNK = 32  # files a task: one each would cost as much as reading them
NEAR_BITS = 8  # of 64 that may differ between near-duplicates
ALIKE = 0.95  # correlation of their looks
SMALLEST = 32  # px
PLAIN = 3.0  # deviation of the brightness, of 255, under which a picture is plain
GREY, WAVES = 32, 8
MANY = 100_000
MOST_IN_BUCKET = 1_000  # pictures that agree in a part of their hash: each is compared with so many others
MOST_FOUND = 10_000
PLACES = 256  # of 16 x 16
COLOUR = 20  # of 255: mean difference of colours, beside brightness, between near-duplicates
LOOK = Preprocess(size=64, resize="squash")
Rows = NDArray[np.intp]
Wanted = Callable[[Rows, Rows], NDArray[np.bool_]]
_COSINES = np.cos(np.pi * np.outer(np.arange(WAVES), np.arange(GREY) + 0.5) / GREY)  # of the DCT-II
_COSINES[0] /= np.sqrt(2)  # so that each wave is of equal length


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
    differ = (dataset.strata != dataset.strata[first]).reshape(len(first), -1).any(1)
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
        what = f"the same {dataset.noun[:-1]} is in two splits {len(pairs)} times: {listed(dataset, pairs)}"
        raise DataError(what, path=dataset.root, fix="remove one of each, or go on with --set data.allow_leak=true")


def perceptual_hash(image: Image.Image) -> int:
    """64 bits: which of 8 x 8 low frequencies of the picture's brightness are above their median; 0 for a plain one.

    One under 32 px counts as plain: with so few pixels different icons and digits are alike. No copy saved at JPEG
    quality 40 to 90, or at half to twice its size, differed in more than 6 bits; of 50 million pairs of 32 px pictures
    52 differed in 8 or fewer (bench/near.py).
    """
    if min(image.size) < SMALLEST:
        return 0
    # 16 points of each place instead of all its pixels, which would cost as much as a third of decoding
    points = image.resize((4 * GREY, 4 * GREY), Image.Resampling.NEAREST).convert("L")
    grey = np.asarray(points.resize((GREY, GREY), Image.Resampling.BOX), np.float64)
    if grey.std() < PLAIN:
        return 0
    waves = (_COSINES @ grey @ _COSINES.T).ravel()
    return int.from_bytes(np.packbits(waves > np.sort(waves[1:])[31]).tobytes(), "big")


@dataclass(frozen=True)
class Near:
    """Pictures that are nearly the same.

    Attributes:
        pairs: two rows each, the first one before the second [n, 2].
        bits: in which their hashes differ [n].
        complete: False where there were too many alike to compare them all, or to list them.
    """

    pairs: NDArray[np.intp]
    bits: NDArray[np.uint8]
    complete: bool

    def take(self, chosen: NDArray[np.bool_]) -> Near:
        """Some of the pairs."""
        return replace(self, pairs=self.pairs[chosen], bits=self.bits[chosen])


def near(hashes: NDArray[np.uint64], wanted: Wanted | None = None, most: int = MOST_FOUND) -> Near:
    """Pairs of hashes that differ in `NEAR_BITS` bits or fewer, of which 0, a plain picture, is no part.

    Not by comparing all with all: of NEAR_BITS + c groups of bits at least c are equal in such a pair, so for every
    choice of c groups only those that agree in them are compared (c = 2, or 3 for more than a hundred thousand).

    Args:
        hashes: [n].
        wanted: of two arrays of rows, which pairs count; all of them where it is left out.
        most: pairs after which the search ends.
    """
    rows = np.flatnonzero(hashes)
    told = hashes[rows]
    codes, complete = np.zeros(0, np.int64), True
    for mask in _masks(2 if len(rows) < MANY else 3):
        found, whole = _alike(told, mask, lambda a, b: wanted is None or wanted(rows[a], rows[b]), most)
        codes, complete = np.union1d(codes, found), complete and whole
        if len(codes) > most:
            codes, complete = codes[:most], False
            break
    pairs = rows[np.stack(np.divmod(codes, max(1, len(rows))), 1)]
    return Near(pairs, np.bitwise_count(hashes[pairs[:, 0]] ^ hashes[pairs[:, 1]]), complete)


def _masks(chosen: int) -> Iterator[np.uint64]:
    """The bits of every choice of `chosen` groups out of NEAR_BITS + chosen."""
    groups = [sum(1 << bit for bit in range(first, 64, NEAR_BITS + chosen)) for first in range(NEAR_BITS + chosen)]
    return (np.uint64(sum(each)) for each in combinations(groups, chosen))


def _alike(
    hashes: NDArray[np.uint64], mask: np.uint64, wanted: Callable[[Rows, Rows], Any], most: int
) -> tuple[NDArray[np.int64], bool]:
    """Near pairs among those that agree under a mask, each as first * n + second, and whether all were compared.

    They are sorted, and each is compared with the next one, the next but one, and so on as far as they agree.
    """
    keys = hashes & mask
    order = np.argsort(keys, kind="stable")
    keys, starts = keys[order], np.arange(len(keys))
    found: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
    for step in range(1, MOST_IN_BUCKET + 1):
        starts = starts[: np.searchsorted(starts, len(keys) - step)]
        starts = starts[keys[starts + step] == keys[starts]]
        if not len(starts) or sum(map(len, found)) > most:
            break
        a, b = order[starts], order[starts + step]  # of equal keys in their order: the sort is stable
        good = (np.bitwise_count(hashes[a] ^ hashes[b]) <= NEAR_BITS) & wanted(a, b)
        found.append(a[good] * np.int64(len(hashes)) + b[good])
    return np.concatenate(found), not len(starts)


def near_pairs(hashes: NDArray[np.uint64], splits: NDArray[np.int8]) -> Near:
    """Near-duplicates between train and the other splits; at most `MOST_FOUND`."""
    in_train = splits == CODES.index("train")
    return near(hashes, lambda a, b: (in_train[a] != in_train[b]) & (splits[a] > 0) & (splits[b] > 0))


def confirmed(found: Near, files: Sequence[File], threads: int) -> Near:
    """Those pairs that also look the same at 16 x 16 pixels: both are decoded again, each once.

    Args:
        found: from `near`.
        files: of all rows.
        threads: that decode.
    """
    rows, places = np.unique(found.pairs, return_inverse=True)
    if not len(rows):
        return found
    chunks = [rows[start : start + CHUNK].tolist() for start in range(0, len(rows), CHUNK)]
    with ThreadPoolExecutor(threads) as pool:
        looks = np.concatenate(list(pool.map(lambda chunk: np.stack([_look(files[row]) for row in chunk]), chunks)))
    first, second = looks[places.reshape(-1, 2).T]
    alike = (first[:, :PLACES] * second[:, :PLACES]).sum(1) >= ALIKE
    colours = first[:, PLACES:], second[:, PLACES:]
    grey = np.any([np.abs(each).max(1) <= COLOUR for each in colours], axis=0)  # a grey copy of a colour picture
    return found.take(alike & (grey | (np.abs(colours[0] - colours[1]).mean(1) <= COLOUR)))


def _look(file: File) -> NDArray[np.float32]:
    """What a picture is at 16 x 16 places: brightness [256], of mean 0 and length 1, and colour [512], levels.

    Zeros where the file cannot be read any more.
    """
    try:
        small = shown(decode(file, LOOK)).resize((16, 16), Image.Resampling.BOX).convert("YCbCr")
    except DataError:
        return np.zeros(3 * PLACES, np.float32)
    values = np.asarray(small, np.float32).reshape(PLACES, 3)
    brightness, colour = values[:, 0] - values[:, 0].mean(), values[:, 1:] - 128
    return np.concatenate([brightness / max(1e-6, float(np.linalg.norm(brightness))), colour.ravel()])
