"""One model's worker, seen from the server: what waits for it is bounded, and when it dies another comes."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from multiprocessing import get_all_start_methods, get_context
from typing import Any, Protocol, cast

from resnetkit import errors
from resnetkit.errors import ResnetkitError, ResourceError
from resnetkit.serving.frames import packed, receive
from resnetkit.serving.log import log
from resnetkit.serving.measures import Measures
from resnetkit.serving.opened import Opening
from resnetkit.serving.refusal import Refused, busy

BACK_OFF = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0)  # seconds before the first, second, ... start of a worker in a row
DEAD = 6  # starts in a row that came to nothing, after which the server is not alive
STOPPING = 2.0  # seconds that a process has to end


class Process(Protocol):
    """What runs a worker."""

    def kill(self) -> None:
        """End it, whatever it does."""
        ...

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended."""
        ...


Launch = Callable[[socket.socket, Opening, bool], Process]


def launch(connection: socket.socket, opening: Opening, first: bool) -> Process:
    """Start a worker's process: the first from nothing, later ones from a process that has imported all they need.

    That halves the time to the first start, and a worker that has died is replaced within a second or two.
    """
    from resnetkit.serving import worker

    forking = "forkserver" in get_all_start_methods()
    context = get_context("forkserver" if forking and not first else "spawn")
    process = context.Process(target=worker.run, args=(connection, opening), daemon=True)  # type: ignore[attr-defined]
    process.start()
    return cast(Process, process)


def prepare_successors(backend: str) -> None:
    """Let a process import in the background what a worker with this backend needs, to be forked when one dies."""
    if "forkserver" not in get_all_start_methods():
        return
    from multiprocessing import forkserver

    context = get_context("forkserver")
    torch = ["torch"] if backend == "torch" else []
    context.set_forkserver_preload(["resnetkit.serving.worker", *torch])
    forkserver.ensure_running()


@dataclass(frozen=True)
class Reply:
    """What a worker says to a request that it has answered.

    Attributes:
        headers: of the response.
        body: of the response.
        items: files or rows that were answered.
        failed: of these, those that could not be.
        digest: the first digits of the SHA-256 of the request's body.
    """

    headers: Mapping[str, str]
    body: bytes
    items: int
    failed: int
    digest: str


class Desk:
    """Where requests for one model are taken.

    Args:
        opening: the model and the limits.
        measures: what is counted.
        start: starts a worker with its end of a connection.
    """

    def __init__(self, opening: Opening, measures: Measures, start: Launch = launch) -> None:
        self.opening, self.limits = opening, opening.limits
        self.info: dict[str, Any] = {}
        self.batch = 1
        self.ready = self.alive = self.draining = self._was_ready = False
        self.pid = 0
        self._measures, self._start = measures, start
        self._numbers = count(1)
        self._asked: dict[int, asyncio.Future[Reply]] = {}
        self._heard = time.monotonic()
        self._writer: asyncio.StreamWriter | None = None
        self._process: Process | None = None
        self._life: asyncio.Task[None] | None = None
        self._first: asyncio.Future[None] | None = None

    @property
    def waiting(self) -> int:
        """Requests that have been taken and are not answered."""
        return len(self._asked)

    async def open(self) -> None:
        """Start the first worker, and wait until it has opened the model.

        Raises:
            ResnetkitError: it cannot be opened.
        """
        self._first = asyncio.get_running_loop().create_future()
        self._life = asyncio.create_task(self._live())
        await self._first

    def refuse_unready(self) -> None:
        """Say so if the model does not answer.

        Raises:
            Refused: the server ends, or the worker is not there.
        """
        if self.draining:
            raise Refused(503, "unavailable", "the server is about to end", retry_after=5, close=True)
        if not self.ready:
            raise busy("the model is being opened")

    def refuse(self) -> None:
        """Refuse at once what would not be taken, before its body is read.

        Raises:
            Refused: the server ends, the worker is not there, or too much waits for it.
        """
        self.refuse_unready()
        self._refuse_full()

    def _refuse_full(self) -> None:
        if not self.ready:
            raise busy("the model is being opened")
        if self.waiting >= self.limits.max_queue:
            raise busy("too many requests wait for this model")

    async def ask(self, head: Mapping[str, Any], body: bytes) -> Reply:
        """The worker's answer.

        Raises:
            Refused: there is no room, the deadline passed, the worker died, or it refused the request itself.
        """
        self._refuse_full()
        number, now = next(self._numbers), time.monotonic()
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._asked[number] = future
        self._measures.queued(self.opening.name, self.waiting)
        try:
            async with asyncio.timeout(self.limits.answer_seconds):
                await self._send({**head, "number": number, "deadline": now + self.limits.answer_seconds}, body)
                return await future
        except TimeoutError:
            self._end_if_it_hangs(now)
            raise Refused(504, "deadline", "the deadline passed before there was an answer") from None
        finally:
            self._leave(number)

    def _end_if_it_hangs(self, since: float) -> None:
        """End a worker that has said nothing at all for as long as a request may take."""
        if self._heard < since and self._process is not None:
            log("worker", {"model": self.opening.name, "hangs": True}, "error")
            self._process.kill()

    def _leave(self, number: int) -> None:
        """Give a request's place free; one that is not answered need not be any more."""
        future = self._asked.pop(number)
        self._measures.queued(self.opening.name, self.waiting)
        if (not future.done() or future.cancelled()) and self._writer is not None and not self._writer.is_closing():
            self._writer.writelines(packed({"kind": "leave", "number": number}))

    async def _send(self, head: Mapping[str, Any], body: bytes) -> None:
        writer = self._writer
        if writer is None:
            raise busy("the model is being opened")
        try:
            writer.writelines(packed(head, body))
            await writer.drain()
        except OSError:
            return  # its death is told to all that wait

    async def _live(self) -> None:
        """One worker after another, until the server ends."""
        vain = 0
        while True:
            await asyncio.sleep(BACK_OFF[min(vain, len(BACK_OFF) - 1)])
            try:
                await self._one(first=not self.info)
            except ResnetkitError as error:
                if self._first is not None and not self._first.done():
                    self._first.set_exception(error)
                    return
                log("worker", {"model": self.opening.name, "error": error.what}, "error")
            vain = 0 if self._was_ready else vain + 1
            self.alive = vain < DEAD
            self._measures.restarted(self.opening.name)
            log("worker", {"model": self.opening.name, "ended": True, "lost": self.waiting, "in_a_row": vain}, "error")
            self._fail_all()

    def _fail_all(self) -> None:
        for future in list(self._asked.values()):
            if not future.done():
                future.set_exception(busy("the worker ended while it had this request"))

    async def _one(self, first: bool) -> None:
        """The life of one worker.

        Raises:
            ResnetkitError: it could not open the model.
        """
        ours, its = socket.socketpair()
        process = await asyncio.to_thread(self._start, its, self.opening, first)
        its.close()
        reader, writer = await asyncio.open_connection(sock=ours)
        self._heard, self._process = time.monotonic(), process
        try:
            while True:
                head, body = await receive(reader)
                self._heard = time.monotonic()
                self._hear(head, body, writer)
        except (asyncio.IncompleteReadError, OSError):
            if first and self._first is not None and not self._first.done():
                fix = 'is there enough memory? A script of yours has to call serve() under `if __name__ == "__main__":`'
                raise ResourceError("the worker ended before it had opened the model", fix=fix) from None
        finally:
            self._was_ready, self.ready = self.ready, False
            self._writer = self._process = None
            writer.close()
            await asyncio.shield(asyncio.to_thread(_end, process))

    def _hear(self, head: dict[str, Any], body: bytes, writer: asyncio.StreamWriter) -> None:
        if head["kind"] == "answer":
            self._answered(head, body)
        elif head["kind"] == "refused":
            raise _error(head)
        elif head["kind"] == "opened":
            self._opened(head["info"])
        else:
            self._writer, self.batch, self.pid = writer, head["batch"], head["pid"]
            self.ready = self.alive = True
            self.opening = replace(self.opening, together=self.batch)  # its successors need not measure again
            log("ready", {"model": self.opening.name, "backend": self.info["backend"], "batch": self.batch})

    def _opened(self, info: dict[str, Any]) -> None:
        """A worker has the model open; its successors take the same backend, without measuring again."""
        if not self.info:
            self.opening = replace(self.opening, backend=info["backend"])
            if self._start is launch:
                prepare_successors(info["backend"])
        self.info, self.alive = info, True
        if self._first is not None and not self._first.done():
            self._first.set_result(None)

    def _answered(self, head: dict[str, Any], body: bytes) -> None:
        future = self._asked.get(head["number"])
        if future is None or future.done():
            return
        if head["status"] != 200:
            future.set_exception(Refused(head["status"], head["code"], head["error"], head["after"]))
            return
        self._measures.answered(self.opening.name, head["items"])
        future.set_result(Reply(head["headers"], body, head["items"], head["failed"], head["digest"]))

    async def close(self) -> None:
        """End the worker."""
        if self._life is not None:
            self._life.cancel()
            with suppress(asyncio.CancelledError, ResnetkitError):
                await self._life


def _end(process: Process) -> None:
    """A worker ends when its connection does; one that does not is ended."""
    process.join(STOPPING)
    process.kill()
    process.join(STOPPING)


def _error(head: Mapping[str, Any]) -> ResnetkitError:
    """The error of ours that a worker has told."""
    kinds = {
        kind.exit_code: kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, ResnetkitError) and kind is not errors.Interrupted
    }
    return kinds.get(head["exit_code"], ResnetkitError)(head["error"], path=head["path"], fix=head["fix"])
