"""The pixels of objects: each as a mask of the part of its image that it lies in, however large that image is.

Polygons become the pixels that pycocotools gives them (maskApi.c, rleFrPoly).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from resnetkit.ops.boxes import overlaps
from resnetkit.ops.rle import from_runs, packed

FINER = 5  # steps of an outline for a pixel
Points = NDArray[np.floating]  # x, y of each corner [k, 2]


@dataclass(frozen=True)
class Region:
    """The pixels of an object.

    Attributes:
        top, left: where the mask's corner lies in the image.
        mask: [h, w].
    """

    top: int
    left: int
    mask: NDArray[np.bool_]

    @property
    def area(self) -> int:
        """Number of pixels."""
        return int(np.count_nonzero(self.mask))

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Of the mask, whether its pixels fill it or not: x1, y1, x2, y2."""
        return self.left, self.top, self.left + self.mask.shape[1], self.top + self.mask.shape[0]

    def dense(self, height: int, width: int) -> NDArray[np.bool_]:
        """A mask of the whole image [height, width]."""
        whole = np.zeros((height, width), bool)
        x1, y1, x2, y2 = self.box
        whole[y1:y2, x1:x2] = self.mask
        return whole


def of_mask(mask: NDArray[np.bool_]) -> Region:
    """A mask of a whole image, without the rows and columns around the object."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return Region(0, 0, np.zeros((0, 0), bool))
    top, left = int(rows[0]), int(columns[0])
    return Region(top, left, mask[top : rows[-1] + 1, left : columns[-1] + 1].copy())


def of_runs(lengths: Sequence[int], own: tuple[int, int], size: tuple[int, int]) -> Region:
    """The pixels of COCO's run lengths, as they are where their image has another size: the nearest ones.

    Args:
        lengths: of zeros, ones, zeros, ..., column by column.
        own: width and height of the image that they are of.
        size: those at which they are wanted. Where they are smaller, what is left out is not drawn first.
    """
    ends = np.cumsum(lengths)
    if len(ends) < 2 or ends[-1] == ends[0]:
        return Region(0, 0, np.zeros((0, 0), bool))
    height, last = own[1], ends[-1] if len(ends) % 2 == 0 else ends[-2]
    left, right = int(ends[0]) // height, -(-int(last) // height)
    if size == own:
        inner = np.clip(ends, left * height, right * height) - left * height
        region = of_mask(from_runs(np.diff(inner, prepend=0).tolist(), height, right - left))
        return Region(region.top, region.left + left, region.mask)
    columns, rows = ((2 * np.arange(new) + 1) * old // (2 * new) for new, old in zip(size, own, strict=True))
    first, beyond = np.searchsorted(columns, (left, right))
    at = columns[first:beyond] * height + rows[:, None]
    region = of_mask((np.searchsorted(ends, at, side="right") & 1).astype(bool))
    return Region(region.top, region.left + int(first) if region.area else 0, region.mask)


def of_polygons(polygons: Sequence[Points], width: int, height: int) -> Region:
    """The pixels inside any of some polygons, in an image of this width and height."""
    each = [_crossings(points, width, height) for points in polygons]
    x, y = np.concatenate([columns for columns, _ in each]), np.concatenate([rows for _, rows in each])
    if not len(x):
        return Region(0, 0, np.zeros((0, 0), bool))
    left, top = int(x.min()), int(y.min())
    mask = np.zeros((int(y.max()) - top, int(x.max()) - left + 1), bool)
    for columns, rows in each:
        flips = np.zeros((len(mask) + 1, mask.shape[1]), np.int32)
        np.add.at(flips, (rows - top, columns - left), 1)
        mask |= (np.cumsum(flips, 0)[:-1] & 1).astype(bool)
    return Region(top, left, mask)


def _crossings(points: Points, width: int, height: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Columns that an outline passes, and the rows above which it does: between the first and the second is inside."""
    x, y = np.trunc(FINER * np.asarray(points, np.float64) + 0.5).astype(np.int64).T
    next_x, next_y = np.roll(x, -1), np.roll(y, -1)
    across, down = abs(next_x - x), abs(next_y - y)
    wide, steps = across >= down, np.maximum(across, down)
    # every edge is walked from its lower end, whichever way it runs, so that two objects that share it meet in it
    back = np.where(wide, x > next_x, y > next_y)
    from_x, from_y = np.where(back, next_x, x), np.where(back, next_y, y)
    slope = np.where(wide, np.where(back, y - next_y, next_y - y), np.where(back, x - next_x, next_x - x))
    edge = np.repeat(np.arange(len(x)), steps + 1)
    at = np.arange(len(edge)) - np.repeat(np.cumsum(steps + 1) - steps - 1, steps + 1)
    at = np.where(back[edge], steps[edge] - at, at)
    aside = (slope / np.maximum(steps, 1))[edge] * at + 0.5
    u = np.where(wide[edge], at + from_x[edge], np.trunc(from_x[edge] + aside).astype(np.int64))
    v = np.where(wide[edge], np.trunc(from_y[edge] + aside).astype(np.int64), at + from_y[edge])
    turn = np.flatnonzero(u[1:] != u[:-1]) + 1
    columns = (np.where(u[turn] < u[turn - 1], u[turn], u[turn] - 1) + 0.5) / FINER - 0.5
    rows = np.ceil(np.clip((np.minimum(v[turn], v[turn - 1]) + 0.5) / FINER - 0.5, 0, height))
    kept = (np.floor(columns) == columns) & (columns >= 0) & (columns <= width - 1)
    return columns[kept].astype(np.int64), rows[kept].astype(np.int64)


def common(a: Sequence[Region], b: Sequence[Region]) -> NDArray[np.float64]:
    """Pixels that each of a and each of b have in common [n, m]."""
    boxes = (np.array([one.box for one in each], np.float64).reshape(-1, 4) for each in (a, b))
    shared = np.array(overlaps(*boxes), np.float64)
    for i, j in zip(*np.nonzero(shared), strict=True):
        shared[i, j] = _common(a[i], b[j])
    return shared


def _common(one: Region, other: Region) -> int:
    top, left = max(one.top, other.top), max(one.left, other.left)
    bottom, right = (min(ends) for ends in zip(one.box[3:1:-1], other.box[3:1:-1], strict=True))
    first, second = (r.mask[top - r.top : bottom - r.top, left - r.left : right - r.left] for r in (one, other))
    return int(np.count_nonzero(first & second))


def encode(region: Region, height: int, width: int) -> str:
    """COCO's run lengths of a region in an image of this height and width, as text."""
    padded = np.pad(region.mask, ((1, 1), (0, 0))).astype(np.int8).T  # a column after the other
    change = np.diff(padded, axis=1)
    column, row = np.nonzero(change)
    ends = (region.left + column) * height + region.top + row
    # a run that goes on from the foot of a column to the head of the next is one
    again = np.flatnonzero(ends[1:] == ends[:-1])
    ends = np.delete(ends, np.concatenate([again, again + 1]))
    lengths = np.diff(ends, prepend=0, append=height * width).tolist()
    return packed(lengths if lengths[-1] or len(lengths) == 1 else lengths[:-1])


@dataclass(frozen=True)
class Numbered:
    """The objects of a picture whose pixels are their numbers; 0 is none.

    Attributes:
        numbers: of each [m], rising.
        boxes: x1, y1, x2, y2 of each, x2 and y2 beyond the last pixel [m, 4].
        areas: pixels of each [m].
        runs: COCO's run lengths of each.
        pieces: how many runs each has in the columns of the picture [m].
    """

    numbers: NDArray[np.int64]
    boxes: NDArray[np.int64]
    areas: NDArray[np.int64]
    runs: tuple[list[int], ...]
    pieces: NDArray[np.int64]


def of_numbers(picture: NDArray[np.unsignedinteger]) -> Numbered:
    """All objects of a picture [h, w], which is looked through once, however many there are."""
    height, flat = len(picture), picture.ravel(order="F")
    starts = np.append(0, np.flatnonzero(flat[1:] != flat[:-1]) + 1)
    lengths, values = np.diff(starts, append=flat.size), flat[starts]
    order = np.flatnonzero(values)
    order = order[np.argsort(values[order], kind="stable")]
    starts, lengths, values = starts[order], lengths[order], values[order]
    first = np.flatnonzero(np.diff(values, prepend=0))
    if not len(first):
        nothing = np.zeros(0, np.int64)
        return Numbered(nothing, nothing.reshape(0, 4), nothing, (), nothing)
    last = starts + lengths - 1
    (left, top), (right, bottom) = np.divmod(starts, height), np.divmod(last, height)
    # a run that goes on from the foot of a column to the head of the next touches both
    top, bottom = np.where(left == right, top, 0), np.where(left == right, bottom, height - 1)
    lowest = (np.minimum.reduceat(each, first) for each in (left, top))
    highest = (np.maximum.reduceat(each, first) + 1 for each in (right, bottom))
    gaps = starts - np.concatenate([[0], last[:-1] + 1])
    gaps[first] = starts[first]
    both, ends = np.stack([gaps, lengths], 1), np.append(first[1:], len(values))
    rests = flat.size - (last[ends - 1] + 1)
    runs = tuple(
        both[start:end].ravel().tolist() + [rest] * (rest > 0)
        for start, end, rest in zip(first.tolist(), ends.tolist(), rests.tolist(), strict=True)
    )
    areas = np.add.reduceat(lengths, first)
    return Numbered(values[first].astype(np.int64), np.stack([*lowest, *highest], 1), areas, runs, ends - first)
