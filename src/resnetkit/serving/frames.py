"""What server and worker say to each other: JSON and bytes, each with its length before it. Never a pickle."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Iterator, Mapping
from typing import Any

LENGTHS = struct.Struct("!IQ")  # of the JSON, and of the bytes after it
Frame = tuple[dict[str, Any], bytes]


def packed(head: Mapping[str, Any], body: bytes = b"") -> tuple[bytes, bytes]:
    """A frame as its two parts, so that a large body need not be copied."""
    text = json.dumps(head, allow_nan=False).encode("utf-8")
    return LENGTHS.pack(len(text), len(body)) + text, body


async def receive(reader: asyncio.StreamReader) -> Frame:
    """The next frame.

    Raises:
        asyncio.IncompleteReadError: the other side has gone.
    """
    head, body = LENGTHS.unpack(await reader.readexactly(LENGTHS.size))
    return json.loads(await reader.readexactly(head)), await reader.readexactly(body)


def frames(connection: socket.socket) -> Iterator[Frame]:
    """Every frame until the other side has gone."""
    with connection.makefile("rb") as file:
        while len(lengths := file.read(LENGTHS.size)) == LENGTHS.size:
            head, body = LENGTHS.unpack(lengths)
            text, content = file.read(head), file.read(body)
            if len(text) < head or len(content) < body:
                return
            yield json.loads(text), content
