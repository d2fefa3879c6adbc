"""Many strings in two arrays: each comes back as it was."""

import os

import pytest

from resnetkit.data.names import Names

TEXTS = ["", "a", "ü/🐈.png", "two\nlines", os.fsdecode(b"\xff\x80.png"), "x" * 5000, ""]


def test_names_come_back():
    names = Names(TEXTS)
    assert list(names) == TEXTS and len(names) == 7 and names[-2] == "x" * 5000
    assert [os.fsencode(name) for name in names] == [os.fsencode(name) for name in TEXTS]
    assert list(names[1:4]) == TEXTS[1:4] and names.index("two\nlines") == 3 and "b" not in names


def test_nothing():
    assert list(Names()) == [] and len(Names(iter(()))) == 0
    with pytest.raises(IndexError):
        Names(["a"])[1]


def test_some():
    names = Names(str(i) for i in range(1000))
    assert list(names.take(list(range(999, 0, -7)))) == [str(i) for i in range(999, 0, -7)]
