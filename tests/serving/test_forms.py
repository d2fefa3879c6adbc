"""The files of a form: in their order, in memory, in linear time, and whatever they are called."""

from __future__ import annotations

import time

import pytest

from resnetkit.serving.forms import form_files, media_type, sources_of
from resnetkit.serving.limits import Limits
from resnetkit.serving.refusal import Refused
from servers import form_of

LIMITS = Limits(max_files=5)


def test_files_in_their_order() -> None:
    files = [b"one", b"two\r\n--b0x\r\n", bytes(range(256)) * 500, b"--b0 inside", b"\r\n\r\n"]
    kind, body = form_of(files)
    assert form_files(kind, body, LIMITS) == files


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "a\0b", "x" * 10_000, "<img src=x onerror=alert(1)>", "\udcff", ""]
)
def test_names_of_files_are_never_looked_at(name: str) -> None:
    """I10."""
    kind, body = form_of([b"content"], names=[name])
    assert form_files(kind, body, LIMITS) == [b"content"]


def refused(kind: str, body: bytes, status: int, text: str) -> None:
    started = time.perf_counter()
    with pytest.raises(Refused, match=text) as caught:
        sources_of(kind, body, LIMITS)
    assert caught.value.status == status
    assert time.perf_counter() - started < 5


KIND, BODY = form_of([b"x" * 100])


@pytest.mark.parametrize(
    ("kind", "body", "status", "text"),
    [
        ("multipart/form-data", BODY, 400, "boundary"),
        ("multipart/form-data; boundary=" + "b" * 10_000, BODY, 400, "boundary"),
        (KIND, BODY[:-8], 400, "cut short"),
        (KIND, BODY[:20], 400, "cut short|parts"),
        (KIND, b"", 400, "cut short|no file"),
        (KIND, b"--b0--\r\n", 400, "no file|parts|cut short"),
        (KIND, b"p" * 2**20 + BODY, 400, "parts"),
        (*form_of([b"x"] * 10_000), 413, "more than 5 parts"),
        (KIND, b"--b0\r\n" + b"X-A: " + b"a" * 100_000 + b"\r\n\r\nx\r\n--b0--\r\n", 400, "headers"),
        (KIND, b"--b0\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b0--\r\n", 400, "no name"),
        (KIND, b"--b0\r\n\r\nx\r\n--b0--\r\n", 400, "no name"),
        (KIND, b'--b0\r\nContent-Disposition: form-data; name="top"\r\n\r\n3\r\n--b0--\r\n', 400, "not a file"),
        (*form_of([b""]), 422, "empty"),
        (*form_of([b"x", b""]), 422, "file 2 is empty"),
        ("application/octet-stream", b"", 422, "empty"),
    ],
)
def test_malformed_forms(kind: str, body: bytes, status: int, text: str) -> None:
    """I8, I9."""
    refused(kind, body, status, text)


def test_a_long_epilogue_is_passed_over() -> None:
    """I8: RFC 2046 allows one."""
    assert form_files(KIND, BODY + b"e" * 2**20, LIMITS) == [b"x" * 100]


def test_a_form_in_a_form_is_a_file() -> None:
    """I8: it is content like any other, and so no picture."""
    _, inner = form_of([b"x"], boundary="inner")
    kind, body = form_of([inner])
    assert form_files(kind, body, LIMITS) == [inner]


@pytest.mark.parametrize("text", ["Image/PNG; q=1", " image/png"])
def test_media_type(text: str) -> None:
    assert media_type(text) == "image/png"
