"""Confident learning: which given labels are probably wrong, from the scores of a model that has not seen them.

Northcutt, Jiang and Chuang, Confident Learning: Estimating Uncertainty in Dataset Labels, JAIR 2021, arXiv 1911.00068.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]
LEAST = 2e-6  # of a threshold, below which every score would count as sure
SLACK = 1e-6  # two scores that differ by less are equal


def thresholds(scores: Floats, labels: Ints) -> Floats:
    """How sure a model is on average of each class where it is the given label [K]; above any score for an unused one.

    Args:
        scores: probabilities of classes [n, K], each row from a model that was not fitted on it.
        labels: given class indices [n].
    """
    num_classes = scores.shape[1]
    count = np.bincount(labels, minlength=num_classes)
    total = np.bincount(labels, scores[np.arange(len(labels)), labels], num_classes)
    return np.where(count > 0, np.maximum(total / np.maximum(count, 1), LEAST), 2.0)


def likely_classes(scores: Floats, labels: Ints) -> Ints:
    """The class that each sample confidently is [n]: the likeliest of those over their threshold; -1 where none is."""
    sure = scores >= thresholds(scores, labels) - SLACK
    best = np.where(sure.sum(1) > 1, scores.argmax(1), sure.argmax(1))
    return np.where(sure.any(1), best, -1)


def confident_joint(scores: Floats, labels: Ints) -> Ints:
    """Counts [K, K] of samples of a given label (row) that confidently are of a class (column)."""
    likely, num_classes = likely_classes(scores, labels), scores.shape[1]
    known = likely >= 0
    flat = np.bincount(labels[known] * num_classes + likely[known], minlength=num_classes**2)
    return flat.reshape(num_classes, num_classes)


def margins(scores: Floats, labels: Ints) -> Floats:
    """How far the given label's score is above the best of the others [n], from 0 (surely wrong) to 1."""
    rows = np.arange(len(labels))
    others = scores.copy()
    others[rows, labels] = -np.inf
    return np.asarray((scores[rows, labels] - others.max(1) + 1) / 2)


def label_issues(scores: Floats, labels: Ints) -> NDArray[np.intp]:
    """Rows whose given label is probably wrong, the likeliest first.

    Those off the diagonal of the confident joint whose likeliest class is another one, by their margin: what cleanlab
    calls filter_by="confident_learning", ranked by "normalized_margin".

    Args:
        scores: probabilities of classes [n, K], K from 2, each row from a model that was not fitted on it.
        labels: given class indices [n].
    """
    likely = likely_classes(scores, labels)
    given = scores[np.arange(len(labels)), labels]
    wrong = np.flatnonzero((likely >= 0) & (likely != labels) & (given < scores.max(1) - SLACK))
    return wrong[np.argsort(margins(scores, labels)[wrong], kind="stable")]
