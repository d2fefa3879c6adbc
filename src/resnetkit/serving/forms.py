"""The files in the body of a request: itself, or the parts of a form. In memory, and nobody looks at their names."""

from __future__ import annotations

from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from resnetkit.serving.limits import Limits
from resnetkit.serving.refusal import Refused, bad, too_large

FORM, OCTETS, JSON = "multipart/form-data", "application/octet-stream", "application/json"
MEDIA = {"images": "image/*", "sounds": "audio/*", "texts": "text/*"}  # Content-Types of a modality's files
MAX_PART_HEADER = 16 * 2**10
MAX_BOUNDARY = 70  # RFC 2046


def media_type(header: str) -> str:
    """Of a Content-Type, in lower case and without its parameters."""
    return header.partition(";")[0].strip().lower()


def sources_of(header: str, body: bytes, limits: Limits) -> list[bytes]:
    """The files in the body of POST /predict: itself, or the parts of a form.

    Raises:
        Refused: it is none, or not as it should be.
    """
    files = form_files(header, body, limits) if media_type(header) == FORM else [body]
    for number, content in enumerate(files, 1):
        if not content:
            raise Refused(422, "empty", f"file {number} is empty" if len(files) > 1 else "the file is empty")
    return files


@dataclass
class _Form:
    """What a parser of forms has found so far."""

    limits: Limits
    files: list[bytes] = field(default_factory=list)
    part: bytearray = field(default_factory=bytearray)
    header: bytearray = field(default_factory=bytearray)
    value: bytearray = field(default_factory=bytearray)
    disposition: bytes = b""
    parts: int = 0
    ended: bool = False

    def begin(self) -> None:
        self.parts += 1
        if self.parts > self.limits.max_files:
            raise too_large(f"the form has more than {self.limits.max_files:,} parts")
        self.part, self.disposition = bytearray(), b""

    def name(self, data: bytes, start: int, end: int) -> None:
        self.header += data[start:end]

    def content(self, data: bytes, start: int, end: int) -> None:
        self.value += data[start:end]

    def header_end(self) -> None:
        if self.header.lower() == b"content-disposition":
            self.disposition = bytes(self.value)
        self.header, self.value = bytearray(), bytearray()

    def data(self, data: bytes, start: int, end: int) -> None:
        self.part += data[start:end]

    def part_end(self) -> None:
        kind, options = parse_options_header(self.disposition)
        if kind != b"form-data" or b"name" not in options:
            raise bad("a part of the form has no name")
        if b"filename" not in options:
            raise bad("a part of the form is not a file: options stand in the address, as ?top=3")
        self.files.append(bytes(self.part))

    def end(self) -> None:
        self.ended = True


def form_files(header: str, body: bytes, limits: Limits) -> list[bytes]:
    """The files of a form, in their order and in memory; what they are called is forgotten."""
    boundary = parse_options_header(header)[1].get(b"boundary", b"")
    if not 1 <= len(boundary) <= MAX_BOUNDARY:
        raise bad("Content-Type has no boundary of 1 to 70 characters")
    form = _Form(limits)
    parser = MultipartParser(
        boundary,
        {
            "on_part_begin": form.begin,
            "on_header_field": form.name,
            "on_header_value": form.content,
            "on_header_end": form.header_end,
            "on_part_data": form.data,
            "on_part_end": form.part_end,
            "on_end": form.end,
        },
        max_header_size=MAX_PART_HEADER,
    )
    try:
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError, IndexError) as error:
        raise bad("the form cannot be read: its parts or their headers are not as they should be") from error
    if not form.ended:
        raise bad("the form is cut short: its last boundary is missing")
    if not form.files:
        raise bad("the form holds no file")
    return form.files
