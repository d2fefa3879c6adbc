"""COCO JSON: one file a split with `images`, `annotations` and `categories`; boxes are x, y, width, height.

Images are looked for below the folder by the path that the file names, and where that is not there, by their name
alone. Category ids need not be contiguous: classes are numbered in the order of the ids, which are kept.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from resnetkit.data.annotated import Boxed, Noted, assembled, header_of, with_category_ids
from resnetkit.data.outlines import outlined, sound
from resnetkit.data.place import Findings, Place, split_in
from resnetkit.data.tree import SPLIT_FOLDERS
from resnetkit.errors import DataError, printable

FORM = "COCO JSON"
MOST_BYTES = 2**31  # of one file: it is held in memory
KEYS = ("images", "annotations", "categories")
Json = Mapping[str, Any]


@dataclass(frozen=True)
class Source:
    """An annotation file: its name in the place, its split ("" where none is given) and what it holds."""

    name: str
    split: str
    content: Json


def sources(place: Place, only: str = "", *, outlines: bool = False) -> list[Source]:
    """The annotation files of a place; `only` names one, `outlines` keeps those of objects.

    Raises:
        DataError: the one that is named is no COCO JSON, or one that is called `instances_..` is damaged.
    """
    names = [only] if only else place.ending(".json")
    instances = [name for name in names if PurePosixPath(name).name.startswith("instances_")]
    found = []
    for name in instances or names:  # beside captions and keypoints of the same images
        strict = bool(only or instances or PurePosixPath(name).name == "_annotations.coco.json")
        content = _read(place, name, strict, outlines)
        if content is not None:
            found.append(Source(name, _split(name), content))
    # one file alone is of all that there is, whatever it is called
    return found if len(found) > 1 else [Source(each.name, "", each.content) for each in found]


def _read(place: Place, name: str, strict: bool, outlines: bool) -> Json | None:
    """What is in a file; None where it is JSON of something else and that may be."""
    raw = place.read(name, MOST_BYTES)
    marked = b'"annotations"' in raw  # as a COCO file that is cut short is, too
    try:
        text = raw.decode(json.detect_encoding(raw), "surrogatepass")
        del raw  # as long again
        content = json.loads(text, object_hook=partial(_lean, outlines))
    except (ValueError, RecursionError) as error:
        if not (strict or marked):
            return None
        what = f"is not JSON: {error}"
        raise DataError(what, path=place.path(name), fix="copy it again from its source") from error
    lists = [isinstance(content, dict) and isinstance(content.get(key), list) for key in KEYS]
    if all(lists):
        return content if isinstance(content, dict) else None
    if strict:
        missing = ", ".join(key for key, there in zip(KEYS, lists, strict=True) if not there)
        raise DataError(f"is no COCO JSON: it has no list of {missing}", path=place.path(name), fix="export it as COCO")
    return None


def _lean(outlines: bool, entry: dict[str, Any]) -> dict[str, Any]:
    """An entry whose outline is text, or gone where its box suffices: its numbers would take most of the memory."""
    if "segmentation" in entry:
        found, needed = entry["segmentation"], outlines or not entry.get("bbox")
        entry["segmentation"] = (json.dumps(found, separators=(",", ":")) if needed else "[]") if found else ""
    return entry


def _split(name: str) -> str:
    """The split in a path: of its folder, or of its own name as in instances_train2017.json."""
    words = PurePosixPath(name).stem.casefold().replace("-", "_").rstrip("0123456789").split("_")
    return next((SPLIT_FOLDERS[word] for word in words if word in SPLIT_FOLDERS), split_in(name))


@dataclass(frozen=True)
class Reading:
    """What an annotation is read with.

    Attributes:
        place, source: where it is.
        index: class index by id.
        findings: what is left out.
        outlines: whether the pixels of objects are asked for.
    """

    place: Place
    source: Source
    index: Mapping[int, int]
    findings: Findings
    outlines: bool


def scan(place: Place, found: Sequence[Source], *, outlines: bool = False) -> Boxed:
    """The images and boxes of all annotation files; with their outlines if these are asked for.

    Raises:
        DataError: an id is used twice, an annotation is of no image, splits are given to some files only, an image
            is in two of them, or of another size.
    """
    _refuse_half_splits(place, found)
    categories = _categories(place, found)
    index = {key: row for row, key in enumerate(categories)}
    findings, noted = Findings(), dict[str, Noted]()
    for source in found:
        for each in _images(Reading(place, source, index, findings, outlines)):
            if each.name in noted:
                what = f"is in {printable(noted[each.name].split or source.name)} and again in {printable(source.name)}"
                raise DataError(what, path=place.path(each.name), fix="keep it in one of them")
            noted[each.name] = each
    ids = [each.id for each in noted.values()]
    if len(set(ids)) < len(ids):  # each file counts for itself
        for each in noted.values():
            each.id = None
    for row, (name, boxes) in enumerate(zip(categories.values(), _counts(noted.values(), len(index)), strict=True)):
        if not boxes:
            findings.add("classes without a box", f"{name} (id {list(categories)[row]})")
    images = sorted(noted.values(), key=lambda each: each.name)
    dataset = assembled(place, images, tuple(categories.values()), findings, FORM)
    return with_category_ids(outlined(dataset, images) if outlines else dataset, tuple(categories))


def _counts(noted: Iterable[Noted], num_classes: int) -> list[int]:
    counts = Counter(label for each in noted for label in each.labels)
    return [counts[row] for row in range(num_classes)]


def _refuse_half_splits(place: Place, found: Sequence[Source]) -> None:
    without = [source.name for source in found if not source.split]
    if without and len(found) > 1:
        what = f"which split is {printable(without[0])}? There are {len(found)} annotation files"
        raise DataError(what, path=place.root, fix="name each after train, val or test, or name the one to read")


def _categories(place: Place, found: Sequence[Source]) -> dict[int, str]:
    """Names by id, in the order of the ids."""
    names: dict[int, str] = {}
    for source in found:
        _refuse_twice(place, source, "categories")
        for each in source.content["categories"]:
            key, name = _whole(each, "id", place, source), str(each.get("name", each["id"]))
            if names.setdefault(key, name) != name:
                what = f"category {key} is {name!r} here and {names[key]!r} elsewhere"
                raise DataError(what, path=place.path(source.name), fix="give both files the same categories")
    twice = [name for name, count in Counter(names.values()).items() if count > 1]
    if twice:
        what = f"two categories are called {twice[0]!r}"
        raise DataError(what, path=place.path(found[0].name), fix="rename or join them")
    return dict(sorted(names.items()))


def _whole(entry: Any, key: str, place: Place, source: Source) -> int:
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, int) or isinstance(value, bool):
        what = f"{key} is {value!r}, not a whole number, in {json.dumps(entry)[:80]}"
        raise DataError(what, path=place.path(source.name), fix="correct it")
    return value


def _refuse_twice(place: Place, source: Source, key: str) -> None:
    counts = Counter(_whole(each, "id", place, source) for each in source.content[key])
    twice = [str(each) for each, count in counts.items() if count > 1]
    if twice:
        what = f"{len(twice)} ids of {key} are used more than once: {', '.join(twice[:10])}"
        raise DataError(what, path=place.path(source.name), fix="give each an id of its own")


def _images(reading: Reading) -> list[Noted]:
    """The images of a file that are there, with their boxes."""
    place, source, findings = reading.place, reading.source, reading.findings
    _refuse_twice(place, source, "images")
    _refuse_twice(place, source, "annotations")
    known: dict[int, Noted | None] = {}
    for image in source.content["images"]:
        name = str(image.get("file_name", ""))
        path, sides = _found(place, source, name), (image.get("width"), image.get("height"))
        if path is None:
            findings.add("images that are not there, left out with their boxes", name)
        size = (int(sides[0]), int(sides[1])) if all(map(_is_side, sides)) else None
        known[image["id"]] = None if path is None else Noted(path, source.split, size, id=image["id"])
    lost = [str(each["id"]) for each in source.content["annotations"] if _key(each.get("image_id")) not in known]
    if lost:
        what = f"{len(lost)} annotations are of no image: {', '.join(lost[:10])}"
        raise DataError(what, path=place.path(source.name), fix="remove them, or add their images")
    for each in source.content["annotations"]:
        noted = known[each["image_id"]]
        if noted is not None:
            _note(each, noted, reading)
    there = [noted for noted in known.values() if noted is not None]
    for noted in there:
        if not noted.boxes:
            findings.add("images without a box, kept as empty", noted.name)
    return there


def _note(each: Json, noted: Noted, reading: Reading) -> None:
    where, findings = f"{reading.source.name}: annotation {each['id']}", reading.findings
    if _key(each.get("category_id")) not in reading.index:
        findings.add("boxes of an unknown category, left out", f"{where}, category {each.get('category_id')}")
        return
    box, outline = _box(each), ""
    if box is None:
        findings.add("annotations without a box, left out", where)
        return
    if reading.outlines:
        outline, bad = sound(each.get("segmentation") or "[]", noted.size or _stored_size(reading.place, noted))
        if not outline:
            findings.add("objects without a sound outline, left out", where)
            return
        if bad:
            findings.add("polygons without three corners or an area, left out of their object", where)
    elif each.get("segmentation"):
        findings.add("objects have an outline, which --task instances learns", where)
    noted.add(box, reading.index[each["category_id"]], where, bool(each.get("iscrowd")), outline)


def _stored_size(place: Place, noted: Noted) -> tuple[int, int]:
    header = header_of(place.file(noted.name))
    return header[0] if header else (1, 1)


def _key(value: Any) -> int | None:
    """An id, or None for what is none and may be a list."""
    return value if isinstance(value, int) else None


def _is_number(value: Any) -> bool:
    """Whether it is a number that a float can hold."""
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**53)


def _is_side(value: Any) -> bool:
    return _is_number(value) and math.isfinite(value) and value > 0


def _box(each: Json) -> tuple[float, float, float, float] | None:
    """Corners; of the polygons where there is no box."""
    box = each.get("bbox")
    if isinstance(box, list) and len(box) == 4 and all(map(_is_number, box)):
        x, y, width, height = map(float, box)
        return x, y, x + width, y + height
    polygons = json.loads(each.get("segmentation") or "null")
    if box or not isinstance(polygons, list):
        return (math.nan,) * 4 if box else None
    numbers = [value for polygon in polygons if isinstance(polygon, list) for value in polygon]
    if len(numbers) < 6 or not all(map(_is_number, numbers)):
        return None
    return min(numbers[::2]), min(numbers[1::2]), max(numbers[::2]), max(numbers[1::2])


def _found(place: Place, source: Source, name: str) -> str | None:
    """The image of this name, which the file may give with or without folders."""
    folder = source.name.rpartition("/")[0]
    tail = PurePosixPath(name.replace("\\", "/")).parts
    plain = "/".join(part for part in tail if part not in ("/", ".", ".."))
    for start in (folder, f"{folder}/images" if folder else "images", place.base, place.under("images")):
        candidate = f"{start}/{plain}" if start else plain
        if candidate in place.known:
            return candidate
    same = place.images.get(plain.rpartition("/")[2], [])
    # a name with a folder means that folder: one of the same name in another may be of another camera
    good = [each for each in same if f"/{each}".endswith(f"/{plain}")] or ([] if "/" in plain else same)
    stem = PurePosixPath(source.name).stem.removeprefix("instances_")  # train2017
    of_split = [each for each in good if stem in each.split("/") or (source.split and split_in(each) == source.split)]
    chosen = of_split or good
    if len(chosen) > 1:
        what = f"there are {len(chosen)} images called {printable(plain)}: {', '.join(map(printable, chosen[:3]))}"
        raise DataError(what, path=place.path(source.name), fix="name them with their folder")
    return chosen[0] if chosen else None
