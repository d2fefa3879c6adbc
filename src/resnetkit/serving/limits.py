"""What a server bounds, and where the bounds lie: all of `--set serve.key=value`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from resnetkit.errors import UsageError
from resnetkit.recipe import refuse_unknown
from resnetkit.settings import STRICT

Count = Annotated[int, Field(ge=1, le=1_000_000)]
Bytes = Annotated[int, Field(ge=1, le=2**32)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]


@dataclass(frozen=True, config=STRICT)
class Limits:
    """Bounds of a server: sizes in bytes, times in seconds."""

    max_bytes: Bytes = 64 * 2**20
    """Of a body; it stays in memory, and is forgotten with its answer."""
    max_json: Bytes = 16 * 2**20
    """Of JSON, which takes ten times as much memory as it is long."""
    max_files: Count = 64
    """Files of one request, or rows of its tensors."""
    max_pixels: Annotated[int, Field(ge=64, le=205_000_000)] = 50_000_000
    """Of an image."""
    max_chunks: Count = 65_536
    """Of a body without a length."""
    max_header: Bytes = 32 * 2**10
    """Of all headers together."""
    max_headers: Count = 100
    max_url: Bytes = 8 * 2**10
    max_connections: Count = 512
    """At a time; fewer where the process may open fewer files."""
    max_queue: Count = 64
    """Requests of a model that wait or are being answered."""
    max_waiting: Bytes = 256 * 2**20
    """Bytes of all bodies at a time."""
    rate: Annotated[float, Field(ge=0)] = 0
    """Requests a second of one client, on the average over ten seconds; 0: any number."""
    header_seconds: Seconds = 10
    """From the first byte of a request, or from its connection, to the end of its headers."""
    body_seconds: Seconds = 30
    """For a body, and as long again for each 2 MB of it."""
    write_seconds: Seconds = 30
    """In which a client has to take an answer."""
    idle_seconds: Seconds = 5
    """Between two requests."""
    answer_seconds: Seconds = 30
    """From the last byte of a request to its answer."""
    drain_seconds: Seconds = 25
    """After SIGTERM, for what was accepted before."""
    linger_seconds: Annotated[float, Field(ge=0, le=60)] = 1
    """After SIGTERM, in which newcomers are told to go elsewhere before nobody listens any more."""
    batch: Annotated[int, Field(ge=1, le=256)] = 32
    """Images of several requests that are inferred together, where that is faster than one by one."""
    batch_seconds: Annotated[float, Field(ge=0, le=1)] = 0.02
    """For which a request waits for others to join it; while nothing else is inferred, it does not wait."""


def limits_from(settings: Mapping[str, Any]) -> Limits:
    """The limits of a server, by dotted key.

    Raises:
        UsageError: an unknown key (with the nearest known one), or a value that cannot be.
    """
    known = [f"serve.{name}" for name in Limits.__dataclass_fields__]
    for key in settings:
        refuse_unknown(key, known)
    try:
        return TypeAdapter(Limits).validate_python({key.partition(".")[2]: value for key, value in settings.items()})
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"serve.{first['loc'][0]} = {first['input']!r}: {first['msg']}", fix="correct it") from error
