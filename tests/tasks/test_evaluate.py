"""Scores count what could be read and list what could not."""

import math

import numpy as np
import pytest

from resnetkit.errors import DataError
from resnetkit.tasks.evaluate import PREDICTION_COLUMNS, calibrated_loss, score
from resnetkit.tasks.task import TASKS

CLASSES = ("cat", "dog")
PATHS = ("cat/1.png", "cat/2\n.png", "dog/3.png", "dog/4.png")
BAD = DataError("cannot be read: broken", path="/photos/dog/4.png", fix="remove it")
ANSWERS = [np.array([4.0, 0]), BAD, np.array([3.0, 1]), np.array([-1.0, 1])]


def scored(answers, paths=PATHS, targets=(0, 0, 1, 1)):
    return score(TASKS["classify"], "test", CLASSES, paths, np.array(targets, np.int64), answers)


def test_failed_items_are_in_no_metric_but_listed():
    found = scored(ANSWERS)
    assert found.metrics["accuracy"].n == 3 and found.metrics["accuracy"].value == pytest.approx(2 / 3)
    assert [found.metrics[f"recall/{name}"].n for name in CLASSES] == [1, 2]
    assert found.failed == ((PATHS[1], "cannot be read: broken"),)
    assert found.paths == (PATHS[0], *PATHS[2:]) and found.targets.tolist() == [0, 1, 1]
    assert found.logits.shape == (3, 2) and found.confusion.tolist() == [[1, 0], [1, 1]]


def test_rows():
    rows = list(scored(ANSWERS).rows())
    assert [row["path"] for row in rows] == ["cat/1.png", "dog/3.png", "dog/4.png", r"cat/2\n.png"]
    assert all(set(row) <= set(PREDICTION_COLUMNS) for row in rows)
    assert [row.get("correct") for row in rows] == [1, 0, 1, None]
    assert rows[1] == {
        "path": "dog/3.png",
        "split": "test",
        "target": "dog",
        "label": "cat",
        "score": 0.880797,
        "loss": 2.126928,
        "correct": 0,
    }
    assert rows[3] == {"path": r"cat/2\n.png", "split": "test", "error": "cannot be read: broken"}


@pytest.mark.parametrize(("answers", "count"), [([BAD, BAD], 2), ([], 0)])
def test_nothing_could_be_read(answers, count):
    found = scored(answers, PATHS[:count], (0, 1)[:count])
    assert found.logits.shape == (0, 2) and len(found.failed) == count == len(list(found.rows()))
    assert all(metric.value is None and metric.n == 0 for metric in found.metrics.values())
    assert found.confusion.tolist() == [[0, 0], [0, 0]]


def test_as_dict_is_plain():
    import json

    values = scored(ANSWERS).as_dict()
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert values["accuracy"].keys() == {"value", "n", "low", "high", "method"}


def test_the_calibrated_loss_sees_what_is_told_apart_and_not_how_surely():
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 3, 400)
    logits = rng.normal(0, 1, (400, 3)) + np.eye(3)[targets]
    target = TASKS["classify"].target
    plain = calibrated_loss(target, logits, targets)
    assert calibrated_loss(target, 20 * logits, targets) == pytest.approx(plain, abs=1e-3)
    assert plain <= target.judge(logits, targets).losses.mean() < target.judge(20 * logits, targets).losses.mean()
    assert calibrated_loss(target, logits + np.eye(3)[targets], targets) < plain
    right = [calibrated_loss(target, s * np.eye(3)[targets], targets) for s in (1, 2, 4)]
    assert right[0] > right[1] > right[2] > 0, "where all is right, the surer one, and never two that are equal"
    assert math.isnan(calibrated_loss(target, logits[:0], targets[:0]))
