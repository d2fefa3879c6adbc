"""Limits: settings of a server, by dotted key."""

from __future__ import annotations

import pytest

from resnetkit.errors import UsageError
from resnetkit.serving.limits import Limits, limits_from


def test_settings() -> None:
    assert limits_from({}) == Limits()
    assert limits_from({"serve.max_queue": 7, "serve.rate": 2.5}) == Limits(max_queue=7, rate=2.5)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"serve.max_queu": 1}, "the nearest is 'serve.max_queue'"),
        ({"optim.lr": 1}, "there is no setting"),
        ({"serve.max_bytes": 0}, "serve.max_bytes = 0"),
        ({"serve.body_seconds": float("nan")}, "serve.body_seconds"),
        ({"serve.batch": "many"}, "serve.batch = 'many'"),
    ],
)
def test_what_cannot_be(settings: dict[str, object], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        limits_from(settings)
