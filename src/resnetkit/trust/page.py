"""Pages that open from disk and ask no network for anything: their templates, and pictures inside them."""

from __future__ import annotations

import base64
from collections.abc import Callable
from functools import partial
from importlib import resources

import jinja2

from resnetkit.data.dataset import File
from resnetkit.data.image import thumbnail
from resnetkit.errors import DataError


def template(name: str) -> jinja2.Template:
    """A template of this folder by its file name; whatever is put into it is escaped, and must be there."""
    text = (resources.files("resnetkit") / "trust" / name).read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(text)


def picture_url(file: File, side: int = 96) -> str:
    """A picture of at most side x side pixels as a data: URL; "" where it cannot be read any more."""
    return url_of(file, partial(thumbnail, side=side))


def url_of(file: File, draw: Callable[[File], bytes] | None, kind: str = "image/jpeg") -> str:
    """A file as `draw` gives it, of this kind, as a data: URL; "" where nothing does, or it can be read no more."""
    if draw is None:
        return ""
    try:
        return f"data:{kind};base64," + base64.b64encode(draw(file)).decode("ascii")
    except DataError:
        return ""  # the file went away since it was looked at; its name is still told
