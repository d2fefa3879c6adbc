"""Decode || infer: inputs to answers in their order, in bounded memory, while the next batch is being decoded."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from resnetkit.errors import DataError
from resnetkit.runtime.machine import cores_allowed, cpu_quota

Read = Callable[[Any], NDArray[Any]]
T = TypeVar("T")
R = TypeVar("R")


def num_threads() -> int:
    """Threads to use: RESNETKIT_THREADS, or the cores that this process may run on, or their quota in a container."""
    asked = os.environ.get("RESNETKIT_THREADS", "")
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores_allowed(cores, cpu_quota())


def read_ahead(sources: Iterable[Any], read: Callable[[Any], T], ahead: int) -> Iterator[tuple[Any, T | DataError]]:
    """Read sources in threads, at most `ahead` of them in memory, and give them in order; errors in place of values."""

    def attempt(source: Any) -> T | DataError:
        try:
            return read(source)
        except DataError as error:
            return error

    waiting: deque[tuple[Any, Future[T | DataError]]] = deque()
    remaining = iter(sources)
    with ThreadPoolExecutor(num_threads()) as pool:
        try:
            waiting.extend((source, pool.submit(attempt, source)) for source in islice(remaining, ahead))
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
                waiting.extend((source, pool.submit(attempt, source)) for source in islice(remaining, 1))
        finally:
            for _, future in waiting:
                future.cancel()


def run(
    sources: Iterable[Any], read: Read, infer: Callable[[NDArray[Any]], Iterable[T]], batch_size: int = 32
) -> Iterator[tuple[Any, T | DataError]]:
    """Answers in the order of the sources.

    Args:
        sources: whatever `read` takes.
        read: one source to an array; raises DataError where it cannot.
        infer: a batch of arrays, stacked, to one answer each.
        batch_size: inputs inferred at once.
    """
    return in_blocks(sources, read, lambda arrays: infer(np.stack(arrays)), batch_size)


def in_blocks(
    sources: Iterable[Any], read: Callable[[Any], T], infer: Callable[[list[T]], Iterable[R]], batch_size: int = 32
) -> Iterator[tuple[Any, R | DataError]]:
    """As `run`, for whatever can be read: `infer` takes a list of at most `batch_size` values, one answer each."""
    block: list[tuple[Any, T | DataError]] = []
    for item in read_ahead(sources, read, 2 * batch_size):
        block.append(item)
        if len(block) == batch_size:
            yield from _infer(block, infer)
            block = []
    yield from _infer(block, infer)


def _infer(
    block: list[tuple[Any, T | DataError]], infer: Callable[[list[T]], Iterable[R]]
) -> Iterator[tuple[Any, R | DataError]]:
    values = [value for _, value in block if not isinstance(value, DataError)]
    answers: Iterator[R] = iter(infer(values) if values else ())
    for source, value in block:
        yield source, value if isinstance(value, DataError) else next(answers)


def one_or_many(inputs: Any, answered: Callable[[Sequence[Any]], Iterable[tuple[Any, Any]]]) -> Any:
    """The answer to one input, or to a list of them a list in the same order.

    Args:
        inputs: an input, or a list or tuple of them.
        answered: inputs to each with its answer, or with why it has none.

    Raises:
        DataError: an input has no answer; it is the first such one.
    """
    many = isinstance(inputs, list | tuple)
    found = []
    for _, answer in answered(inputs if many else [inputs]):
        if isinstance(answer, DataError):
            raise answer
        found.append(answer)
    return found if many else found[0]
