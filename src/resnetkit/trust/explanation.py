"""What is said of the inputs that were explained: rows, and one self-contained page."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resnetkit.data.dataset import File
from resnetkit.data.tokens import excerpt
from resnetkit.errors import DataError, printable
from resnetkit.files import write
from resnetkit.tasks.classes import Prediction
from resnetkit.trust.evidence import Neighbour
from resnetkit.trust.gallery import IMAGES, Senses, Words
from resnetkit.trust.page import picture_url, template, url_of

SHOWN = 60  # inputs on the page
BESIDE = 24  # training images beside each on the page
PICTURE, THUMBNAIL = 288, 96  # pixels of the longer side on the page
STRONGEST = 3  # spans of a text in its row


@dataclass(frozen=True)
class Explanation:
    """Why one image, recording or text has the answer that it has.

    Attributes:
        prediction: what the model says, with its scores.
        explained: the class whose evidence is shown: the predicted one, or the one that was asked for.
        overlay: the PNG with the map over the picture, of a recording over its spectrum; None of a text.
        cells: rows and columns of the map before it was laid over the picture.
        blank: whether nothing in the picture speaks for that class, so that the overlay is the picture alone.
        nearest: the training samples that are most like it to the model, the most alike first.
        words: the spans of a text, each with how much the class's logit falls without it: 1 is what counts most.
    """

    prediction: Prediction
    explained: str
    overlay: Path | None
    cells: tuple[int, int]
    blank: bool = False
    nearest: tuple[Neighbour, ...] = ()
    words: Words = ()

    @property
    def path(self) -> str:
        """Of the input."""
        return self.prediction.path

    @property
    def label(self) -> str:
        """Name of the best class."""
        return self.prediction.label

    @property
    def strongest(self) -> list[str]:
        """The spans of a text that speak for the class most."""
        ranked = sorted(self.words, key=lambda word: -word[1])[:STRONGEST]
        return [span.strip() for span, weight in ranked if weight > 0]

    @property
    def score(self) -> float:
        """Score of the best class, 0..1."""
        return self.prediction.score

    def row(self) -> dict[str, str | float]:
        """One flat row: path, label, score, explained, overlay, and name, label and similarity of nearest_1, 2, ...

        Of a text it has no overlay but `words`, those that count most.
        """
        row: dict[str, str | float] = {"path": self.path, "label": self.label, "score": round(self.score, 6)}
        row |= {"explained": self.explained}
        row |= {"words": " | ".join(self.strongest)} if self.overlay is None else {"overlay": str(self.overlay)}
        for rank, each in enumerate(self.nearest, 1):
            row |= {f"nearest_{rank}": os.fspath(each.file), f"nearest_{rank}_label": each.label}
            row[f"nearest_{rank}_similarity"] = round(each.similarity, 6)
        return row


def columns(nearest: int, shows: str = "overlay") -> list[str]:
    """Of explained.csv, with so many training samples each, and what shows why: "overlay", or "words" of texts."""
    each = (f"nearest_{rank}{end}" for rank in range(1, nearest + 1) for end in ("", "_label", "_similarity"))
    return ["path", "label", "score", "explained", shows, *each, "error"]


def rows(found: Sequence[Explanation | DataError]) -> Iterator[dict[str, Any]]:
    """As explained.csv: one row an input, in their order; of one that could not be read, why."""
    for each in found:
        if isinstance(each, DataError):
            yield {"path": printable(each.path or ""), "error": each.what}
        else:
            row = each.row()
            yield {name: printable(value) if isinstance(value, str) else value for name, value in row.items()}


def write_page(
    path: Path, found: Sequence[Explanation | DataError], evidence: str, senses: tuple[str, Senses] = ("images", IMAGES)
) -> None:
    """Write the page; the overlays lie where it says, and the training samples too, to be made smaller.

    Args:
        path: of the page.
        found: what is told; the first of them are shown.
        evidence: what the training samples are from, or "".
        senses: what the inputs are called, and how they are shown.
    """
    read = [each for each in found if not isinstance(each, DataError)]
    page = template("explain.html.jinja").render(
        noun=senses[0],
        shown=[_shown(each, senses[1]) for each in read[:SHOWN]],
        total=len(read),
        cells=read[0].cells if read else (0, 0),
        evidence=printable(evidence),
        failed=[(printable(each.path or ""), each.what) for each in found if isinstance(each, DataError)],
    )
    write(path, page)


def _shown(each: Explanation, senses: Senses) -> dict[str, Any]:
    """An explanation with its pictures, as the template takes it."""
    return {
        "path": printable(each.path),
        "label": each.label,
        "score": 100 * each.score,
        "explained": each.explained,
        "blank": each.blank,
        "file": each.overlay.name if each.overlay else "",
        "picture": picture_url(each.overlay, PICTURE) if each.overlay else "",
        "sound": url_of(Path(each.path), senses.play, "audio/wav"),
        "words": each.words,
        "nearest": [
            (
                printable(os.fspath(near.file)),
                near.label,
                near.similarity,
                _small(near.file, senses),
                _text(near, senses),
            )
            for near in each.nearest[:BESIDE]
        ],
    }


def _small(file: File, senses: Senses) -> str:
    """A training sample as a small picture; "" where it cannot be seen."""
    return picture_url(file, THUMBNAIL) if senses is IMAGES else url_of(file, senses.draw)


def _text(near: Neighbour, senses: Senses) -> str:
    """How a training text begins; "" where it is none."""
    return excerpt("".join(span for span, _ in senses.words(near.file))) if senses.words else ""
