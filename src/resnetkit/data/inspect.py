"""What a file is, beside its pixels: its size, what is special about it, and a hash of how it looks; or why it fails.

Kept as columns, 18 bytes a file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from enum import IntFlag

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile

from resnetkit.data.bands import is_array
from resnetkit.data.duplicates import perceptual_hash
from resnetkit.data.formats import DECODE_ERRORS, QUIET, Source, name_of, open_image, opened
from resnetkit.data.image import TURNS, Preprocess, decode, decode_opened, errors_named, mean_and_std, shown
from resnetkit.errors import DataError

SIDE = 64  # px: a JPEG is decoded at the scale that suffices for twice as many
LYING = (5, 6, 7, 8)  # orientations whose upright picture is as wide as the stored one is high
ENDINGS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".jpg", ".jpeg", ".mpo"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif",),
    "JPEG2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    "HEIF": (".heic", ".heif", ".hif"),
    "NPY": (".npy",),
}


class Trait(IntFlag):
    """What is special about a file."""

    ROTATED = 1
    GREY = 2
    TRANSPARENT = 4
    SIXTEEN_BIT = 8
    CMYK = 16
    PALETTE = 32
    ANIMATED = 64
    OTHER_ENDING = 128
    NEAR_SILENT = 256
    CLIPPED = 512
    CHANNELS = 1024


@dataclass(frozen=True)
class Fact:
    """A file that can be read: width and height of its upright picture, its traits, and its perceptual hash.

    Of a recording the milliseconds and the samples a second, of a text the characters and 1, take the first two places.
    """

    width: int
    height: int
    traits: Trait
    hash: int


@dataclass(frozen=True)
class Facts:
    """Every file of a data set.

    Attributes:
        widths, heights: of the upright pictures, in pixels [n], or what stands there of sounds and texts; 0 where they
            cannot be read.
        traits: `Trait`s of each [n].
        hashes: perceptual hash of each [n]; 0 for one that is plain, under 32 px or unreadable.
        failed: rows that cannot be read, and why.
    """

    widths: NDArray[np.int32]
    heights: NDArray[np.int32]
    traits: NDArray[np.uint16]
    hashes: NDArray[np.uint64]
    failed: tuple[tuple[int, DataError], ...] = ()

    def __len__(self) -> int:
        return len(self.hashes)

    @property
    def readable(self) -> NDArray[np.bool_]:
        """Which files can be read [n]."""
        return self.widths > 0

    def having(self, trait: Trait) -> int:
        """How many files have a trait."""
        return int(((self.traits & trait) > 0).sum())


def inspect(source: Source, channels: int = 3) -> Fact:
    """Read a file as a training does (so a truncated one fails), a JPEG at the smallest scale that tells enough.

    Args:
        source: a path, or a member of an archive.
        channels: of the network that it is for.

    Raises:
        DataError: it cannot be read; says why.
    """
    mean, std = mean_and_std(channels)
    preprocess, name = Preprocess(size=SIDE, resize="squash", mean=mean, std=std), name_of(source)
    with errors_named(name), QUIET, opened(source) as file:
        if is_array(file):
            picture = shown(decode(source, preprocess))
            return Fact(*picture.size, _of_format("NPY", name), perceptual_hash(picture))
        with open_image(file, name) as image:
            size, traits = image.size, _of_format(image.format or "", name) | _of_header(image)
            picture = shown(decode_opened(image, name, preprocess))
            orientation, animated = _orientation(image), _is_animated(image)
    traits |= Trait.ROTATED * (orientation in TURNS) | Trait.ANIMATED * animated
    return Fact(*(size[::-1] if orientation in LYING else size), traits, perceptual_hash(picture))


def _of_format(form: str, name: str) -> Trait:
    ending = os.path.splitext(name)[1].lower()
    return Trait(0) if ending in ENDINGS.get(form, (ending,)) else Trait.OTHER_ENDING


def _of_header(image: ImageFile.ImageFile) -> Trait:
    """From what is known before any pixel is decoded."""
    whole = image.mode.startswith("I")
    found = {
        Trait.GREY: whole or image.mode in ("1", "L", "LA", "La", "F"),
        Trait.TRANSPARENT: image.has_transparency_data,
        Trait.SIXTEEN_BIT: whole or any(";16" in str(tile[3]) for tile in image.tile),
        Trait.CMYK: image.mode == "CMYK",
        Trait.PALETTE: image.mode == "P",
    }
    return Trait(sum(trait for trait, there in found.items() if there))


def _is_animated(image: Image.Image) -> bool:
    """Whether there are more frames; a phone's second picture in an MPO is a preview or a depth map."""
    with suppress(*DECODE_ERRORS):
        return bool(image.format != "MPO" and getattr(image, "is_animated", False))
    return False


def _orientation(image: Image.Image) -> int:
    """As EXIF has it; 1, upright, where that is damaged."""
    with suppress(*DECODE_ERRORS):
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    return 1


def as_columns(total: int, found: Iterable[Fact | DataError]) -> Facts:
    """Columns of `total` rows from what was found in each file, in order."""
    sizes, traits = np.zeros((2, total), np.int32), np.zeros(total, np.uint16)
    hashes, failed = np.zeros(total, np.uint64), []
    for row, each in enumerate(found):
        if isinstance(each, DataError):
            failed.append((row, each))
        else:
            sizes[:, row] = each.width, each.height
            traits[row], hashes[row] = each.traits, each.hash
    return Facts(sizes[0], sizes[1], traits, hashes, tuple(failed))
