"""Answers in the order of the sources, in bounded memory, errors in place."""

import os
import threading
import time

import numpy as np
import pytest

from resnetkit.errors import DataError
from resnetkit.runtime import pipeline
from resnetkit.runtime.pipeline import num_threads, read_ahead, run


def value(source):
    """Later sources are done earlier; every seventh is bad."""
    time.sleep(0.002 * (5 - source % 5))
    if source % 7 == 3:
        raise DataError(f"{source} is bad")
    return np.full(2, source, np.float32)


def infer(batch):
    return batch * 2


@pytest.mark.parametrize("threads", ["1", "2", "9"])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_order_and_errors_in_place(monkeypatch, threads, batch_size):
    monkeypatch.setenv("RESNETKIT_THREADS", threads)
    found = list(run(range(30), value, infer, batch_size))
    assert [source for source, _ in found] == list(range(30))
    for source, answer in found:
        if source % 7 == 3:
            assert isinstance(answer, DataError) and answer.what == f"{source} is bad"
        else:
            assert answer.tolist() == [2 * source] * 2


@pytest.mark.parametrize(("sources", "sizes"), [([], []), ([3, 10], []), ([0, 1, 3, 2, 4], [3, 1]), (range(3), [3])])
def test_batches_hold_what_could_be_read(sources, sizes):
    seen = []
    answers = list(run(sources, value, lambda batch: seen.append(len(batch)) or batch, 4))
    assert len(answers) == len(sources) and seen == sizes


def counting(limit, taken):
    for i in range(limit):
        taken.append(i)
        yield i


@pytest.mark.parametrize("ahead", [1, 2, 8])
def test_read_ahead_is_bounded(ahead):
    taken = []
    for delivered, (source, _) in enumerate(read_ahead(counting(60, taken), lambda source: source, ahead)):
        assert source == delivered and len(taken) - delivered <= ahead
    assert len(taken) == 60


@pytest.mark.parametrize("batch_size", [1, 4, 8])
def test_memory_is_bounded(batch_size):
    taken = []
    answers = run(counting(200, taken), lambda source: np.zeros(1), infer, batch_size)
    # one batch in the making, two being read
    assert max(len(taken) - delivered for delivered, _ in enumerate(answers)) <= 3 * batch_size
    assert len(taken) == 200


def test_the_next_batch_is_read_while_one_is_inferred(monkeypatch):
    monkeypatch.setenv("RESNETKIT_THREADS", "2")
    read = threading.Semaphore(0)
    waited = []

    def slow(batch):
        if not waited:  # the first four are read; the next four come while we are here
            waited.append(all(read.acquire(timeout=5) for _ in range(8)))
        return batch

    assert len(list(run(range(12), lambda source: read.release() or np.zeros(1), slow, 4))) == 12
    assert waited == [True]


def test_closed_early():
    taken, before = [], threading.active_count()
    answers = run(counting(1000, taken), lambda source: np.zeros(1), infer, 4)
    next(answers)
    answers.close()
    assert len(taken) <= 12 and threading.active_count() == before


@pytest.mark.parametrize("where", ["read", "infer", "sources"])
def test_bugs_are_not_swallowed(where):
    before = threading.active_count()

    def fail(*_):
        raise KeyError("a bug")

    def sources():
        yield 0
        fail()

    with pytest.raises(KeyError):
        list(
            run(
                sources() if where == "sources" else range(20),
                fail if where == "read" else lambda source: np.zeros(1),
                fail if where == "infer" else infer,
                4,
            )
        )
    assert threading.active_count() == before


@pytest.mark.parametrize(("asked", "expected"), [("3", 3), ("0", None), ("-1", None), ("many", None), ("", None)])
def test_num_threads(monkeypatch, asked, expected):
    monkeypatch.setenv("RESNETKIT_THREADS", asked)
    assert num_threads() == (expected or len(os.sched_getaffinity(0)))


@pytest.mark.parametrize(("quota", "threads"), [(None, 4), (8.0, 4), (2.5, 2), (0.5, 1)])
def test_threads_follow_the_quota(monkeypatch, quota, threads):
    monkeypatch.delenv("RESNETKIT_THREADS", raising=False)
    monkeypatch.setattr(pipeline.os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(pipeline, "cpu_quota", lambda: quota)
    assert num_threads() == threads
    monkeypatch.setenv("RESNETKIT_THREADS", "3")
    assert num_threads() == 3
