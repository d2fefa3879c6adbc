"""Images with a picture each whose numbers are objects: 0 is none, 1 the first, 2 the second; a PNG of 8 or 16 bits.

It lies beside its image as a mask of classes does (`data.beside`), in `masks`, `instances` or VOC's
`SegmentationObject`. What class each object is of says a second picture, in `SegmentationClass` or `classes`; without
these all are of one class. 255 of 8 bits is the border that VOC draws around objects, and nobody's, unless they are
numbered through to 255, or there is nothing but 0 and 255.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from resnetkit.data import beside, lists, masks
from resnetkit.data.annotated import Boxed, Noted, Size, assembled
from resnetkit.data.beside import Kind
from resnetkit.data.outlines import outlined
from resnetkit.data.place import Findings, Place
from resnetkit.errors import DataError
from resnetkit.ops.regions import Numbered, of_numbers
from resnetkit.ops.rle import packed

FORM = "masks of objects"
ONE = "object"  # what all are called where nothing tells them apart
BORDER = 255
GROUND = ("background", "_background_", "ground", *masks.UNNAMED)
OBJECTS = Kind(
    "the number of an object",
    "numbers of objects",
    2**16,
    "number the objects of each image from 1",
    ("segmentationobject", "instances", "instance_masks", "objects", "object_masks", "pedmasks"),
    after=(),
)
# whatever masks are called: that they are of objects is said by who asks for these
ANY = replace(OBJECTS, folders=tuple(set(masks.KIND.folders) - {"segmentationclass"}), after=masks.KIND.after)
CLASSES = replace(masks.KIND, folders=("segmentationclass", "classes", "class_masks"), after=())
# more numbers than that which change every few pixels and are everywhere are the greys of a photo
MANY, SHORT, SCATTERED = 50, 3, 20


@dataclass(frozen=True)
class _Picture:
    """The objects in the picture of an image.

    Attributes:
        name: of the file.
        size: width and height.
        numbers, boxes: as `Numbered` has them.
        texts: COCO's run lengths of each object.
        classes: of most pixels of each object, 0 where none [m].
        mixed: whether others have another class [m].
        narrow: whether it has 8 bits at most.
    """

    name: str
    size: Size
    numbers: list[int]
    boxes: list[list[int]]
    texts: list[str]
    classes: NDArray[np.int64]
    mixed: NDArray[np.bool_]
    narrow: bool


def recognised(place: Place) -> Boxed | None:
    """The images of a place with the boxes and pixels of their objects; None where there are no such pictures.

    Raises:
        DataError: a picture cannot be read, is of another size than its image, holds colours, or is a photo; classes
            are not named, or an image is in two lists.
    """
    findings = Findings()
    found = beside.partners(place, OBJECTS, findings) or beside.partners(place, ANY, findings)
    if not found:
        return None
    splits = lists.splits(place, found, lists.OF_MASKS, findings)
    pictures, noted = list[_Picture](), list[Noted]()
    pairs = {image: _with_classes(place, image, found[image]) for image in splits}
    in_classes = any(second for _, second in pairs.values())
    for image, picture in _read_all(place, pairs):
        if in_classes and not pairs[image][1]:
            findings.add("images without a mask of classes, left out", image)
            continue
        pictures.append(picture)
        noted.append(Noted(image, splits[image], picture.size))
    kept = _kept(pictures, findings)
    index, names = _classes(place, pictures, in_classes)
    for each, picture, rows in zip(noted, pictures, kept, strict=True):
        _note(each, picture, rows, index, findings)
    for name in (name for k, name in enumerate(names) if not any(k in each.labels for each in noted)):
        findings.add("classes without an object", name)
    return outlined(assembled(place, noted, names, findings, FORM), noted)


def _with_classes(place: Place, image: str, mask: str) -> tuple[str, str | None]:
    second = beside.partner(place, image, CLASSES)
    return mask, None if second == mask else second


def _read_all(place: Place, pairs: Mapping[str, tuple[str, str | None]]) -> Iterator[tuple[str, _Picture]]:
    """Image and what is in its picture, in order."""

    def one(image: str) -> _Picture:
        return _read(place, image, *pairs[image])

    with ThreadPoolExecutor(2) as pool:
        yield from zip(pairs, pool.map(one, pairs), strict=True)


def _read(place: Place, image: str, mask: str, of_classes: str | None) -> _Picture:
    found = beside.read(place.file(mask), place.file(image), OBJECTS)
    values, objects = found.values, of_numbers(found.values)
    _refuse_photo(objects, place, mask)
    size, narrow = (values.shape[1], values.shape[0]), values.dtype == np.uint8
    classes, mixed = np.ones(len(objects.numbers), np.int64), np.zeros(len(objects.numbers), bool)
    if of_classes:
        kinds = beside.read(place.file(of_classes), place.file(image), CLASSES)
        if kinds.values.shape != values.shape:
            what = f"is {kinds.values.shape[1]} x {kinds.values.shape[0]}, and {mask} is {size[0]} x {size[1]}"
            raise DataError(what, path=place.path(of_classes), fix="make both of one size")
        classes, mixed = _most(values, kinds.values, objects.numbers)
    texts = [packed(runs) for runs in objects.runs]
    return _Picture(mask, size, objects.numbers.tolist(), objects.boxes.tolist(), texts, classes, mixed, narrow)


def _most(
    values: NDArray[np.unsignedinteger], kinds: NDArray[np.unsignedinteger], numbers: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The class that most pixels of each object have, 0 where none has any; and whether others have another."""
    rows = np.zeros(OBJECTS.most, np.int64)
    rows[numbers] = np.arange(1, len(numbers) + 1)
    joint = rows[values] * masks.VALUES + kinds
    counts = np.bincount(joint.ravel(), minlength=(len(numbers) + 1) * masks.VALUES).reshape(-1, masks.VALUES)[1:]
    counts[:, [0, masks.IGNORE]] = 0
    return counts.argmax(1), (counts > 0).sum(1) > 1


def _refuse_photo(objects: Numbered, place: Place, mask: str) -> None:
    corners = objects.boxes
    spread = np.prod(corners[:, 2:] - corners[:, :2], 1) / np.maximum(objects.areas, 1)
    many = len(objects.numbers) > MANY and objects.areas.sum() < SHORT * objects.pieces.sum()
    if many and np.median(spread) > SCATTERED:
        what = f"holds {len(objects.numbers)} numbers that change from pixel to pixel, as the greys of a photo do"
        fix = "give each object one number; where masks were made smaller, without smoothing"
        raise DataError(what, path=place.path(mask), fix=fix)


def _kept(pictures: Sequence[_Picture], findings: Findings) -> list[list[int]]:
    """Rows of the objects of each picture that are objects of a class; without the border."""
    black_and_white = all(set(each.numbers) <= {BORDER} and each.narrow for each in pictures)
    kept = []
    for each in pictures:
        numbers = each.numbers
        rows = list(range(len(numbers)))
        if black_and_white and numbers:
            findings.add("masks of 0 and 255, of one object each", each.name)
        elif each.narrow and BORDER in numbers and BORDER - 1 not in numbers:
            findings.add("masks with a border of 255, which is nobody's", each.name)
            rows.remove(numbers.index(BORDER))
        for row in (row for row in rows if not each.classes[row]):
            findings.add("objects without a class, left out", f"{each.name}: object {numbers[row]}")
        kept.append([row for row in rows if each.classes[row]])
    return kept


def _classes(place: Place, pictures: Sequence[_Picture], in_classes: bool) -> tuple[dict[int, int], tuple[str, ...]]:
    """Index of each class in a picture, and the names of the classes.

    Raises:
        DataError: classes.txt names other ones.
    """
    named = masks.named_in(place)
    if not in_classes:
        own = [name for name in named if name.casefold() not in GROUND]
        if len(own) > 1:
            what = f"names {len(own)} classes, and nothing says of which each object is"
            fix = "add SegmentationClass/, masks whose numbers are classes, or name one"
            raise DataError(what, path=place.path(place.under("classes.txt")), fix=fix)
        return {1: 0}, (own[0] if own else ONE,)
    for picture in pictures:
        beyond = picture.classes.max(initial=0)
        if named and beyond >= len(named):
            what = f"has objects of class {beyond}, and there are {len(named)} classes, from 0"
            raise DataError(what, path=place.path(picture.name), fix="name them in classes.txt, the background first")
    present = sorted({int(k) for picture in pictures for k in picture.classes if k})
    values = range(1, len(named)) if named else present
    return {value: row for row, value in enumerate(values)}, tuple(named[k] if named else str(k) for k in values)


def _note(noted: Noted, picture: _Picture, rows: list[int], index: Mapping[int, int], findings: Findings) -> None:
    """The objects of a picture, added to its image."""
    for row in rows:
        where = f"{picture.name}: object {picture.numbers[row]}"
        if picture.mixed[row]:
            findings.add("objects of several classes, taken for the one that most of their pixels have", where)
        outline = {"size": [picture.size[1], picture.size[0]], "counts": picture.texts[row]}
        text = json.dumps(outline, separators=(",", ":"))
        noted.add(picture.boxes[row], index[int(picture.classes[row])], where, outline=text)
    if not rows:
        findings.add("images without an object, kept as empty", noted.name)
