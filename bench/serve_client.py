"""A light client for loads of HTTP: requests at given times or as fast as answers come, with what became of each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

LOST, REFUSED = 0, -1  # in place of a status: no answer to a request that was sent; no connection


@dataclass(frozen=True)
class Seen:
    """One request: when it was due and when it was over, on the clock of `time.monotonic`, and its status."""

    due: float
    over: float
    status: int

    @property
    def seconds(self) -> float:
        """From when it was due, not from when the client got round to it (coordinated omission)."""
        return self.over - self.due


def request(path: str, body: bytes, kind: str = "image/jpeg") -> bytes:
    """The bytes of a POST."""
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode("ascii") + body


class Pool:
    """Lasting connections to one port."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, sent: bytes, due: float) -> Seen:
        """Send one request and read its answer."""
        try:
            pair = self._open() or await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return Seen(due, time.monotonic(), REFUSED)
        reader, writer = pair
        try:
            writer.write(sent)
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.lower().split(b"\r\n")
            length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
            await reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError):
            writer.close()
            return Seen(due, time.monotonic(), LOST)
        if b"connection: close" in lines:
            writer.close()
        else:
            self.idle.append(pair)
        return Seen(due, time.monotonic(), int(head[9:12]))

    def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """One that the server has not closed meanwhile, as it does with those that are idle for long."""
        while self.idle:
            reader, writer = self.idle.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()
        return None

    def close(self) -> None:
        """All of them."""
        for _, writer in self.idle:
            writer.close()


async def at_rate(port: int, bodies: Sequence[bytes], rate: float, seconds: float) -> list[Seen]:
    """Open loop: a request every 1/rate seconds, whatever becomes of the others."""
    pool, began = Pool(port), time.monotonic()
    tasks = []
    for number in range(int(rate * seconds)):
        due = began + number / rate
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        tasks.append(asyncio.create_task(pool.ask(bodies[number % len(bodies)], due)))
    found = await asyncio.gather(*tasks)
    pool.close()
    return found


async def in_turn(port: int, bodies: Sequence[bytes], clients: int, count: int) -> list[Seen]:
    """Closed loop: each client asks again when it has its answer."""
    pool, left, found = Pool(port), list(range(count)), []

    async def one() -> None:
        while left:
            number = left.pop()
            found.append(await pool.ask(bodies[number % len(bodies)], time.monotonic()))

    await asyncio.gather(*(one() for _ in range(clients)))
    pool.close()
    return found


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of them is not above; NaN of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")
