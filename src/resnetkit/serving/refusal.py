"""What a server answers instead of an answer: a status, a word for programs, and one line for people."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Refused(Exception):
    """A request that gets no answer. Its text names the field, never a path or a class of ours.

    Attributes:
        status: of HTTP, as docs/serve.md lists them.
        code: the same in a word, for programs.
        what: one line.
        retry_after: seconds after which trying again may help; 0 where it does not.
        close: whether the connection cannot be used any further.
    """

    status: int
    code: str
    what: str
    retry_after: int = 0
    close: bool = False

    def __str__(self) -> str:
        return self.what


def bad(what: str) -> Refused:
    """A request that is malformed."""
    return Refused(400, "bad_request", what)


def too_large(what: str, *, close: bool = False) -> Refused:
    """More than there may be of something."""
    return Refused(413, "too_large", what, close=close)


def busy(what: str, after: int = 1) -> Refused:
    """A server that has no room now, or is not ready."""
    return Refused(503, "unavailable", what, retry_after=after)
