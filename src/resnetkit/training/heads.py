"""Linear heads on frozen features, fitted by scikit-learn with the regularisation that cross-validation prefers."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from resnetkit.ops.metrics import cross_entropy

ALPHAS = np.logspace(0, 5, 11)  # of ridge regression
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # C of logistic regression
FOLDS, ITERATIONS = 3, 100
SMOOTHING = 0.1  # of the labels by which heads are scaled, as optim.label_smoothing is by default
MOST_ROWS = 2_000  # that choose C
LARGEST = 1_000_000_000  # rows * features * classes above which logistic regression would take minutes
ABSENT = -20.0  # logit of a class that no image has, below the least of the others
Floats = NDArray[np.floating]


@dataclass(frozen=True)
class LinearHead:
    """A last layer, and in words how it was fitted: logits = features @ weight.T + bias."""

    weight: Floats
    bias: Floats
    name: str

    def __call__(self, features: Floats) -> Floats:
        """Logits [n, K] of features [n, D]."""
        return features @ self.weight.T + self.bias

    def scaled(self, factor: float) -> LinearHead:
        """The same answers, with all logits times a factor."""
        return LinearHead(self.weight * factor, self.bias * factor, self.name)


@dataclass(frozen=True)
class _Scale:
    """Mean [D] of the features that a model was fitted on, and the deviation of all of them together.

    One deviation: each divided by its own, features that are nearly always zero would count as much as the others. On
    four sets such heads had 0.3 to 7 points less, and rows up to 200 times as long, from which fine-tuning diverges.
    """

    mean: Floats
    deviation: float

    def head(self, model: Any, num_classes: int, name: str) -> LinearHead:
        """A model of scikit-learn as a head on features that are not scaled, with a row for every class."""
        coef, intercept = np.atleast_2d(model.coef_), np.atleast_1d(model.intercept_)
        if len(coef) == 1:  # of two classes: one row, for the second
            coef, intercept = np.concatenate([-coef, coef]) / 2, np.concatenate([-intercept, intercept]) / 2
        weight = np.zeros((num_classes, coef.shape[1]))
        bias = np.full(num_classes, intercept.min() + ABSENT)
        weight[model.classes_] = coef / self.deviation
        bias[model.classes_] = intercept - (coef * self.mean / self.deviation).sum(1)
        return LinearHead(weight, bias, name)


def fitted(features: Floats, targets: NDArray[np.integer], num_classes: int, balanced: bool) -> list[LinearHead]:
    """Ridge regression, and logistic regression where it takes no minutes.

    Args:
        features: [n, D].
        targets: class indices [n], of two classes at least.
        num_classes: K.
        balanced: every class counts the same.
    """
    from sklearn.linear_model import RidgeClassifierCV

    scale = _Scale(features.mean(0), math.sqrt(features.var(0).mean()) + 1e-6)
    x, weights = (features - scale.mean) / scale.deviation, "balanced" if balanced else None
    ridge = RidgeClassifierCV(alphas=ALPHAS, class_weight=weights).fit(x, targets)
    heads = [scale.head(ridge, num_classes, f"ridge, alpha = {ridge.alpha_:.3g}")]
    if x.size * len(ridge.classes_) <= LARGEST:
        c = best_strength(x, targets, weights)
        heads.append(scale.head(logistic(x, targets, c, weights), num_classes, f"logistic, C = {c:.3g}"))
    return heads


def logistic(x: Floats, y: NDArray[np.integer], c: float, weights: str | None) -> Any:
    """Logistic regression by scikit-learn, on one thread of BLAS: its threads and those of OpenMP wait for each other.

    With two of each a fit on 1,300 rows of 512 features took eight times as long, and one on 50,000 rows no less.

    Args:
        x: features [n, D].
        y: class indices [n].
        c: the inverse of the regularisation's strength.
        weights: "balanced" if every class counts the same, else None.
    """
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings(), threadpool_limits(1, user_api="blas"):
        warnings.simplefilter("ignore")  # one that has not converged is judged by what it can do, like the others
        return LogisticRegression(C=c, max_iter=ITERATIONS, class_weight=weights).fit(x, y)


def best_strength(x: Floats, y: NDArray[np.integer], weights: str | None) -> float:
    """The C with the least cross-entropy on held-out folds; larger ones than the first that is no better are not tried.

    Where nothing can be held out, the smallest.
    """
    best, least = STRENGTHS[0], math.inf
    for c in STRENGTHS:
        loss = float(np.mean(list(_held_out(x, y, c, weights)) or [0.0]))
        if loss >= least:
            break
        best, least = c, loss
    return best


def _held_out(x: Floats, y: NDArray[np.integer], c: float, weights: str | None) -> Iterator[float]:
    # drawn, since the images of a class follow each other
    rows = np.random.default_rng(0).permutation(len(y))[:MOST_ROWS]
    identity = _Scale(np.zeros(x.shape[1]), 1.0)
    for number in range(FOLDS):
        held, train = rows[number::FOLDS], np.concatenate([rows[n::FOLDS] for n in range(FOLDS) if n != number])
        if len(set(y[train].tolist())) < 2 or not len(held):
            continue
        head = identity.head(logistic(x[train], y[train], c, weights), int(y.max()) + 1, "")
        yield float(cross_entropy(head(x[held]), y[held]).mean())


def choose(heads: Sequence[LinearHead], features: Floats, targets: NDArray[np.integer]) -> LinearHead:
    """The head with the least cross-entropy on held-out features, which tells more about few of them than errors do.

    The logits of each are scaled first to the least cross-entropy there, with smoothed labels: ridge regression gives
    none that are probabilities, and where all answers are right the scale would grow without end. Without held-out
    images the last head is taken.
    """
    if not len(targets):
        return heads[-1]
    factors = np.logspace(-1, 2, 31)
    found = []
    for head in heads:
        logits = head(features)
        losses = [_smoothed(logits * factor, targets) for factor in factors]
        found.append((min(losses), head.scaled(float(factors[int(np.argmin(losses))]))))
    return min(found, key=lambda each: each[0])[1]


def _smoothed(logits: Floats, targets: NDArray[np.integer]) -> float:
    """Mean cross-entropy with a share of the target given to all classes that some image has."""
    found = np.unique(targets)
    everyone = np.mean([cross_entropy(logits, np.full(len(targets), each)) for each in found], axis=0)
    return float(((1 - SMOOTHING) * cross_entropy(logits, targets) + SMOOTHING * everyone).mean())
