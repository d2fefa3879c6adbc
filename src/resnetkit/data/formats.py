"""Which files are images, and opening one: by its first bytes, never by its name, and under ceilings of our own."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from typing import IO

from PIL import Image, ImageFile

from resnetkit.errors import DataError

# What Pillow may open, whatever the file is called. EPS, PSD, PDF, SVG and the like stay closed.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "JPEG2000")
# HEIC is among them even without its package: such photos have to be named, not passed over.
EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"),
    *(".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".heic", ".heif", ".hif", ".npy"),
)
MAX_PIXELS = 89_478_485  # 268 MB of RGB; 358 MB as Pillow holds it
# A JPEG can be decoded at 1/8: what phones of 200 megapixels write.
MAX_JPEG_PIXELS = 205_000_000
MAX_BYTES = 2**28  # of formats that Pillow reads as a whole before it knows anything
MAX_ASPECT = 1000  # a 1 x 60,000 strip says nothing at 224 x 224
DECODE_ERRORS = (  # what damaged bytes have led Pillow's decoders to raise
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
REPLACE = "remove it or replace it"
HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1", b"mif2"}
LOOKS = {  # first bytes of files that are often found under an image's name
    b"<svg": "SVG",
    b"<?xml": "XML or SVG",
    b"<": "HTML",
    b"%PDF": "PDF",
    b"%!PS": "PostScript",
    b"8BPS": "PSD",
    b"{": "JSON",
    b"[": "JSON",
    b"PK": "a zip archive",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
}


# A PathLike that has an `open` of its own (a Path, a member of an archive) is opened with that.
Source = str | bytes | os.PathLike[str]
Factory = Callable[[IO[bytes], str], ImageFile.ImageFile]


class _Quiet:
    """Pillow's remarks on odd EXIF and ICC profiles are not worth a line each.

    `warnings.catch_warnings` is not made for threads: here the first to enter changes the filters and the last to leave
    restores them.
    """

    def __init__(self) -> None:
        self._lock, self._inside, self._caught = threading.Lock(), 0, warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                warnings.filterwarnings("ignore", module="PIL")

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._caught.__exit__(None, None, None)


QUIET = _Quiet()


def name_of(source: Source) -> str:
    """What a source is called in a message."""
    return "<bytes>" if isinstance(source, bytes) else os.fsdecode(source)


@contextlib.contextmanager
def opened(source: Source) -> Iterator[IO[bytes]]:
    """The bytes of a source, as a file that can be sought in."""
    if isinstance(source, bytes):
        yield io.BytesIO(source)
        return
    own: Callable[[str], IO[bytes]] | None = getattr(source, "open", None)
    with own("rb") if own else open(source, "rb") as file:
        yield file if file.seekable() else io.BytesIO(file.read())


def open_image(file: IO[bytes], name: str) -> ImageFile.ImageFile:
    """The image in a file, of which only the header has been read.

    `Image.open` does the same, but compares the size with `Image.MAX_IMAGE_PIXELS`, which is the calling program's to
    change: a service may have set it low (which WebP and TIFF files go on to feel), or switched it off.

    Raises:
        DataError: it is none, or over a ceiling.
    """
    head = file.read(512)
    failed = ""
    for form in _formats_of(head, name):
        try:
            image = _open_as(form, file, head)
        except (SyntaxError, IndexError, TypeError, struct.error) as error:
            why = reason(error).replace("not identified by this driver", "it says it has no pixels")
            failed = failed or f"is a damaged {form}: {why}"
            continue
        if image is not None:
            return image
    raise DataError(failed or _not_an_image(head), path=name, fix=REPLACE)


def _open_as(form: str, file: IO[bytes], head: bytes) -> ImageFile.ImageFile | None:
    """None where the first bytes are not of this format, or Pillow was built without it."""
    factory, accepts = (_heif(), None) if form == "HEIF" else _plugin(form)
    fits = accepts is None or accepts(head[:16])
    if factory is None or not fits or isinstance(fits, str):  # a text: the library that reads it is missing
        return None
    if form in ("WEBP", "AVIF", "HEIF") and file.seek(0, os.SEEK_END) > MAX_BYTES:
        raise ValueError(f"over {MAX_BYTES:,} bytes")
    file.seek(0)
    return factory(file, "")


def _plugin(form: str) -> tuple[Factory | None, Callable[[bytes], bool | str] | None]:
    """How Pillow opens a format, and how it tells a file of it by its first bytes."""
    if form not in Image.OPEN:
        Image.preinit()
    if form not in Image.OPEN:
        Image.init()
    return Image.OPEN.get(form, (None, None))


def _heif() -> Factory | None:
    """HEIC without registering it with Pillow, which is the caller's too; None where pillow-heif is not installed."""
    try:
        factory: Factory = importlib.import_module("pillow_heif").HeifImageFile
    except ImportError:
        return None
    return factory


def _formats_of(head: bytes, name: str) -> tuple[str, ...]:
    """Formats to try. HEIC, AVIF and videos are one container: its brands tell them apart.

    Raises:
        DataError: HEIC without pillow-heif, or a video.
    """
    if head[4:8] != b"ftyp":
        return FORMATS
    box = head[8 : max(16, int.from_bytes(head[:4], "big"))]
    brands = {box[:4], *(box[i : i + 4] for i in range(8, len(box), 4))}
    if brands & {b"avif", b"avis"}:
        return ("AVIF",)
    if brands & HEIF_BRANDS:
        if _heif() is None:
            fix = 'pip install "resnetkit[heif]"'
            raise DataError("is HEIC, which needs an optional package", path=name, fix=fix)
        return ("HEIF",)
    what = "a camera's raw file" if b"crx " in brands else "a video"
    raise DataError(f"is {what}, not an image", path=name, fix="export it as JPEG")


def _not_an_image(head: bytes) -> str:
    start = head.lstrip()
    if not start:
        return "is not an image: empty file"
    looks = next((f": it looks like {what}" for magic, what in LOOKS.items() if start.startswith(magic)), "")
    return f"is not an image of {', '.join(FORMATS)}{looks}"


def max_pixels(image: Image.Image) -> int:
    """How many pixels a file may hold. Only a JPEG in one pass can be decoded at 1/8 without being held whole."""
    in_one_pass = image.format in ("JPEG", "MPO") and not image.info.get("progressive")
    return MAX_JPEG_PIXELS if in_one_pass else MAX_PIXELS


def refuse_extreme(image: Image.Image, name: str) -> None:
    """From the header alone, before any pixel is decoded; of a JPEG, the size at which it is going to be decoded.

    Raises:
        DataError: it has too many pixels, or hardly any width or height.
    """
    refuse_extreme_size(*image.size, name)


def refuse_extreme_size(width: int, height: int, name: str) -> None:
    """As `refuse_extreme`, of a width and a height in pixels."""
    if width * height > MAX_PIXELS:
        raise DataError(f"{width} x {height} is over {MAX_PIXELS:,} pixels", path=name, fix="make it smaller")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise DataError(f"{width} x {height} is over {MAX_ASPECT} times as long as wide", path=name, fix="crop it")


def reason(error: BaseException) -> str:
    """What an exception says, in one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return " ".join(str(error).split())[:200] or type(error).__name__
