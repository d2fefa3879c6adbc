"""The pixels of annotated objects: COCO's polygons and run lengths, kept as they are written, drawn when asked for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnetkit.data.annotated import LYING, Boxed, Noted, Size
from resnetkit.data.image import TURNS
from resnetkit.data.names import Names
from resnetkit.ops import rle
from resnetkit.ops.regions import Region, of_mask, of_polygons, of_runs

FARTHEST = 4  # times the image's side that a corner may lie outside; a longer outline is none, and takes memory to draw
SMALLEST = 1e-3  # square pixels of a polygon


@dataclass(frozen=True)
class Outlines:
    """Those of all objects of a data set.

    Attributes:
        texts: of each object, as `sound` has it [m].
        turns: EXIF's orientation of each image, by which they are turned with it; 1 where they lie right [n].
    """

    texts: Names
    turns: NDArray[np.int8]


@dataclass(frozen=True)
class Outlined(Boxed):
    """Images with objects whose pixels are known, beside their boxes.

    Attributes:
        outlines: of the objects of `truth`, in their order.
    """

    outlines: Outlines = Outlines(Names(), np.zeros(0, np.int8))  # noqa: RUF009  frozen

    def regions(self, row: int, size: Size) -> tuple[Region, ...]:
        """The pixels of each object of a sample, as they are where its upright image has this width and height."""
        image = int(self.targets[row])
        first = int(self.truth.ends[image - 1]) if image else 0
        texts = self.outlines.texts[first : int(self.truth.ends[image])]
        width, height = self.truth.sizes[image].tolist()
        turn = int(self.outlines.turns[image])
        return tuple(drawn(text, (width, height), size, turn) for text in texts)

    def fingerprint(self) -> str:
        """A digest of what `Boxed` tells, and of the outlines, by which other data is noticed."""
        digest = hashlib.blake2b(super().fingerprint().encode(), digest_size=16)
        for text in self.outlines.texts:
            digest.update(text.encode())
        return digest.hexdigest()


def outlined(found: Boxed, noted: Sequence[Noted]) -> Outlined:
    """A data set with the outlines of its objects; `noted` are its images in their order."""
    texts = Names(text for each in noted for text in each.outlines)
    turns = np.array([each.turn for each in noted], np.int8)
    known = {field.name: getattr(found, field.name) for field in fields(found)}
    return Outlined(**known, outlines=Outlines(texts, turns))


def sound(text: str, size: Size) -> tuple[str, int]:
    """An outline as text without the polygons that are none, and how many these are; "" where nothing is left.

    Args:
        text: as COCO's JSON has it: a list of polygons, or run lengths.
        size: width and height of the image that it is of.
    """
    found = json.loads(text)
    if isinstance(found, dict):
        return (text if _are_runs(found, size) else ""), 0
    if not isinstance(found, list):
        return "", 0
    good = [polygon for polygon in found if _is_polygon(polygon, size)]
    bad = len(found) - len(good)
    return (json.dumps(good) if bad else text) if good else "", bad


def _are_runs(found: dict[str, Any], size: Size) -> bool:
    """Whether they are of an image of this size, and of some pixels of it."""
    try:
        lengths = _lengths_of(found)
        whole = all(isinstance(length, int) and length >= 0 for length in lengths)
    except (ValueError, TypeError, KeyError):
        return False
    fits = found.get("size") == [size[1], size[0]] and whole and sum(lengths) == size[0] * size[1]
    return fits and any(lengths[1::2])


def _lengths_of(found: dict[str, Any]) -> list[int]:
    counts = found["counts"]
    return rle.unpacked(counts) if isinstance(counts, str) else list(counts)


def _is_polygon(polygon: Any, size: Size) -> bool:
    """Whether it has three corners at least, near the image, and an area."""
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        return False
    try:
        points = np.array(polygon, np.float64).reshape(-1, 2)
    except (ValueError, TypeError, OverflowError):
        return False
    if not np.isfinite(points).all() or (np.abs(points) > FARTHEST * np.array(size)).any():
        return False
    x, y = np.concatenate([points, points[:1]]).T  # np.roll would take most of the time of a scan
    return abs(float(x[:-1] @ y[1:] - y[:-1] @ x[1:])) > 2 * SMALLEST


def drawn(text: str, own: Size, size: Size, turn: int = 1) -> Region:
    """The pixels of an outline.

    Args:
        text: as `sound` has it.
        own: width and height of the upright image.
        size: those at which it is wanted.
        turn: EXIF's orientation, where the outline is one of the stored picture.
    """
    if turn in LYING:
        own, size = own[::-1], size[::-1]
    found = json.loads(text)
    if isinstance(found, dict):
        region = of_runs(_lengths_of(found), own, size)
    else:
        scale = np.array(size) / own
        region = of_polygons([np.array(polygon).reshape(-1, 2) * scale for polygon in found], *size)
    if turn == 1:
        return region
    return of_mask(np.asarray(Image.fromarray(region.dense(size[1], size[0])).transpose(TURNS[turn])))
