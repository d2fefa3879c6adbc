"""Log-mel spectra as Kaldi computes them ("fbank"), written as two matrix products, so that a graph can hold them too.

All that is done to a frame before its power is taken is linear: its mean is removed, it is pre-emphasised, windowed and
transformed. `projection` is that whole chain as one matrix, so a spectrum is frames @ projection, the sum of two
squares, @ bank, and a logarithm; in a network, a convolution over samples with stride `hop`, and a 1x1 convolution. The
DFT is a matrix, not an FFT: at 25 ms frames and 16 kHz it costs 40 MFLOP for a second of sound.

The formulas are those of Kaldi's feat/feature-window.cc and feat/mel-computations.cc (Povey et al. 2011), without
dither: Povey window, pre-emphasis 0.97, mel(f) = 1127 ln(1 + f / 700), triangles in mel, frames that lie wholly inside
(snip_edges). Samples of -1..1 count as -32768..32767, as Kaldi counts them. Equal to kaldi-native-fbank 1.23 within
0.001 where the energy is above rounding noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
FULL_SCALE = 32768.0  # what Kaldi counts where we have 1
PRE_EMPHASIS = 0.97
AT_ONCE = 2**22  # numbers of spectra that are held at a time, but all of one recording


@dataclass(frozen=True)
class Mel:
    """A log-mel spectrum.

    Attributes:
        rate: samples a second.
        window, hop: length of a frame, and from one frame to the next, in samples.
        mels: number of bands.
        low, high: edges of the lowest and the highest band, in Hz.
        floor: energies below this count as this; 1 is below the rounding noise of 16 bits, so silence is 0.

    Raises:
        ValueError: bands without a frequency, or edges out of order.
    """

    rate: int = 16_000
    window: int = 400
    hop: int = 160
    mels: int = 64
    low: float = 20.0
    high: float = 8_000.0
    floor: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= self.rate / 2:
            raise ValueError(f"low and high must be in order and at most {self.rate / 2:g} Hz, half the rate")
        if min(self.window - 1, self.hop, self.mels, self.floor) <= 0:
            raise ValueError("window, hop, mels and floor must be above 0")

    @property
    def fft(self) -> int:
        """Length of the transform: the window, filled up to a power of two."""
        return 1 << (self.window - 1).bit_length()

    def num_frames(self, samples: int) -> int:
        """Frames that lie wholly inside so many samples."""
        return max(0, 1 + (samples - self.window) // self.hop)


def mel_of(hertz: Floats | float) -> Floats:
    """Pitch in mel: 1127 ln(1 + f / 700)."""
    return np.asarray(1127.0 * np.log1p(np.asarray(hertz, np.float64) / 700.0))


@lru_cache(maxsize=8)
def projection(mel: Mel) -> NDArray[np.float32]:
    """Samples of a frame to its spectrum [window, fft]: first the real parts of fft / 2 bins, then the imaginary ones.

    The bin of half the rate is left out, as Kaldi does.
    """
    n, half = mel.window, mel.fft // 2
    steps = np.arange(n)
    linear = np.eye(n) - 1.0 / n  # the mean removed
    before = np.vstack([linear[:1], linear[:-1]])  # the first sample stands before itself
    linear = linear - PRE_EMPHASIS * before
    povey = (0.5 - 0.5 * np.cos(2 * np.pi * steps / (n - 1))) ** 0.85
    angle = -2 * np.pi * np.outer(np.arange(half), steps) / mel.fft
    transform = np.concatenate([np.cos(angle), np.sin(angle)]) * (povey * FULL_SCALE)
    matrix = np.ascontiguousarray((transform @ linear).T.astype(np.float32))
    matrix.setflags(write=False)
    return matrix


@lru_cache(maxsize=8)
def bank(mel: Mel) -> NDArray[np.float32]:
    """Power of each bin to energy of each band [fft / 2, mels]: triangles that stand evenly apart in mel.

    Raises:
        ValueError: there are more bands than the bins can tell apart.
    """
    edges = np.linspace(mel_of(mel.low), mel_of(mel.high), mel.mels + 2)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    pitch = mel_of(np.arange(mel.fft // 2) * (mel.rate / mel.fft))[:, None]
    weights = np.minimum((pitch - left) / (centre - left), (right - pitch) / (right - centre)).clip(0)
    if not weights.any(0).all():
        raise ValueError(f"{mel.mels} bands are too many for frames of {mel.window} samples at {mel.rate:,} Hz")
    matrix = np.ascontiguousarray(weights.astype(np.float32))
    matrix.setflags(write=False)
    return matrix


def fbank(samples: Floats, mel: Mel) -> NDArray[np.float32]:
    """Log-mel spectrum of sound.

    Args:
        samples: -1..1 at the spectrum's rate [..., n].
        mel: which spectrum.

    Returns:
        Natural logarithm of each frame's energies [..., num_frames(n), mels].
    """
    *shape, n = samples.shape
    num_frames = mel.num_frames(n)
    if not num_frames:
        return np.zeros((*shape, 0, mel.mels), np.float32)
    sounds = np.ascontiguousarray(samples, np.float32).reshape(-1, n)
    out = np.empty((len(sounds), num_frames, mel.mels), np.float32)
    step = max(1, AT_ONCE // (num_frames * mel.fft))
    for start in range(0, len(sounds), step):
        out[start : start + step] = _fbank(sounds[start : start + step], mel)
    return out.reshape(*shape, num_frames, mel.mels)


def _fbank(sounds: NDArray[np.float32], mel: Mel) -> NDArray[np.float32]:
    frames = np.lib.stride_tricks.sliding_window_view(sounds, mel.window, axis=1)[:, :: mel.hop]
    spectrum = frames.reshape(-1, mel.window) @ projection(mel)
    np.square(spectrum, out=spectrum)
    power = spectrum[:, : mel.fft // 2] + spectrum[:, mel.fft // 2 :]
    energy = np.maximum(power @ bank(mel), np.float32(mel.floor))
    return np.log(energy, out=energy).reshape(len(sounds), -1, mel.mels)
