"""Calibration error, conformal sets and novelty: equal to the libraries' on the same numbers, and to the theory."""

import math

import numpy as np
import pytest
from scipy.stats import beta

from resnetkit.ops.calibration import (
    aps_scores,
    aps_sets,
    calibration_error,
    conformal_quantile,
    ece,
    energy,
    kth_distance,
    lac_scores,
    lac_sets,
    reliability,
    samples_for,
    unit,
)
from resnetkit.ops.metrics import softmax

CLASSES = 7


def drawn(n, seed=0, sharpness=1.5):
    """Probabilities, and classes that are drawn from other ones: a model that is surer than it should be."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, CLASSES)) * sharpness
    chances = softmax(logits / 2).cumsum(1)
    return softmax(logits), (rng.random(n)[:, None] > chances).sum(1).clip(0, CLASSES - 1)


def test_the_error_is_that_of_torchmetrics():
    torchmetrics = pytest.importorskip("torchmetrics.functional.classification", reason="needs torchmetrics")
    torch = pytest.importorskip("torch")
    for seed in range(5):
        probabilities, targets = drawn(300, seed)
        theirs = torchmetrics.multiclass_calibration_error(
            torch.from_numpy(probabilities), torch.from_numpy(targets), CLASSES, n_bins=15, norm="l1"
        )
        correct = probabilities.argmax(1) == targets
        ours = calibration_error(probabilities.max(1), correct, np.ones((1, 300)))
        np.testing.assert_allclose(ours, [theirs], atol=1e-6)
        present = np.random.default_rng(seed).random(probabilities.shape) < probabilities
        theirs = torchmetrics.binary_calibration_error(
            torch.from_numpy(probabilities).flatten(), torch.from_numpy(present).int().flatten(), n_bins=15
        )
        np.testing.assert_allclose(calibration_error(probabilities, present, np.ones((1, 300))), [theirs], atol=1e-6)


def test_the_error_of_weights_is_that_of_repeated_samples():
    probabilities, targets = drawn(50)
    weights = np.random.default_rng(1).integers(0, 3, (4, 50))
    correct, sure = probabilities.argmax(1) == targets, probabilities.max(1)
    found = calibration_error(sure, correct, weights.astype(float))
    for row, value in zip(weights, found, strict=True):
        again = np.repeat(np.arange(50), row)
        np.testing.assert_allclose(
            calibration_error(sure[again], correct[again], np.ones((1, len(again)))), [value], atol=1e-12
        )


def test_the_interval_of_the_error_holds_it():
    for seed in range(5):
        probabilities, targets = drawn(200, seed)
        found = ece(probabilities.max(1), probabilities.argmax(1) == targets)
        assert 0 <= found.low <= found.value <= found.high and found.n == 200
    assert ece(np.zeros(0), np.zeros(0, bool)).value is None


def test_reliability_adds_up_to_the_error():
    probabilities, targets = drawn(400)
    sure, correct = probabilities.max(1), probabilities.argmax(1) == targets
    confidence, share, counts = reliability(sure, correct)
    assert counts.sum() == 400 and (np.diff(confidence) > 0).all()
    error = (np.abs(confidence - share) * counts).sum() / 400
    np.testing.assert_allclose(calibration_error(sure, correct, np.ones((1, 400))), [error], atol=1e-12)


@pytest.mark.parametrize("name", ["lac", "aps"])
@pytest.mark.parametrize("coverage", [0.8, 0.95])
def test_sets_are_those_of_mapie(name, coverage):
    classification = pytest.importorskip("mapie.classification", reason="needs mapie")
    base = pytest.importorskip("sklearn.base")
    known, targets = drawn(200)
    new, _ = drawn(100, seed=1)

    class Given(base.ClassifierMixin, base.BaseEstimator):
        classes_ = np.arange(CLASSES)

        def fit(self, x, y):
            return self

        def predict_proba(self, x):
            return x

        def predict(self, x):
            return x.argmax(1)

        def __sklearn_is_fitted__(self):
            return True

    peer = classification.SplitConformalClassifier(
        Given(), confidence_level=coverage, conformity_score=name, prefit=True, random_state=0
    )
    peer.conformalize(known, targets)
    theirs = peer.predict_set(new)[1][:, :, 0]
    if name == "lac":
        ours = lac_sets(new, conformal_quantile(lac_scores(known, targets), coverage))
    else:
        uniform = np.random.RandomState(0).uniform(size=200)
        ours = aps_sets(new, conformal_quantile(aps_scores(known, targets, uniform), coverage))
    np.testing.assert_array_equal(ours, theirs)


def covered(name, seed, coverage, n=99, new=2000):
    probabilities, targets = drawn(n + new, seed)
    known, to_come = slice(n), slice(n, None)
    if name == "lac":
        quantile = conformal_quantile(lac_scores(probabilities[known], targets[known]), coverage)
        sets = lac_sets(probabilities[to_come], quantile)
    else:
        uniform = np.random.default_rng(seed).uniform(size=n)
        quantile = conformal_quantile(aps_scores(probabilities[known], targets[known], uniform), coverage)
        sets = aps_sets(probabilities[to_come], quantile)
    return sets[np.arange(new), targets[to_come]].mean()


@pytest.mark.parametrize("name", ["lac", "aps"])
def test_coverage_follows_its_law(name):
    """Realised coverage of 200 re-splits is Beta(k, n + 1 - k), of which k = ceil((n + 1) coverage) (2107.07511)."""
    n, coverage, splits = 99, 0.9, 200
    found = np.sort([covered(name, seed, coverage, n) for seed in range(splits)])
    k = math.ceil((n + 1) * coverage)
    law = beta(k, n + 1 - k)
    # the mean of 200, within 99.9 %; sets by aps hold more than they promise
    slack = 3.3 * law.std() / math.sqrt(splits)
    assert found.mean() > law.mean() - slack
    if name == "lac":
        assert found.mean() < law.mean() + slack
        assert law.ppf(0.0005) - 0.03 < found[0] and found[-1] < law.ppf(0.9995) + 0.03


def test_sets_of_aps_are_never_empty_and_those_of_lac_may_be():
    sure = np.array([[0.9, 0.1], [0.5, 0.5]])
    assert aps_sets(sure, 0.0).tolist() == [[True, False], [True, False]]
    assert lac_sets(sure, 0.2).tolist() == [[True, False], [False, False]]
    assert aps_sets(sure, math.inf).all() and lac_sets(sure, math.inf).all()


@pytest.mark.parametrize(("coverage", "n"), [(0.5, 1), (0.8, 4), (0.9, 9), (0.95, 19), (0.99, 99)])
def test_how_many_samples_a_coverage_takes(coverage, n):
    assert samples_for(coverage) == n
    assert math.isinf(conformal_quantile(np.arange(n - 1.0), coverage))
    assert conformal_quantile(np.arange(float(n)), coverage) == n - 1


def test_energy_and_distance():
    np.testing.assert_allclose(energy(np.array([[0.0, 0.0], [1000.0, 0.0]])), [-math.log(2), -1000])
    bank = unit(np.array([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0], [0.0, 0.0]]))
    np.testing.assert_allclose(np.linalg.norm(bank, axis=1), [1, 1, 1, 0])
    one = unit(np.array([[5.0, 0.0]]))
    np.testing.assert_allclose([kth_distance(one, bank[:3], k)[0] for k in (1, 2, 3)], [0, math.sqrt(2), 2], atol=1e-6)
