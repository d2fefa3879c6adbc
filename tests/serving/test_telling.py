"""Predictions to bodies: strict JSON, and columns of the Open Inference Protocol."""

from __future__ import annotations

import json

import numpy as np
import pytest

from resnetkit.serving.refusal import Refused
from resnetkit.serving.telling import columns_of, row_of, strict_json, told
from resnetkit.serving.tensors import Tensors
from resnetkit.tasks.classes import Prediction

CLASSES = ("a", "b", "c")
ANSWERS = [
    Prediction("x.png", ("b", "c", "a"), (0.5, 0.3, 0.2), uncertain=True),
    Prediction("", ("a", "b", "c"), (0.9, 0.1, 0.0), uncertain=False),
]


class Odd:
    """An answer of a task that is not of classes."""

    def row(self) -> dict[str, object]:
        return {"path": "x", "boxes": [[1, 2, 3, 4]]}


def test_columns() -> None:
    found = {column.name: column for column in columns_of(ANSWERS, CLASSES)}
    assert found["label"].values.tolist() == ["b", "a"]
    assert np.allclose(found["scores"].values, [[0.2, 0.5, 0.3], [0.9, 0.1, 0.0]])
    assert found["scores"].described == {"name": "scores", "datatype": "FP32", "shape": [-1, 3]}
    assert found["uncertain"].packed == b"\x01\x00"
    assert found["label"].packed == b"\x01\0\0\0b\x01\0\0\0a"


def test_other_kinds_of_answers_are_rows() -> None:
    (column,) = columns_of([Odd()], CLASSES)
    assert json.loads(column.values[0]) == {"boxes": [[1, 2, 3, 4]]}
    assert row_of(Odd()) == {"boxes": [[1, 2, 3, 4]]}


def test_what_is_asked_for() -> None:
    columns = columns_of(ANSWERS, CLASSES)
    _, body = told(columns, Tensors([], "7", ("scores",), frozenset()), "m")
    answer = json.loads(body)
    assert answer["id"] == "7" and [each["name"] for each in answer["outputs"]] == ["scores"]
    with pytest.raises(Refused, match="none of label, scores, uncertain"):
        told(columns, Tensors([], None, ("logits",), None), "m")


def test_not_finite() -> None:
    """I36."""
    with pytest.raises(Refused) as caught:
        strict_json({"x": float("inf")})
    assert caught.value.status == 500
    with pytest.raises(Refused):
        columns_of([Prediction("", CLASSES, (float("nan"),) * 3)], CLASSES)
