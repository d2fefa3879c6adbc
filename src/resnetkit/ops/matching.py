"""Boxes that were found beside those that are there: who matches whom, and average precision with the COCO rules.

The numbers are those of pycocotools; of boxes where the area of an object is that of its box: where masks are drawn it
is not, which changes what counts as small, medium or large. They are computed here because an interval needs what no
library gives away: the matches of each image, from which the precision of any resample of images follows without a new
match.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from resnetkit.ops.boxes import areas, overlaps
from resnetkit.ops.regions import Region

Floats = NDArray[np.floating]
Flags = NDArray[np.bool_]
THRESHOLDS = np.linspace(0.5, 0.95, 10)  # of the IoU from which a box is found
AT_50, AT_75 = 0, 5  # among them
RECALLS = np.linspace(0, 1, 101)  # at which precision is averaged
MOST = 100  # boxes of a class in an image that are judged
SIZES = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
ANY_SIZE = (0.0, 1e10)
AT_ONCE = 2**23  # numbers in an array, at most


@dataclass(frozen=True)
class Objects:
    """What is in one image.

    Attributes:
        boxes: xyxy in pixels of the upright image [n, 4].
        labels: class index of each [n].
        crowds: boxes that are not judged: COCO's crowds, and what Pascal VOC calls difficult [n].
        regions: the pixels of each, where they are known.
    """

    boxes: Floats
    labels: NDArray[np.integer]
    crowds: Flags
    regions: tuple[Region, ...] = ()


@dataclass(frozen=True)
class Shared:
    """What masks that were found have in common with those that are there, all in pixels.

    Attributes:
        common: of each pair [m, n].
        found: of each that was found [m].
        there: of each that is there [n].
    """

    common: Floats
    found: Floats
    there: Floats

    def take(self, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> Shared:
        """Of some of both."""
        return Shared(self.common[rows][:, columns], self.found[rows], self.there[columns])


@dataclass(frozen=True)
class Found:
    """What was found in one image.

    Attributes:
        boxes: xyxy in pixels of the upright image [m, 4].
        labels: class index of each [m].
        scores: of each, 0..1 [m].
        parts: where masks are found, what a network says of each in its box, 0..1 [m, s, s].
        regions: the pixels of each, or none.
        texts: these as run lengths, or none.
        shared: what they have in common with the objects of the image, by which they are judged instead of boxes.
    """

    boxes: Floats
    labels: NDArray[np.integer]
    scores: Floats
    parts: Floats | None = None
    regions: tuple[Region, ...] = ()
    texts: tuple[str, ...] = ()
    shared: Shared | None = None


@dataclass(frozen=True)
class Matches:
    """What became of the boxes of one class in many images.

    Attributes:
        scores: of the boxes that were found [m].
        images: number of the image of each [m].
        hits: whether each matches one that is there, at each of `THRESHOLDS` [T, m].
        ignored: whether each is neither right nor wrong: it matches a crowd, or is of a size that is not judged [T, m].
        there: boxes of each image that are to be found [n].
    """

    scores: Floats
    images: NDArray[np.integer]
    hits: Flags
    ignored: Flags
    there: NDArray[np.integer]


def match(found: Found, there: Objects, size: tuple[float, float] = ANY_SIZE) -> tuple[Flags, Flags, int]:
    """Match the boxes of one class in one image, the highest score first, each with the best that is still free.

    Args:
        found: in order of their scores, from the highest down.
        there: with crowds, which match any number of boxes.
        size: square pixels of the boxes that are judged, from and to.

    Returns:
        Hits [T, m] and ignored [T, m] of those found, and the number of those that are to be found.
    """
    shared = shared_of(found, there)
    # sizes of exactly the limit count on both sides, as in pycocotools
    outside = (shared.there < size[0]) | (shared.there > size[1])
    unjudged = there.crowds | outside
    order = np.argsort(unjudged, kind="stable")
    crowds, unjudged = there.crowds[order], unjudged[order]
    overlap = _overlap(shared, there.crowds)[:, order]
    hits = np.zeros((len(THRESHOLDS), len(found.boxes)), bool)
    ignored, taken = np.zeros_like(hits), np.zeros((len(THRESHOLDS), len(order)), bool)
    limits = np.minimum(THRESHOLDS, 1 - 1e-10)
    judged = int((~unjudged).sum())
    for row in range(len(found.boxes) if len(order) else 0):
        open_ = (overlap[row] >= limits[:, None]) & (~taken | crowds)
        # one that is judged comes before one that is not
        candidates = np.where(open_, overlap[row], -1.0)
        first = _last_best(candidates[:, :judged])
        chosen = np.where(first >= 0, first, _last_best(candidates[:, judged:], judged))
        hit = np.flatnonzero(chosen >= 0)
        hits[hit, row], taken[hit, chosen[hit]] = True, True
        ignored[hit, row] = unjudged[chosen[hit]]
    wrong_size = (shared.found < size[0]) | (shared.found > size[1])
    return hits, ignored | (~hits & wrong_size), judged


def _last_best(candidates: Floats, offset: int = 0) -> NDArray[np.intp]:
    """Column of the largest number [T] of [T, m], the last one of equals; -1 where none is from 0."""
    if not candidates.shape[1]:
        return np.full(len(candidates), -1)
    last = candidates.shape[1] - 1 - candidates[:, ::-1].argmax(1)
    return np.where(candidates.max(1) >= 0, last + offset, -1)


def shared_of(found: Found, there: Objects) -> Shared:
    """What both have in common: of masks where they are known, else of boxes, in square pixels."""
    if found.shared is not None:
        return found.shared
    return Shared(overlaps(found.boxes, there.boxes), areas(found.boxes), areas(there.boxes))


def _overlap(shared: Shared, crowds: Flags) -> Floats:
    """IoU [n, m]; of a crowd the share of what was found that lies in it."""
    own = shared.found[:, None]
    union = np.where(crowds, own, own + shared.there - shared.common)
    return np.asarray(shared.common / np.where(union > 0, union, 1))


def of_class(found: Found, there: Objects, label: int) -> tuple[Found, Objects]:
    """What is of a class: found from the highest score down, `MOST` at most."""
    rows = np.flatnonzero(found.labels == label)
    rows = rows[np.argsort(-found.scores[rows], kind="stable")][:MOST]
    columns = np.flatnonzero(there.labels == label)
    shared = None if found.shared is None else found.shared.take(rows, columns)
    some = Found(found.boxes[rows], found.labels[rows], found.scores[rows], shared=shared)
    return some, Objects(there.boxes[columns], there.labels[columns], there.crowds[columns])


def matches(
    found: Sequence[Found], there: Sequence[Objects], label: int, size: tuple[float, float] = ANY_SIZE
) -> Matches:
    """Match the boxes of a class in every image; both sequences are of the same images."""
    pairs = [of_class(f, t, label) for f, t in zip(found, there, strict=True)]
    each = [match(f, t, size) for f, t in pairs]
    nothing = np.zeros((len(THRESHOLDS), 0), bool)
    return Matches(
        np.concatenate([np.zeros(0), *(f.scores for f, _ in pairs)]),
        np.repeat(np.arange(len(pairs)), [len(f.boxes) for f, _ in pairs]),
        np.concatenate([nothing, *(hits for hits, _, _ in each)], 1),
        np.concatenate([nothing, *(ignored for _, ignored, _ in each)], 1),
        np.array([judged for _, _, judged in each], np.int64),
    )


def average_precision(matched: Matches, drawn: Floats) -> tuple[Floats, Floats]:
    """Average precision and highest recall of a class, for each weighting of the images.

    Args:
        matched: of one class.
        drawn: how often each image counts, B times [B, n].

    Returns:
        Both [B, T]; NaN where no image with such a box counts.
    """
    order = np.argsort(-matched.scores, kind="stable")
    total = drawn @ matched.there.astype(drawn.dtype)
    precision, recall = np.zeros((2, len(drawn), len(THRESHOLDS)))
    for t in range(len(THRESHOLDS)):
        precision[:, t], recall[:, t] = _at_threshold(matched, order[~matched.ignored[t, order]], t, (drawn, total))
    empty = total == 0
    precision[empty], recall[empty] = np.nan, np.nan
    return precision, recall


def _at_threshold(
    matched: Matches, order: NDArray[np.intp], t: int, weights: tuple[Floats, Floats]
) -> tuple[Floats, Floats]:
    """Average precision and highest recall [B] of the boxes in `order`; only after a hit can precision be highest."""
    from scipy.sparse import coo_array  # prediction imports this module, and needs none of it

    drawn, total = weights
    precision, recall = np.zeros((2, len(drawn)))
    hits = np.flatnonzero(matched.hits[t, order])
    if not len(hits):
        return precision, recall
    until = order[: hits[-1] + 1]
    # boxes of each image [n, hits] since the hit before: their sums are what precision is a share of
    since = coo_array(
        (np.ones(len(until)), (matched.images[until], np.searchsorted(hits, np.arange(len(until))))),
        shape=(len(matched.there), len(hits)),
    ).tocsr()
    step = max(1, AT_ONCE // len(hits))
    for part in (slice(at, at + step) for at in range(0, len(drawn), step)):
        some = drawn[part].astype(np.float64)
        right = np.cumsum(some[:, matched.images[order[hits]]], 1)
        steps = right / (np.cumsum(some @ since, 1) + np.spacing(1))
        steps = np.maximum.accumulate(steps[:, ::-1], 1)[:, ::-1]
        reached = right / np.where(total[part] > 0, total[part], 1)[:, None]
        precision[part], recall[part] = _at_recalls(reached, steps), reached[:, -1]
    return precision, recall


def _at_recalls(reached: Floats, steps: Floats) -> Floats:
    """Mean precision [B] at the 101 recalls, of recall and precision after each box [B, m]; 0 where not reached."""
    # one search for all rows, which are set apart by 2; the first row, that of the value, is as it is
    apart = 2.0 * np.arange(len(reached))[:, None]
    at = np.searchsorted((reached + apart).ravel(), (RECALLS + apart).ravel(), side="left").reshape(len(reached), -1)
    at -= np.arange(len(reached))[:, None] * reached.shape[1]
    padded = np.concatenate([steps, np.zeros((len(steps), 1))], 1)
    return np.asarray(np.take_along_axis(padded, at, 1).mean(1))


def curve(matched: Matches, threshold: float = 0.5) -> tuple[Floats, Floats, Floats]:
    """Score, precision and recall of a class after each box that was found [m], from the highest score down."""
    t = int(np.argmin(np.abs(THRESHOLDS - threshold)))
    order = np.argsort(-matched.scores, kind="stable")
    order = order[~matched.ignored[t, order]]
    right = np.cumsum(matched.hits[t, order])
    return (
        matched.scores[order],
        right / np.arange(1, len(order) + 1),
        right / max(1, int(matched.there.sum())),
    )


def confusion(found: Found, there: Objects, num_classes: int, score: float, least: float = 0.5) -> NDArray[np.int64]:
    """What boxes of one image are taken for [K + 1, K + 1]: row is the target, column what is said, the last nothing.

    Pairs are made from the largest overlap down, whatever their classes; crowds, and what lies in them, do not count.

    Args:
        found: of all classes.
        there: of all classes.
        num_classes: K.
        score: boxes with a lower one do not count, 0..1.
        least: IoU of a pair, 0..1.
    """
    matrix = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    kept = np.flatnonzero(found.scores >= score)
    crowds = there.crowds
    overlap = _overlap(shared_of(found, there), crowds)[kept]
    free, open_ = np.ones(len(kept), bool), np.ones(len(there.boxes), bool)
    # a crowd takes what no other object has taken: all of a box may lie in it
    for at in np.lexsort((-overlap.ravel(), np.broadcast_to(crowds, overlap.shape).ravel())):
        row, column = np.unravel_index(at, overlap.shape)
        if overlap[row, column] >= least and free[row] and open_[column]:
            free[row], open_[column] = False, bool(crowds[column])
            matrix[there.labels[column], found.labels[kept[row]]] += not crowds[column]
    matrix[:-1, -1] = np.bincount(there.labels[open_ & ~crowds], minlength=num_classes)
    matrix[-1, :-1] = np.bincount(found.labels[kept[free]], minlength=num_classes)
    return matrix
