import math

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from resnetkit.ops.verification import cosine, equal_error, equal_error_rate


def drawn(n=2000, shift=1.5, seed=0):
    rng = np.random.default_rng(seed)
    same = rng.random(n) < 0.3
    return rng.normal(size=n) + shift * same, same


def test_equal_to_the_roc_curve():
    scores, same = drawn()
    alarms, hits, _ = roc_curve(same, scores, drop_intermediate=False)
    grid = np.linspace(0, 1, 200_001)
    expected = grid[np.abs(np.interp(grid, alarms, hits) - (1 - grid)).argmin()]
    rate, threshold = equal_error(scores, same)
    assert abs(rate - expected) < 2e-3
    assert (
        abs((scores[~same] >= threshold).mean() - rate) < 2e-3 and abs((scores[same] < threshold).mean() - rate) < 2e-3
    )


def test_of_two_normal_laws():
    scores, same = drawn(200_000, 2.0)
    assert abs(equal_error(scores, same)[0] - 0.5 * math.erfc(1 / math.sqrt(2))) < 0.003


def test_ends_and_ties():
    same = np.array([True, True, False, False])
    assert equal_error(np.array([2.0, 3, 0, 1]), same)[0] == 0
    assert equal_error(np.array([0.0, 1, 2, 3]), same)[0] == 1
    assert equal_error(np.zeros(4), same)[0] == 0.5
    for missing in (same[:2], same[2:], same[:0]):
        assert math.isnan(equal_error(np.zeros(len(missing)), missing)[0])


def test_weights_are_repeats():
    scores, same = drawn(50)
    times = np.random.default_rng(1).integers(0, 4, 50)
    repeated = np.repeat(np.arange(50), times)
    assert np.allclose(equal_error(scores, same, times.astype(float)), equal_error(scores[repeated], same[repeated]))


def test_interval_over_pairs():
    found = equal_error_rate(*drawn(), resamples=200)
    assert found.low < found.value < found.high and 0.02 < found.high - found.low < 0.08 and "pairs" in found.method
    assert found == equal_error_rate(*drawn(), resamples=200)


def test_interval_over_speakers_is_wider():
    """Pairs of the same few speakers are alike, which an interval over pairs does not know."""
    rng = np.random.default_rng(0)
    speakers = rng.integers(0, 12, (3000, 2))
    same = speakers[:, 0] == speakers[:, 1]
    habit = rng.normal(size=12)
    scores = rng.normal(size=3000) * 0.5 + 2 * same + habit[speakers].sum(1)
    pairs, voices = (equal_error_rate(scores, same, each, resamples=200) for each in (None, speakers))
    assert pairs.value == voices.value and "12 speakers" in voices.method
    assert voices.high - voices.low > 1.5 * (pairs.high - pairs.low)


def test_without_pairs_of_both_kinds():
    assert equal_error_rate(np.ones(3), np.ones(3, bool)).value is None
    one = equal_error_rate(np.array([1.0, 0]), np.array([True, False]), np.array([[0, 0], [0, 1]]), resamples=50)
    assert one.value == 0 and (one.low is None or one.low == 0)


@pytest.mark.parametrize(("b", "expected"), [([2, 0], 1), ([-3, 0], -1), ([0, 4], 0), ([0, 0], 0)])
def test_cosine(b, expected):
    assert cosine(np.array([[1.0, 0]]), np.array([b], float))[0] == expected
