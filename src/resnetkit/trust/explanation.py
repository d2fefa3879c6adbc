"""What is said of the images that were explained: rows, and one self-contained page."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resnetkit.errors import DataError, printable
from resnetkit.files import write
from resnetkit.tasks.classes import Prediction
from resnetkit.trust.evidence import Neighbour
from resnetkit.trust.page import picture_url, template

SHOWN = 60  # inputs on the page
BESIDE = 24  # training images beside each on the page
PICTURE, THUMBNAIL = 288, 96  # pixels of the longer side on the page


@dataclass(frozen=True)
class Explanation:
    """Why one image has the answer that it has.

    Attributes:
        prediction: what the model says, with its scores.
        explained: the class whose evidence is shown: the predicted one, or the one that was asked for.
        overlay: the PNG with the map over the picture.
        cells: rows and columns of the map before it was laid over the picture.
        blank: whether nothing in the picture speaks for that class, so that the overlay is the picture alone.
        nearest: the training images that are most like it to the model, the most alike first.
    """

    prediction: Prediction
    explained: str
    overlay: Path
    cells: tuple[int, int]
    blank: bool = False
    nearest: tuple[Neighbour, ...] = ()

    @property
    def path(self) -> str:
        """Of the input."""
        return self.prediction.path

    @property
    def label(self) -> str:
        """Name of the best class."""
        return self.prediction.label

    @property
    def score(self) -> float:
        """Score of the best class, 0..1."""
        return self.prediction.score

    def row(self) -> dict[str, str | float]:
        """One flat row: path, label, score, explained, overlay, and name, label and similarity of nearest_1, 2, ..."""
        row: dict[str, str | float] = {"path": self.path, "label": self.label, "score": round(self.score, 6)}
        row |= {"explained": self.explained, "overlay": str(self.overlay)}
        for rank, each in enumerate(self.nearest, 1):
            row |= {f"nearest_{rank}": os.fspath(each.file), f"nearest_{rank}_label": each.label}
            row[f"nearest_{rank}_similarity"] = round(each.similarity, 6)
        return row


def columns(nearest: int) -> list[str]:
    """Of explained.csv, with so many training images each."""
    each = (f"nearest_{rank}{end}" for rank in range(1, nearest + 1) for end in ("", "_label", "_similarity"))
    return ["path", "label", "score", "explained", "overlay", *each, "error"]


def rows(found: Sequence[Explanation | DataError]) -> Iterator[dict[str, Any]]:
    """As explained.csv: one row an input, in their order; of one that could not be read, why."""
    for each in found:
        if isinstance(each, DataError):
            yield {"path": printable(each.path or ""), "error": each.what}
        else:
            row = each.row()
            yield {name: printable(value) if isinstance(value, str) else value for name, value in row.items()}


def write_page(path: Path, found: Sequence[Explanation | DataError], evidence: str) -> None:
    """Write the page; the overlays lie where it says, and the training images too, to be made smaller.

    Args:
        path: of the page.
        found: what is told; the first of them are shown.
        evidence: what the training images are from, or "".
    """
    read = [each for each in found if not isinstance(each, DataError)]
    page = template("explain.html.jinja").render(
        shown=[_shown(each) for each in read[:SHOWN]],
        total=len(read),
        cells=read[0].cells if read else (0, 0),
        evidence=printable(evidence),
        failed=[(printable(each.path or ""), each.what) for each in found if isinstance(each, DataError)],
    )
    write(path, page)


def _shown(each: Explanation) -> dict[str, Any]:
    """An explanation with its pictures, as the template takes it."""
    return {
        "path": printable(each.path),
        "label": each.label,
        "score": 100 * each.score,
        "explained": each.explained,
        "blank": each.blank,
        "file": each.overlay.name,
        "picture": picture_url(each.overlay, PICTURE),
        "nearest": [
            (printable(os.fspath(near.file)), near.label, near.similarity, picture_url(near.file, THUMBNAIL))
            for near in each.nearest[:BESIDE]
        ],
    }
