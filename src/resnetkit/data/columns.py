"""Rows of a table, however it was read, to the columns of a Dataset."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from natsort import natsorted

from resnetkit.data.dataset import CODES, Dataset
from resnetkit.data.names import Names
from resnetkit.data.table import Row
from resnetkit.data.tree import SPLITS
from resnetkit.errors import DataError


def refuse_gaps(rows: Iterable[tuple[int, Row]], path: Path) -> None:
    """A split or a group is given in every line or in none.

    Args:
        rows: number of the line, and what it says.
        path: of the table.

    Raises:
        DataError: it is given in some lines only, or a split is none of train, val and test.
    """
    rows = list(rows)
    split, group = (any(getattr(row, name) for _, row in rows) for name in ("split", "group"))
    for line, row in rows:
        if row.split and row.split not in SPLITS:
            what = f"line {line} has the split {row.split!r}"
            raise DataError(what, path=path, fix=f"one of {', '.join(SPLITS)}, or nothing")
        if (split and not row.split) or (group and not row.group):
            missing = "split" if split and not row.split else "group"
            what = f"line {line} has no {missing}, but others do"
            raise DataError(what, path=path, fix="give one in every line, or leave the column out")


def dataset_of(
    root: Path, rows: Sequence[Row], *, several: bool = False, ignored: Sequence[tuple[str, int]] = ()
) -> Dataset:
    """The rows as a Dataset, in their order; classes in natural order.

    Args:
        root: what the rows' paths are below.
        rows: of one label each, or of several or none.
        several: which of both.
        ignored: what was passed over and how often.
    """
    classes = tuple(natsorted(set(chain.from_iterable(row.labels for row in rows))))
    index = {name: i for i, name in enumerate(classes)}
    if several:
        targets = np.zeros((len(rows), len(classes)), np.int64)
        for target, row in zip(targets, rows, strict=True):
            target[[index[label] for label in row.labels]] = 1
    else:
        targets = np.array([index[row.labels[0]] for row in rows], np.int64)
    splits = np.array([CODES.index(row.split) for row in rows], np.int8)
    grouped = any(row.group for row in rows)
    groups = np.unique([row.group for row in rows], return_inverse=True)[1].astype(np.int64) if grouped else None
    return Dataset(root, classes, Names(row.path for row in rows), targets, splits, tuple(ignored), groups=groups)
