"""Images: any file a user has to upright RGB pixels, and from there to what a network takes.

`Preprocess` is one frozen value, stored in model.json; `decode`, `pixels` and `normalise` under it are the only way
from a file to a tensor, so evaluation, prediction, export and serving are bit-equal.
"""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from resnetkit.data.bands import Bands, array_shape, bands_of, from_channels, is_array, read_array
from resnetkit.data.formats import (
    DECODE_ERRORS,
    MAX_PIXELS,
    QUIET,
    REPLACE,
    Source,
    max_pixels,
    name_of,
    open_image,
    opened,
    reason,
    refuse_extreme,
    refuse_extreme_size,
)
from resnetkit.data.formats import EXTENSIONS as EXTENSIONS
from resnetkit.data.preprocess import Preprocess as Preprocess
from resnetkit.data.preprocess import mean_and_std as mean_and_std
from resnetkit.data.preprocess import preprocess_from as preprocess_from
from resnetkit.errors import DataError, UsageError
from resnetkit.ops.windows import middle

Pixels = NDArray[np.uint8]
Picture = Image.Image | Bands  # Bands where the network takes another number of channels than 1 or 3

LARGE_PIXELS = 25_000_000  # 100 MB as Pillow holds them: of such images one at a time is decoded
TURNS = {  # how an upright picture is got from one that is stored under an EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# 16 bits to 8: 65,535 is 255. Pillow's own convert would clip.
TO_EIGHT_BITS = np.rint(np.arange(65536) / 257).astype(np.uint8)

_ONE_LARGE = threading.Lock()


def decode(source: Source, preprocess: Preprocess) -> Picture:
    """An image file as an upright 8-bit image of mode RGB or L (or Bands), at a scale that suffices for `preprocess`.

    Args:
        source: a path, a file's bytes, or a member of an archive.
        preprocess: what is to become of it.

    Raises:
        DataError: the file cannot be read; the message names it and says why.
    """
    name = name_of(source)
    with errors_named(name), QUIET, opened(source) as file:
        if is_array(file):
            array = from_channels(read_array(file, name), preprocess.channels, name)
            return array if isinstance(array, Bands) else upright(array, preprocess)
        return _decode(file, name, preprocess)


def _decode(file: IO[bytes], name: str, preprocess: Preprocess) -> Picture:
    with open_image(file, name) as image:
        return decode_opened(image, name, preprocess)


def decode_opened(image: Image.Image, name: str, preprocess: Preprocess) -> Picture:
    """As `decode`, of an image of which only the header has been read; what its decoder raises is raised."""
    stored = image.width * image.height
    _draft(image, preprocess)
    refuse_extreme(image, name)
    # libjpeg holds a progressive JPEG whole, whatever the scale
    whole = image.info.get("progressive") or stored > MAX_PIXELS
    large = (stored if whole else image.width * image.height) > LARGE_PIXELS
    with _ONE_LARGE if large else contextlib.nullcontext():
        image.load()
        return upright(image, preprocess, name)


@contextlib.contextmanager
def errors_named(name: str) -> Iterator[None]:
    """What a decoder raises, as a DataError with the name of the file."""
    try:
        yield
    except DECODE_ERRORS as error:
        raise DataError(f"cannot be read: {reason(error)}", path=name, fix=REPLACE) from error


def _draft(image: Image.Image, preprocess: Preprocess) -> None:
    """Let libjpeg leave out the detail that the resize would."""
    width, height = image.size
    # A lossless JPEG has no quantization, and libjpeg fails to scale it.
    if not preprocess.draft or not getattr(image, "quantization", None) or width * height > max_pixels(image):
        return
    if preprocess.resize == "window":
        return
    across, down = preprocess.canvas[1] / width, preprocess.canvas[0] / height
    if preprocess.resize == "crop":
        across = down = max(across, down) / preprocess.crop_ratio
    elif preprocess.resize == "letterbox":
        across = down = min(across, down)
    most = 1 / (preprocess.draft * max(across, down))
    part = next((part for part in (8, 4, 2) if part <= most and width % part == height % part == 0), 1)
    image.draft(None, (width // part, height // part))


def upright(image: Image.Image, preprocess: Preprocess, name: str = "<image>") -> Picture:
    """Orientation from EXIF applied, first frame, mode RGB (or L for one channel), transparency on the background.

    For another number of channels: the image's bands, or pages, as they are. An image that is all this already comes
    back itself. Profiles (ICC) are not applied: the published weights were trained without.
    """
    turn = None
    with contextlib.suppress(*DECODE_ERRORS):  # damaged EXIF is no reason to refuse a picture
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    if preprocess.channels not in (1, 3):
        bands = [_to_eight_bits(band).convert("L") for band in bands_of(image, preprocess.channels, name)]
        return Bands(tuple(bands if turn is None else [band.transpose(turn) for band in bands]))
    image = _to_eight_bits(image)
    mode = "L" if preprocess.channels == 1 else "RGB"
    if image.has_transparency_data:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        ground = Image.new("RGB", image.size, (preprocess.background,) * 3)
        ground.paste(image, mask=image)
        image = ground
    image = image if image.mode == mode else image.convert(mode)
    return image if turn is None else image.transpose(turn)


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """16-bit greys divided by 257; floats in 0..1 times 255, others as they are. Modes that nothing else is made of."""
    if image.mode == "I":
        return image.point(TO_EIGHT_BITS.tolist(), "L")  # clips to 0..65535 first
    if image.mode.startswith("I;16"):
        return Image.fromarray(TO_EIGHT_BITS[np.asarray(image)])
    if image.mode == "F":
        values = np.nan_to_num(np.asarray(image))
        values *= 255 if values.max() <= 1 else 1  # in place, and so on: no float copy of a large image
        return Image.fromarray(np.rint(np.clip(values, 0, 255, out=values), out=values).astype(np.uint8))
    between = {"La": "LA", "LAB": "RGB"}.get(image.mode)
    return image.convert(between) if between else image


def from_image(image: Image.Image, preprocess: Preprocess) -> Picture:
    """An image in memory as `upright` gives it; one that Pillow has only opened so far is read now, and whole.

    Raises:
        DataError: its file cannot be read, or it has no pixels.
    """
    if not min(image.size):
        raise DataError(f"an image of {image.width} x {image.height} has no pixels", fix="remove it or replace it")
    with errors_named("<image>"), QUIET:
        refuse_extreme(image, "<image>")
        image.load()
        return upright(image, preprocess)


def from_array(array: NDArray[Any], preprocess: Preprocess) -> Picture:
    """An array [H, W], [H, W, 1], [H, W, 3] or [H, W, 4] of uint8, RGB order, as `upright` gives images.

    Or, for a network of another number of channels, [H, W, C] of these.

    Raises:
        UsageError: another shape or type.
    """
    usual = (1, 3, 4) if preprocess.channels in (1, 3) else (preprocess.channels,)
    known = array.dtype == np.uint8 and array.ndim in (2, 3) and (*array.shape, 1)[2] in usual
    if not known or not array.size:
        fix = "give uint8 [H, W], [H, W, 3] or [H, W, 4]" if 3 in usual else f"give uint8 [H, W, {usual[0]}]"
        raise UsageError(f"an array of {array.dtype} {array.shape} is not an image", fix=fix)
    if 3 not in usual:
        refuse_extreme_size(array.shape[1], array.shape[0], "<array>")
        return from_channels(array, preprocess.channels, "<array>")
    squeezed = array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array
    return from_image(Image.fromarray(np.ascontiguousarray(squeezed)), preprocess)


def shown(image: Picture) -> Image.Image:
    """An image that Pillow can show: itself, or its first band."""
    return image.each[0] if isinstance(image, Bands) else image


def pixels(image: Picture, preprocess: Preprocess) -> Pixels:
    """An upright image as uint8 [height, width, channels], resized with antialiasing, or its middle as it is."""
    if preprocess.resize == "window":
        return _unresized(image, preprocess.canvas, preprocess)
    if isinstance(image, Bands):
        each = zip(image.each, preprocess.mean, preprocess.std, strict=True)
        alone = [pixels(band, replace(preprocess, mean=(mean,), std=(std,))) for band, mean, std in each]
        return np.concatenate(alone, 2)
    size = preprocess.canvas[::-1]
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


def whole(image: Picture, preprocess: Preprocess) -> Pixels:
    """An upright image as windows see it, uint8 [h, w, channels]: as it is; a smaller one in the middle of a window."""
    height, width = preprocess.canvas
    return _unresized(image, (max(height, image.height), max(width, image.width)), preprocess)


def _unresized(image: Picture, size: tuple[int, int], preprocess: Preprocess) -> Pixels:
    """The middle of an image, or bars in the colour of the mean around it, at this height and width."""
    bands = image.each if isinstance(image, Bands) else (image,)
    there = middle(np.concatenate([np.atleast_3d(np.asarray(band)) for band in bands], 2), size)
    canvas = np.empty((*size, there.shape[2]), np.uint8)
    canvas[:] = [round(255 * value) for value in preprocess.mean]
    middle(canvas, there.shape[:2])[:] = there
    return canvas


def _centre(size: tuple[int, int], ratio: float) -> tuple[float, float, float, float]:
    """The centre square whose side is `ratio` of the short side, at least a pixel: left, top, right, bottom."""
    width, height = size
    side = max(1.0, ratio * min(width, height))
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def seen(size: tuple[int, int], preprocess: Preprocess) -> tuple[float, float, float, float]:
    """What the canvas that `pixels` makes shows of an upright image: left, top, right, bottom in the image's pixels.

    With "crop" it lies inside the image; with "letterbox" the bars reach over its edges.

    Args:
        size: width and height of the image, at whatever scale.
        preprocess: how the canvas is made.
    """
    if preprocess.resize == "crop":
        return _centre(size, preprocess.crop_ratio)
    if preprocess.resize == "squash":
        return 0.0, 0.0, float(size[0]), float(size[1])
    height, width = preprocess.canvas
    before, above, across, down = inside(size, preprocess)
    left, top = -before * size[0] / across, -above * size[1] / down
    return left, top, left + width * size[0] / across, top + height * size[1] / down


def inside(size: tuple[int, int], preprocess: Preprocess) -> tuple[int, int, int, int]:
    """Where an upright image lies on its canvas, letterboxed or as it is: left, top, width, height in its whole pixels.

    Args:
        size: width and height of the image, at whatever scale.
        preprocess: of the canvas.
    """
    height, width = preprocess.canvas
    if preprocess.resize == "window":
        return int((width - size[0]) / 2), int((height - size[1]) / 2), *size
    # as ImageOps.pad has them
    ratio, own = width / height, size[0] / size[1]
    across, down = width, height
    if own > ratio:
        down = max(1, round(size[1] / size[0] * width))
    elif own < ratio:
        across = max(1, round(size[0] / size[1] * height))
    return round((width - across) * 0.5), round((height - down) * 0.5), across, down


def normalise(batch: Pixels, preprocess: Preprocess) -> NDArray[np.float32]:
    """uint8 [N, H, W, C] to float32 [N, C, H, W]: (x / 255 - mean) / std."""
    mean = np.array(preprocess.mean, np.float32) * np.float32(255)
    scale = np.float32(1) / (np.array(preprocess.std, np.float32) * np.float32(255))
    return np.ascontiguousarray(((batch.astype(np.float32) - mean) * scale).transpose(0, 3, 1, 2))


def stored_size(source: Source) -> tuple[int, int] | None:
    """Width and height from a file's header, before orientation; None where it has none that would be accepted."""
    try:
        with QUIET, opened(source) as file:
            if is_array(file):
                height, width, _, _ = array_shape(file, name_of(source))
                return width, height
            with open_image(file, name_of(source)) as image:
                return image.size if image.width * image.height <= max_pixels(image) else None
    except (DataError, *DECODE_ERRORS):
        return None


def thumbnail(source: Source, side: int = 96) -> bytes:
    """A JPEG of at most side x side pixels, without metadata.

    Raises:
        DataError: the file cannot be read.
    """
    buffer = io.BytesIO()
    picture(source, side).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def picture(source: Source, side: int) -> Image.Image:
    """A file as its owner knows it: upright, RGB, of at most side x side pixels, without metadata.

    Raises:
        DataError: the file cannot be read.
    """
    image = _shown(source, Preprocess(size=max(8, side), resize="letterbox", draft=1.0))
    image.thumbnail((side, side))
    clean = Image.new("RGB", image.size)
    clean.paste(image)
    return clean


def _shown(source: Source, preprocess: Preprocess) -> Image.Image:
    """What a picture of three channels shows of a file: the first three, or the first, where it has others."""
    name = name_of(source)
    with errors_named(name), QUIET, opened(source) as file:
        if is_array(file):
            array = read_array(file, name)
            return shown(from_channels(array[:, :, :3] if array.shape[2] > 2 else array[:, :, :1], 3, name))
        return shown(_decode(file, name, preprocess))
