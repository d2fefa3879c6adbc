"""The pictures of a report: which answers are worth a look, and how they are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from resnetkit.data.dataset import File
from resnetkit.data.image import thumbnail
from resnetkit.errors import DataError, printable
from resnetkit.ops.confident import label_issues
from resnetkit.ops.metrics import softmax
from resnetkit.tasks.evaluate import Scores
from resnetkit.trust.page import jpeg_url, url_of

WORST, UNSURE, SUSPECT = 16, 8, 8
OVERLAYS = WORST + UNSURE + SUSPECT  # pictures that are shown with what the model looked at, at most
OVERLAY_SIDE = 160  # px
KINDS, OF_A_KIND = 60, 4  # cells of the confusion matrix that open, and pictures in each
Find = Callable[[str], File]
Words = tuple[tuple[str, float], ...]
# Files and classes to explain, to pictures with the evidence in colour, or to the spans of texts with their weight.
Overlays = Callable[[Sequence[File], Sequence[int]], Iterable[Image.Image | Words | DataError]]


@dataclass(frozen=True)
class Shown:
    """One answer: what the picture is, what the model says, how sure it is (per cent), and the picture itself.

    `picture`, `overlay` and `sound` are data URIs, or "" where there is none; `words` are the spans of a text, each
    with how much it speaks for (above 0) or against the answer, -1..1.
    """

    path: str
    target: str
    label: str
    score: float
    picture: str
    overlay: str = ""
    sound: str = ""
    words: Words = ()


@dataclass(frozen=True)
class Senses:
    """How a report shows samples.

    Attributes:
        draw: a file to a small JPEG; None where nothing is to be seen.
        play: a file to a short WAV; None where nothing is to be heard.
        words: a file to its text; None where it has none.
    """

    draw: Callable[[File], bytes] | None = thumbnail
    play: Callable[[File], bytes] | None = None
    words: Callable[[File], Words] | None = None


@dataclass(frozen=True)
class Kind:
    """The mistakes in one cell of the confusion matrix: row, column, how many there are, and the first of them."""

    row: int
    column: int
    count: int
    pictures: list[Shown]


IMAGES = Senses()


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


def shown(
    scores: Scores, rows: Sequence[int], find: Find, overlays: Overlays | None = None, senses: Senses = IMAGES
) -> list[Shown]:
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
            url_of(file, senses.draw),
            jpeg_url(overlay) if isinstance(overlay, Image.Image) else "",
            url_of(file, senses.play, "audio/wav"),
            overlay if isinstance(overlay, tuple) else senses.words(file) if senses.words else (),
        )
        for i, file, overlay in zip(rows, files, drawn, strict=True)
    ]


def kinds(scores: Scores, find: Find, senses: Senses = IMAGES) -> list[Kind]:
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
        found.append(Kind(row, column, int(mistakes[row, column]), shown(scores, chosen, find, None, senses)))
    return found
