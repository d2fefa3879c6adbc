import numpy as np
import pytest

from resnetkit.verbs.verify import Pair, error_rate


def pairs_of(count: int) -> list[Pair]:
    """Of so many speakers, who are alike with noise."""
    rng, found = np.random.default_rng(0), []
    for _ in range(300):
        a, b = rng.integers(0, count, 2)
        found.append(Pair("a", "b", float((a == b) + rng.normal(0, 0.4)), bool(a == b), (f"s{a}", f"s{b}")))
    return found


@pytest.mark.parametrize(("count", "whom"), [(2, "resamples of pairs"), (8, "resamples of 8 speakers")])
def test_few_speakers_have_an_interval_over_pairs(count, whom):
    rate, threshold = error_rate(pairs_of(count))
    assert whom in rate.method and rate.low < rate.value < rate.high and 0 < threshold < 1


def test_what_is_not_known_is_not_scored():
    assert error_rate([Pair("a", "b", 0.5, None, ("", ""))]) is None


def test_rows():
    assert Pair("a", "b", 0.51234567, True, ("", "")).rows() == [
        {"path": "a b", "a": "a", "b": "b", "score": 0.512346, "same": 1}
    ]
    assert "same" not in Pair("a", "b", 0.5, None, ("", "")).rows()[0]
