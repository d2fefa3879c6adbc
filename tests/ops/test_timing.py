"""Medians and percentiles of times."""

from __future__ import annotations

import pytest

from resnetkit.ops.timing import percentile, timing


@pytest.mark.parametrize(
    ("values", "share", "found"),
    [
        ([3.0, 1.0, 2.0], 0.5, 2.0),
        ([4.0, 1.0, 2.0, 3.0], 0.5, 2.0),
        ([float(i) for i in range(1, 101)], 0.99, 99.0),
        ([float(i) for i in range(1, 51)], 0.99, 50.0),
        ([7.0], 0.99, 7.0),
    ],
)
def test_percentile(values: list[float], share: float, found: float) -> None:
    assert percentile(values, share) == found


def test_timing() -> None:
    """The rate is that of the middle round: the one that another process has slowed does not count."""
    found = timing([[0.1, 0.1], [0.2], [5.0]], 4)
    assert found.images_per_second == pytest.approx(20) and found.calls == 4
    assert found.p50 == pytest.approx(100) and found.p99 == pytest.approx(5000)


def test_nothing_to_tell() -> None:
    for rounds in ([[]], [[0.1], []]):
        with pytest.raises(ValueError, match="without calls"):
            timing(rounds, 1)
    with pytest.raises(ValueError, match="of nothing"):
        percentile([], 0.5)
