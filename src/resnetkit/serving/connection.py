"""A connection with deadlines and bounds of its own, which uvicorn does not have: for headers, bodies and slow readers.

The parser is llhttp, Node's, in its strict mode: what is ambiguous is refused there. An error in one of its callbacks
ends the connection with a 400; here it is told why, in the form of all our errors.
"""

from __future__ import annotations

import asyncio
import json
import time
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from resnetkit.serving.limits import Limits
from resnetkit.serving.refusal import Refused, bad, busy, too_large

GRACE = 0.1  # seconds in which a request that is on its way when the server ends has come
SLACK = 64 * 2**10  # bytes of a body that nobody reads any more, beyond what it may be


def raw_response(refusal: Refused) -> bytes:
    """A whole response for a connection that ends with it."""
    body = json.dumps({"error": refusal.what, "code": refusal.code}).encode("ascii")
    again = f"retry-after: {refusal.retry_after}\r\n" if refusal.retry_after else ""
    head = (
        f"HTTP/1.1 {refusal.status} {HTTPStatus(refusal.status).phrase}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nx-content-type-options: nosniff\r\n{again}connection: close\r\n\r\n"
    )
    return head.encode("ascii") + body


class Connection(HttpToolsProtocol):
    """One connection of a client."""

    limits = Limits()
    most = Limits().max_connections

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has come: one too many is told so at once."""
        super().connection_made(transport)
        self._refusal: Refused | None = None
        self._reading: str = "headers"
        self._since = time.monotonic()
        self._writing: float | None = None
        self._headers = self._size = self._chunks = self._body = 0
        if len(self.connections) > self.most:
            self._end(busy("too many connections"))

    def _end(self, refusal: Refused) -> None:
        """Say why, if no answer has begun, and close."""
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            self.transport.write(raw_response(refusal))
        self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Bytes of a client; what came before the headers' end counts against their bound."""
        if self.transport.is_closing() or self.parser is None:
            return
        if not self._reading and (self.cycle is None or self.cycle.response_complete):
            self._reading, self._since = "headers", time.monotonic()  # be it a mere line break, which begins nothing
        if self._reading == "headers":
            self._headers += len(data)
            # one read may hold a whole request, so only what is still unfinished after it is known to be too much
        super().data_received(data)
        if self._reading == "headers" and self._headers > self.limits.max_header + self.limits.max_url:
            self._end(Refused(431, "headers_too_large", "the headers are too long"))

    def send_400_response(self, msg: str) -> None:
        """What the parser, or one of the bounds below, has refused."""
        self._end(self._refusal or bad("this is not a request of HTTP/1.1"))

    def _refuse(self, refusal: Refused) -> None:
        """End the request from within the parser, which turns any exception into `send_400_response`."""
        self._refusal = refusal
        raise refusal

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._reading, self._since = "headers", time.monotonic()
        self._headers = self._size = self._chunks = self._body = 0

    def on_url(self, url: bytes) -> None:
        """A piece of the address."""
        super().on_url(url)
        if len(self.url) > self.limits.max_url:
            self._refuse(Refused(414, "url_too_long", f"the address is over {self.limits.max_url:,} bytes"))

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or one that follows a body in chunks."""
        super().on_header(name, value)
        self._size += len(name) + len(value) + 4
        if len(self.headers) > self.limits.max_headers or self._size > self.limits.max_header:
            most = f"{self.limits.max_headers:,} headers or {self.limits.max_header:,} bytes of them"
            self._refuse(Refused(431, "headers_too_large", f"more than {most}"))

    def on_headers_complete(self) -> None:
        """From here on it is the body's time that counts."""
        self._reading, self._since = "body", time.monotonic()
        super().on_headers_complete()

    def on_chunk_header(self) -> None:
        """One chunk more of a body without a length."""
        self._chunks += 1
        if self._chunks > self.limits.max_chunks:
            self._refuse(bad(f"the body has more than {self.limits.max_chunks:,} chunks"))

    def on_body(self, body: bytes) -> None:
        """A piece of a body; also of one that is not read any more, because it has its answer already."""
        self._body += len(body)
        if self._body > self.limits.max_bytes + SLACK:
            self._refuse(too_large(f"the body is over {self.limits.max_bytes:,} bytes"))
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The last byte of a request."""
        super().on_message_complete()
        answered = self.cycle is None or self.cycle.response_complete  # a body that nobody wanted any more
        self._reading, self._since = "headers" if answered else "", time.monotonic()

    def body_seconds(self) -> float:
        """Until when, from its first byte on, a body of the length that has come so far has to be there."""
        return self.limits.body_seconds * (1 + self._body / 2_000_000)

    def shutdown(self) -> None:
        """The server ends: what is on its way to it in this moment still has an answer."""
        self.loop.call_later(GRACE, super().shutdown)

    def overdue(self, now: float) -> None:
        """Close the connection if its client lets us wait for too long."""
        if self.transport.get_write_buffer_size():
            self._writing = self._writing or now
            if now - self._writing > self.limits.write_seconds:
                self.transport.abort()
            return
        self._writing = None
        if self.transport.is_closing():
            return
        waited = now - self._since
        if self._reading == "headers" and waited > self.limits.header_seconds:
            self._end(Refused(408, "timeout", "the headers did not come in time"))
        elif self._reading == "body" and waited > self.body_seconds():
            self._end(Refused(408, "timeout", "the body did not come in time"))


async def watch(connections: set[Any], seconds: float = 0.5) -> None:
    """Look after all connections, for ever."""
    while True:
        await asyncio.sleep(seconds)
        now = time.monotonic()
        for connection in list(connections):
            if isinstance(connection, Connection):
                connection.overdue(now)
