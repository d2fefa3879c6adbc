"""Inputs that are always the same: what an export of a model of sounds or texts is compared on, and its example."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnetkit.data.audio import AudioPreprocess, Clip, to_integers
from resnetkit.data.tokens import TextPreprocess, Tokens


def probes(preprocess: AudioPreprocess | TextPreprocess, count: int) -> NDArray[Any]:
    """Clips of tones with noise [count, samples], or tokens of texts of different lengths [count, length]."""
    return _tones(preprocess, count) if isinstance(preprocess, AudioPreprocess) else _texts(preprocess, count)


def _tones(preprocess: AudioPreprocess, count: int) -> Clip:
    """Each a tone that rises or falls to another pitch."""
    rng = np.random.default_rng(0)
    seconds = np.arange(preprocess.samples) / preprocess.rate
    lowest, highest = np.geomspace(100, preprocess.rate / 4, count), np.geomspace(preprocess.rate / 3, 200, count)
    pitch = lowest[:, None] + (highest - lowest)[:, None] * seconds / max(seconds[-1], 1e-9) / 2
    waves = 0.3 * np.sin(2 * np.pi * pitch * seconds) + rng.normal(0, 0.03, pitch.shape)
    return to_integers(waves.astype(np.float32))


def _texts(preprocess: TextPreprocess, count: int) -> Tokens:
    """Each of any tokens, and shorter than the one before."""
    rng = np.random.default_rng(0)
    found = rng.integers(1, preprocess.num_tokens, (count, preprocess.length), np.uint16)
    for row, length in zip(found, np.linspace(preprocess.length, 1, count).astype(int).tolist(), strict=True):
        row[length:] = 0
    return found
