"""One file over https: whole and with the right hash, or not there; a download that broke off is gone on with.

The file lies under `<name>.part`, beside it the server's ETag, until its SHA-256 is right; then it takes its name at
once. A lock lets one of several processes download, and the others find the file. No torch.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO, cast
from urllib import request
from urllib.error import HTTPError
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from resnetkit.errors import NetworkError, ResourceError, printable
from resnetkit.files import sha256

log = logging.getLogger("resnetkit")
Advance = Callable[[int], None]
CHUNK = 1 << 20
LEAST = 1024  # bytes a second, over a stall time; anything slower is taken for a server that stalls on purpose
PLAIN_SECONDS = 10.0
BY_HAND = "copy the file there by hand, or give --weights PATH or --weights none"


@dataclass(frozen=True)
class _Job:
    """What to fetch, where to, and what it must be."""

    url: str
    target: Path
    sha256_prefix: str
    max_bytes: int
    stall_seconds: float

    @property
    def part(self) -> Path:
        return self.target.with_name(self.target.name + ".part")

    @property
    def tag(self) -> Path:
        """Holds the ETag or date of what is in the part."""
        return self.target.with_name(self.target.name + ".part.etag")

    def failed(self, what: str, fix: str = BY_HAND) -> NetworkError:
        line = printable(" ".join(what.split()))
        return NetworkError(f"{self.target.name} could not be downloaded: {line}", path=self.target, fix=fix)

    def discard(self) -> None:
        self.part.unlink(missing_ok=True)
        self.tag.unlink(missing_ok=True)


def offline() -> bool:
    """Whether the user forbids the network (RESNETKIT_OFFLINE or HF_HUB_OFFLINE)."""
    given = (os.environ.get(name, "") for name in ("RESNETKIT_OFFLINE", "HF_HUB_OFFLINE"))
    return any(value.lower() not in ("", "0", "false", "no", "off") for value in given)


def download(
    url: str,
    target: Path,
    *,
    sha256_prefix: str,
    max_bytes: int,
    stall_seconds: float = 60.0,
    progress: bool = True,
) -> Path:
    """Fetch a file, unless another process has done so meanwhile.

    Args:
        url: https, or http to this machine; redirects must be so too.
        target: its final name; the folder is made.
        sha256_prefix: what the SHA-256 of the whole file must begin with, in hexadecimal.
        max_bytes: more than these are refused.
        stall_seconds: give up where no byte, or less than 1 KiB a second, comes for so long.
        progress: a bar on a terminal, a line every ten seconds elsewhere.

    Raises:
        NetworkError: the address, the server, the way there, or the hash.
        ResourceError: the folder cannot be written to.
    """
    job = _Job(url, target, sha256_prefix, max_bytes, stall_seconds)
    refuse_unsafe(url)
    with cache_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target):
            if not target.is_file():
                _fetch(job, progress)
    return target


@contextmanager
def cache_errors(path: Path) -> Iterator[None]:
    """Turn an OSError about a file in a cache into a ResourceError that names the way out."""
    try:
        yield
    except OSError as error:
        fix = "make room or give yourself access there, or set TORCH_HOME (HF_HOME for hf://) to another folder"
        raise ResourceError((error.strerror or str(error)).lower(), path=path, fix=fix) from error


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """One process at a time; the lock file stays, since who deletes one may delete another's."""
    lock = FileLock(target.with_name(f".{target.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.warning("waiting for another process that downloads %s", target.name)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _fetch(job: _Job, progress: bool) -> None:
    """Bring the part to its end, check it, and give it its name."""
    whole = job.part.is_file() and sha256(job.part).startswith(job.sha256_prefix)  # killed just before the rename
    if not whole:
        response, offset = _answer(job)
        with response:
            _receive(job, response, offset, progress)
    found = sha256(job.part)
    if not found.startswith(job.sha256_prefix):
        job.discard()
        raise job.failed(f"its SHA-256 is {found} and does not begin with {job.sha256_prefix}")
    with job.part.open("rb+") as file:
        os.fsync(file.fileno())
    job.part.replace(job.target)
    job.tag.unlink(missing_ok=True)


def _answer(job: _Job) -> tuple[HTTPResponse, int]:
    """The server's answer and the offset that it starts at: the end of the part, or 0 where that cannot be gone on."""
    offset = job.part.stat().st_size if job.part.is_file() else 0
    tag = job.tag.read_text(encoding="utf-8") if job.tag.is_file() else ""
    if offset and tag:
        response = _open(job, {"Range": f"bytes={offset}-", "If-Range": tag})
        if response is not None and response.status == 200:
            return response, 0
        if response is not None:
            goes_on = re.match(rf"bytes {offset}-", response.headers.get("Content-Range", ""))
            if response.status == 206 and goes_on and _tag(response) == tag:
                return response, offset
            response.close()
    response = _open(job, {})
    assert response is not None, "only what asks for a range gets a 416 here"
    if response.status != 200:
        response.close()
        raise job.failed(f"the server answered {response.status}")
    return response, 0


def _tag(response: HTTPResponse) -> str:
    """What tells this content from another at the same address; a weak ETag does not."""
    etag = str(response.headers.get("ETag", ""))
    return etag if etag and not etag.startswith("W/") else str(response.headers.get("Last-Modified", ""))


def _open(job: _Job, headers: dict[str, str]) -> HTTPResponse | None:
    """The server's answer; None for 416, a range that it does not have."""
    asked = request.Request(job.url, headers={"Accept-Encoding": "identity", "User-Agent": "resnetkit", **headers})
    with _network(job):
        try:
            return cast(HTTPResponse, _opener().open(asked, timeout=job.stall_seconds))
        except HTTPError as error:
            error.close()
            if error.code == 416 and headers:
                return None
            raise


@contextmanager
def _network(job: _Job) -> Iterator[None]:
    """Turn what the network raises into a NetworkError; nothing in the block may touch the disk."""
    try:
        yield
    except TimeoutError as error:
        raise job.failed(f"no byte came for {job.stall_seconds:g} s", "run it again to go on from there") from error
    except HTTPError as error:
        raise job.failed(f"the server answered {error.code} {error.reason}") from error
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            raise job.failed(f"no answer for {job.stall_seconds:g} s") from error
        raise job.failed(str(reason) or type(reason).__name__) from error


def _receive(job: _Job, response: HTTPResponse, offset: int, progress: bool) -> None:
    """Write an answer to the part, from its offset on."""
    total = _announced(job, response, offset)
    log.warning("downloading %s, %.1f MB, to %s", job.url, total / 1e6, job.target)
    done = offset
    with job.part.open("ab" if offset else "wb") as file, _bar(job.target.name, offset, total, progress) as advance:
        # after the part was emptied: killed in between, an older part must not meet a newer tag
        job.tag.write_text(_tag(response), encoding="utf-8")
        for chunk in _chunks(job, response):
            done += len(chunk)
            if done > job.max_bytes:
                break
            file.write(chunk)
            advance(done)
    if done > job.max_bytes:
        job.discard()
        raise job.failed(f"it has more than the {job.max_bytes:,} bytes that were expected")
    if "Content-Length" in response.headers and done < total:
        raise job.failed(f"the connection ended after {done:,} of {total:,} bytes", "run it again to go on from there")


def _announced(job: _Job, response: HTTPResponse, offset: int) -> int:
    """Size of the whole file as the server says, or else the most it may have; refuses what cannot be the file."""
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise job.failed(f"the server answered in the encoding {encoding}, which was not asked for")
    if response.headers.get_content_type() == "text/html":
        raise job.failed("the server answered with a web page, as the login pages of networks do")
    total = offset + (response.length or 0) if "Content-Length" in response.headers else job.max_bytes
    if total > job.max_bytes:
        raise job.failed(f"it has {total:,} bytes, at most {job.max_bytes:,} were expected")
    return total


def _chunks(job: _Job, response: HTTPResponse) -> Iterator[bytes]:
    """The body as it comes, until it ends or is too slow."""
    since, received = time.monotonic(), 0
    while True:
        with _network(job):
            chunk = response.read1(CHUNK)
        if not chunk:
            return
        yield chunk
        received += len(chunk)
        seconds = time.monotonic() - since
        if seconds >= job.stall_seconds:
            if received < LEAST * seconds:
                raise job.failed(f"{received:,} bytes came in {seconds:.0f} s", "run it again to go on from there")
            since, received = time.monotonic(), 0


def refuse_unsafe(url: str, before: str = "") -> None:
    """Refuse an address that is neither https nor http to this machine, or http after https.

    Raises:
        NetworkError: it is one of those.
    """
    parts = urlsplit(url)
    local = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost", "::1")
    if parts.scheme != "https" and (not local or before.startswith("https:")):
        led = f"{printable(before)} leads to {printable(url)}, which" if before else printable(url)
        raise NetworkError(f"{led} is not https", fix=BY_HAND)


class _Redirects(request.HTTPRedirectHandler):
    max_redirections = 5

    def redirect_request(
        self, req: request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> request.Request | None:
        """Follow a redirect where the new address is as safe as the old one."""
        try:
            refuse_unsafe(newurl, before=req.full_url)
        except NetworkError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> request.OpenerDirector:
    """One that knows http, https, proxies and redirects; urllib's own would open file:// and ftp:// as well."""
    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler(),
        request.HTTPHandler(),
        request.HTTPSHandler(),
        request.HTTPDefaultErrorHandler(),
        request.HTTPErrorProcessor(),
        _Redirects(),
        request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


@contextmanager
def _bar(label: str, done: int, total: int, progress: bool) -> Iterator[Advance]:
    """Give a function to call with the number of bytes there are."""
    if not progress or not log.isEnabledFor(logging.WARNING):
        yield lambda now: None
    elif sys.stderr.isatty():
        with _rich_bar(label, done, total) as advance:
            yield advance
    else:
        yield _plain_lines(label, done, total)


@contextmanager
def _rich_bar(label: str, done: int, total: int) -> Iterator[Advance]:
    from rich import progress as rich
    from rich.console import Console

    columns = (rich.TextColumn("{task.description}"), rich.BarColumn(), rich.DownloadColumn())
    rate = (rich.TransferSpeedColumn(), rich.TimeRemainingColumn())
    with rich.Progress(*columns, *rate, console=Console(stderr=True)) as shown:
        row = shown.add_task(label, total=total, completed=done)
        yield lambda now: shown.update(row, completed=now)


def _plain_lines(label: str, done: int, total: int) -> Advance:
    started = last = time.monotonic()

    def advance(now: int) -> None:
        nonlocal last
        clock = time.monotonic()
        if clock - last < PLAIN_SECONDS:
            return
        last = clock
        rate = (now - done) / (clock - started)
        left = (total - now) / rate
        log.warning(f"{label}: {now / 1e6:.0f} of {total / 1e6:.0f} MB, {rate / 1e6:.1f} MB/s, {left:.0f} s left")

    return advance
