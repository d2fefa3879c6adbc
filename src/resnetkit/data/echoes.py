"""The same recording twice, louder or softer, saved again or at another rate: by its spectrum, then by its wave.

A hash of the spectrum's slow changes finds who may be alike among any number of recordings; of these the waves are laid
over each other where they fit best. Two utterances of a word by one person never fit, and two copies of a recording do,
whatever coded them.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from resnetkit.data import sound
from resnetkit.data.dataset import File
from resnetkit.data.duplicates import Near
from resnetkit.data.sound import Samples
from resnetkit.errors import DataError
from resnetkit.ops.spectrum import Mel, bank

RATE = 8_000  # of the waves that are compared
SECONDS = 4.0  # of them, from the first loud sample on
# Correlation at the place where they fit best: copies as MP3 have 0.97 and more, digits of one speaker 0.92.
FITS = 0.95
KEPT = 2_048  # waves in memory
BANDS, COLUMNS, WAVES = 16, 32, 8
FRAME, LOWEST, HIGHEST = 0.032, 100.0, 3_400.0  # seconds; Hz
MOST_FRAMES = 1_024
FLOOR, QUIET = 9.2, 6.9  # nepers of energy under the peak, 40 and 30 dB: what counts as nothing, and as silence
PLAIN = 0.3  # deviation of the levels, nepers, under which there is nothing to tell


def _cosines(count: int) -> NDArray[np.float64]:
    """The first waves of the DCT-II over so many places [WAVES, count]."""
    return np.asarray(np.cos(np.pi * np.outer(np.arange(WAVES), np.arange(count) + 0.5) / count))


def sound_hash(samples: Samples, rate: int) -> int:
    """64 bits: which of 8 x 8 slow waves of the log spectrum are above their median; 0 where nothing is to be told.

    Loudness moves no bit: it is the same everywhere. Silence at both ends is left out, since coders add some.
    """
    levels = _levels(samples, rate)
    loud = np.flatnonzero(levels.max(1) >= levels.max() - QUIET)
    levels = levels[loud[0] : loud[-1] + 1]
    sums = np.concatenate([np.zeros((1, BANDS)), np.cumsum(levels, 0)])
    edges = np.linspace(0, len(levels), COLUMNS + 1)
    at = np.stack([np.interp(edges, np.arange(len(sums)), band) for band in sums.T], 1)
    means = np.diff(at, axis=0) * (COLUMNS / len(levels))
    if means.std() < PLAIN:
        return 0
    waves = (_cosines(COLUMNS) @ means @ _cosines(BANDS).T).ravel()
    return int.from_bytes(np.packbits(waves > np.sort(waves[1:])[31]).tobytes(), "big")


def _levels(samples: Samples, rate: int) -> NDArray[np.float64]:
    """Log energies [frames, BANDS], no lower than a floor under the loudest."""
    window = round(FRAME * rate)
    padded = np.pad(samples, (0, max(0, window - len(samples))))
    hop = max(window // 2, (len(padded) - window) // MOST_FRAMES)
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    mel = Mel(rate, window, hop, BANDS, LOWEST, min(HIGHEST, 0.45 * rate))
    power = np.abs(np.fft.rfft(frames * np.hanning(window), mel.fft)[:, : mel.fft // 2]) ** 2
    levels = np.log(power @ bank(mel) + 1e-12)
    return np.asarray(np.maximum(levels, levels.max() - FLOOR), np.float64)


def same_sounds(found: Near, files: Sequence[File], threads: int) -> Near:
    """Those pairs whose waves are the same, at whatever loudness, polarity and delay.

    Args:
        found: from `duplicates.near`, of `sound_hash`.
        files: of all rows.
        threads: that compare.
    """

    @lru_cache(KEPT)
    def wave(row: int) -> NDArray[np.float32]:
        return _wave(files[row])

    def alike(pair: Sequence[int]) -> bool:
        return fit(wave(pair[0]), wave(pair[1])) >= FITS

    with ThreadPoolExecutor(threads) as pool:
        return found.take(np.fromiter(pool.map(alike, found.pairs.tolist()), bool, len(found.pairs)))


def fit(a: Samples, b: Samples) -> float:
    """The largest correlation of two waves at any delay, 0..1, whatever their sign."""
    size = 1 << (len(a) + len(b) - 1).bit_length()
    product = np.fft.rfft(a, size) * np.conj(np.fft.rfft(b, size))
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.abs(np.fft.irfft(product, size)).max()) / max(lengths, 1e-9)


def _wave(file: File) -> NDArray[np.float32]:
    """The beginning of a recording from its first loud sample on; nothing where it cannot be read any more."""
    try:
        samples = sound.read(file, RATE)
    except DataError:
        return np.zeros(1, np.float32)
    loud = np.flatnonzero(np.abs(samples) >= np.abs(samples).max() * np.exp(-QUIET / 2))
    part = samples[loud[0] :][: round(SECONDS * RATE)]
    return np.asarray(part - part.mean(), np.float32)
