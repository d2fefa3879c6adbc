"""Several labels an image: names to 0/1, logits to answers and numbers."""

import json
import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, log_loss

from resnetkit.errors import DataError
from resnetkit.tasks.evaluate import score
from resnetkit.tasks.labels import decode, encode, judge, metrics, text
from resnetkit.tasks.task import TASKS

CLASSES = ("cat", "dog", "eel")


def example(n, seed=0, num_labels=5, steps=0):
    """Labels of every frequency, and logits that know something of them; `steps`: as many different values."""
    rng = np.random.default_rng(seed)
    targets = (rng.random((n, num_labels)) < np.linspace(0.1, 0.6, num_labels)).astype(np.int8)
    targets[:num_labels] |= np.eye(num_labels, dtype=np.int8)
    logits = rng.normal(0, 1.5, (n, num_labels)) + 2 * targets - 1
    return (np.round(logits * steps) / steps if steps else logits).astype(np.float32), targets


def test_encode():
    assert encode(["eel|cat", "", " dog ", "dog||dog"], CLASSES).tolist() == [[1, 0, 1], [0] * 3, [0, 1, 0], [0, 1, 0]]
    assert encode([], CLASSES).shape == (0, 3)
    with pytest.raises(DataError, match="does not know the class 'ant'"):
        encode(["cat|ant"], CLASSES)


def test_decode():
    found = decode(np.array([3.0, -1.0, 0.0], np.float32), CLASSES, "a.png", 2)
    assert found.present == ("cat", "eel") and found.labels == ("cat", "eel")
    np.testing.assert_allclose(found.scores, [1 / (1 + math.exp(-3)), 0.5])
    row = found.row()
    assert list(row) == ["path", "labels", "label", "score", "label_2", "score_2"] and row["labels"] == "cat|eel"
    nothing = decode(np.full(3, -1e30), CLASSES)
    assert nothing.row()["labels"] == "" and nothing.scores == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("steps", [0, 1, 3])  # equal logits too
@pytest.mark.parametrize("seed", range(3))
def test_metrics_are_scikit_learns(seed, steps):
    logits, targets = example(80, seed, steps=steps)
    classes = tuple("abcde")
    found = metrics(logits, targets, classes)
    average = average_precision_score(targets, logits, average=None)
    np.testing.assert_allclose([found[f"AP/{name}"].value for name in classes], average, rtol=1e-12)
    assert found["mAP"].value == pytest.approx(average_precision_score(targets, logits, average="macro"), rel=1e-12)
    said = (logits >= 0).astype(int)
    each = f1_score(targets, said, average=None)
    np.testing.assert_allclose([found[f"F1/{name}"].value for name in classes], each, rtol=1e-12)
    assert found["macro_f1"].value == pytest.approx(f1_score(targets, said, average="macro"), rel=1e-12)
    assert found["accuracy"].value == (said == targets).all(1).mean()
    for metric in found.values():
        assert 0 <= metric.low <= metric.value <= metric.high <= 1 and metric.low < metric.high
    assert [found[f"AP/{name}"].n for name in classes] == targets.sum(0).tolist()
    assert found["mAP"].n == found["macro_f1"].n == found["accuracy"].n == 80
    assert found == metrics(logits, targets, classes), "the same again"


def test_a_label_that_no_image_has_is_null_and_in_no_mean():
    logits, targets = example(30, num_labels=3)
    targets[:, 1] = 0
    found = metrics(logits, targets, CLASSES)
    for kind in ("AP", "F1"):
        assert found[f"{kind}/dog"].value is None and found[f"{kind}/dog"].method == "no image has this label"
    both = [found["AP/cat"].value, found["AP/eel"].value]
    assert found["mAP"].value == pytest.approx(np.mean(both))
    none = metrics(logits, np.zeros_like(targets), CLASSES)
    assert none["mAP"].value is None and none["mAP"].method == "no positives" and none["accuracy"].n == 30
    nothing = metrics(logits[:0], targets[:0], CLASSES)
    assert all(metric.value is None and metric.n == 0 and metric.method == "no samples" for metric in nothing.values())


def test_a_perfect_label_of_few_images_is_not_certain():
    targets = np.array([[1], [1], [0], [0], [0]], np.int8)
    found = metrics((10.0 * targets - 5).astype(np.float32), targets, ("cat",))
    assert found["AP/cat"].value == found["F1/cat"].value == 1.0
    assert found["AP/cat"].n == 2 and found["AP/cat"].low < 0.4 and found["F1/cat"].low < 0.6


def test_judge():
    logits, targets = example(20)
    found = judge(logits, targets)
    scores = 1 / (1 + np.exp(-logits.astype(np.float64)))
    np.testing.assert_array_equal(found.said, logits >= 0)
    np.testing.assert_allclose(found.scores, np.maximum(scores, 1 - scores).min(1))
    expected = sum(log_loss(targets[:, k], scores[:, k]) for k in range(5))
    assert found.losses.mean() == pytest.approx(expected)
    assert np.isfinite(judge(np.array([[1e30, -1e30]]), np.array([[0, 1]])).losses).all()
    assert text(np.array([1, 0, 1]), CLASSES) == "cat|eel" and text(np.zeros(3, np.int8), CLASSES) == "no label"


def test_scores_and_their_rows():
    targets = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0]], np.int8)
    answers = [np.array([2.0, -2, 2]), np.array([-1.0, -1, 3]), DataError("cannot be read: broken")]
    found = score(TASKS["multilabel"], "test", CLASSES, ("a.png", "b.png", "c.png"), targets, answers)
    rows = list(found.rows())
    assert [(row.get("target"), row.get("label"), row.get("correct")) for row in rows] == [
        ("cat|eel", "cat|eel", 1),
        ("no label", "eel", 0),
        (None, None, None),
    ]
    assert found.confusion is None and found.metrics["accuracy"].n == 2 and found.targets.shape == (2, 3)
    json.dumps(found.as_dict(), allow_nan=False)
