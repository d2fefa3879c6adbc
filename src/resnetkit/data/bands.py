"""Images of any number of channels: .npy files, and what Pillow reads in as many bands or pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnetkit.data.formats import MAX_PIXELS, REPLACE, refuse_extreme_size
from resnetkit.errors import DataError

Pixels = NDArray[np.uint8]
MAGIC = b"\x93NUMPY"
MAX_CHANNELS = 16


@dataclass(frozen=True)
class Bands:
    """An upright image of channels that Pillow has no mode for: a grey image for each."""

    each: tuple[Image.Image, ...]

    @property
    def width(self) -> int:
        """In pixels."""
        return self.each[0].width

    @property
    def height(self) -> int:
        """In pixels."""
        return self.each[0].height


def is_array(file: IO[bytes]) -> bool:
    """Whether a file is a .npy, by its first bytes; it is left at its beginning."""
    found = file.read(len(MAGIC)) == MAGIC
    file.seek(0)
    return found


def array_shape(file: IO[bytes], name: str) -> tuple[int, int, int, bool]:
    """Height, width, channels of a .npy, and whether it is in Fortran's order, from its header alone.

    Raises:
        DataError: it holds something else than uint8 [H, W] or [H, W, C], or more than an image may.
        ValueError: the header is damaged.
    """
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"a .npy of version {version}")
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, kind = header(file)
    if kind != np.uint8 or len(shape) not in (2, 3) or not all(shape) or (*shape, 1)[2] > MAX_CHANNELS:
        what = f"holds {kind} {shape}, not uint8 [H, W] or [H, W, C] of up to {MAX_CHANNELS} channels"
        raise DataError(what, path=name, fix="save it as such, 0 to 255")
    height, width, channels = (*shape, 1)[:3]
    refuse_extreme_size(width, height, name)
    if height * width * channels > 3 * MAX_PIXELS:
        raise DataError(f"holds over {3 * MAX_PIXELS:,} numbers", path=name, fix="make it smaller")
    return height, width, channels, fortran


def read_array(file: IO[bytes], name: str) -> Pixels:
    """A .npy as uint8 [H, W, C]; nothing in it is executed, and no more is read than its header says.

    Raises:
        DataError, ValueError: as `array_shape`, or it is cut short.
    """
    height, width, channels, fortran = array_shape(file, name)
    content = file.read(height * width * channels)
    if len(content) < height * width * channels:
        raise DataError("is cut short", path=name, fix=REPLACE)
    flat = np.frombuffer(content, np.uint8)
    return flat.reshape((height, width, channels), order="F" if fortran else "C")


def from_channels(array: Pixels, channels: int, name: str) -> Image.Image | Bands:
    """An array [H, W, C] as what a network of `channels` channels is given: grey and RGB as Pillow has them.

    Raises:
        DataError: C is another number, and there is no usual way from one to the other.
    """
    have = array.shape[2]
    if channels in (1, 3) and have in (1, 3, 4):
        return Image.fromarray(np.ascontiguousarray(array[:, :, 0] if have == 1 else array))
    if have != channels:
        raise _other_channels(have, channels, name)
    return Bands(tuple(Image.fromarray(np.ascontiguousarray(array[:, :, c])) for c in range(have)))


def bands_of(image: Image.Image, channels: int, name: str) -> Sequence[Image.Image]:
    """The bands of an image, or its pages where these are as many.

    Raises:
        DataError: it has neither as many bands nor as many pages of one size.
    """
    if len(image.getbands()) == channels:
        return image.split()
    if getattr(image, "n_frames", 1) != channels:
        raise _other_channels(len(image.getbands()), channels, name)
    if image.width * image.height * channels > 3 * MAX_PIXELS:
        raise DataError(f"holds over {3 * MAX_PIXELS:,} numbers", path=name, fix="make it smaller")
    pages = []
    for page in range(channels):
        image.seek(page)
        pages.append(image.copy())
    if any(page.size != pages[0].size or len(page.getbands()) != 1 for page in pages):
        raise DataError("has pages of several sizes, or in colour", path=name, fix=REPLACE)
    return pages


def _other_channels(have: int, channels: int, name: str) -> DataError:
    fix = f"train with --set image.channels={have}, or give images of {channels} channels"
    return DataError(f"has {have} channels, not the {channels} of the network", path=name, fix=fix)
