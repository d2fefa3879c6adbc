"""COCO's run lengths of a binary mask, and the text they are packed into (pycocotools, maskApi.c)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def runs(mask: NDArray[np.bool_]) -> list[int]:
    """Lengths of the runs of zeros, ones, zeros, ... of a mask [h, w], column by column; the first may be 0."""
    flat = np.asarray(mask, bool).ravel(order="F")
    if not flat.size:
        return [0]
    ends = np.append(np.flatnonzero(flat[1:] != flat[:-1]) + 1, flat.size)
    lengths: list[int] = np.diff(ends, prepend=0).tolist()
    return [0, *lengths] if flat[0] else lengths


def from_runs(lengths: Sequence[int], height: int, width: int) -> NDArray[np.bool_]:
    """The mask [height, width] of run lengths.

    Raises:
        ValueError: they are negative, or do not add up to height times width.
    """
    if min(lengths, default=0) < 0 or sum(lengths) != height * width:
        raise ValueError(f"runs of {sum(lengths)} pixels are no mask of {height} x {width}")
    ones = np.arange(len(lengths)) % 2 == 1
    return np.repeat(ones, lengths).reshape((height, width), order="F")


def encode(mask: NDArray[np.bool_]) -> str:
    """A mask [h, w] as text, see `packed`."""
    return packed(runs(mask))


def packed(lengths: Sequence[int]) -> str:
    """Run lengths as text: each, from the fourth on less the one two before it, in digits of 5 bits from "0"."""
    text = []
    for at, length in enumerate(lengths):
        value, more = length - (lengths[at - 2] if at > 2 else 0), True
        while more:
            digit = value & 31
            value >>= 5
            # the sign is the highest bit of the last digit
            more = value != (-1 if digit & 16 else 0)
            text.append(chr(48 + (digit | 32 if more else digit)))
    return "".join(text)


def decode(text: str, height: int, width: int) -> NDArray[np.bool_]:
    """The mask [height, width] of a text.

    Raises:
        ValueError: it is none.
    """
    return from_runs(unpacked(text), height, width)


def unpacked(text: str) -> list[int]:
    """The run lengths of a text.

    Raises:
        ValueError: it is none.
    """
    lengths: list[int] = []
    value = shift = 0
    for sign in text:
        digit = ord(sign) - 48
        if not 0 <= digit < 64 or shift > 60:
            raise ValueError(f"{sign!r} is no digit of run lengths")
        value |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            continue
        if digit & 16:
            value |= -1 << shift
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("run lengths that are cut short")
    return lengths
