"""Small data sets of boxes and masks, in every form that is read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Boxes = Sequence[tuple[str, float, float, float, float]]  # class, x1, y1, x2, y2


def write_image(path: Path, size: tuple[int, int] = (60, 40), orientation: int = 1) -> Path:
    """An image of noise, which EXIF turns if it is said so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.name)).integers(0, 255, (size[1], size[0], 3), np.uint8)
    exif = Image.Exif()
    if orientation != 1:
        exif[274] = orientation
    Image.fromarray(pixels).save(path, exif=exif)
    return path


def coco_json(
    images: dict[int, tuple[str, int, int]],
    annotations: Sequence[tuple[int, int, list[float]]],
    categories: dict[int, str],
) -> dict[str, Any]:
    """What is in a COCO JSON: images by id, and image, category and x, y, width, height of annotations 1, 2, ..."""
    return {
        "images": [{"id": k, "file_name": f, "width": w, "height": h} for k, (f, w, h) in images.items()],
        "annotations": [
            {"id": k, "image_id": i, "category_id": c, "bbox": box, "iscrowd": 0, "area": 1}
            for k, (i, c, box) in enumerate(annotations, 1)
        ],
        "categories": [{"id": k, "name": name} for k, name in categories.items()],
    }


def write_json(path: Path, content: object) -> Path:
    """A file of JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def voc_xml(filename: str, size: tuple[int, int] | None, boxes: Boxes, difficult: int = 0) -> str:
    """A Pascal VOC annotation."""
    sizes = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>" if size else ""
    objects = "".join(
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>"
        f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for name, x1, y1, x2, y2 in boxes
    )
    return f"<annotation><filename>{filename}</filename><path>/home/someone/x.jpg</path>{sizes}{objects}</annotation>"


def write_voc(root: Path, images: dict[str, Boxes], lists: dict[str, Sequence[str]] | None = None) -> Path:
    """A folder in the layout of Pascal VOC; images are 60 x 40."""
    (root / "Annotations").mkdir(parents=True)
    for stem, boxes in images.items():
        write_image(root / "JPEGImages" / f"{stem}.jpg")
        (root / "Annotations" / f"{stem}.xml").write_text(voc_xml(f"{stem}.jpg", (60, 40), boxes), encoding="utf-8")
    for split, stems in (lists or {}).items():
        (root / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(stems) + "\n", encoding="utf-8")
    return root


def write_yolo(root: Path, images: dict[str, str], settings: str = "names: [cat, dog]\n") -> Path:
    """A folder in the layout of YOLO: label texts by the name of the image without ending, as "train/a"."""
    for name, text in images.items():
        write_image(root / "images" / f"{name}.jpg")
        path = root / "labels" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    if settings:
        (root / "data.yaml").write_text(settings, encoding="utf-8")
    return root


def write_mask(path: Path, mask: np.ndarray[Any, Any], palette: bool = False) -> Path:
    """A mask as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(mask)
    if palette:
        image = image.convert("P") if image.mode != "L" else Image.frombytes("P", image.size, image.tobytes())
        image.putpalette([value for k in range(256) for value in (k * 7 % 256, k * 31 % 256, k * 57 % 256)])
    image.save(path)
    return path
