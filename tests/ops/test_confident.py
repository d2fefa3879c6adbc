"""Confident learning: by hand on three samples, and the same rows in the same order as cleanlab on many."""

import warnings

import numpy as np
import pytest

from resnetkit.ops.confident import confident_joint, label_issues, likely_classes, margins, thresholds


def noisy(seed, n=600, num_classes=5, wrong=0.1, sharp=2.0):
    """Scores of a model that is mostly right, and labels of which some are wrong; and which."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(num_classes, n, p=rng.dirichlet(np.full(num_classes, 3.0)))
    logits = rng.normal(size=(n, num_classes)) + sharp * np.eye(num_classes)[truth]
    scores = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    flipped = rng.random(n) < wrong
    labels = np.where(flipped, (truth + rng.integers(1, num_classes, n)) % num_classes, truth)
    return scores, labels, flipped


def test_by_hand():
    scores = np.array([[0.9, 0.1, 0], [0.8, 0.2, 0], [0.1, 0.9, 0], [0.3, 0.7, 0], [0.95, 0.05, 0]])
    labels = np.array([0, 0, 1, 1, 1])  # the last one is wrong; nobody is a 2
    assert thresholds(scores, labels) == pytest.approx([0.85, (0.9 + 0.7 + 0.05) / 3, 2])
    assert likely_classes(scores, labels).tolist() == [0, -1, 1, 1, 0]
    assert confident_joint(scores, labels).tolist() == [[1, 0, 0], [1, 2, 0], [0, 0, 0]]
    assert margins(scores, labels)[[0, 4]] == pytest.approx([0.9, 0.05])
    assert label_issues(scores, labels).tolist() == [4]


@pytest.mark.parametrize("seed", range(12))
def test_the_same_rows_in_the_same_order_as_cleanlab(seed):
    cleanlab = pytest.importorskip("cleanlab.filter")
    classes = (2, 5, 30)[seed % 3]
    scores, labels, _ = noisy(seed, num_classes=classes, sharp=(1.0, 3.0, 6.0)[seed % 3])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = cleanlab.find_label_issues(
            labels,
            scores,
            filter_by="confident_learning",
            return_indices_ranked_by="normalized_margin",
            n_jobs=1,
        )
    assert len(theirs) > 5 and label_issues(scores, labels).tolist() == list(theirs)


def test_wrong_labels_come_first():
    scores, labels, flipped = noisy(1, n=2000, wrong=0.05, sharp=5.0)
    found = label_issues(scores, labels)
    assert flipped[found[: flipped.sum() // 2]].mean() > 0.9
    assert flipped[found].sum() > 0.8 * flipped.sum()
    assert len(label_issues(*noisy(1, wrong=0.0, sharp=30.0)[:2])) == 0
