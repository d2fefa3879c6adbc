"""Pascal VOC: an XML file an image, with corners of boxes; splits as lists in ImageSets/Main, or as folders.

The XML's `path` and `folder` name places on the annotator's machine: images are looked for by `filename`. Corners are
taken as they are; that some tools count pixels from 1 is less than they are drawn by hand. What is marked `difficult`
is kept and not judged, as COCO's crowds are: the benchmark itself forgives less of what lies in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from xml.etree import ElementTree
from xml.parsers import expat

from natsort import natsorted

from resnetkit.data import lists
from resnetkit.data.annotated import Boxed, Noted, assembled
from resnetkit.data.formats import EXTENSIONS
from resnetkit.data.place import Findings, Place, split_in
from resnetkit.errors import DataError, printable

FORM = "Pascal VOC"
MOST_BYTES = 2**25  # of one XML
CORNERS = ("xmin", "ymin", "xmax", "ymax")
Element = ElementTree.Element


def sources(place: Place) -> list[str]:
    """The annotations of a place: the XML files in folders called Annotations, or else those beside images."""
    names = place.ending(".xml")
    inside = [name for name in names if "annotations" in name.casefold().split("/")[:-1]]
    folders = {name.rpartition("/")[0] for each in place.images.values() for name in each}
    return inside or [name for name in names if name.rpartition("/")[0] in folders]


def parse(content: bytes) -> Element:
    """XML without a document type, so without entities that could name other files or grow.

    Raises:
        ValueError: it is none, or has one; says in which line.
    """
    parser, builder = expat.ParserCreate(), ElementTree.TreeBuilder()

    def refuse(*_: object) -> None:
        raise ValueError(f"line {parser.CurrentLineNumber} has a DOCTYPE, which is not read")

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = lambda tag, attributes: builder.start(tag, attributes)
    parser.EndElementHandler = lambda tag: builder.end(tag)
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, LookupError) as error:  # an encoding that nobody knows
        raise ValueError(f"is not XML: {error}") from error
    return builder.close()


@dataclass(frozen=True)
class _Object:
    """One object of an XML."""

    label: str
    box: tuple[float, ...]
    difficult: bool


def scan(place: Place, annotations: list[str]) -> Boxed:
    """The images and boxes of a place.

    Raises:
        DataError: an XML is damaged or has a DOCTYPE, a list names an image twice, an image is of another size.
    """
    findings = Findings()
    images = {PurePosixPath(each).stem: each for same in place.images.values() for each in same}
    found: dict[str, tuple[Noted, list[_Object]]] = {}
    for name in annotations:
        root = _read(place, name)
        if root.tag != "annotation":
            findings.add("XML files of something else, left out", name)
            continue
        path = _image_of(place, name, root, images)
        if path is None:
            findings.add("images that are not there, left out with their boxes", name)
        elif path in found:
            raise DataError(f"describes {printable(path)}, as another XML does", path=place.path(name), fix="keep one")
        else:
            found[path] = Noted(path, split_in(path), _size(root)), _objects(place, name, root)
    _add_empty(place, found, findings)
    kept = lists.splits(place, found, lists.OF_BOXES, findings)
    classes = natsorted({each.label for _, objects in found.values() for each in objects})
    for path, (noted, objects) in found.items():
        for number, each in enumerate(objects, 1):
            noted.add(each.box, classes.index(each.label), f"{path}: object {number}, {each.label}", each.difficult)
        if not objects and path in kept:
            findings.add("images without a box, kept as empty", path)
    for path, split in kept.items():
        found[path][0].split = split
    return assembled(place, (found[path][0] for path in kept), classes, findings, FORM)


def _add_empty(place: Place, found: dict[str, tuple[Noted, list[_Object]]], findings: Findings) -> None:
    """Images beside the annotated ones that have no XML."""
    folders = {path.rpartition("/")[0] for path in found}
    for path in (path for same in place.images.values() for path in same):
        if path not in found and path.rpartition("/")[0] in folders:
            found[path] = Noted(path, split_in(path)), []


def _read(place: Place, name: str) -> Element:
    try:
        return parse(place.read(name, MOST_BYTES))
    except ValueError as error:
        raise DataError(str(error), path=place.path(name), fix="write it again, or remove it") from error


def _image_of(place: Place, name: str, root: Element, images: Mapping[str, str]) -> str | None:
    """The image that an XML describes, by the file name that it gives, or by its own."""
    folder, _, last = name.rpartition("/")
    above = folder.rpartition("/")[0]
    beside = (folder, f"{above}/JPEGImages" if above else "JPEGImages", f"{above}/images" if above else "images")
    given = (root.findtext("filename") or "").strip().replace("\\", "/").rpartition("/")[2]
    stem = PurePosixPath(last).stem
    for start in beside:
        for file in (given, *(f"{stem}{ending}" for ending in EXTENSIONS)):
            candidate = f"{start}/{file}" if start else file
            if file and candidate in place.known and PurePosixPath(file).suffix.lower() in EXTENSIONS:
                return candidate
    return images.get(PurePosixPath(given).stem or stem) or images.get(stem)


def _number(element: Element, tag: str) -> float:
    text = (element.findtext(tag) or "").strip()
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{tag} is {text!r}") from None


def _size(root: Element) -> tuple[int, int] | None:
    """As the XML states it; None where it states nothing, or 0 as some tools do."""
    try:
        width, height = (int(_number(root, f"size/{side}")) for side in ("width", "height"))
    except (ValueError, OverflowError):
        return None
    return (width, height) if width > 0 and height > 0 else None


def _objects(place: Place, name: str, root: Element) -> list[_Object]:
    found = []
    for number, each in enumerate(root.findall("object"), 1):
        label = (each.findtext("name") or "").strip()
        try:
            if not label:
                raise ValueError("it has no name")
            box = tuple(_number(each, f"bndbox/{corner}") for corner in CORNERS)
        except ValueError as error:
            raise DataError(f"object {number}: {error}", path=place.path(name), fix="correct it") from error
        found.append(_Object(label, box, (each.findtext("difficult") or "").strip() == "1"))
    return found
