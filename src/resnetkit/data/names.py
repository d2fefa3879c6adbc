"""Many strings in two arrays: a million paths in some 35 MB instead of 100, and one object instead of a million."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray


class Names(Sequence[str]):
    """A frozen sequence of strings; undecodable bytes of file names (surrogates) survive."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._text = bytearray()
        ends = array("q")
        for name in names:
            self._text += name.encode("utf-8", "surrogatepass")
            ends.append(len(self._text))
        self._ends = np.array(ends, np.int64)

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> Names: ...
    def __getitem__(self, row: int | slice) -> str | Names:
        if isinstance(row, slice):
            return self.take(np.arange(len(self))[row])
        row = range(len(self))[row]
        start = int(self._ends[row - 1]) if row else 0
        return self._text[start : int(self._ends[row])].decode("utf-8", "surrogatepass")

    def take(self, rows: NDArray[np.integer]) -> Names:
        """The names of some rows, in their order."""
        return Names(self[int(row)] for row in rows)

    def __repr__(self) -> str:
        return f"Names({len(self)})"
