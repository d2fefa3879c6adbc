from dataclasses import replace

import numpy as np
import pytest

from resnetkit.verbs.verify import Pair, error_rate


def pairs_of(count: int) -> list[Pair]:
    """Of so many speakers, some of whom are harder to know again than others."""
    rng, found = np.random.default_rng(0), []
    for _ in range(900):
        a, b = rng.integers(0, count, 2)
        score = (a == b) * (0.3 + a / count) + rng.normal(0, 0.3)
        found.append(Pair("a", "b", float(score), bool(a == b), (f"s{a}", f"s{b}")))
    return found


@pytest.mark.parametrize(("count", "whom"), [(2, "of pairs: 2 speakers are too few"), (8, "resamples of 8 speakers")])
def test_few_speakers_have_an_interval_over_pairs(count, whom):
    rate, threshold = error_rate(pairs_of(count))
    assert whom in rate.method and rate.low < rate.value < rate.high and 0 < threshold < 1


def test_without_speakers_it_is_said_what_the_interval_is_of():
    nameless = [replace(pair, speakers=("", "")) for pair in pairs_of(4)]
    assert "tells nothing of others" in error_rate(nameless)[0].method


def test_over_speakers_the_interval_is_wider():
    found = [error_rate(pairs)[0] for pairs in (pairs_of(8), [replace(p, speakers=("", "")) for p in pairs_of(8)])]
    assert found[0].value == found[1].value and found[0].high - found[0].low > found[1].high - found[1].low


def test_what_is_not_known_is_not_scored():
    assert error_rate([Pair("a", "b", 0.5, None, ("", ""))]) is None


def test_rows():
    assert Pair("a", "b", 0.51234567, True, ("", "")).rows() == [
        {"path": "a b", "a": "a", "b": "b", "score": 0.512346, "same": 1}
    ]
    assert "same" not in Pair("a", "b", 0.5, None, ("", "")).rows()[0]
