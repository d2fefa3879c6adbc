"""Clips of tones with noise, always the same: what an export of a model of sounds is compared on, and its example."""

from __future__ import annotations

import numpy as np

from resnetkit.data.audio import AudioPreprocess, Clip, to_integers


def tones(preprocess: AudioPreprocess, count: int) -> Clip:
    """Clips [count, samples], each a tone that rises to another pitch, with noise."""
    rng = np.random.default_rng(0)
    seconds = np.arange(preprocess.samples) / preprocess.rate
    lowest, highest = np.geomspace(100, preprocess.rate / 4, count), np.geomspace(preprocess.rate / 3, 200, count)
    pitch = lowest[:, None] + (highest - lowest)[:, None] * seconds / max(seconds[-1], 1e-9) / 2
    waves = 0.3 * np.sin(2 * np.pi * pitch * seconds) + rng.normal(0, 0.03, pitch.shape)
    return to_integers(waves.astype(np.float32))
