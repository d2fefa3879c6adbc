"""The metrics against scikit-learn's."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score, log_loss, top_k_accuracy_score

from resnetkit.ops.metrics import confusion, correct_at, cross_entropy, macro_f1, softmax, top_k

CLASSES = 6


@pytest.fixture(params=[np.float32, np.float64])
def sample(request):
    """Logits [200, 6] and targets [200] of the classes 0..4: class 5 never is the target."""
    rng = np.random.default_rng(0)
    targets = rng.integers(0, CLASSES - 1, 200)
    logits = rng.normal(size=(200, CLASSES)) + 2 * np.eye(CLASSES)[targets]
    return logits.astype(request.param), targets


def test_cross_entropy(sample):
    logits, targets = sample
    loss = cross_entropy(logits, targets)
    assert loss.shape == (200,)
    assert loss.mean() == pytest.approx(log_loss(targets, softmax(logits), labels=range(CLASSES)), rel=1e-9)


@pytest.mark.parametrize("k", range(1, CLASSES))
def test_correct_at(sample, k):
    logits, targets = sample
    expected = top_k_accuracy_score(targets, logits, k=k, labels=range(CLASSES))
    assert correct_at(logits, targets, k).mean() == expected


@pytest.mark.parametrize("predicted", [None, 0, 5], ids=["argmax", "always 0", "always 5"])
def test_confusion_and_macro_f1(sample, predicted):
    logits, targets = sample
    labels = logits.argmax(1) if predicted is None else np.full(200, predicted)
    matrix = confusion(labels, targets, CLASSES)
    assert np.array_equal(matrix, confusion_matrix(targets, labels, labels=range(CLASSES)))
    assert macro_f1(matrix) == pytest.approx(f1_score(targets, labels, average="macro", zero_division=0), rel=1e-12)


def test_macro_f1_leaves_out_classes_that_do_not_occur():
    labels, targets = np.array([0, 2, 2, 0]), np.array([0, 2, 0, 0])
    matrix = confusion(labels, targets, CLASSES)
    assert macro_f1(matrix) == pytest.approx(f1_score(targets, labels, average="macro"))
    assert macro_f1(np.zeros((3, 3), int)) == 0


def test_softmax(sample):
    logits, _ = sample
    exponent = np.exp(logits.astype(np.float64))
    np.testing.assert_allclose(softmax(logits), exponent / exponent.sum(1, keepdims=True), rtol=1e-12)
    assert np.array_equal(softmax(logits.reshape(4, 50, CLASSES)).reshape(200, CLASSES), softmax(logits))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_large_logits_do_not_overflow(dtype):
    logits = np.array([[1e4, 1e4, -1e4], [-1e4, -1e4, -1e4]], dtype)
    np.testing.assert_allclose(softmax(logits), [[0.5, 0.5, 0], [1 / 3] * 3], rtol=1e-12)
    np.testing.assert_allclose(
        cross_entropy(logits, np.array([2, 0])), [2 * float(logits[0, 0]) + np.log(2), np.log(3)]
    )


def test_equal_logits_stay_in_class_order():
    assert top_k(np.array([[1.0, 3, 3, 3, 0], [0, 0, 0, 0, 0]]), 4).tolist() == [[1, 2, 3, 0], [0, 1, 2, 3]]
    many = np.random.default_rng(0).integers(0, 3, (1, 1000)).astype(np.float32)
    assert top_k(many, 1000)[0].tolist() == sorted(range(1000), key=lambda index: (-many[0, index], index))
