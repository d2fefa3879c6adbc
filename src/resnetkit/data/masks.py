"""Images with a mask each, read in place: a picture whose numbers are class indices (PNG of mode P, L or 1).

A mask lies beside its image under the same name, in another folder: `trainannot` beside `train`, or `masks` (or
`labels`, `annotations`, `SegmentationClass`, ...) beside `images` (or `JPEGImages`). 255 is no class: such pixels are
neither learnt from nor judged; unless masks hold 0 and 255 only, which are two classes then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnetkit.data import beside, lists
from resnetkit.data.annotated import Size
from resnetkit.data.archive import Member
from resnetkit.data.beside import Kind
from resnetkit.data.dataset import CODES, Dataset, File
from resnetkit.data.image import TURNS
from resnetkit.data.names import Names
from resnetkit.data.place import Finding, Findings, Place
from resnetkit.data.place import opened as opened_place
from resnetkit.errors import DataError

Mask = NDArray[np.uint8]
IGNORE = 255
VALUES = 256
MOST_UNNAMED = 100  # values of masks without names
UNNAMED = ("unlabelled", "unlabeled", "void", "ignore", "ignored")
KIND = Kind(
    "the index of a class",
    "indices of classes",
    VALUES,
    "number the classes from 0 and save it with 8 bits",
    ("masks", "mask", "labels", "annotations", "annot", "segmentationclass", "segmentation", "gt"),
)
A_SOURCE = "give images/ and masks/ of the same names, or train/ and trainannot/, with masks as PNG of class indices"


@dataclass(frozen=True)
class Marks:
    """The masks of all images that were read.

    Attributes:
        names: of each mask [m].
        spans: where the root is an archive: where each mask lies in it, as in `dataset.Dataset` [m, 4].
        table: class index of each value of a mask, or `IGNORE` [256].
        pixels: of each class in each mask [m, K].
        sizes: width and height of each upright image in pixels [m, 2].
    """

    names: Names
    spans: NDArray[np.int64] | None
    table: Mask
    pixels: NDArray[np.int64]
    sizes: NDArray[np.int64]


NONE = Marks(Names(), None, np.full(VALUES, IGNORE, np.uint8), np.zeros((0, 0), np.int64), np.zeros((0, 2), np.int64))


@dataclass(frozen=True)
class Masked(Dataset):
    """Images with masks; `targets` are rows of `marks`.

    Attributes:
        marks: the masks, of all splits; not cut by `take`.
        findings: what was left out or changed, and why.
    """

    marks: Marks = NONE
    findings: tuple[Finding, ...] = ()

    @property
    def several(self) -> bool:
        """An image may have pixels of several classes, or none."""
        return True

    @property
    def fewest_classes(self) -> int:
        """A pixel of the only class there is tells nothing."""
        return 2

    @property
    def strata(self) -> NDArray[np.integer]:
        """Whether each image has pixels of each class [n, K]."""
        return np.asarray(self.marks.pixels[self.targets] > 0, np.int8)

    def mask(self, row: int) -> Mask:
        """Class indices of a sample's upright image, `IGNORE` where it has none [h, w].

        Raises:
            DataError: the mask cannot be read, or is of another size than its image.
        """
        number = int(self.targets[row])
        name, spans = self.marks.names[number], self.marks.spans
        file = self.root / name if spans is None else Member(self.root, name, *spans[number].tolist())
        return np.asarray(self.marks.table[read(file, self.files[row]).values], np.uint8)

    def counts(self, split: str) -> NDArray[np.int64]:
        """Number of pixels of each class [K] in a split."""
        return np.asarray(self.marks.pixels[self.targets[self.splits == CODES.index(split)]].sum(0), np.int64)

    def fingerprint(self) -> str:
        """A digest of classes, names, splits, file sizes and pixels of each class, by which other data is noticed."""
        digest = hashlib.blake2b(super().fingerprint().encode(), digest_size=16)
        for column in (self.marks.pixels, self.marks.table, self.marks.sizes):
            digest.update(np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Read:
    """A mask as it lies beside its upright image: its values [h, w], and whether EXIF turned it with the image.

    `image` says whether that can be read; one that cannot is left out where images are decoded.
    """

    values: Mask
    turned: bool
    image: bool = True


def scan(
    source: Path, *, ignore: Sequence[str | int] = (), follow_links: bool = False, known: Sequence[str] = ()
) -> Masked:
    """Read a folder or an archive of images with masks; every mask is decoded once.

    Args:
        source: folder, .zip or .tar.
        ignore: further values, or names of classes, that are no class.
        follow_links: follow links to files outside the folder.
        known: classes of a model, where nothing names those of the data: some need not be there.

    Raises:
        DataError: there are no masks; one cannot be read, is of another size than its image, holds a value that is no
            class, or colours.
        ResourceError: a file cannot be read.
    """
    found = recognised(source, ignore=ignore, follow_links=follow_links, known=known)
    if found is None:
        raise DataError("holds no images with masks", path=source, fix=A_SOURCE)
    return found


def recognised(
    source: Path, *, ignore: Sequence[str | int] = (), follow_links: bool = False, known: Sequence[str] = ()
) -> Masked | None:
    """As `scan`; None where there are no folders of masks, so that it may be something else.

    Raises:
        DataError, ResourceError: as `scan`.
    """
    place, findings = opened_place(source, follow_links=follow_links), Findings()
    found = beside.partners(place, KIND, findings)
    if not found:
        return None
    in_lists = lists.splits(place, found, lists.OF_MASKS, findings)
    pairs = {image: found[image] for image in in_lists}
    if not pairs:
        raise DataError("lists in ImageSets name none of its images with masks", path=source, fix="correct the lists")
    read_all = _read_all(place, list(pairs.items()), findings)
    counts = np.array([each[0] for each in read_all])
    table, classes = _classes(place, counts, list(pairs.values()), findings, (ignore, known))
    pixels = np.stack([counts[:, table == k].sum(1) for k in range(len(classes))], 1)
    for name in (name for name, some in zip(classes, pixels.sum(0).tolist(), strict=True) if not some):
        findings.add("classes without a pixel", name)
    names, masks = Names(pairs), Names(pairs.values())
    splits = np.array([CODES.index(split) for split in in_lists.values()], np.int8)
    marks = Marks(masks, place.spans(masks), table, pixels, np.array([each[1] for each in read_all], np.int64))
    rows = np.arange(len(pairs))
    return Masked(place.root, classes, names, rows, splits, (), place.spans(names), None, marks, findings.told())


def read(mask: File, image: File) -> Read:
    """A mask in the frame of its upright image.

    Raises:
        DataError: it cannot be read, holds colours or values over 255, or is of another size than its image.
    """
    found = beside.read(mask, image, KIND)
    values = found.values.astype(np.uint8, copy=False)
    if found.turn == 1:
        return Read(values, False, found.image)
    return Read(np.asarray(Image.fromarray(values).transpose(TURNS[found.turn])), True)


def _read_all(
    place: Place, pairs: Sequence[tuple[str, str]], findings: Findings
) -> list[tuple[NDArray[np.int64], Size]]:
    """Pixels of each value [256], and width and height, of each mask."""

    def one(pair: tuple[str, str]) -> Read:
        return read(place.file(pair[1]), place.file(pair[0]))

    found = []
    with ThreadPoolExecutor(2) as pool:
        for (image, _), each in zip(pairs, pool.map(one, pairs), strict=True):
            if not each.image:
                findings.add("images that cannot be read, with the size of their mask", image)
            if each.turned:
                findings.add("images that EXIF turns, with their masks", image)
            counts = np.bincount(each.values.ravel(), minlength=VALUES).astype(np.int64)
            found.append((counts, (each.values.shape[1], each.values.shape[0])))
    return found


def _classes(
    place: Place,
    counts: NDArray[np.int64],
    masks: Sequence[str],
    findings: Findings,
    how: tuple[Sequence[str | int], Sequence[str]],
) -> tuple[Mask, tuple[str, ...]]:
    """Class index of each value, and the names of the classes."""
    named, (ignore, known) = named_in(place), how
    present = np.flatnonzero(counts.any(0)).tolist()
    if not named and len(known) == 2 and set(present) <= {0, IGNORE} and not known[0].isdecimal():
        named, present = tuple(known), [0, IGNORE]  # images with nothing in them are of two classes too
    if present == [0, IGNORE] and len(named) in (0, 1, 2):
        findings.add("masks of 0 and 255, which are two classes", f"{len(masks)} masks")
        table = np.full(VALUES, IGNORE, np.uint8)
        table[[0, IGNORE]] = 0, 1
        return table, named if len(named) == 2 else ("background", named[0] if named else "foreground")
    if not named and len(present) > MOST_UNNAMED:
        what = f"holds {len(present)} values, as a photo does, and a mask holds the index of a class in each pixel"
        raise DataError(what, path=place.path(masks[0]), fix="name the classes in classes.txt")
    values = dict(enumerate(named)) if named else {value: str(value) for value in present if value != IGNORE}
    if not named and known and all(name.isdecimal() for name in known):
        values |= {int(name): name for name in known}
    ignore = ignore if not known else [each for each in ignore if str(each) in {*map(str, values), *values.values()}]
    out = _ignored(values, ignore, place)
    given = {str(each) for each in ignore}
    unknown = [value for value in present if value != IGNORE and value not in values and str(value) not in given]
    if unknown:
        row = int(np.flatnonzero(counts[:, unknown[0]])[0])
        what = f"holds {', '.join(map(str, unknown[:10]))}, and there are {len(named)} classes, from 0"
        raise DataError(what, path=place.path(masks[row]), fix="name them in classes.txt, or ignore them")
    for value in out:
        findings.add("classes that are ignored", f"{values[value]} ({value})")
    kept = {value: name for value, name in values.items() if value not in out and value != IGNORE}
    table = np.full(VALUES, IGNORE, np.uint8)
    table[list(kept)] = np.arange(len(kept))
    return table, tuple(kept.values())


def named_in(place: Place) -> tuple[str, ...]:
    """From classes.txt, in the order of the indices; empty where there is none."""
    name = place.under("classes.txt")
    named = tuple(line.strip() for line in place.lines(name) if line.strip()) if name in place.known else ()
    twice = sorted({each for each in named if named.count(each) > 1})
    if twice or len(named) > IGNORE:
        what = f"names {twice[0]!r} twice" if twice else f"names {len(named)} classes"
        raise DataError(what, path=place.path(name), fix=f"one name a line, {IGNORE} at most")
    return named


def _ignored(values: dict[int, str], ignore: Sequence[str | int], place: Place) -> list[int]:
    """The values that are no class: what is asked for, and what is called so."""
    chosen = {str(each) for each in ignore}
    known = {str(value) for value in range(VALUES)} | set(values.values())
    if chosen - known:
        what = f"there is no class {sorted(chosen - known)[0]!r} to ignore"
        raise DataError(what, path=place.root, fix=f"one of {', '.join(list(values.values())[:20])}")
    return [
        value for value, name in values.items() if str(value) in chosen or name in chosen or name.casefold() in UNNAMED
    ]
