"""YOLO: a text file an image, in a folder `labels` where the image is in `images`; class, then centre and size of a box
in shares of the upright image, or the corners of a polygon. Names of the classes are in data.yaml or classes.txt.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import yaml

from resnetkit.data.annotated import Boxed, Noted, assembled
from resnetkit.data.place import Findings, Place, split_in
from resnetkit.errors import DataError, printable

FORM = "YOLO"
MOST_BYTES = 2**20  # of a data.yaml
NAME_FILES = ("classes.txt", "obj.names", "names.txt")
Corners = tuple[float, float, float, float]
MOST_CLASSES = 65_536  # one number more would be a class more, up to it, that has no boxes
SHARES = "coordinates are shares of the image's width and height, 0..1"


def sources(place: Place) -> list[str]:
    """The image files in folders `images` that have folders `labels` beside them.

    Where classes have names in a file of their own, text files beside the images are labels too.
    """
    texts = place.ending(".txt")
    folders = {name.rpartition("/")[0] for name in texts if not _is_names(name)}
    images = [name for same in place.images.values() for name in same]
    inside = {folder for folder in map(_folder, images) if _folder(_label_file(f"{folder}/a.jpg")) != folder}
    beside = any(map(_is_names, texts)) and {_folder(name) for name in images if _label_file(name) in place.known}
    chosen = {folder for folder in inside if _folder(_label_file(f"{folder}/a.jpg")) in folders} | (beside or set())
    return sorted(name for name in images if _folder(name) in chosen)


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def _label_file(image: str) -> str:
    """images/train/a.jpg -> labels/train/a.txt: the last folder called images; beside the image where none is."""
    parts = image.split("/")
    for at in range(len(parts) - 2, -1, -1):
        if parts[at].casefold() == "images":
            parts[at] = "labels"
            break
    return str(PurePosixPath(*parts).with_suffix(".txt"))


def scan(place: Place, images: Sequence[str], only: str = "") -> Boxed:
    """The images and boxes of a place; `only` is the .yaml that counts, where one is named.

    Raises:
        DataError: a line is no box; names file and line. Names are missing, or data.yaml cannot be read.
    """
    findings = Findings()
    settings = _settings(place, only)
    classes = _classes(place, settings)
    given = _given_splits(place, settings, images)
    noted = []
    for image in images:
        each = Noted(image, given.get(image) or split_in(image), shares=True)
        for where, label, box in _boxes(place, _label_file(image)):
            if classes and label >= len(classes):
                findings.add("boxes of an unknown class, left out", f"{where}, class {label}")
            else:
                each.add(box, label, where)
        if not each.boxes:
            findings.add("images without a box, kept as empty", image)
        noted.append(each)
    _tell_lost(place, images, findings)
    if not classes:
        classes = tuple(
            str(number) for number in range(1 + max((max(n.labels, default=-1) for n in noted), default=-1))
        )
        what = "classes without names: there is no data.yaml and no classes.txt"
        findings.add(what, f"{len(classes)} classes, called by their numbers")
    return assembled(place, noted, classes, findings, FORM)


def _boxes(place: Place, name: str) -> Iterator[tuple[str, int, Corners]]:
    """Where each box of a label file stands, its class, and its corners in shares; none where there is no file."""
    for line, text in enumerate(place.lines(name) if name in place.known else [], 1):
        if text.strip():
            yield f"{name}: line {line}", *_line(text, f"line {line}", place.path(name))


def _tell_lost(place: Place, images: Sequence[str], findings: Findings) -> None:
    wanted = {_label_file(image) for image in images}
    for name in place.ending(".txt"):
        if "labels" in name.casefold().split("/")[:-1] and name not in wanted and not _is_names(name):
            findings.add("label files without an image, left out", name)


def _is_names(name: str) -> bool:
    return name.rpartition("/")[2].casefold() in NAME_FILES


def _line(text: str, where: str, path: Path) -> tuple[int, Corners]:
    """Class and corners, in shares."""
    words = text.split()
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        raise DataError(f"{where} is {text.strip()[:60]!r}", path=path, fix="numbers only") from None
    if len(words) != 5 and (len(words) < 7 or len(words) % 2 == 0):
        what = f"{where} has {len(words)} numbers"
        raise DataError(what, path=path, fix="class and four numbers, or class and the corners of a polygon")
    if not all(map(math.isfinite, numbers)):
        raise DataError(f"{where} is {text.strip()[:60]!r}", path=path, fix="finite numbers only")
    if numbers[0] != int(numbers[0]) or not 0 <= numbers[0] < MOST_CLASSES:
        fix = f"a whole number from 0, under {MOST_CLASSES:,}"
        raise DataError(f"{where} has the class {words[0]}", path=path, fix=fix)
    if max(numbers[1:]) > 2:
        raise DataError(f"{where} has {max(numbers[1:]):g}", path=path, fix=SHARES)
    if len(words) > 5:
        return int(numbers[0]), (min(numbers[1::2]), min(numbers[2::2]), max(numbers[1::2]), max(numbers[2::2]))
    x, y, width, height = numbers[1:]
    return int(numbers[0]), (x - width / 2, y - height / 2, x + width / 2, y + height / 2)


class _Words(yaml.SafeLoader):  # type: ignore[misc]  # yaml has no types
    """Texts, lists and tables only: a class may be called no, or 007; tags are refused as ever."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}


def _settings(place: Place, only: str) -> Mapping[str, Any]:
    """What the .yaml that is named, or data.yaml, or the only one that has names, says; empty without one."""
    found = []
    for name in [only] if only else place.ending(".yaml", ".yml"):
        try:
            values = yaml.load(place.read(name, MOST_BYTES), Loader=_Words)
        except (yaml.YAMLError, ValueError, RecursionError, KeyError, AttributeError) as error:  # of odd tags
            what = f"is not YAML: {' '.join(str(error).split())[:200]}"
            raise DataError(what, path=place.path(name), fix="correct it") from error
        if isinstance(values, dict) and "names" in values:
            found.append({**values, "": name})
    preferred = [values for values in found if values[""].rpartition("/")[2].startswith("data.")]
    chosen = preferred or found
    if len(chosen) > 1:
        what = f"has {len(chosen)} files of names: {', '.join(printable(values['']) for values in chosen[:3])}"
        raise DataError(what, path=place.root, fix="keep one of them")
    return chosen[0] if chosen else {}


def _classes(place: Place, settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Names in the order of their numbers; empty where there are none."""
    names = settings.get("names")
    if isinstance(names, dict):
        whole = all(key.isdecimal() for key in names)
        if not whole or sorted(map(int, names)) != list(range(len(names))):
            fix = f"number them from 0 to {len(names) - 1}"
            raise DataError("names are not numbered one after another", path=place.path(settings[""]), fix=fix)
        names = [names[key] for key in sorted(names, key=int)]
    if names is None:
        file = next((name for name in place.names if _is_names(name)), None)
        names = [line.strip() for line in place.lines(file) if line.strip()] if file else []
    if not isinstance(names, list):
        raise DataError("names is neither a list nor a table", path=place.path(settings[""]), fix="list the classes")
    if not all(isinstance(name, str) for name in names):
        raise DataError("names holds what is no name", path=place.path(settings[""]), fix="list the classes")
    named = tuple(names)
    twice = sorted(name for name, count in Counter(named).items() if count > 1)
    if twice:
        raise DataError(f"two classes are called {twice[0]!r}", path=place.root, fix="rename or join them")
    return named


def _given_splits(place: Place, settings: Mapping[str, Any], images: Sequence[str]) -> dict[str, str]:
    """Splits by data.yaml, whose paths are folders of images or lists of them; those that are not there say nothing."""
    found: dict[str, str] = {}
    for split in ("train", "val", "test"):
        value = settings.get(split) or (settings.get("valid") if split == "val" else None)
        for text in value if isinstance(value, list) else [value] if value else []:
            for image in _named(place, settings, str(text), images):
                _give(found, image, split, place)
    return found


def _named(place: Place, settings: Mapping[str, Any], text: str, images: Sequence[str]) -> list[str]:
    """The images in a folder, or in a list, that data.yaml names."""
    start = PurePosixPath(settings[""]).parent
    target = _below(start, str(settings.get("path") or ""), text, place)
    if target not in place.known:
        return [image for image in images if image.startswith(f"{target}/")]
    listed = {_below(start, "", line.strip(), place) for line in place.lines(target) if line.strip()}
    return [image for image in images if image in listed]


def _give(found: dict[str, str], image: str, split: str, place: Place) -> None:
    if found.setdefault(image, split) != split:
        what = f"is in {found[image]} and in {split} by data.yaml"
        raise DataError(what, path=place.path(image), fix="take it out of one of them")


def _below(start: PurePosixPath, base: str, text: str, place: Place) -> str:
    """A path of data.yaml in the place: what leads out of it, as ../train/images often does, is left away."""
    for whole in (start / base / text, start / text):
        parts = [part for part in whole.parts if part not in ("..", ".", "/")]
        plain = "/".join(parts)
        if plain in place.known or any(name.startswith(f"{plain}/") for name in place.names):
            return plain
    return "/".join(part for part in PurePosixPath(text).parts if part not in ("..", ".", "/"))
