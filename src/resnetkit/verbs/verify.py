"""Pairs of recordings to how alike their voices are, and how well that tells whether they are of one speaker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from resnetkit.data import pairs
from resnetkit.errors import DataError
from resnetkit.ops.intervals import Metric
from resnetkit.ops.verification import cosine, equal_error, equal_error_rate
from resnetkit.runtime.model import Model
from resnetkit.verbs.console import bar

FEWEST = 5  # speakers that tell how much depends on who was asked; of fewer, pairs are resampled


@dataclass(frozen=True)
class Pair:
    """The answer for two recordings.

    Attributes:
        a, b: their paths.
        score: cosine of their embeddings, -1..1.
        same: whether they are of one speaker; None where it is not known.
        speakers: who they are of, "" where it is not known.
    """

    a: str
    b: str
    score: float
    same: bool | None
    speakers: tuple[str, str]

    def rows(self) -> list[dict[str, str | float]]:
        """One flat row."""
        found: dict[str, str | float] = {"path": f"{self.a} {self.b}", "a": self.a, "b": self.b}
        found["score"] = round(self.score, 6)
        return [found if self.same is None else {**found, "same": int(self.same)}]


def verified(model: Model, table: Path, quiet: bool) -> Iterator[Pair | DataError]:
    """The answer for each pair of a CSV in order, or why one of both cannot be read; each file is read once.

    Raises:
        DataError: the CSV is wrong.
    """
    rows = pairs.read(table)
    files = list(dict.fromkeys(file for row in rows for file in (row.a, row.b)))
    known: dict[Path, NDArray[np.float32] | DataError] = {}
    with bar("embedding", len(files), quiet=quiet) as advance:
        for file, answer in model.embeddings(files):
            known[file] = answer
            advance(len(known))
    for row in rows:
        a, b = known[row.a], known[row.b]
        if isinstance(a, DataError) or isinstance(b, DataError):
            yield a if isinstance(a, DataError) else b  # type: ignore[misc]
            continue
        score = float(cosine(a[None], b[None])[0])
        yield Pair(str(row.a), str(row.b), score, row.same, row.speakers)


def error_rate(answers: Sequence[Pair]) -> tuple[Metric, float] | None:
    """The equal error rate of pairs that are known to be of one speaker or not, and the score that reaches it."""
    told = [pair for pair in answers if pair.same is not None]
    if not told:
        return None
    scores, same = np.array([pair.score for pair in told]), np.array([pair.same for pair in told], bool)
    known = {name for pair in told for name in pair.speakers}
    speakers = None
    if "" not in known and len(known) >= FEWEST:  # two of two drawn are always the same two
        speakers = np.unique([pair.speakers for pair in told], return_inverse=True)[1].reshape(-1, 2)
    found = equal_error_rate(scores, same, speakers)
    if speakers is None:
        whom = (
            f"{len(known)} speakers are too few to tell"
            if "" not in known
            else "without their speakers it tells nothing"
        )
        found = replace(found, method=f"{found.method}: {whom} of others")
    return found, equal_error(scores, same)[1]
