"""serve: models to a page for people and an interface for programs, until it is told to end."""

from __future__ import annotations

import asyncio
import gc
import logging
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from resnetkit.errors import ResourceError, UsageError
from resnetkit.verbs.console import note

NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}", re.ASCII)
TOKEN = re.compile(r"[\x21-\x7e]{8,512}")
PREFIX = re.compile(r"(/[\w.~-]+)*/?", re.ASCII)


def serve(
    models: str | Path | Sequence[str | Path],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str = "",
    allow_hosts: Collection[str] = (),
    root_path: str = "",
    proxy: str = "",
    backend: str = "auto",
    device: str = "auto",
    mirror: bool = False,
    settings: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> None:
    """Answer requests with one or several models until SIGTERM or Ctrl-C; what was accepted before is answered first.

    Args:
        models: run folders or model folders, each with a name before it or without: "a=runs/a".
        host: the address to listen at; the standard one is reached from this machine only.
        port: the port; 0 for any that is free.
        token: what a client has to send as `Authorization: Bearer`; "" where nothing is asked.
        allow_hosts: further names under which the server may be asked, as that of a proxy.
        root_path: the prefix of all paths where a proxy has one, "/photos".
        proxy: address of a proxy that is believed when it says for whom it asks (X-Forwarded-For).
        backend: what runs the networks, as for `load`.
        device: where, "auto", "cpu", "cuda", ...
        mirror: answer with the mean over an image and its mirror image, in twice the time.
        settings: limits, as {"serve.max_bytes": 1000000}; docs/serve.md lists them.
        quiet: no notes on stderr; the log of requests is written all the same.

    Raises:
        UsageError: two models have one name, or a setting cannot be.
        ModelError: a model is refused.
        ResourceError: the port is taken, or a package is missing.
    """
    try:
        from resnetkit.serving.guard import Access, is_loopback, names_of
        from resnetkit.serving.limits import limits_from
        from resnetkit.serving.log import JsonLines
        from resnetkit.serving.opened import Opening
        from resnetkit.serving.server import bound, serving
    except ImportError as error:
        raise ResourceError("a server needs its packages", fix='pip install "resnetkit[serve]"') from error
    limits = limits_from(settings or {})
    openings = [Opening(name, str(path), backend, device, mirror, limits) for name, path in named(models)]
    access = Access(_token(token), names_of(host, allow_hosts), _prefix(root_path), proxy)
    listener = bound(host, port)
    if not token and not is_loopback(host):
        note("take care: whoever reaches this machine can ask: --token asks for a password", quiet)

    async def live() -> None:
        async with serving(listener, openings, access) as running:
            gc.freeze()  # what is there now stays, and need not be looked through again and again
            note(f"{', '.join(each.name for each in openings)}: {running.url}  (Ctrl-C ends it)", quiet)
            await running.until_told()

    for name in ("asyncio", "resnetkit"):
        logging.getLogger(name).addHandler(JsonLines())
    asyncio.run(live())


def named(models: str | Path | Sequence[str | Path]) -> Iterator[tuple[str, Path]]:
    """Names and folders of models: "a=runs/a", or a folder, whose name it is then.

    Raises:
        UsageError: a name is none.
    """
    for text in [models] if isinstance(models, str | Path) else models:
        name, sign, path = str(text).partition("=")
        if not sign or Path(text).exists():
            folder = Path(text).resolve()
            name, path = (folder.parent if folder.name == "model" else folder).name, str(text)
        if not NAME.fullmatch(name):
            what = f"{name!r} is no name for a model"
            raise UsageError(what, fix="NAME=FOLDER, with a name of letters, digits, '.', '_' and '-'")
        yield name, Path(path)


def _token(token: str) -> str:
    if token and not TOKEN.fullmatch(token):
        raise UsageError("the token is not of 8 to 512 printable characters without spaces", fix="choose another")
    return token


def _prefix(path: str) -> str:
    if not PREFIX.fullmatch(path):
        raise UsageError(f"--root-path {path!r}", fix="as /photos")
    return path.rstrip("/")
