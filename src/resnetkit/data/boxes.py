"""Images with boxes, read in place: COCO JSON, Pascal VOC XML or YOLO text; which of them it is, is recognised.

Where the pixels of objects are asked for, masks of objects are looked for too (`data.numbered`).
"""

from __future__ import annotations

from pathlib import Path

from resnetkit.data import coco, numbered, voc, yolo
from resnetkit.data.annotated import Boxed, refuse_nothing
from resnetkit.data.place import opened
from resnetkit.errors import DataError

A_SOURCE = (
    "give COCO JSON (images, annotations, categories), Pascal VOC (Annotations/*.xml, JPEGImages/), "
    "or YOLO (images/, labels/*.txt, data.yaml)"
)
OUTLINES = (
    "give COCO JSON with polygons or run lengths, or images/ and masks/ of the same names, whose numbers are objects"
)


def scan(source: Path, *, follow_links: bool = False, outlines: bool = False) -> Boxed:
    """Read a folder or an archive of images with boxes, a COCO JSON or a YOLO data.yaml.

    Args:
        source: folder, .zip, .tar, .json or .yaml.
        follow_links: follow links to files outside the folder.
        outlines: read the pixels of each object too, which COCO JSON has, or pictures of objects beside images.

    Raises:
        DataError: no format is recognised, or two are; an annotation is damaged; no image is there.
        ResourceError: a file cannot be read.
    """
    found = recognised(source, follow_links=follow_links, outlines=outlines)
    if found is None:
        what = "objects with their pixels" if outlines else "boxes"
        raise DataError(f"holds no {what} in a form that is known", path=source, fix=OUTLINES if outlines else A_SOURCE)
    return refuse_nothing(found, source)


def recognised(source: Path, *, follow_links: bool = False, outlines: bool = False) -> Boxed | None:
    """As `scan`; None where there are no boxes in a form that is known, so that it may be something else.

    Raises:
        DataError, ResourceError: as `scan`.
    """
    lone = source.is_file() and source.suffix.lower() in (".json", ".yaml", ".yml")
    place = opened(source.parent if lone else source, follow_links=follow_links)
    if lone and source.suffix.lower() == ".json":
        return coco.scan(place, coco.sources(place, source.name, outlines=outlines), outlines=outlines)
    files = [] if lone else coco.sources(place, outlines=outlines)
    drawn = numbered.recognised(place) if outlines and not (lone or files) else None
    if drawn is not None:
        return drawn
    annotations = [] if lone else voc.sources(place)
    images = yolo.sources(place)
    forms = [name for name, any_ in ((coco.FORM, files), (voc.FORM, annotations), (yolo.FORM, images)) if any_]
    if len(forms) > 1:
        raise DataError(f"holds both {' and '.join(forms)}", path=source, fix="keep one, or name the .json or .yaml")
    if files:
        return coco.scan(place, files, outlines=outlines)
    if annotations:
        return voc.scan(place, annotations)
    return yolo.scan(place, images, source.name if lone else "") if images else None
