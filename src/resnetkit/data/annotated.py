"""Images with boxes as one frozen value: what every format of annotations becomes, and what was left out on the way.

Boxes are xyxy in pixels of the upright image, in columns over all images; a sample's target is its row in them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from resnetkit.data.bands import array_shape, is_array
from resnetkit.data.dataset import CODES, Dataset
from resnetkit.data.formats import DECODE_ERRORS, QUIET, Source, name_of, open_image, opened
from resnetkit.data.image import TURNS
from resnetkit.data.names import Names
from resnetkit.data.place import Finding, Findings, Place
from resnetkit.errors import DataError, printable
from resnetkit.ops.boxes import clip, turned, without_area
from resnetkit.ops.matching import Objects as Objects

LYING = (5, 6, 7, 8)  # orientations whose upright picture is as wide as the stored one is high
Size = tuple[int, int]  # width and height in pixels
TOO_FAR = 0.2  # share of boxes beyond their image from which they are in another form than the format's
NO_BOXES = np.zeros((0, 4), np.float32)


@dataclass(frozen=True)
class Truth:
    """What is in every image that was read, as columns.

    Attributes:
        objects: of all images, one after another [m].
        ends: where those of each image end [n].
        sizes: width and height of each upright image in pixels [n, 2].
        ids: COCO's id of each image [n], or its row.
    """

    objects: Objects
    ends: NDArray[np.int64]
    sizes: NDArray[np.int64]
    ids: NDArray[np.int64]

    def of(self, row: int) -> Objects:
        """What is in one image."""
        part = slice(int(self.ends[row - 1]) if row else 0, int(self.ends[row]))
        found = self.objects
        return Objects(found.boxes[part], found.labels[part], found.crowds[part])


EMPTY = Truth(
    Objects(NO_BOXES, np.zeros(0, np.int64), np.zeros(0, bool)),
    np.zeros(0, np.int64),
    np.zeros((0, 2), np.int64),
    np.zeros(0, np.int64),
)


@dataclass(frozen=True)
class Boxed(Dataset):
    """Images with boxes; `targets` are rows of `truth`.

    Attributes:
        truth: what is in the images, of all splits; not cut by `take`.
        form: how it was written: "COCO JSON", "Pascal VOC", "YOLO" or "masks of objects".
        findings: what was left out or changed, and why.
        category_ids: COCO's id of each class; empty where there is none.
    """

    truth: Truth = EMPTY
    form: str = ""
    findings: tuple[Finding, ...] = ()
    category_ids: tuple[int, ...] = ()

    @property
    def several(self) -> bool:
        """An image may have objects of several classes, or none."""
        return True

    @property
    def strata(self) -> NDArray[np.integer]:
        """Whether each image has objects of each class, crowds aside [n, K]."""
        objects, lengths = self.truth.objects, np.diff(self.truth.ends, prepend=0)
        images = np.repeat(np.arange(len(lengths)), lengths)
        present = np.zeros((len(lengths), len(self.classes)), np.int8)
        present[images[~objects.crowds], objects.labels[~objects.crowds]] = 1
        return np.asarray(present[self.targets])

    def objects(self, row: int) -> Objects:
        """What is in the sample of a row."""
        return self.truth.of(int(self.targets[row]))

    def counts(self, split: str) -> NDArray[np.int64]:
        """Number of boxes of each class [K] in a split; crowds do not count."""
        found = [self.truth.of(int(row)) for row in self.targets[self.splits == CODES.index(split)]]
        labels = [each.labels[~each.crowds] for each in found]
        return np.bincount(np.concatenate([np.zeros(0, np.int64), *labels]), minlength=len(self.classes))

    def fingerprint(self) -> str:
        """A digest of classes, names, splits, file sizes and boxes, by which other data is noticed."""
        import hashlib

        digest = hashlib.blake2b(super().fingerprint().encode(), digest_size=16)
        objects = self.truth.objects
        for column in (objects.boxes, objects.labels, objects.crowds, self.truth.ends):
            digest.update(np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()


@dataclass
class Noted:
    """An image as its annotation has it.

    Attributes:
        name: of the image file in its place.
        split: "" where none is given.
        size: width and height that the annotation states, or None.
        boxes: xyxy, in pixels of an image of that size; or in shares of the upright image's sides.
        labels: class index of each box.
        crowds: whether each is not judged.
        where: what each box is called in a finding.
        shares: whether boxes are in shares.
        id: COCO's.
        outlines: of each box, as `outlines.sound` has it; "" where none is asked for.
        turn: EXIF's orientation, where boxes and outlines are of the stored picture and have to be turned with it.
    """

    name: str
    split: str = ""
    size: Size | None = None
    boxes: list[Sequence[float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    crowds: list[bool] = field(default_factory=list)
    where: list[str] = field(default_factory=list)
    shares: bool = False
    id: int | None = None
    outlines: list[str] = field(default_factory=list)
    turn: int = 1

    def add(self, box: Sequence[float], label: int, where: str, crowd: bool = False, outline: str = "") -> None:
        """One more box."""
        self.outlines.append(outline)
        self.boxes.append(box)
        self.labels.append(label)
        self.where.append(where)
        self.crowds.append(crowd)


def header_of(file: Source) -> tuple[Size, int] | None:
    """Width and height as stored, and the EXIF orientation (1 is upright); None where the file cannot be read."""
    try:
        with QUIET, opened(file) as stream:
            if is_array(stream):
                height, width, _, _ = array_shape(stream, name_of(file))
                return (width, height), 1
            with open_image(stream, name_of(file)) as image:
                return image.size, _orientation(image)
    except (DataError, *DECODE_ERRORS):
        return None


def _orientation(image: Image.Image) -> int:
    orientation = 1
    with contextlib.suppress(*DECODE_ERRORS):  # damaged EXIF is no reason to refuse a picture
        orientation = int(image.getexif().get(ExifTags.Base.Orientation, 1))
    return orientation if orientation in TURNS else 1


def assembled(place: Place, noted: Iterable[Noted], classes: Sequence[str], findings: Findings, form: str) -> Boxed:
    """The annotated images of a place as one value, in the order of their names.

    Raises:
        DataError: an image is of another size than its annotation says, or boxes are evidently in another form.
    """
    images = sorted(noted, key=lambda each: each.name)
    found, sizes = [], np.zeros((len(images), 2), np.int64)
    beyond = np.zeros(3, np.int64)  # boxes; beyond their image; and if the last two numbers are a corner
    for row, each in enumerate(images):
        size, boxes = _upright(place, each, findings)
        beyond += _beyond(boxes, each, size)
        sizes[row] = size
        found.append(_sound(boxes, each, size, findings))
    _refuse_other_form(beyond, place, form)
    truth = _columns(found, sizes, np.array([n if each.id is None else each.id for n, each in enumerate(images)]))
    splits = np.array([CODES.index(each.split) for each in images], np.int8)
    names = Names(each.name for each in images)
    rows = np.arange(len(images))
    return Boxed(
        place.root, tuple(classes), names, rows, splits, (), place.spans(names), None, truth, form, findings.told()
    )


def _columns(found: Sequence[Objects], sizes: NDArray[np.int64], ids: NDArray[np.int64]) -> Truth:
    if not found:
        return EMPTY
    objects = Objects(
        np.concatenate([each.boxes for each in found]).astype(np.float32),
        np.concatenate([each.labels for each in found]).astype(np.int64),
        np.concatenate([each.crowds for each in found]).astype(bool),
    )
    return Truth(objects, np.cumsum([len(each.labels) for each in found]), sizes, ids)


def _upright(place: Place, each: Noted, findings: Findings) -> tuple[Size, NDArray[np.floating]]:
    """Size of the upright image, and the boxes in its pixels.

    An annotation that states the size of the stored picture has its boxes there, and they are turned with it; one that
    states that of the upright picture has them where they belong. Where the two are the same, they are turned. Shares
    are of the upright picture, as the programs that read YOLO's format take them.
    """
    boxes: NDArray[np.floating] = np.array(each.boxes, np.float64).reshape(-1, 4)
    header = header_of(place.file(each.name))
    if header is None:
        findings.add("images that cannot be read, with the size that their annotation states", each.name)
        stored, orientation = each.size or (1, 1), 1
    else:
        stored, orientation = header
    upright = stored[::-1] if orientation in LYING else stored
    if each.shares:
        if orientation != 1:
            findings.add("images that EXIF turns; their boxes are taken as those of the upright image", each.name)
        return upright, boxes * np.array([*upright, *upright])
    if each.size is not None and each.size not in (stored, upright):
        what = f"is {stored[0]} x {stored[1]}, and its annotation is for {each.size[0]} x {each.size[1]}"
        raise DataError(what, path=place.path(each.name), fix="annotate it anew, or put the right image there")
    if orientation != 1 and each.size in (None, stored):
        findings.add("images that EXIF turns, with their boxes", each.name)
        boxes, each.turn = turned(boxes, orientation, stored), orientation
    return upright, boxes


def _beyond(boxes: NDArray[np.floating], each: Noted, size: Size) -> NDArray[np.int64]:
    far = np.array([*size, *size]) * 1.02 + 2
    # what was read as x, y, width, height has become x, y, x + width, y + height
    otherwise = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)
    bad = otherwise[:, 2:] <= otherwise[:, :2]
    return np.array([len(boxes), (boxes > far).any(1).sum(), ((otherwise > far).any(1) | bad.any(1)).sum()], np.int64)


def _refuse_other_form(beyond: NDArray[np.int64], place: Place, form: str) -> None:
    total, far, otherwise = beyond.tolist()
    if form == "COCO JSON" and far > TOO_FAR * total and otherwise <= 0.01 * total:
        what = f"{far} of {total} boxes end outside of their image, as if they were x1, y1, x2, y2"
        raise DataError(what, path=place.root, fix="COCO's are x, y, width, height: convert them")


def _sound(boxes: NDArray[np.floating], each: Noted, size: Size, findings: Findings) -> Objects:
    """The boxes that have an area inside the image; the others are told."""
    finite = np.isfinite(boxes).all(1)
    # corners in another order are a box all the same only where it is said which is which, and it is not
    empty = ~finite | without_area(boxes)
    inside = clip(boxes, size)
    outside = ~empty & without_area(inside)
    cut = ~empty & ~outside & (np.abs(inside - boxes) > 0.5).any(1)
    for what, rows in (
        ("boxes that are not finite", ~finite),
        ("boxes without area", finite & empty),
        ("boxes outside of their image", outside),
    ):
        for row in np.flatnonzero(rows).tolist():
            findings.add(f"{what}, left out", each.where[row])
    for row in np.flatnonzero(cut).tolist():
        findings.add("boxes that reached over the edge of their image, clipped", each.where[row])
    kept = ~empty & ~outside
    each.outlines = [text for text, keep in zip(each.outlines, kept.tolist(), strict=True) if keep]
    labels, crowds = np.array(each.labels, np.int64), np.array(each.crowds, bool)
    return Objects(inside[kept].astype(np.float32), labels[kept], crowds[kept])


def with_category_ids(found: Boxed, ids: Sequence[int]) -> Boxed:
    """With COCO's id of each class."""
    return replace(found, category_ids=tuple(ids))


def refuse_nothing(found: Boxed, source: Path) -> Boxed:
    """A data set that has images.

    Raises:
        DataError: it has none; says what there was instead.
    """
    if not len(found):
        told = "; ".join(f"{each.count:,} {each.what}: {printable(each.examples[0])}" for each in found.findings)
        what = f"holds annotations in the form of {found.form}, but none of their images"
        raise DataError(what + (f"; {told}" if told else ""), path=source, fix="put the images beside them")
    return found
