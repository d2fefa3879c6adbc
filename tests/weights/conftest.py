"""A local server that does what a test tells it to, right or wrong."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

CONTENT = random.Random(0).randbytes(300_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()
NAME = f"net-{DIGEST[:8]}.pth"


class Request(BaseHTTPRequestHandler):
    """One request, with the wrong things a server can do."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.close_connection = True
        site = self.server.site
        site.requests.append((self.command, self.path, dict(self.headers)))
        with contextlib.suppress(ConnectionError, TimeoutError):
            site.answer(self)

    do_HEAD = do_CONNECT = do_POST = do_PUT = do_GET

    def body(self) -> bytes:
        """What was sent, in one piece or in chunks."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = b""
        while size := int(self.rfile.readline(), 16):
            chunks += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return chunks

    def send_json(self, value: object, status: int = 200, **headers: object) -> None:
        self.send(json.dumps(value).encode(), status, Content_Type="application/json", **headers)

    def head(self, status: int = 200, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.send_header("Connection", "close")
        self.end_headers()

    def send(self, content: bytes = CONTENT, status: int = 200, **headers: object) -> None:
        self.head(status, Content_Length=len(content), **headers)
        if self.command != "HEAD":
            self.wfile.write(content)

    def send_range(self, content: bytes = CONTENT, tag: str = '"a"', **headers: object) -> None:
        """As a good server: from the asked byte on where If-Range is the present tag, all of it otherwise."""
        first = self.first_byte()
        if first is None or self.headers["If-Range"] != tag:
            self.send(content, ETag=tag, **headers)
        elif first >= len(content):
            self.send(b"", 416, Content_Range=f"bytes */{len(content)}")
        else:
            span = f"bytes {first}-{len(content) - 1}/{len(content)}"
            self.send(content[first:], 206, ETag=tag, Content_Range=span, **headers)

    def first_byte(self) -> int | None:
        asked = self.headers.get("Range")
        return int(asked.removeprefix("bytes=").rstrip("-")) if asked else None

    def cut(self, after: int, reset: bool = False) -> None:
        """Promise all, send some, and end the connection."""
        self.head(Content_Length=len(CONTENT), ETag='"a"')
        self.wfile.write(CONTENT[:after])
        self.wfile.flush()
        if reset:
            time.sleep(0.2)  # a reset discards what the other side has not read yet
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())


class Site:
    """A server on this machine; `answer` is called with each Request."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self.port = server.server_port
        self.address = f"http://127.0.0.1:{self.port}"
        self.url = f"{self.address}/{NAME}"
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.answer: Callable[[Request], None] = Request.send_range

    @property
    def ranges(self) -> list[str | None]:
        return [headers.get("Range") for _, _, headers in self.requests]


@contextlib.contextmanager
def serving(wrap: Callable[[socket.socket], socket.socket] = lambda plain: plain) -> Iterator[Site]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Request) as server:
        server.daemon_threads = True
        server.block_on_close = False
        server.handle_error = lambda *_: None
        server.socket = wrap(server.socket)
        server.site = Site(server)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server.site
        server.shutdown()
        thread.join()


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as found:
        yield found


@pytest.fixture(autouse=True)
def _hub_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub-cache"))


def python(code: str, *argv: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Run code in another process of this Python; its errors are shown as the command line shows them."""
    return subprocess.run(command(code, *argv), capture_output=True, text=True, timeout=60, **options)


def command(code: str, *argv: object) -> list[str]:
    guard = "import sys\nfrom resnetkit.errors import ResnetkitError\ntry:\n" + "\n".join(
        f"    {line}" for line in code.strip().splitlines()
    )
    guard += "\nexcept ResnetkitError as error:\n    print(error)\n    sys.exit(error.exit_code)\n"
    return [sys.executable, "-c", guard, *map(str, argv)]
