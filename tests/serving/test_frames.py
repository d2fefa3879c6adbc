"""Frames between server and worker."""

from __future__ import annotations

import asyncio
import socket

import pytest

from resnetkit.serving.frames import frames, packed, receive

SENT = [({"kind": "a", "é": [1, None]}, b""), ({"kind": "b"}, bytes(100_000)), ({}, b"x")]


def test_there_and_back() -> None:
    one, other = socket.socketpair()
    with one, other:
        other.settimeout(10)
        for head, body in SENT[:1] + SENT[2:]:
            one.sendall(b"".join(packed(head, body)))
        one.sendall(b"".join(packed(*SENT[1]))[:50])  # cut short: its sender has died
        one.shutdown(socket.SHUT_WR)
        assert list(frames(other)) == SENT[:1] + SENT[2:]


def test_by_asyncio() -> None:
    async def read() -> list[object]:
        reader = asyncio.StreamReader()
        for head, body in SENT:
            reader.feed_data(b"".join(packed(head, body)))
        reader.feed_eof()
        found = [await receive(reader) for _ in SENT]
        with pytest.raises(asyncio.IncompleteReadError):
            await receive(reader)
        return found

    assert asyncio.run(read()) == SENT


def test_only_finite_numbers() -> None:
    with pytest.raises(ValueError, match="JSON"):
        packed({"x": float("nan")})
