"""Names to indices, logits to answers and numbers."""

import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, recall_score

from resnetkit.errors import DataError
from resnetkit.tasks.classes import decode, encode, metrics

CLASSES = ("cat", "dog", "eel")


def test_encode():
    assert encode(["eel", "cat", "eel"], CLASSES).tolist() == [2, 0, 2]
    assert encode([], CLASSES).dtype == np.int64


@pytest.mark.parametrize(("classes", "known"), [(CLASSES, "cat, dog, eel"), (tuple(map(str, range(50))), "8, 9 ...")])
def test_encode_an_unknown_class(classes, known):
    with pytest.raises(DataError) as caught:
        encode([classes[0], "zebra", "ant"], classes)
    assert "does not know the class 'ant'" in str(caught.value) and known in str(caught.value)


def test_decode():
    found = decode(np.log(np.array([0.2, 0.7, 0.1], np.float32)), CLASSES, "a.png", 2)
    assert (found.path, found.label, found.labels) == ("a.png", "dog", ("dog", "cat"))
    np.testing.assert_allclose(found.scores, [0.7, 0.2], atol=1e-6)
    assert found.score == found.scores[0] and all(type(score) is float for score in found.scores)
    assert found.row() == {"path": "a.png", "label": "dog", "score": 0.7, "label_2": "cat", "score_2": 0.2}


def test_equal_logits_come_in_the_order_of_the_classes():
    assert decode(np.array([1.0, 2, 2, 1, 2]), tuple("abcde")).labels == tuple("bcead")
    assert decode(np.zeros(3), CLASSES).labels == CLASSES


@pytest.mark.parametrize("top", [1, 3, 5, 1000])
def test_decode_gives_no_more_than_there_is(top):
    found = decode(np.array([0.0, 1, 2]), CLASSES, top=top)
    assert len(found.labels) == len(found.scores) == min(top, 3)


@pytest.mark.parametrize("logits", [[1e38, -1e38, 0], [-1e38] * 3, [1e-38, 0, 0], [80, 81, 82]])
def test_scores_are_finite_and_sum_to_one(logits):
    found = decode(np.array(logits, np.float32), CLASSES)
    assert math.isclose(sum(found.scores), 1, rel_tol=1e-12) and min(found.scores) >= 0


def test_metrics_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    classes = tuple("abcdefg")
    logits, targets = rng.normal(size=(200, 7)), rng.integers(0, 6, 200)  # nothing is of class g
    found, predicted = metrics(logits, targets, classes), logits.argmax(-1)
    assert list(found) == ["accuracy", "top5_accuracy", "macro_f1", "ece", *(f"recall/{name}" for name in classes)]
    assert found["accuracy"].value == accuracy_score(targets, predicted)
    assert math.isclose(found["macro_f1"].value, f1_score(targets, predicted, average="macro"))
    recalls = recall_score(targets, predicted, average=None, labels=range(7), zero_division=0)
    np.testing.assert_allclose([found[f"recall/{name}"].value for name in classes[:6]], recalls[:6])
    assert [found[f"recall/{name}"].n for name in classes] == np.bincount(targets, minlength=7).tolist()
    for metric in found.values():
        if metric.n:
            assert 0 <= metric.low <= metric.value <= metric.high <= 1
    assert found["accuracy"].n == found["macro_f1"].n == found["top5_accuracy"].n == 200
    nothing = found["recall/g"]
    assert (nothing.value, nothing.low, nothing.high, nothing.n) == (None, None, None, 0)


@pytest.mark.parametrize(("classes", "has"), [(tuple("abcde"), False), (tuple("abcdef"), True)])
@pytest.mark.parametrize("n", [0, 1, 7])
def test_top5_from_six_classes_on(classes, has, n):
    found = metrics(np.zeros((n, len(classes))), np.zeros(n, np.int64), classes)
    assert ("top5_accuracy" in found) == has
    assert all((metric.value is None) == (metric.n == 0) for metric in found.values())
