"""Images: any file a user has to upright RGB pixels, and from there to what a network takes.

`Preprocess` is one frozen value, stored in model.json; `decode`, `pixels` and `normalise` under it are the only way
from a file to a tensor, so evaluation, prediction, export and serving are bit-equal.
"""

from __future__ import annotations

import contextlib
import io
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from resnetkit.errors import DataError, ModelError, UsageError

Pixels = NDArray[np.uint8]
Resize = Literal["crop", "squash", "letterbox"]
Interpolation = Literal["bilinear", "bicubic"]

# What Pillow may open, whatever the file is called. EPS, PSD, PDF, SVG and the like stay closed.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")
EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")
MAX_PIXELS = 89_478_485  # Pillow's own warning level: 268 MB of RGB
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
    Image.DecompressionBombWarning,
)


class _Quiet:
    """Pillow's remarks on odd EXIF and ICC profiles are not worth a line each; a bomb is an error.

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
                warnings.simplefilter("error", Image.DecompressionBombWarning)

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._caught.__exit__(None, None, None)


_QUIET = _Quiet()


@dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class Preprocess:
    """From upright RGB pixels to the input of a network.

    Attributes:
        size: height and width of the result, in pixels.
        resize: "crop" takes the centre square, "squash" the whole image without its proportions, "letterbox" the whole
            image with bars in the colour of the mean.
        crop_ratio: side of the centre square as a share of the image's short side (crop only), 0..1.
        interpolation: filter of the resize; always with antialiasing, as Pillow does it.
        mean, std: per channel, of pixels in 0..1; their number is that of the channels (1 grey, 3 RGB).
        background: grey level 0..255 under transparent pixels.
    """

    size: Annotated[int, Field(ge=8, le=4096)] = 224
    resize: Resize = "crop"
    crop_ratio: Annotated[float, Field(gt=0, le=1)] = 0.875
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    background: Annotated[int, Field(ge=0, le=255)] = 255

    def __post_init__(self) -> None:
        if len(self.mean) not in (1, 3) or len(self.mean) != len(self.std) or min(self.std) <= 0:
            raise ValueError("mean and std need 1 or 3 numbers each, std above 0")

    @property
    def channels(self) -> int:
        """Number of channels of the network's input."""
        return len(self.mean)

    def as_dict(self) -> dict[str, Any]:
        """As it stands in model.json."""
        return asdict(self)


def preprocess_from(values: Mapping[str, Any], path: Path) -> Preprocess:
    """The Preprocess in a model.json at `path`.

    Raises:
        ModelError: it is missing or not valid.
    """
    try:
        return TypeAdapter(Preprocess).validate_python(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ModelError(
            f"preprocess.{where}: {first['msg']}", path=path, fix="train or save the model again"
        ) from error


def decode(source: Path | str | bytes, preprocess: Preprocess) -> Image.Image:
    """An image file (a path or its bytes) as an upright 8-bit image of mode RGB or L.

    Raises:
        DataError: the file cannot be read; the message names it and says why.
    """
    name = "<bytes>" if isinstance(source, bytes) else source
    try:
        with _QUIET, _opened(source) as file, Image.open(file, formats=FORMATS) as image:
            _refuse_extreme(image, name)
            image.load()
            return upright(image, preprocess)
    except UnidentifiedImageError:
        raise DataError(_not_an_image(source), path=name, fix="remove it or replace it") from None
    except DECODE_ERRORS as error:
        raise DataError(f"cannot be read: {_reason(error)}", path=name, fix="remove it or replace it") from error


@contextlib.contextmanager
def _opened(source: Path | str | bytes) -> Iterator[IO[bytes]]:
    if isinstance(source, bytes):
        yield io.BytesIO(source)
        return
    with open(source, "rb") as file:
        yield file


def _refuse_extreme(image: Image.Image, name: str | Path) -> None:
    """From the header alone, before any pixel is decoded."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise DataError(f"{width} x {height} is over {MAX_PIXELS:,} pixels", path=name, fix="make it smaller")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise DataError(f"{width} x {height} is over {MAX_ASPECT} times as long as wide", path=name, fix="crop it")


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return " ".join(str(error).split())[:200] or type(error).__name__


def _not_an_image(source: Path | str | bytes) -> str:
    """Why Pillow could not identify a file, from its first bytes."""
    try:
        with _opened(source) as file:
            head = file.read(512).lstrip()
    except OSError as error:  # it went away in between
        return f"cannot be read: {_reason(error)}"
    if not head:
        return "is not an image: empty file"
    looks = {
        b"<svg": "SVG",
        b"<?xml": "XML or SVG",
        b"<": "HTML",
        b"%PDF": "PDF",
        b"%!PS": "PostScript",
        b"8BPS": "PSD",
    }
    looks |= {b"{": "JSON", b"[": "JSON", b"PK": "a zip archive"}
    for magic, what in looks.items():
        if head.startswith(magic):
            return f"is not an image of {', '.join(FORMATS)}: it looks like {what}"
    if head[4:8] == b"ftyp":
        return "is HEIC or a video, which is not supported"
    return f"is not an image of {', '.join(FORMATS)}"


def upright(image: Image.Image, preprocess: Preprocess) -> Image.Image:
    """Orientation from EXIF applied, first frame, mode RGB (or L for one channel), transparency on the background."""
    # Damaged EXIF is no reason to refuse a picture.
    with contextlib.suppress(*DECODE_ERRORS):
        image = ImageOps.exif_transpose(image)
    mode = "L" if preprocess.channels == 1 else "RGB"
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(_to_eight_bits(image))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, (preprocess.background,) * 3 + (255,))
        image = Image.alpha_composite(ground, image)
    return image.convert(mode)


def _to_eight_bits(image: Image.Image) -> Pixels:
    """16-bit greys divided by 257; floats in 0..1 times 255, others as they are. Pillow's own convert would clip."""
    values = np.nan_to_num(np.asarray(image).astype(np.float64))
    factor = 1 / 257
    if image.mode == "F":
        factor = 255 if values.max() <= 1 else 1
    return np.clip(np.rint(values * factor), 0, 255).astype(np.uint8)


def from_image(image: Image.Image, preprocess: Preprocess) -> Image.Image:
    """An image in memory as `upright` gives it; one that Pillow has only opened so far is read now.

    Raises:
        DataError: its file cannot be read, or it has no pixels.
    """
    if not min(image.size):
        raise DataError(f"an image of {image.width} x {image.height} has no pixels", fix="remove it or replace it")
    try:
        with _QUIET:
            _refuse_extreme(image, "<image>")
            return upright(image, preprocess)
    except DECODE_ERRORS as error:
        raise DataError(f"cannot be read: {_reason(error)}", path="<image>", fix="remove it or replace it") from error


def from_array(array: NDArray[Any], preprocess: Preprocess) -> Image.Image:
    """An array [H, W], [H, W, 1], [H, W, 3] or [H, W, 4] of uint8, RGB order, as `upright` gives images.

    Raises:
        UsageError: another shape or type.
    """
    known = array.dtype == np.uint8 and array.ndim in (2, 3) and (*array.shape, 1)[2] in (1, 3, 4)
    if not known or not array.size:
        raise UsageError(
            f"an array of {array.dtype} {array.shape} is not an image", fix="give uint8 [H, W], [H, W, 3] or [H, W, 4]"
        )
    squeezed = array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array
    return from_image(Image.fromarray(np.ascontiguousarray(squeezed)), preprocess)


def pixels(image: Image.Image, preprocess: Preprocess) -> Pixels:
    """An upright image as uint8 [size, size, channels], resized with antialiasing."""
    size = (preprocess.size, preprocess.size)
    method = Image.Resampling.BICUBIC if preprocess.interpolation == "bicubic" else Image.Resampling.BILINEAR
    if preprocess.resize == "crop":
        image = image.resize(size, method, box=_centre(image.size, preprocess.crop_ratio))
    elif preprocess.resize == "squash":
        image = image.resize(size, method)
    else:
        fill = tuple(round(255 * value) for value in preprocess.mean)
        image = ImageOps.pad(image, size, method, color=fill if len(fill) == 3 else fill[0])
    array = np.asarray(image)
    return array[:, :, None] if array.ndim == 2 else array


def _centre(size: tuple[int, int], ratio: float) -> tuple[float, float, float, float]:
    """The centre square whose side is `ratio` of the short side, at least a pixel: left, top, right, bottom."""
    width, height = size
    side = max(1.0, ratio * min(width, height))
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def normalise(batch: Pixels, preprocess: Preprocess) -> NDArray[np.float32]:
    """uint8 [N, H, W, C] to float32 [N, C, H, W]: (x / 255 - mean) / std."""
    mean = np.array(preprocess.mean, np.float32) * np.float32(255)
    scale = np.float32(1) / (np.array(preprocess.std, np.float32) * np.float32(255))
    return np.ascontiguousarray(((batch.astype(np.float32) - mean) * scale).transpose(0, 3, 1, 2))


def stored_size(path: Path) -> tuple[int, int] | None:
    """Width and height from a file's header, before orientation; None where it has none that can be read."""
    try:
        with _QUIET, Image.open(path, formats=FORMATS) as image:
            return image.size
    except DECODE_ERRORS:
        return None


def thumbnail(source: Path | str | bytes, side: int = 96) -> bytes:
    """A JPEG of at most side x side pixels, without metadata.

    Raises:
        DataError: the file cannot be read.
    """
    image = decode(source, Preprocess())
    image.thumbnail((side, side))
    clean = Image.new("RGB", image.size)
    clean.paste(image)
    buffer = io.BytesIO()
    clean.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
