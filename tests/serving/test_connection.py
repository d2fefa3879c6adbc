"""Raw sockets: what is no HTTP/1.1, what is too much of it, and who lets us wait."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers import Live, living

HOST = b"Host: localhost\r\n"
GET = b"GET /v2/health/live HTTP/1.1\r\n" + HOST
POST = b"POST /predict HTTP/1.1\r\n" + HOST + b"Content-Type: image/png\r\n"


@pytest.fixture(scope="module")
def hasty(trained: Path) -> Iterator[Live]:
    """A server whose patience is short, and whose bounds are narrow."""
    with living(
        trained,
        header_seconds=0.4,
        body_seconds=0.4,
        write_seconds=0.5,
        idle_seconds=1,
        max_bytes=200_000,
        max_chunks=1000,
    ) as live:
        yield live


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.") else 0


@pytest.mark.parametrize(
    "request_",
    [
        POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        POST + b"Content-Length: +3\r\n\r\nabc",
        POST + b"Content-Length: -3\r\n\r\nabc",
        POST + b"Content-Length: 0x3\r\n\r\nabc",
        POST + b"Content-Length: 99999999999999999999999\r\n\r\nabc",
        POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\nz\r\nabc\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nabc",
        GET.replace(b"\r\n", b"\n") + b"\n",
        GET + b"X-A: 1\r\n folded\r\n\r\n",
        GET + b"X-A : 1\r\n\r\n",
        GET + b"X\0A: 1\r\n\r\n",
        GET + b"X-A: 1\0\r\n\r\n",
        GET + b"no colon\r\n\r\n",
        GET + b": empty\r\n\r\n",
        GET + b"Host: other\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\n\r\n",
        b"GET /v2\r\n\r\n",
        b"GET /v2 HTTP/9.9\r\n" + HOST + b"\r\n",
        b"BREW /v2 HTTP/1.1\r\n" + HOST + b"\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"\0" * 100,
    ],
)
def test_what_is_no_request_is_refused_and_closed(server: Live, request_: bytes) -> None:
    """I25, I26."""
    answer = server.raw(request_, 3, end=True)
    assert 400 <= status(answer) < 500 or answer == b"", answer
    assert b"Traceback" not in answer and b"uvicorn" not in answer.lower()
    if b"\r\n\r\n" in answer and status(answer) == 400:
        assert set(json.loads(answer.partition(b"\r\n\r\n")[2])) <= {"error", "code", "request_id"}
    assert server.get("/v2/health/live").status == 200


def mutations(count: int) -> Iterator[bytes]:
    """Requests with bytes changed, left out, doubled and cut off."""
    rng = random.Random(0)
    good = POST + b"Content-Length: 20\r\nConnection: close\r\n\r\n" + b"\x89PNG" + bytes(16)
    for number in range(count):
        text = bytearray(good)
        for _ in range(rng.randint(1, 8)):
            at = rng.randrange(len(text))
            match number % 4:
                case 0:
                    text[at] = rng.randrange(256)
                case 1:
                    del text[at : at + rng.randint(1, 9)]
                case 2:
                    text[at:at] = text[at : at + 30]
                case _:
                    text[at:at] = bytes(rng.randrange(256) for _ in range(5))
        yield bytes(text)


def test_300_malformed_requests(server: Live) -> None:
    """The same process answers before and after, and never with a 500."""
    before = server.desk.pid
    for request in mutations(300):
        answer = server.raw(request, 2, end=True)
        assert status(answer) < 500, (request, answer)
    assert server.desk.pid == before and server.get("/v2/health/ready").status == 200
    assert server.desk.waiting == 0


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", {414, 431}),
        (GET + b"X-A: " + b"a" * 100_000 + b"\r\n\r\n", {431}),
        (GET + b"".join(b"X-%d: a\r\n" % n for n in range(1000)) + b"\r\n", {431}),
        (GET + b"X-A: " + b"a" * 400_000, {431, 408}),  # the parser tells of a header when it is complete
    ],
)
def test_headers_have_bounds(hasty: Live, request_: bytes, expected: set[int]) -> None:
    """I27."""
    assert status(hasty.raw(request_)) in expected


def test_a_body_over_the_limit_is_refused_before_it_is_read(hasty: Live) -> None:
    """I1, I28."""
    for more in (b"", b"Expect: 100-continue\r\n"):
        answer = hasty.raw(POST + more + b"Content-Length: 200001\r\n\r\n")
        assert status(answer) == 413 and b"connection: close" in answer.lower()


def test_a_body_without_a_length_is_counted(hasty: Live) -> None:
    """I2."""
    chunk = b"2710\r\n" + bytes(10_000) + b"\r\n"
    assert status(hasty.raw(POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 21 + b"0\r\n\r\n")) == 413


def test_a_million_chunks(hasty: Live) -> None:
    """I3: refused at the limit, whatever else would come."""
    answer = hasty.raw(POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 1_000_000)
    assert status(answer) in (400, 0)  # 0: the client was still sending when the connection ended
    small = hasty.raw(POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 1001 + b"0\r\n\r\n")
    assert status(small) == 400 and b"1,000 chunks" in small


def until_closed(live: Live, first: bytes, drip: bytes = b"") -> tuple[float, bytes]:
    """Seconds until the server ends a connection on which a client is slow, and what it said."""
    started, found = time.monotonic(), b""
    with socket.create_connection(("127.0.0.1", live.port), 20) as connection:
        connection.sendall(first)
        connection.settimeout(0.1)
        while time.monotonic() - started < 10:
            try:
                part = connection.recv(65536)
                if not part:
                    break
                found += part
            except TimeoutError:
                pass
            except ConnectionError:
                break
            with contextlib.suppress(OSError):
                connection.sendall(drip)
    return time.monotonic() - started, found


@pytest.mark.parametrize(
    ("first", "drip"),
    [
        (b"", b""),
        (b"GET /v2 HT", b""),
        (GET, b"X-A: 1\r\n"),
        (b"\r\n", b"\r\n"),
        (POST + b"Content-Length: 100000\r\n\r\nabc", b""),
        (POST + b"Content-Length: 100000\r\n\r\nabc", b"d"),
    ],
)
def test_slow_clients_are_left(hasty: Live, first: bytes, drip: bytes) -> None:
    """I6: headers and bodies that do not come, or byte by byte."""
    seconds, found = until_closed(hasty, first, drip)
    assert seconds < 4 and status(found) == 408
    deadline = time.monotonic() + 5
    while hasty.running.guard.held.visits and time.monotonic() < deadline:
        time.sleep(0.01)
    assert hasty.running.guard.held.visits == 0


def test_idle_connections_are_closed(hasty: Live) -> None:
    """I6."""
    seconds, found = until_closed(hasty, GET + b"\r\n")
    assert status(found) == 200 and seconds < 4


def test_a_reader_that_does_not_read(hasty: Live) -> None:
    """I6: an answer that nobody takes does not keep the connection."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", hasty.port))
        connection.sendall((b"GET /openapi.json HTTP/1.1\r\n" + HOST + b"\r\n") * 300)
        deadline = time.monotonic() + 8
        while hasty.running.server.server_state.connections and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not hasty.running.server.server_state.connections


def test_one_connection_too_many(trained: Path) -> None:
    """I29: told so, closed, and those that are there go on."""
    with living(trained, max_connections=5) as live:
        there = [socket.create_connection(("127.0.0.1", live.port), 5) for _ in range(5)]
        for connection in there:
            connection.sendall(GET[:20])
        time.sleep(0.2)
        assert status(live.raw(b"", 3)) == 503
        there[0].sendall(GET[20:] + b"Connection: close\r\n\r\n")
        assert status(there[0].recv(1000)) == 200
        for connection in there:
            connection.close()
        deadline = time.monotonic() + 5
        while live.get("/v2/health/live").status != 200 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert live.get("/v2/health/live").status == 200


def test_two_requests_on_one_connection(server: Live) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
        connection.sendall(GET + b"\r\n" + GET + b"Connection: close\r\n\r\n")
        found = b""
        while part := connection.recv(65536):
            found += part
    assert found.count(b"HTTP/1.1 200 OK") == 2


def test_what_is_on_its_way_when_the_server_ends_is_answered(trained: Path) -> None:
    """I21: a connection that is idle as the server ends, and whose next request is sent in that moment."""
    with (
        living(trained) as live,
        socket.create_connection(("127.0.0.1", live.port), 10) as client,
        client.makefile("rb") as answers,
    ):
        for moment in ("before", "as it ends"):
            if moment == "as it ends":
                for connection in list(live.running.server.server_state.connections):
                    live.loop.call_soon_threadsafe(connection.shutdown)
            client.sendall(GET + b"\r\n")
            assert answers.readline() == b"HTTP/1.1 200 OK\r\n"
            while answers.readline() != b"\r\n":
                pass
            assert json.loads(answers.read(14)) == {"live": True}
        assert answers.read() == b""
