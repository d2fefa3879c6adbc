"""A desk: what waits is bounded, who leaves gives the place free, and a worker that dies or hangs is replaced."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from resnetkit.errors import ModelError, ResourceError
from resnetkit.serving import desk as desks
from resnetkit.serving.desk import Desk, Reply
from resnetkit.serving.frames import frames, packed
from resnetkit.serving.limits import Limits
from resnetkit.serving.measures import Measures
from resnetkit.serving.opened import Opening
from resnetkit.serving.refusal import Refused

INFO = {"backend": "torch", "preprocess": {"mean": [0.5]}, "accepts": [], "outputs": []}
Script = Callable[["Fake", dict[str, Any], bytes], None]


class Fake:
    """A worker that does what a script says with each request."""

    def __init__(self, connection: socket.socket, script: Script, begin: Callable[[Fake], None]) -> None:
        self.connection, self.script, self.begin = connection.dup(), script, begin
        self.left: list[int] = []
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()

    def send(self, head: dict[str, Any], body: bytes = b"") -> None:
        self.connection.sendall(b"".join(packed(head, body)))

    def answer(self, number: int) -> None:
        head = {"kind": "answer", "number": number, "status": 200, "headers": {}, "items": 1, "failed": 0, "digest": ""}
        self.send(head, b"yes")

    def work(self) -> None:
        try:
            self.begin(self)
            for head, body in frames(self.connection):
                if head["kind"] == "leave":
                    self.left.append(head["number"])
                else:
                    self.script(self, head, body)
        except OSError:
            pass
        finally:
            self.connection.close()

    def kill(self) -> None:
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            return

    def join(self, timeout: float | None = None) -> None:
        self.thread.join(timeout)


def good(worker: Fake) -> None:
    worker.send({"kind": "opened", "info": INFO})
    worker.send({"kind": "ready", "batch": 1, "pid": 1})


def silent(worker: Fake, head: dict[str, Any], body: bytes) -> None:
    """Never answers."""


def prompt(worker: Fake, head: dict[str, Any], body: bytes) -> None:
    worker.answer(head["number"])


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(desks, "BACK_OFF", (0.0, 0.01, 0.02))
    monkeypatch.setattr(desks, "STOPPING", 0.2)
    yield


def play(
    work: Callable[[Desk, list[Fake]], Awaitable[None]],
    script: Script = prompt,
    begin: Callable[[Fake], None] = good,
    **limits: Any,
) -> None:
    """Open a desk with such workers and do something with it."""
    started: list[Fake] = []

    def start(connection: socket.socket, opening: Opening, first: bool) -> Fake:
        started.append(Fake(connection, script, begin))
        return started[-1]

    async def live() -> None:
        opening = Opening("m", "m", "torch", "cpu", False, Limits(**limits))
        desk = Desk(opening, Measures(), start)
        try:
            await desk.open()
            await until(lambda: desk.ready)
            await work(desk, started)
        finally:
            await desk.close()

    asyncio.run(live())


async def until(there: Callable[[], bool], seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not there() and time.monotonic() < deadline:
        await asyncio.sleep(0.005)
    assert there()


async def refusal(work: Awaitable[Reply]) -> Refused:
    with pytest.raises(Refused) as caught:
        await work
    return caught.value


def test_an_answer() -> None:
    async def work(desk: Desk, started: list[Fake]) -> None:
        assert (await desk.ask({"kind": "predict"}, b"x" * 10**6)).body == b"yes"
        assert desk.waiting == 0

    play(work)


def test_a_full_queue_refuses_at_once() -> None:
    """I15."""

    async def work(desk: Desk, started: list[Fake]) -> None:
        waiting = [asyncio.create_task(desk.ask({"kind": "predict"}, b"")) for _ in range(3)]
        await asyncio.sleep(0.05)
        before = time.perf_counter()
        for _ in range(100):
            refused = await refusal(desk.ask({"kind": "predict"}, b""))
        assert time.perf_counter() - before < 1
        assert refused.status == 503 and refused.retry_after
        with pytest.raises(Refused):
            desk.refuse()
        for number in range(1, 4):
            started[0].answer(number)
        await asyncio.gather(*waiting)
        desk.refuse()

    play(work, silent, max_queue=3)


def test_a_deadline_that_passes() -> None:
    """I17."""

    async def work(desk: Desk, started: list[Fake]) -> None:
        refused = await refusal(desk.ask({"kind": "predict"}, b""))
        assert refused.status == 504 and desk.waiting == 0

    play(work, silent, answer_seconds=0.1)


def test_who_leaves_gives_the_place_free() -> None:
    """I18."""

    async def work(desk: Desk, started: list[Fake]) -> None:
        for _ in range(1000):
            task = asyncio.create_task(desk.ask({"kind": "predict"}, b""))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert desk.waiting == 0
        await until(lambda: len(started[0].left) == 1000)

    play(work, silent)


def test_a_worker_that_dies_is_replaced() -> None:
    """I20: who waits is told at once, and the next is answered by another."""

    def deadly(worker: Fake, head: dict[str, Any], body: bytes) -> None:
        worker.kill() if body else worker.answer(head["number"])

    async def work(desk: Desk, started: list[Fake]) -> None:
        for number in range(1, 6):
            refused = await refusal(desk.ask({"kind": "predict"}, b"poison"))
            assert refused.status == 503 and refused.retry_after
            await until(lambda: desk.ready)
            assert (await desk.ask({"kind": "predict"}, b"")).body == b"yes"
            assert len(started) == number + 1 and desk.alive

    play(work, deadly)


def test_a_worker_that_says_nothing_is_replaced() -> None:
    """I20: a hang."""

    async def work(desk: Desk, started: list[Fake]) -> None:
        assert (await refusal(desk.ask({"kind": "predict"}, b""))).status == 504
        await until(lambda: len(started) == 2 and desk.ready)

    play(work, silent, answer_seconds=0.1)


def test_a_worker_that_cannot_come_again() -> None:
    """I20: the server is not alive any more after several in a row, and goes on trying."""
    begun = []

    def once(worker: Fake) -> None:
        begun.append(worker)
        if len(begun) == 1:
            good(worker)
        else:
            worker.kill()

    async def work(desk: Desk, started: list[Fake]) -> None:
        assert desk.alive
        started[0].kill()
        await until(lambda: not desk.alive)
        assert len(started) > desks.DEAD and not desk.ready
        refused = await refusal(desk.ask({"kind": "predict"}, b""))
        assert refused.status == 503

    play(work, begin=once)


def test_a_model_that_is_refused_is_told_before_anything_listens() -> None:
    """I23."""

    def refused(worker: Fake) -> None:
        worker.send({"kind": "refused", "error": "is damaged", "path": "m/model", "fix": "copy it", "exit_code": 5})

    with pytest.raises(ModelError, match="m/model: is damaged"):
        play(lambda desk, started: asyncio.sleep(0), begin=refused)


def test_a_worker_that_dies_before_it_has_opened() -> None:
    """I23."""
    with pytest.raises(ResourceError, match="before it had opened"):
        play(lambda desk, started: asyncio.sleep(0), begin=Fake.kill)


def test_draining() -> None:
    """I21: newcomers go elsewhere, and what was taken is answered."""

    async def work(desk: Desk, started: list[Fake]) -> None:
        taken = asyncio.create_task(desk.ask({"kind": "predict"}, b""))
        await asyncio.sleep(0.05)
        desk.draining = True
        with pytest.raises(Refused) as caught:
            desk.refuse()
        assert caught.value.status == 503 and caught.value.close
        started[0].answer(1)
        assert (await taken).body == b"yes"

    play(work, silent)
