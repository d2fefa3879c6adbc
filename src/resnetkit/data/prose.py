"""Bytes to text without guessing: UTF-8, or what a byte order mark announces; every complaint names the line."""

from __future__ import annotations

import codecs
import os

from resnetkit.data.formats import Source, name_of, opened, reason
from resnetkit.errors import DataError

MAX_BYTES = 2**31  # of a file
MAX_CHARACTERS = 1_000_000  # of one text
UTF8 = "save it as UTF-8"
MARKS = (  # that of UTF-32 begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read(source: Source) -> str:
    """The text in a file.

    Args:
        source: a path, a file's bytes, or a member of an archive.

    Raises:
        DataError: it cannot be read, is too large, is in another encoding, or is no text.
    """
    name = name_of(source)
    try:
        with opened(source) as file:
            size = file.seek(0, os.SEEK_END)
            if size > MAX_BYTES:
                raise DataError(f"is of {size:,} bytes, over {MAX_BYTES:,}", path=name, fix="split it")
            file.seek(0)
            content = file.read()
    except OSError as error:
        raise DataError(f"cannot be read: {reason(error)}", path=name, fix="check its path and permissions") from error
    return decode(content, name)


def decode(content: bytes, name: str) -> str:
    """The text that bytes are; `name` is what they are called in a message.

    Raises:
        DataError: they are not what they announce, or hold a NUL, as no text does.
    """
    encoding = next((known for mark, known in MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding.startswith("utf-8"):
            start = error.start + (3 if encoding == "utf-8-sig" else 0)  # counted without the mark
            line, byte = content.count(b"\n", 0, start) + 1, content[start]
            what = f"line {line} is not UTF-8: byte 0x{byte:02x} at {start:,}"
        else:
            what = f"is not the {encoding.upper()} that its first bytes announce: {error.reason} at {error.start:,}"
        raise DataError(what, path=name, fix=f"{UTF8}; it may be Latin-1 or Windows-1252 now") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(f"line {line} holds a NUL", path=name, fix=f"{UTF8}, or remove it if it is no text")
    return text


def refuse_odd(text: object, name: str, line: int | None = None) -> str:
    """A text that can be used, as it is.

    Raises:
        DataError: it is none, too long, or holds half of a character (a lone surrogate, which JSON can write).
    """
    where = "" if line is None else f"line {line} "
    if not isinstance(text, str):
        what = f"{where}has a {type(text).__name__} where a text is expected"
        raise DataError(what, path=name, fix='write it in quotes, as "..."')
    if len(text) > MAX_CHARACTERS:
        what = f"{where}has a text of {len(text):,} characters, over {MAX_CHARACTERS:,}"
        raise DataError(what, path=name, fix="cut it into parts")
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise DataError(f"{where}holds half of a character (a lone surrogate)", path=name, fix=UTF8)
    return text
