"""Safetensors files whose headers lie, and a program that measures how they are refused."""

from __future__ import annotations

from collections.abc import Iterator


def header(text: bytes, rest: bytes = b"") -> bytes:
    """A safetensors file."""
    return len(text).to_bytes(8, "little") + text + rest


def entry(name: str, shape: str, offsets: str) -> bytes:
    return f'"{name}":{{"dtype":"F32","shape":[{shape}],"data_offsets":[{offsets}]}}'.encode()


def only(*entries: bytes, rest: int = 0) -> bytes:
    return header(b"{" + b",".join(entries) + b"}", bytes(rest))


def hostile() -> Iterator[tuple[str, bytes]]:
    """Name and content, one at a time, since some are large."""
    yield "2^63", (2**63).to_bytes(8, "little") + b"{}"
    yield "2^64-1", b"\xff" * 8 + b"{}"
    yield "200MB", header(b"{" + b" " * 200_000_000 + b"}")
    millions = (b'"%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}' % n for n in range(1_000_000))
    yield "million", header(b"{" + b",".join(millions) + b"}")
    yield "duplicate", only(entry("fc.bias", "1", "0,4"), entry("fc.bias", "1", "4,8"), rest=8)
    yield "duplicate-same", only(entry("fc.bias", "1", "0,4"), entry("fc.bias", "1", "0,4"), rest=4)
    yield "overlap", only(entry("a", "2", "0,8"), entry("b", "2", "4,12"), rest=12)
    yield "hole", only(entry("a", "1", "4,8"), rest=8)
    yield "backwards", only(entry("a", "1", "4,0"), rest=4)
    yield "negative", only(entry("a", "1", "-4,0"), rest=4)
    yield "negative-shape", only(entry("a", "-1,-1", "0,4"), rest=4)
    yield "overflow", only(entry("a", "4294967296,4294967296", "0,0"))
    yield "overflow-to-size", only(entry("a", "9223372036854775809,2", "0,8"), rest=8)
    yield "2^40", only(entry("a", str(2**40), f"0,{2**42}"), rest=4)
    yield "deep", header(b'{"a":' * 100_000 + b"1" + b"}" * 100_000)
    yield "deep-lists", header(b'{"a":' + b"[" * 1_000_000)


# Paths as arguments; a line for each: name, seconds, MB.
MEASURE = """
import resource, time
from pathlib import Path
from resnetkit.errors import ModelError
for path in map(Path, sys.argv[1:]):
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    try:
        read(path)
    except ModelError as error:
        seconds, grown = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(path.name, f"{seconds:.3f}", grown // 1024, error)
"""


def check_measured(lines: str, names: set[str]) -> None:
    """All were refused, at once and in little memory."""
    rows = [line.split(maxsplit=3) for line in lines.splitlines()]
    assert {name.removesuffix(".safetensors") for name, *_ in rows} == names and len(rows) == len(names)
    for name, seconds, grown, error in rows:
        assert float(seconds) < 1 and int(grown) < 200, (name, seconds, grown, error)
