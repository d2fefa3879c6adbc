"""Pages that open from disk and ask no network for anything: their templates, and pictures inside them."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from functools import partial
from importlib import resources

import jinja2
from PIL import Image

from resnetkit.data.dataset import File
from resnetkit.data.image import thumbnail
from resnetkit.errors import DataError


def template(name: str) -> jinja2.Template:
    """A template of this folder by its file name; whatever is put into it is escaped, and must be there."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_text),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def _text(name: str) -> str:
    return (resources.files("resnetkit") / "trust" / name).read_text(encoding="utf-8")


def jpeg_url(image: Image.Image) -> str:
    """A picture as a data: URL."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


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
