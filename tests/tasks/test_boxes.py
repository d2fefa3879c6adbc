"""The target of boxes: answers and metrics."""

from __future__ import annotations

import numpy as np
import pytest

from ops.test_matching import K, ours, scenes
from resnetkit.ops.matching import Found, Objects
from resnetkit.tasks import boxes

CLASSES = ("cat", "dog", "emu")
NONE = Found(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0))


def test_rows_and_coco() -> None:
    found = Found(np.array([[1.0, 2, 3, 4], [5, 6, 9.1234, 12]], np.float32), np.array([2, 0]), np.array([0.25, 0.75]))
    answer = boxes.decode(found, CLASSES, "a.jpg", (20, 10))
    assert answer.rows() == [
        {"path": "a.jpg", "label": "cat", "score": 0.75, "x1": 5, "y1": 6, "x2": 9.12, "y2": 12},
        {"path": "a.jpg", "label": "emu", "score": 0.25, "x1": 1, "y1": 2, "x2": 3, "y2": 4},
    ]
    assert answer.coco(7, {"cat": 3, "emu": 90}) == [
        {"image_id": 7, "category_id": 3, "bbox": [5.0, 6.0, 4.12, 6.0], "score": 0.75},
        {"image_id": 7, "category_id": 90, "bbox": [1.0, 2.0, 2.0, 2.0], "score": 0.25},
    ]
    assert len(boxes.decode(found, CLASSES, "a.jpg", (20, 10), top=1)) == 1


def test_nothing_found_is_a_row() -> None:
    answer = boxes.decode(NONE, CLASSES, "a.jpg", (20, 10))
    nothing = dict.fromkeys(("score", "x1", "y1", "x2", "y2"))  # the columns of a CSV are those of its first row
    assert answer.rows() == [{"path": "a.jpg", "label": "", **nothing}]
    assert answer.coco(1, {}) == []


def test_metrics() -> None:
    found, there = scenes(1)
    got = boxes.metrics(found, there, CLASSES)
    precision, recall = ours(found, there)
    assert got["AP"].value == pytest.approx(precision.mean())
    assert got["AP50"].value == pytest.approx(precision[:, 0].mean())
    assert got["AP75"].value == pytest.approx(precision[:, 5].mean())
    assert got["AR"].value == pytest.approx(recall.mean())
    for k, name in enumerate(CLASSES):
        assert got[f"AP50/{name}"].value == pytest.approx(precision[k, 0])
        assert got[f"AP/{name}"].value == pytest.approx(precision[k].mean())
    for metric in got.values():
        assert metric.value is not None and metric.low is not None and metric.high is not None
        assert metric.low < metric.high and metric.low <= metric.value <= metric.high
        assert metric.n == len(found)
    assert boxes.headline(found, there, K) == got[boxes.HEADLINE].value
    assert boxes.metrics(found, there, CLASSES)["AP"] == got["AP"]  # again


def test_the_interval_shrinks_with_images() -> None:
    few, many = (boxes.metrics(*scenes(2, n), CLASSES)["AP50"] for n in (20, 160))
    assert None not in (few.high, few.low, many.high, many.low)
    assert (many.high - many.low) < 0.6 * (few.high - few.low)  # type: ignore[operator]


def test_classes_that_are_not_there_are_null() -> None:
    box = np.array([[1.0, 2, 30, 40]])
    there = [Objects(box, np.zeros(1, int), np.zeros(1, bool))] * 3
    found = [Found(box, np.zeros(1, int), np.ones(1))] * 3
    got = boxes.metrics(found, there, CLASSES)
    assert got["AP50/dog"].value is None and got["AP50/dog"].method == "no boxes of this class"
    assert got["AP_large"].value is None and got["AP_large"].method == "no large boxes"
    assert got["AP"].value == got["AP50/cat"].value == pytest.approx(1)
    empty = [Objects(box[:0], np.zeros(0, int), np.zeros(0, bool))] * 3
    got = boxes.metrics(found, empty, CLASSES)
    assert {metric.value for metric in got.values()} == {None}
    assert boxes.headline(found, empty, 3) is None
    assert {metric.method for metric in boxes.metrics([], [], CLASSES).values()} == {"no samples"}


def test_mistakes() -> None:
    box = np.array([[1.0, 2, 30, 40]])
    there = [Objects(box, np.zeros(1, int), np.zeros(1, bool))] * 3
    found = [Found(box, np.zeros(1, int), np.ones(1)), Found(box, np.ones(1, int), np.ones(1)), NONE]
    matrices = boxes.confusions(found, there, 3)
    assert matrices.shape == (3, 4, 4)
    assert boxes.mistakes(matrices).tolist() == [0, 1, 1]
