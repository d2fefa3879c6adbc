"""Likely label errors: what a model says of images that it has not been fitted on, held against their labels."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnetkit.ops import confident
from resnetkit.training.heads import best_strength, logistic

FOLDS = 5
FEWEST = 5  # different images of a class, under which none of it is judged
Floats = NDArray[np.floating]
Ints = NDArray[np.integer]
Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Suspicions:
    """Labels that are probably wrong.

    Attributes:
        rows: of them, the likeliest first [m].
        suggested: class index that each looks like [m].
        margins: score of the given label less that of the best other one, 0 (surely wrong) to 1 [m].
        ranking: all rows that were judged, by margin [n].
        by: what told them.
    """

    rows: Rows
    suggested: Ints
    margins: Floats
    ranking: Rows
    by: str


def folds(targets: Ints, first: Rows) -> Ints:
    """A fold for each sample [n], each with its share of every class; what is the same picture is in the same one.

    Args:
        targets: class indices [n].
        first: for each sample the first one that is the same picture [n].
    """
    rng, fold = np.random.default_rng(0), np.zeros(len(targets), np.int64)
    alone = first == np.arange(len(first))
    for target in np.unique(targets):
        rows = rng.permutation(np.flatnonzero(alone & (targets == target)))
        fold[rows] = (rng.integers(FOLDS) + np.arange(len(rows))) % FOLDS
    return fold[first]


def held_out_scores(features: Floats, targets: Ints, fold: Ints, progress: Callable[[int], None]) -> Floats:
    """Probabilities of classes [n, K] by logistic regression, each row from a fit on the other folds.

    Args:
        features: [n, D].
        targets: class indices [n], each of 0..K-1 in two folds at least.
        fold: of each sample [n].
        progress: called with the number of folds done.
    """
    x = (features - features.mean(0)) / (math.sqrt(features.var(0).mean()) + 1e-6)
    strength = best_strength(x, targets, None)
    scores = np.zeros((len(targets), int(targets.max()) + 1))
    for done, held in enumerate(np.unique(fold)):
        out = fold == held
        model = logistic(x[~out], targets[~out], strength, None)
        scores[np.ix_(out, model.classes_)] = model.predict_proba(x[out])
        progress(done + 1)
    return scores


def suspicions(features: Floats, targets: Ints, first: Rows, progress: Callable[[int], None]) -> Suspicions:
    """Which labels are probably wrong.

    Args:
        features: [n, D]; NaN in those that could not be read.
        targets: class indices [n].
        first: for each sample the first one that is the same picture [n].
        progress: called with the number of folds done.
    """
    readable = np.asarray(~np.isnan(features).any(1))
    alone = readable & (first == np.arange(len(first)))
    counts = np.bincount(targets[alone], minlength=int(targets.max(initial=0)) + 1)
    classes = np.flatnonzero(counts >= FEWEST)
    rows = np.flatnonzero(readable & (counts[targets] >= FEWEST) & readable[first])
    if len(classes) < 2:
        nothing = np.zeros(0, np.intp)
        return Suspicions(nothing, nothing, np.zeros(0), nothing, "nothing: too few images")
    own = np.searchsorted(classes, targets[rows])
    _, at, places = np.unique(first[rows], return_index=True, return_inverse=True)
    scores = held_out_scores(features[rows], own, folds(own, at[places]), progress)
    issues, by = _issues(scores, own)
    margins = confident.margins(scores, own)
    suggested = classes[confident.likely_classes(scores, own)[issues]]
    return Suspicions(rows[issues], suggested, margins[issues], rows[np.argsort(margins, kind="stable")], by)


def _issues(scores: Floats, targets: Ints) -> tuple[Rows, str]:
    """By cleanlab where it is installed, else by our own, which gives the same."""
    try:
        cleanlab: Any = import_module("cleanlab")
        find = import_module("cleanlab.filter").find_label_issues
    except ImportError:
        return confident.label_issues(scores, targets), "resnetkit"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ranked = find(
            targets,
            scores,
            filter_by="confident_learning",
            return_indices_ranked_by="normalized_margin",
            n_jobs=1,
        )
    return np.asarray(ranked, np.intp), f"cleanlab {cleanlab.__version__}"
