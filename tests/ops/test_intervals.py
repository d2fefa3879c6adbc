"""The intervals against their definitions and against simulation."""

import json
import math

import numpy as np
import pytest

from resnetkit.ops.intervals import Z95, Metric, bootstrap, weighted_bootstrap, weighted_bootstraps, wilson


@pytest.mark.parametrize(("successes", "n"), [(1, 2), (7, 10), (1, 30), (350, 360), (49_999, 100_000)])
def test_wilson_solves_its_equation(successes, n):
    metric = wilson(successes, n)
    assert (metric.value, metric.n, metric.method) == (successes / n, n, "wilson")
    for end in (metric.low, metric.high):
        assert abs(end - metric.value) == pytest.approx(Z95 * math.sqrt(end * (1 - end) / n), rel=1e-9)
    assert 0 < metric.low < metric.value < metric.high < 1


@pytest.mark.parametrize("n", [1, 3, 10, 1000])
def test_wilson_at_the_ends(n):
    edge = Z95**2 / (n + Z95**2)
    none, every = wilson(0, n), wilson(n, n)
    assert (none.low, every.high) == (0, 1)
    assert (none.high, every.low) == pytest.approx((edge, 1 - edge), abs=1e-12)


@pytest.mark.parametrize("n", [20, 100, 360])
def test_wilson_covers_95_per_cent(n):
    rng = np.random.default_rng(0)
    shares = rng.uniform(size=2000)
    metrics = [wilson(int(successes), n) for successes in rng.binomial(n, shares)]
    covered = [metric.low <= share <= metric.high for metric, share in zip(metrics, shares, strict=True)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)


def test_no_samples():
    for metric in (wilson(0, 0), bootstrap(lambda index: 1 / 0, 0)):
        assert metric == Metric(None, 0, None, None, "no samples")


def test_bootstrap_is_reproducible_and_brackets_the_mean():
    values = np.random.default_rng(0).normal(3, 2, 400)
    metric = bootstrap(lambda index: values[index].mean(), 400)
    half = 1.96 * values.std() / math.sqrt(400)
    assert metric == bootstrap(lambda index: values[index].mean(), 400)
    assert metric != bootstrap(lambda index: values[index].mean(), 400, seed=1)
    assert (metric.value, metric.n) == (values.mean(), 400)
    assert (metric.low, metric.high) == pytest.approx((metric.value - half, metric.value + half), abs=0.1 * half)


def test_bootstrap_method_tells_the_resamples():
    calls = []
    metric = bootstrap(lambda index: calls.append(index) or 1.0, 5, resamples=20)
    assert metric == Metric(1.0, 5, 1.0, 1.0, "bootstrap, 20 resamples")
    assert len(calls) == 21
    assert all(index.shape == (5,) and set(index) <= set(range(5)) for index in calls)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_metric_goes_through_json(dtype):
    values = np.arange(4, dtype=dtype)
    metric = bootstrap(lambda index: values[index].mean(), 4)
    assert Metric(**json.loads(json.dumps(metric.as_dict()))) == metric


@pytest.mark.parametrize("at_once", [10, 1000, 2**22])
def test_the_weighted_bootstrap_is_the_bootstrap(at_once):
    values = np.random.default_rng(0).normal(3, 1, 40)
    found = weighted_bootstrap(lambda drawn: drawn @ values / drawn.sum(1), 40, at_once=at_once)
    plain = bootstrap(lambda rows: float(values[rows].mean()), 40)
    assert found.value == pytest.approx(plain.value) and (found.n, found.method) == (plain.n, plain.method)
    # the same seed draws the same rows
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high), rel=1e-6)


def test_the_weighted_bootstrap_of_what_does_not_exist():
    assert weighted_bootstrap(lambda drawn: drawn[:, 0], 0) == Metric(None, 0, None, None, "no samples")
    missing = weighted_bootstrap(lambda drawn: np.full(len(drawn), np.nan), 3)
    assert missing == Metric(None, 3, None, None, "no positives")
    sometimes = weighted_bootstrap(lambda drawn: np.where(drawn[:, 0] > 0, drawn[:, 0] / 3, np.nan), 3)
    assert 0 < sometimes.low < sometimes.high <= 1


def test_several_statistics_are_those_of_one() -> None:
    values = np.random.default_rng(0).random(40)

    def mean(drawn: np.ndarray) -> np.ndarray:
        return drawn @ values / drawn.sum(1)

    def both(drawn: np.ndarray) -> np.ndarray:
        return np.stack([mean(drawn), np.full(len(drawn), np.nan)], 1)

    one, none = weighted_bootstraps(both, 40, ["", "no reason"])
    assert one == weighted_bootstrap(mean, 40)
    assert (none.value, none.low, none.n, none.method) == (None, None, 40, "no reason")
    assert weighted_bootstraps(both, 0, ["", ""])[0].method == "no samples"
    assert weighted_bootstraps(both, 40, ["", ""], at_once=100)[0] == one
