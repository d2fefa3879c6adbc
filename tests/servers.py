"""A server in a thread of the test's process, with its worker in another one; and clients of it."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from resnetkit.serving import worker
from resnetkit.serving.guard import Access
from resnetkit.serving.limits import Limits
from resnetkit.serving.opened import Opening
from resnetkit.serving.server import Running, bound, serving


class InThread:
    """A worker in a thread, as a process."""

    def __init__(self, connection: socket.socket, opening: Opening, first: bool) -> None:
        self.connection = connection.dup()
        self.thread = threading.Thread(target=self.work, args=(opening,), daemon=True)
        self.thread.start()

    def work(self, opening: Opening) -> None:
        try:
            worker.attend(self.connection, opening)
        finally:
            self.connection.close()

    def kill(self) -> None:
        """A thread cannot be killed, but it can lose its server."""
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            return

    def join(self, timeout: float | None = None) -> None:
        self.thread.join(timeout)


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Live:
    """A server that runs, and what a client does with it."""

    def __init__(self, running: Running, loop: asyncio.AbstractEventLoop) -> None:
        self.running, self.loop = running, loop
        self.url = running.url
        self.port = int(running.url.rstrip("/").rpartition(":")[2])

    @property
    def desk(self) -> Any:
        return self.running.desks[0]

    def ask(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            client.request(method, path, body, dict(headers or {}))
            response = client.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            client.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, None, headers)

    def post(self, path: str, body: Any, kind: str = "application/octet-stream", **headers: str) -> Answer:
        return self.ask("POST", path, body, {"content-type": kind, **headers})

    def raw(self, request: bytes, seconds: float = 10, *, end: bool = False) -> bytes:
        """What comes back for these bytes until the server closes, or says no more for a while."""
        found = b""
        with socket.create_connection(("127.0.0.1", self.port), seconds) as connection:
            try:
                connection.sendall(request)
                if end:
                    connection.shutdown(socket.SHUT_WR)
                while part := connection.recv(65536):
                    found += part
                    if whole(found):
                        break
            except (TimeoutError, ConnectionError):
                pass
            return found


def whole(found: bytes) -> bool:
    """Whether a response with a length is there in full."""
    head, sign, body = found.partition(b"\r\n\r\n")
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return bool(sign and lengths) and len(body) >= int(lengths[0].split(b":")[1])


@contextmanager
def living(
    *models: Path | tuple[str, Path], access: Access | None = None, start: Any = InThread, **limits: Any
) -> Iterator[Live]:
    """A server of these models with torch, ready to answer."""
    chosen = Limits(**{"linger_seconds": 0, "batch": 1, **limits})
    pairs = [each if isinstance(each, tuple) else (each.name, each) for each in models]
    openings = [Opening(name, str(path), "torch", "cpu", False, chosen) for name, path in pairs]
    found: list[Any] = []
    there = threading.Event()

    async def live() -> None:
        try:
            async with serving(bound("127.0.0.1", 0), openings, access or Access(), start) as running:
                while not all(desk.ready for desk in running.desks):
                    await asyncio.sleep(0.01)
                stop = asyncio.Event()
                found.extend((Live(running, asyncio.get_running_loop()), stop))
                there.set()
                await stop.wait()
        finally:
            there.set()

    thread = threading.Thread(target=lambda: asyncio.run(live()))
    thread.start()
    there.wait(60)
    try:
        assert found, "the server did not start"
        yield found[0]
    finally:
        if found:
            found[0].loop.call_soon_threadsafe(found[1].set)
        thread.join(30)


def encoded(image: Image.Image, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()


def form_of(files: Sequence[bytes], boundary: str = "b0", names: Sequence[str] = ()) -> tuple[str, bytes]:
    """A form with these files: its content type and its body."""
    parts = []
    for number, content in enumerate(files):
        name = names[number] if names else f"{number}.png"
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
        parts.append(head.encode("utf-8", "surrogateescape") + content + b"\r\n")
    return f"multipart/form-data; boundary={boundary}", b"".join(parts) + f"--{boundary}--\r\n".encode()


class Command:
    """`resnetkit serve` as a process of its own; its log is read as it comes."""

    def __init__(self, *argv: str | Path, limit: int = 0) -> None:
        command = [sys.executable, "-m", "resnetkit", "serve", *map(str, argv), "--json", "--backend", "torch"]
        before = (lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))) if limit else None
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=before)
        self.lines: list[dict[str, Any]] = []
        self.other: list[str] = []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            try:
                self.lines.append(json.loads(line))
            except ValueError:
                self.other.append(line)

    def told(self, event: str, seconds: float = 60, after: int = 0) -> dict[str, Any]:
        """The first line of this event after so many lines."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for line in self.lines[after:]:
                if line.get("event") == event:
                    return line
            time.sleep(0.01)
        raise AssertionError(f"no {event} in {self.lines[-5:]} {self.other[-5:]}")

    @property
    def port(self) -> int:
        return int(self.told("listening")["url"].rstrip("/").rpartition(":")[2])

    def end(self) -> None:
        self.process.kill()
        self.process.wait(30)
        self.reader.join(30)
        assert self.process.stderr is not None
        self.process.stderr.close()


@contextmanager
def commanded(*argv: str | Path, limit: int = 0) -> Iterator[Command]:
    """A server process that is ready."""
    command = Command(*argv, limit=limit)
    try:
        command.told("ready")
        yield command
    finally:
        command.end()


@dataclass
class Tally:
    """What became of requests under load."""

    answered: int = 0
    rejected: int = 0
    refused: int = 0
    lost: int = 0
    other: int = 0


def load(port: int, body: bytes, clients: int, seconds: float, path: str = "/predict?top=1") -> Tally:
    """Clients that ask one request after another on lasting connections until nobody answers or time is up."""
    tally, alone, until = Tally(), threading.Lock(), time.monotonic() + seconds

    def count(name: str) -> None:
        with alone:
            setattr(tally, name, getattr(tally, name) + 1)

    def ask(client: http.client.HTTPConnection) -> bool:
        """One request; whether there is a point in another."""
        try:
            client.connect() if client.sock is None else None
        except OSError:
            count("refused")
            return False
        try:
            client.request("POST", path, body, {"content-type": "application/octet-stream"})
            response = client.getresponse()
            response.read()
        except (OSError, http.client.HTTPException):
            count("lost")
            client.close()
            return False
        count({200: "answered", 503: "rejected"}.get(response.status, "other"))
        return response.status != 503 or response.getheader("connection") != "close"

    def one() -> None:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while time.monotonic() < until and ask(client):
            pass
        client.close()

    threads = [threading.Thread(target=one) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return tally
