"""A file to what a training stores of it, whatever it is: an array, a proportion, and a hash of how it looks."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray

from resnetkit.data import audio, image, tokens
from resnetkit.data.audio import AudioPreprocess
from resnetkit.data.dataset import File
from resnetkit.data.duplicates import perceptual_hash
from resnetkit.data.echoes import sound_hash
from resnetkit.data.image import Preprocess
from resnetkit.data.prepared import Prepared
from resnetkit.data.tokens import TextPreprocess

Example = tuple[NDArray[Any], float, int]


def of(file: File, preprocess: Prepared) -> Example:
    """The array of a file; its width over its height, or its length as a share of what is kept; its perceptual hash.

    The hash is 0 where nothing is to be compared by it.

    Raises:
        DataError: the file cannot be used.
    """
    return READERS[type(preprocess)](file, preprocess)


def made_by(preprocess: Prepared) -> dict[str, str]:
    """What decodes, with its version: another one may give other numbers."""
    if isinstance(preprocess, Preprocess):
        return {"pillow": PIL.__version__}
    names = {AudioPreprocess: ("soundfile", "soxr", "numpy"), TextPreprocess: ("tokenizers",)}[type(preprocess)]
    return {name: _version(name) for name in names}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _of_image(file: File, preprocess: Preprocess) -> Example:
    upright = image.decode(file, preprocess)
    pixels = image.pixels(upright, preprocess)
    return pixels, upright.width / upright.height, perceptual_hash(image.shown(upright))


def _of_sound(file: File, preprocess: AudioPreprocess) -> Example:
    samples = audio.read(file, preprocess)
    return audio.clip(samples, preprocess), len(samples) / preprocess.samples, sound_hash(samples, preprocess.rate)


def _of_text(file: File, preprocess: TextPreprocess) -> Example:
    found = tokens.tokens(tokens.read(file, preprocess), preprocess)
    return found, np.count_nonzero(found) / preprocess.length, 0


READERS: dict[type, Callable[[File, Any], Example]] = {
    Preprocess: _of_image,
    AudioPreprocess: _of_sound,
    TextPreprocess: _of_text,
}
