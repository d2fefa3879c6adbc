"""Likely label errors: folds that keep copies together, scores from other folds, the same with and without cleanlab."""

import sys

import numpy as np
import pytest

from resnetkit.trust.labels import FOLDS, folds, held_out_scores, suspicions


def clusters(seed=0, each=40, num_classes=3, wrong=8):
    """Features of separate clusters, and labels of which some are wrong."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(num_classes), each)
    features = rng.normal(size=(len(truth), 6)) + 6 * np.eye(num_classes, 6)[truth]
    labels = truth.copy()
    flipped = rng.choice(len(truth), wrong, replace=False)
    labels[flipped] = (truth[flipped] + 1) % num_classes
    return features.astype(np.float32), labels, truth, set(flipped.tolist())


def nothing(done):
    pass


def test_folds_have_their_share_and_keep_copies_together():
    targets = np.repeat([0, 1, 2], [50, 20, 5])
    first = np.arange(75)
    first[[10, 11, 12]] = 3
    first[60] = 55
    fold = folds(targets, first)
    assert (fold == fold[first]).all()
    alone = first == np.arange(75)
    for k, count in ((0, 47), (1, 19), (2, 5)):
        each = np.bincount(fold[alone & (targets == k)], minlength=FOLDS)
        assert each.sum() == count and each.max() - each.min() <= 1


def test_each_score_is_of_a_model_that_has_not_seen_it():
    """Labels drawn at random cannot be told, whatever the features: a model that had seen them would tell some."""
    rng = np.random.default_rng(0)
    features, targets = rng.normal(size=(200, 150)), rng.integers(0, 2, 200)
    scores = held_out_scores(features, targets, folds(targets, np.arange(200)), nothing)
    assert np.allclose(scores.sum(1), 1) and 0.35 < (scores.argmax(1) == targets).mean() < 0.65


def test_wrong_labels_are_found_with_the_right_one(monkeypatch):
    features, labels, truth, flipped = clusters()
    done = []
    found = suspicions(features, labels, np.arange(len(labels)), done.append)
    # those that are sure enough; the others come next in the ranking
    assert set(found.rows.tolist()) <= flipped and len(found.rows) >= 5 and (found.suggested == truth[found.rows]).all()
    assert set(found.ranking[: len(flipped)].tolist()) == flipped and len(found.ranking) == len(labels)
    assert (np.diff(found.margins) >= 0).all() and done == [1, 2, 3, 4, 5]
    monkeypatch.setitem(sys.modules, "cleanlab", None)
    own = suspicions(features, labels, np.arange(len(labels)), nothing)
    assert own.by == "resnetkit" and own.rows.tolist() == found.rows.tolist()


def test_what_cannot_be_judged_is_left_out():
    features, labels, _, flipped = clusters()
    features[list(flipped)[0]] = np.nan
    labels = np.append(labels, [3, 3])  # a class of two images
    features = np.concatenate([features, features[:2] + 50])
    found = suspicions(features, labels, np.arange(len(labels)), nothing)
    assert set(found.rows.tolist()) <= set(list(flipped)[1:]) and len(found.ranking) == len(labels) - 3
    assert set(found.ranking[: len(flipped) - 1].tolist()) == set(list(flipped)[1:])
    none = suspicions(features[:4], labels[:4], np.arange(4), nothing)
    assert len(none.rows) == len(none.ranking) == 0 and "too few" in none.by
    assert len(suspicions(features[:0], labels[:0], np.arange(0), nothing).rows) == 0


@pytest.mark.parametrize("copies", [5])
def test_copies_of_a_wrong_label_do_not_vouch_for_each_other(copies):
    features, labels, truth, _ = clusters(wrong=0)
    features = np.concatenate([features, np.repeat(features[:1], copies, 0)])
    labels = np.append(labels, np.full(copies, 2))
    first = np.append(np.arange(len(truth)), np.zeros(copies, int))
    found = suspicions(features, labels, first, nothing)
    assert set(found.rows.tolist()) == set(range(len(truth), len(labels)))
