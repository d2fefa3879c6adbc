"""How loud a sound is, and what is wrong with it: next to nothing is there, or its tops are cut off."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SILENT = -60.0  # dB under full scale, of the mean power: what a microphone gives that nobody speaks into
CLIPPED = 0.001  # share of the samples; what is loud but whole has single samples at the top
RUN = 3  # samples in a row at the top that no wave makes by itself
TOP = 0.99  # of full scale, or of the largest sample where that is more


@dataclass(frozen=True)
class Levels:
    """Loudness of a sound.

    Attributes:
        peak: the largest sample, in dB of full scale; minus infinity for digital silence.
        rms: root of the mean square about the mean, in dB of full scale.
        offset: mean of the samples, -1..1.
        clipped: share of the samples that stand in a row at the top, 0..1.
    """

    peak: float
    rms: float
    offset: float
    clipped: float

    @property
    def is_silent(self) -> bool:
        """Whether next to nothing is to be heard."""
        return self.rms < SILENT

    @property
    def is_clipped(self) -> bool:
        """Whether the tops are cut off."""
        return self.clipped > CLIPPED


def levels(samples: NDArray[np.floating]) -> Levels:
    """Loudness of samples of -1..1 [n]; of none, that of silence."""
    if not len(samples):
        return Levels(-math.inf, -math.inf, 0.0, 0.0)
    wide = samples.astype(np.float64)
    peak, offset = float(np.abs(wide).max()), float(wide.mean())
    return Levels(_decibel(peak), _decibel(float(wide.std())), offset, _clipped(wide, peak))


def _decibel(amplitude: float) -> float:
    return 20 * math.log10(amplitude) if amplitude > 0 else -math.inf


def _clipped(samples: NDArray[np.float64], peak: float) -> float:
    """Share of the samples in runs of `RUN` or more at the top, or at the bottom; only full scale cuts off."""
    if peak < TOP:
        return 0.0
    side = np.where(np.abs(samples) >= TOP * max(1.0, peak), np.sign(samples), 0)
    starts = np.flatnonzero(np.diff(side, prepend=np.nan))
    lengths = np.diff(np.append(starts, len(side)))
    return float(lengths[(side[starts] != 0) & (lengths >= RUN)].sum() / len(samples))
