"""What can go wrong for a user: one tree, in which each error knows its wording and its exit code.

ResnetkitError
├── UsageError       2  flags or settings
├── DataError        3  the data cannot be used
├── IncompleteError  4  finished, but some items failed or a gate was not met
├── ModelError       5  a model or a weights file is refused
├── ResourceError    6  disk, permission, memory, a missing optional package
├── DivergedError    7  the loss is no longer finite
├── NetworkError     8  a download failed or its hash is wrong
└── Interrupted      130 SIGINT, 143 SIGTERM, after a clean save
"""

from __future__ import annotations

import os


def printable(path: str | os.PathLike[str]) -> str:
    r"""A path as it may stand in one line of text: control characters and undecodable bytes escaped (\n, \udc80)."""
    text = os.fspath(path)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


class ResnetkitError(Exception):
    """An error for the user, in one line: `path: what (fix)`.

    Args:
        what: what is wrong, without a full stop.
        path: the file or folder concerned, if any.
        fix: the way out, in the imperative.
    """

    exit_code = 1

    def __init__(self, what: str, *, path: str | os.PathLike[str] | None = None, fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.path = None if path is None else os.fspath(path)
        self.fix = fix

    def __str__(self) -> str:
        where = f"{printable(self.path)}: " if self.path is not None else ""
        return f"{where}{self.what}" + (f" ({self.fix})" if self.fix else "")


class UsageError(ResnetkitError, ValueError):
    """A flag, a setting or an argument that cannot be."""

    exit_code = 2


class DataError(ResnetkitError):
    """Data that cannot be used."""

    exit_code = 3


class IncompleteError(ResnetkitError):
    """Work that is finished, but with items that failed or a gate that was not met."""

    exit_code = 4


class ModelError(ResnetkitError):
    """A model or a weights file that is refused: corrupt, untrusted, or of another architecture."""

    exit_code = 5


class ResourceError(ResnetkitError):
    """Something the machine does not have: space, permission, memory, an optional package."""

    exit_code = 6


class DivergedError(ResnetkitError):
    """A training whose loss is no longer finite."""

    exit_code = 7


class NetworkError(ResnetkitError):
    """A download that failed, or whose content is not what was announced."""

    exit_code = 8


class Interrupted(ResnetkitError):
    """Stopped by a signal after a clean save; the exit code is 128 + the signal's number."""

    def __init__(self, signum: int, *, path: str | os.PathLike[str] | None = None, fix: str = "") -> None:
        super().__init__("interrupted", path=path, fix=fix)
        self.exit_code = 128 + signum
