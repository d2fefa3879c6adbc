"""What stands before the routes: who may ask, how often and how much, and what is written down of it."""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from resnetkit.serving.limits import Limits
from resnetkit.serving.log import log, log_bug
from resnetkit.serving.measures import Measures
from resnetkit.serving.refusal import Refused, bad, busy, too_large
from resnetkit.serving.telling import strict_json

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

GONE = 499  # what nginx calls a client that has left
SAFE_ID = re.compile(r"[\w.-]{1,64}", re.ASCII)
CLIENTS = 10_000  # that are remembered
WINDOW = 10.0  # seconds over which a rate is an average
# Everything the page needs is here, and nobody may frame it.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", POLICY.encode("ascii")),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(self), microphone=(self), geolocation=()"),
    (b"cache-control", b"no-store"),
)
# What may be asked without the token: it tells nothing of a model.
OPEN = re.compile(r"/(page/[\w.-]+)?|/v2/health/(live|ready)", re.ASCII)


@dataclass(frozen=True)
class Access:
    """Who may ask.

    Attributes:
        token: that a client has to know; "" where none is needed.
        hosts: names under which the server may be asked, beside addresses and localhost.
        prefix: of all paths, where a proxy leaves one in front of them.
        proxy: address of a proxy that is believed when it says for whom it asks; "" where there is none.
    """

    token: str = ""
    hosts: frozenset[str] = frozenset()
    prefix: str = ""
    proxy: str = ""

    def refuse(self, path: str, headers: Mapping[bytes, list[bytes]]) -> None:
        """Refuse a request that comes from where it should not, or without the token.

        Raises:
            Refused: it does.
        """
        host = _one(headers, b"host")
        if not self._knows(host):
            raise Refused(403, "host", "Host: the server is not known under this name (--allow-host)")
        origin = headers.get(b"origin", [])
        if origin and not self._same(_one(headers, b"origin"), host):
            raise Refused(403, "origin", "Origin: pages of other sites may not ask")
        if self.token and not OPEN.fullmatch(path) and not self._allowed(headers):
            raise Refused(401, "token", "Authorization: Bearer with the server's token is needed")

    def stripped(self, path: str) -> str:
        """A path without the prefix, whether a proxy has left it there or not."""
        return path.removeprefix(self.prefix) if path.startswith(f"{self.prefix}/") else path

    def _knows(self, host: str) -> bool:
        """Whether a name cannot have been made to lead here by somebody else: an address never can."""
        name = _name_of(host)
        return name == "localhost" or name in self.hosts or _is_address(name)

    def _same(self, origin: str, host: str) -> bool:
        """Whether a page is of this server, also behind a proxy that has given it another name."""
        scheme, _, rest = origin.partition("://")
        return scheme in ("http", "https") and (rest.lower() == host.lower() or _name_of(rest) in self.hosts)

    def _allowed(self, headers: Mapping[bytes, list[bytes]]) -> bool:
        given = headers.get(b"authorization", [])
        return len(given) == 1 and hmac.compare_digest(given[0], b"Bearer " + self.token.encode("utf-8"))


def names_of(host: str, more: Iterable[str]) -> frozenset[str]:
    """The names under which a server that listens at `host` may be asked: those given, and its own beyond loopback."""
    own = set() if is_loopback(host) else {socket.gethostname().lower(), _name_of(host)}
    return frozenset(own | {name.lower() for name in more})


def _one(headers: Mapping[bytes, list[bytes]], name: bytes) -> str:
    found = headers.get(name, [])
    if len(found) != 1:
        raise bad(f"{name.decode('ascii').capitalize()}: has to be there once")
    return found[0].decode("latin-1").strip()


def _name_of(host: str) -> str:
    """Without its port, in lower case."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.rpartition(":")[0].lower() if host.count(":") == 1 else host.lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    name = _name_of(host)
    return name == "localhost" or (_is_address(name) and ipaddress.ip_address(name).is_loopback)


@dataclass
class Rates:
    """How often each client may ask: so many tokens a second, and those of ten seconds at once (a leaky bucket)."""

    rate: float
    _clients: dict[str, tuple[float, float]] = field(default_factory=dict)

    def refuse(self, client: str, now: float) -> None:
        """Count one request.

        Raises:
            Refused: it is one too many.
        """
        if not self.rate:
            return
        most = max(1.0, self.rate * WINDOW)
        level, since = self._clients.get(client, (most, now))
        level = min(most, level + (now - since) * self.rate)
        if len(self._clients) > CLIENTS:
            self._clients.clear()
        self._clients[client] = (level - 1 if level >= 1 else level), now
        if level < 1:
            after = max(1, round((1 - level) / self.rate))
            raise Refused(429, "too_many", "this client asks too often", retry_after=after)


@dataclass
class Held:
    """What a server has in its hands: requests, and bytes of their bodies."""

    visits: int = 0
    bytes: int = 0


class Visit:
    """One request: its body is counted as it comes, its answer gets our headers, and its status is kept."""

    def __init__(self, scope: Message, receive: Receive, send: Send, limits: Limits, held: Held) -> None:
        self.scope, self.limits, self.held = scope, limits, held
        self.status = self.bytes = 0
        self._receive, self._send = receive, send
        given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        self.id = given if SAFE_ID.fullmatch(given) else secrets.token_hex(8)
        self.notes: dict[str, Any] = {}
        scope.setdefault("state", {})["visit"] = self

    async def receive(self) -> Message:
        """A piece of the body.

        Raises:
            Refused: that is more than there may be.
        """
        message = await self._receive()
        length = len(message.get("body", b""))
        self.bytes += length
        self.held.bytes += length
        if self.held.bytes > self.limits.max_waiting:
            raise busy("the requests that wait are too large together")
        if self.bytes > self.limits.max_bytes:
            raise too_large(f"the body is over {self.limits.max_bytes:,} bytes", close=True)
        return message

    async def send(self, message: Message) -> None:
        """A piece of the answer."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own = {name for name, _ in message["headers"]}
            added = [(name, value) for name, value in HEADERS if name not in own]
            message["headers"] = [*message["headers"], *added, (b"x-request-id", self.id.encode("ascii"))]
        await self._send(message)

    def refused(self, refusal: Refused) -> tuple[dict[str, str], bytes]:
        """Headers and body of an error."""
        body = strict_json({"error": refusal.what, "code": refusal.code, "request_id": self.id})
        headers = {"content-type": "application/json", "content-length": str(len(body))}
        if refusal.retry_after:
            headers["retry-after"] = str(refusal.retry_after)
        if refusal.status == 401:
            headers["www-authenticate"] = "Bearer"
        if refusal.close or b"expect" in dict(self.scope["headers"]):  # whether its body will come is not known
            headers["connection"] = "close"
        return headers, body

    async def refuse(self, refusal: Refused) -> None:
        """Answer with an error, if no answer has begun."""
        if self.status:
            return
        headers, body = self.refused(refusal)
        raw = [(name.encode("ascii"), value.encode("ascii")) for name, value in headers.items()]
        await self.send({"type": "http.response.start", "status": refusal.status, "headers": raw})
        await self.send({"type": "http.response.body", "body": body})


class Gone(Exception):
    """The client has left."""


class Guard:
    """Around the routes: an ASGI application."""

    def __init__(self, app: App, access: Access, limits: Limits, measures: Measures) -> None:
        self.app, self.access, self.limits, self.measures = app, access, limits, measures
        self.rates = Rates(limits.rate)
        self.held = Held()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return
        began = time.perf_counter()
        visit = Visit(scope, receive, send, self.limits, self.held)
        self.held.visits += 1
        try:
            scope["path"] = self.access.stripped(scope["path"])
            self._refuse(scope, began)
            await self.app(scope, visit.receive, visit.send)
        except Refused as refusal:
            await visit.refuse(refusal)
        except Exception as error:
            log_bug(error, visit.id)
            await visit.refuse(Refused(500, "bug", "a bug of the server: its log knows this request by its id"))
        finally:
            self.held.visits -= 1
            self.held.bytes -= visit.bytes
            self._told(visit, time.perf_counter() - began)

    def _refuse(self, scope: Message, now: float) -> None:
        """Refuse by the headers alone."""
        headers: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name, []).append(value)
        self.access.refuse(scope["path"], headers)
        if scope["method"] == "POST":
            self.rates.refuse((scope.get("client") or ("",))[0], now)
        if headers.get(b"content-encoding", [b"identity"]) != [b"identity"]:
            raise Refused(415, "encoding", "Content-Encoding: send the body as it is")
        length = headers.get(b"content-length", [b"0"])[0]
        if int(length) > self.limits.max_bytes:
            raise too_large(f"the body is over {self.limits.max_bytes:,} bytes", close=True)

    def _told(self, visit: Visit, seconds: float) -> None:
        """Count and write down a request; by its route, never by what stands in its address."""
        route = getattr(visit.scope.get("route"), "path", "none")
        status = visit.status or GONE
        self.measures.request(route, status, seconds)
        values = {"request": visit.id, "method": visit.scope["method"], "route": route, "status": status}
        log("request", {**values, "ms": round(1000 * seconds, 1), "bytes": visit.bytes, **visit.notes})
