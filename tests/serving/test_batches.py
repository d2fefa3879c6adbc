"""Which requests are answered together."""

from __future__ import annotations

import threading
import time

from resnetkit.serving.batches import Batches, Job


def job(number: int, key: str = "a") -> Job:
    return Job(number, "predict", key, time.monotonic() + 10, {}, b"")


def numbers(jobs: list[Job]) -> list[int]:
    return [each.number for each in jobs]


def test_what_waits_and_asks_the_same() -> None:
    batches = Batches(3, 0)
    for number, key in enumerate("aabaa"):
        batches.put(job(number, key))
    assert [numbers(batches.take()) for _ in range(3)] == [[0, 1, 3], [2], [4]]


def test_who_has_left_is_not_taken() -> None:
    """I18."""
    batches = Batches(8, 0)
    for number in range(4):
        batches.put(job(number))
    batches.leave(2)
    batches.leave(7)
    assert numbers(batches.take()) == [0, 1, 3]


def test_the_first_does_not_wait_while_nothing_else_is_answered() -> None:
    batches = Batches(8, 30)
    batches.put(job(0))
    started = time.monotonic()
    assert numbers(batches.take()) == [0] and time.monotonic() - started < 5


def test_the_next_waits_for_others_while_something_is_answered_anyway() -> None:
    batches = Batches(2, 30)
    batches.put(job(0))
    batches.take()
    batches.put(job(1))
    threading.Timer(0.1, lambda: batches.put(job(2))).start()
    assert numbers(batches.take()) == [1, 2]
    batches.done(1)
    batches.done(2)
    batches.put(job(3))
    assert numbers(batches.take()) == [3]


def test_half_of_those_that_are_there() -> None:
    """So that some can be decoded while others are inferred; but groups do not become small for that."""
    batches = Batches(16, 0)
    for number in range(20):
        batches.put(job(number))
    assert [len(batches.take()) for _ in range(2)] == [10, 10]
    batches.done(10)
    for number in range(40):
        batches.put(job(number))
    assert [len(batches.take()) for _ in range(3)] == [16, 16, 8]


def test_a_deadline_of_waiting() -> None:
    batches = Batches(8, 0.05)
    batches.put(job(0))
    batches.take()
    batches.put(job(1))
    assert numbers(batches.take()) == [1]


def test_the_end() -> None:
    batches = Batches(8, 0)
    found: list[list[Job]] = []
    thread = threading.Thread(target=lambda: found.append(batches.take()))
    thread.start()
    batches.close()
    thread.join(10)
    assert found == [[]]
