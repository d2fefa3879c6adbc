"""The pictures of a report: which answers are worth a look, and how they are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from resnetkit.data.dataset import File
from resnetkit.errors import DataError, printable
from resnetkit.ops.confident import label_issues
from resnetkit.ops.metrics import softmax
from resnetkit.tasks.evaluate import Scores
from resnetkit.trust.page import jpeg_url, picture_url

WORST, UNSURE, SUSPECT = 16, 8, 8
OVERLAYS = WORST + UNSURE + SUSPECT  # pictures that are shown with what the model looked at, at most
OVERLAY_SIDE = 160  # px
KINDS, OF_A_KIND = 60, 4  # cells of the confusion matrix that open, and pictures in each
Find = Callable[[str], File]
# Files and classes to explain, to pictures with the evidence in colour.
Overlays = Callable[[Sequence[File], Sequence[int]], Iterable[Image.Image | DataError]]


@dataclass(frozen=True)
class Shown:
    """One answer: what the picture is, what the model says, how sure it is (per cent), and the picture itself.

    `picture` and `overlay` are data URIs, or "" where there is none.
    """

    path: str
    target: str
    label: str
    score: float
    picture: str
    overlay: str = ""


@dataclass(frozen=True)
class Kind:
    """The mistakes in one cell of the confusion matrix: row, column, how many there are, and the first of them."""

    row: int
    column: int
    count: int
    pictures: list[Shown]


def worst(scores: Scores) -> list[int]:
    """Rows of the wrong answers with the highest loss, worst first."""
    wrong = np.flatnonzero(~scores.correct) if len(scores.targets) else np.zeros(0, np.int64)
    losses = scores.judged.losses[wrong] if len(wrong) else np.zeros(0)
    return [int(row) for row in wrong[np.argsort(-losses, kind="stable")][:WORST]]


def least_sure(scores: Scores) -> list[int]:
    """Rows of the answers with the lowest score, right or wrong."""
    sure = scores.judged.scores if len(scores.targets) else np.zeros(0)
    return [int(row) for row in np.argsort(sure, kind="stable")[:UNSURE]]


def suspects(scores: Scores) -> list[int]:
    """Rows whose given label is probably wrong (see `ops.confident`), the likeliest first; of one class a sample."""
    if scores.targets.ndim == 2 or len(scores.classes) < 2 or not len(scores.targets):
        return []
    return [int(row) for row in label_issues(softmax(scores.logits), scores.targets)[:SUSPECT]]


def shown(scores: Scores, rows: Sequence[int], find: Find, overlays: Overlays | None = None) -> list[Shown]:
    """The answers in some rows, with overlays of what the model says there, if any are drawn."""
    files = [find(scores.paths[i]) for i in rows]
    said = scores.logits[rows].argmax(1).tolist() if rows else []
    drawn = list(overlays(files, said)) if overlays and rows else [None] * len(rows)
    judged = scores.judged
    return [
        Shown(
            printable(scores.paths[i]),
            scores.target.text(scores.targets[i], scores.classes),
            scores.target.text(judged.said[i], scores.classes),
            100 * float(judged.scores[i]),
            picture_url(file),
            jpeg_url(overlay) if isinstance(overlay, Image.Image) else "",
        )
        for i, file, overlay in zip(rows, files, drawn, strict=True)
    ]


def kinds(scores: Scores, find: Find) -> list[Kind]:
    """The largest cells of the confusion matrix beside its diagonal, with their worst mistakes."""
    matrix = scores.confusion
    if matrix is None or not len(scores.targets):
        return []
    mistakes = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-mistakes, axis=None, kind="stable")[:KINDS]
    cells = [divmod(int(cell), len(matrix)) for cell in order if mistakes.flat[cell]]
    said, losses = scores.judged.said, scores.judged.losses
    found = []
    for row, column in cells:
        of_kind = np.flatnonzero((scores.targets == row) & (said == column))
        chosen = of_kind[np.argsort(-losses[of_kind], kind="stable")][:OF_A_KIND].tolist()
        found.append(Kind(row, column, int(mistakes[row, column]), shown(scores, chosen, find)))
    return found
