"""The log: one JSON object a line, whatever is in it."""

from __future__ import annotations

import json
import logging

import pytest

from resnetkit.serving.log import JsonLines, log, log_bug


def test_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """I32."""
    log("request", {"a": 'x"\n{"level": "fake"}\u2028', "b": b"bytes"})
    logger = logging.Logger("of its own")
    logger.addHandler(JsonLines())
    logger.warning("%s\nsaid", "somebody")
    try:
        raise KeyError("why")
    except KeyError as error:
        log_bug(error, "id-1")
    first, second, third = map(json.loads, capsys.readouterr().err.splitlines())
    assert first["event"] == "request" and first["level"] == "info"
    assert (second["text"], second["level"]) == ("somebody\nsaid", "warning")
    assert third["request"] == "id-1" and "KeyError: 'why'" in third["trace"]
