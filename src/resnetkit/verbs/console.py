"""What a verb says and hears while it works: notes and progress on stderr, and the signals that ask it to stop.

Progress is a bar with rate and time left on a terminal, and plain lines elsewhere.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Protocol


class Advance(Protocol):
    """Tells a bar how far the work is."""

    def __call__(self, now: int, words: str = "") -> None:
        """Show `now` items done, and a few words on how it goes."""
        ...


PLAIN_SECONDS = 10.0
STOPPING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def note(text: str, quiet: bool = False) -> None:
    """One line on stderr."""
    if not quiet:
        print(text, file=sys.stderr, flush=True)


@contextmanager
def bar(label: str, total: int, *, done: int = 0, quiet: bool = False) -> Iterator[Advance]:
    """Give a function to call with the number of items done and a few words on how it goes."""
    if quiet or total == 0:
        yield _silent
    elif sys.stderr.isatty():
        with _rich_bar(label, total, done) as advance:
            yield advance
    else:
        yield _plain_lines(label, total, done)


def _silent(now: int, words: str = "") -> None:
    """No bar."""


@contextmanager
def _rich_bar(label: str, total: int, done: int) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[words]}"),
    )
    started = time.monotonic()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        row = progress.add_task(label, total=total, completed=done, words="", rate="")

        def advance(now: int, words: str = "") -> None:
            rate = (now - done) / max(1e-6, time.monotonic() - started)
            progress.update(row, completed=now, words=words, rate=f"{rate:.1f}/s")

        yield advance


def _plain_lines(label: str, total: int, done: int) -> Advance:
    started = last = time.monotonic()

    def advance(now: int, words: str = "") -> None:
        nonlocal last
        clock = time.monotonic()
        if now < total and clock - last < PLAIN_SECONDS:
            return
        last = clock
        rate = (now - done) / max(1e-6, clock - started)
        left = (total - now) / rate if rate else 0.0
        print(f"{label} {now}/{total}  {rate:.1f}/s  {left:.0f} s left  {words}".rstrip(), file=sys.stderr, flush=True)

    return advance


@dataclass
class Signals:
    """The first signal to stop, to be acted on after the step in progress; a second one acts at once."""

    received: int = 0


@contextmanager
def stop_signals() -> Iterator[Signals]:
    """Collect the first SIGINT, SIGTERM or SIGHUP in the main thread; after it the usual handlers are back."""
    signals = Signals()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    before = {number: signal.getsignal(number) for number in STOPPING}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def receive(number: int, frame: FrameType | None) -> None:
        signals.received = number
        restore()

    for number in before:
        signal.signal(number, receive)
    try:
        yield signals
    finally:
        restore()
