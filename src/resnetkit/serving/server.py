"""The life of a server: it listens once all models are open, drains when it is told to end, and exits with 0."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass

import uvicorn

from resnetkit.errors import ResourceError, UsageError
from resnetkit.serving.app import Service, create_app
from resnetkit.serving.connection import Connection, watch
from resnetkit.serving.desk import Desk, Launch, launch
from resnetkit.serving.guard import Access, Guard
from resnetkit.serving.limits import Limits
from resnetkit.serving.log import log
from resnetkit.serving.measures import Measures
from resnetkit.serving.opened import Opening

SPARE = 32  # files that the process has open beside its connections
TICK = 0.02  # seconds


def bound(host: str, port: int) -> socket.socket:
    """A socket that has this address, and does not listen yet.

    Raises:
        ResourceError: another process has it, or this machine does not.
    """
    opened = None
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        opened = socket.socket(family, kind, proto)
        if os.name == "posix":
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
    except (OSError, OverflowError) as error:
        if opened:
            opened.close()
        why = getattr(error, "strerror", None) or str(error)
        raise ResourceError(
            f"cannot listen on {host}, port {port}: {why.lower()}", fix="choose another --port"
        ) from error
    return opened


def most_connections(limits: Limits) -> int:
    """As many as the limit says, and as the process may open files."""
    try:
        import resource
    except ImportError:  # not on Windows, which has no such limit
        return limits.max_connections
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return limits.max_connections if soft < 0 else max(1, min(limits.max_connections, soft - SPARE))


class _Uvicorn(uvicorn.Server):
    """uvicorn without its signals, which end it before what was accepted is answered, and by a signal."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """They are ours."""
        yield


@dataclass
class Running:
    """A server that listens.

    Attributes:
        url: where.
        desks: one for each model.
        guard: what counts its visitors.
        limits: what it keeps to.
    """

    url: str
    desks: Sequence[Desk]
    guard: Guard
    limits: Limits
    server: uvicorn.Server
    task: asyncio.Task[None]

    async def until_told(self) -> None:
        """Serve until SIGTERM or Ctrl-C, and then until what was accepted is answered; a second one ends at once."""
        told = asyncio.Event()
        if threading.current_thread() is threading.main_thread():
            _on_signals(told)
        waiting = asyncio.create_task(told.wait())
        await asyncio.wait({waiting, self.task}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        await self.drain()

    async def drain(self) -> None:
        """Take nothing more, finish what was taken, and be there a little longer for those who have not heard."""
        began = time.monotonic()
        for desk in self.desks:
            desk.draining = True
        log("draining", {"requests": self.guard.held.visits})
        while self.guard.held.visits and time.monotonic() - began < self.limits.drain_seconds:
            await asyncio.sleep(TICK)
        await asyncio.sleep(max(0.0, self.limits.linger_seconds - (time.monotonic() - began)))
        self.server.should_exit = True


def _on_signals(told: asyncio.Event) -> None:
    """The first of them sets an event, the second ends the process."""
    loop = asyncio.get_running_loop()

    def hear(number: int) -> None:
        if told.is_set():
            os._exit(128 + number)
        told.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):  # on Windows Ctrl-C raises KeyboardInterrupt
            loop.add_signal_handler(number, hear, number)


@asynccontextmanager
async def serving(
    listener: socket.socket, openings: Sequence[Opening], access: Access, start: Launch = launch
) -> AsyncIterator[Running]:
    """A server at an address, from when every model has been opened; it is ready when each has answered once.

    Args:
        listener: from `bound`; is closed at the end.
        openings: the models; the first is asked where no name is said.
        access: who may ask.
        start: starts a worker.

    Raises:
        ResnetkitError: a model cannot be opened.
        UsageError: two have one name.
    """
    limits, measures = openings[0].limits, Measures()
    desks = {opening.name: Desk(opening, measures, start) for opening in openings}
    try:
        if len(desks) < len(openings):
            raise UsageError("each model needs a name of its own", fix="a=runs/a b=runs/b")
        await asyncio.gather(*(desk.open() for desk in desks.values()))
        guard = Guard(create_app(Service(desks, limits, measures), access.prefix), access, limits, measures)  # type: ignore[arg-type]
        server = _Uvicorn(_config(guard, limits))
        task = asyncio.create_task(server.serve([listener]))
        watching = asyncio.create_task(watch(server.server_state.connections))
        try:
            await _started(server, task)
            log("listening", {"url": _url(listener), "models": list(desks)})
            yield Running(_url(listener), list(desks.values()), guard, limits, server, task)
        finally:
            server.should_exit = True
            await asyncio.gather(task, return_exceptions=True)
            watching.cancel()
    finally:
        listener.close()
        await asyncio.gather(*(desk.close() for desk in desks.values()))


async def _started(server: uvicorn.Server, task: asyncio.Task[None]) -> None:
    """Wait until a server listens.

    Raises:
        ResourceError: somebody else was quicker.
    """
    while not server.started:
        if task.done():
            raise ResourceError("cannot listen: the port is taken", fix="choose another --port") from task.exception()
        await asyncio.sleep(TICK)


def _config(guard: Guard, limits: Limits) -> uvicorn.Config:
    """The settings of uvicorn with our connections; it says nothing itself, since it would name addresses."""

    class Ours(Connection):
        """Connections of this server."""

    Ours.limits, Ours.most = limits, most_connections(limits)
    return uvicorn.Config(
        guard,
        http=Ours,
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=bool(guard.access.proxy),
        forwarded_allow_ips=guard.access.proxy,
        timeout_keep_alive=max(1, round(limits.idle_seconds)),
        timeout_graceful_shutdown=2,
        backlog=min(2048, 4 * limits.max_connections),
    )


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
