"""What a server says of its work: one JSON object a line on stderr. No file names, no content, no addresses."""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from collections.abc import Mapping
from typing import Any


def log(event: str, values: Mapping[str, Any], level: str = "info") -> None:
    """One line; whatever a value holds, it stays on it."""
    line = {"time": round(time.time(), 3), "level": level, "event": event, **values}
    print(json.dumps(line, default=str), file=sys.stderr, flush=True)


class JsonLines(logging.Handler):
    """What the library remarks, as lines like all others."""

    def emit(self, record: logging.LogRecord) -> None:
        """One remark."""
        log("note", {"text": record.getMessage()}, record.levelname.lower())


def log_bug(error: BaseException, request: str) -> None:
    """An exception that should not have been, with where it came from."""
    trace = "".join(traceback.format_exception(error))
    log("bug", {"request": request, "trace": trace[-4000:]}, "error")
