"""Which requests are answered together: those that wait, if they ask the same, and only as long as that pays."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

FEW = 8  # jobs together that cost hardly more each than a large group's


@dataclass(frozen=True)
class Job:
    """A request on its way through a worker.

    Attributes:
        number: of the request.
        kind: "predict" or "infer".
        key: requests of one key may be answered together.
        deadline: on the clock of `time.monotonic`, after which nobody waits for the answer.
        asked: what else the server said of it.
        body: as it was sent.
    """

    number: int
    kind: str
    key: Hashable
    deadline: float
    asked: dict[str, Any]
    body: bytes


class Batches:
    """Jobs in the order of their arrival, taken in groups by several threads.

    Args:
        most: jobs of a group. It takes no more than half of those that are there, so that some are decoded while others
            are inferred; unless that were too few.
        seconds: for which the first of a group waits for others, while other groups are being answered anyway.
    """

    def __init__(self, most: int, seconds: float) -> None:
        self.most, self.seconds = most, seconds
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._busy = 0  # jobs that are being answered
        self._closed = False

    def put(self, job: Job) -> None:
        """Add one."""
        with self._changed:
            self._waiting.append(job)
            self._changed.notify_all()  # the first to wake may be one that asks for another key

    def leave(self, number: int) -> None:
        """Nobody waits for this one any more: it is dropped if it has not been taken yet."""
        with self._changed:
            self._waiting = deque(job for job in self._waiting if job.number != number)

    def close(self) -> None:
        """Nothing more comes: `take` gives an empty group from now on."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def done(self, number: int) -> None:
        """A group of so many has been answered."""
        with self._changed:
            self._busy -= number

    def take(self) -> list[Job]:
        """The next group; waits until there is one. `done` has to be called after it. Empty when all is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return []
            until = time.monotonic() + (self.seconds if self._busy else 0.0)
            taken = [self._waiting.popleft()]
            self._busy += 1
            while len(taken) < self._fair() and self._more(taken, until):
                pass
            return taken

    def _fair(self) -> int:
        """Jobs of a group, of those that are there now."""
        there = len(self._waiting) + self._busy
        return min(self.most, max(FEW, -(-there // 2)))

    def _more(self, taken: list[Job], until: float) -> bool:
        """Take one more of the same key, or wait for it; whether to go on."""
        for job in self._waiting:
            if job.key == taken[0].key:
                self._waiting.remove(job)
                self._busy += 1
                taken.append(job)
                return True
        left = until - time.monotonic()
        return left > 0 and self._changed.wait(left)
