"""The tree of errors: as drawn, with its exit codes, each in one line."""

import re
import signal
from pathlib import Path

import pytest

from resnetkit import errors
from resnetkit.errors import DataError, Interrupted, ModelError, NetworkError, ResnetkitError, UsageError, printable

TREE = {name: int(code) for name, code in re.findall(r"^[├└]── (\w+) +(\d+)", errors.__doc__, re.MULTILINE)}


def make(error):
    return error(signal.SIGINT) if error is Interrupted else error("what")


def test_tree_names_every_class_and_code():
    assert errors.__doc__.splitlines()[2] == "ResnetkitError"
    assert {error.__name__: make(error).exit_code for error in ResnetkitError.__subclasses__()} == TREE
    assert len(set(TREE.values())) == len(TREE), "one code, one meaning"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("ResnetkitError", 1),
        ("UsageError", 2),
        ("DataError", 3),
        ("IncompleteError", 4),
        ("ModelError", 5),
        ("ResourceError", 6),
        ("DivergedError", 7),
        ("NetworkError", 8),
    ],
)
def test_exit_code(name, code):
    assert getattr(errors, name)("what").exit_code == code


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_has_the_code_of_its_signal(signum, code):
    error = Interrupted(signum, path="runs/a", fix="resnetkit train --resume")
    assert error.exit_code == code
    assert str(error) == "runs/a: interrupted (resnetkit train --resume)"
    assert Interrupted(signal.SIGINT).exit_code == 130


def test_usage_error_is_a_value_error():
    assert [e.__name__ for e in ResnetkitError.__subclasses__() if issubclass(e, ValueError)] == ["UsageError"]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UsageError("no"), "no"),
        (DataError("is empty", path="a b/c"), "a b/c: is empty"),
        (ModelError("corrupt", path=Path("m"), fix="copy it again"), "m: corrupt (copy it again)"),
        (NetworkError("no network", fix="copy the file"), "no network (copy the file)"),
        (DataError("is empty", path="a\nb\udcff"), r"a\nb\udcff: is empty"),
        (DataError("is empty", path=""), ": is empty"),
    ],
)
def test_one_line(error, line):
    assert str(error) == line


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("plain/ü 猫.jpg", "plain/ü 猫.jpg"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        (b"\x80.jpg".decode("utf-8", "surrogateescape"), r"\udc80.jpg"),
        ("rtl\u202e\u2028", r"rtl\u202e\u2028"),
        (Path("x") / "y\n", "x/y\\n"),
    ],
)
def test_printable(path, text):
    assert printable(path) == text
    assert printable(path).encode("utf-8").isascii() == text.isascii()
