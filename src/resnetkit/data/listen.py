"""What a recording or a text is, beside its samples or letters: its length and what is odd about it, or why not."""

from __future__ import annotations

import numpy as np

from resnetkit.data import sound, tokens
from resnetkit.data.dataset import File
from resnetkit.data.echoes import sound_hash
from resnetkit.data.inspect import Fact, Trait
from resnetkit.data.sound import Samples
from resnetkit.data.tokens import TextPreprocess

QUIET = 10 ** (-50 / 20)  # a peak under 50 dB below full scale is nearly silence
LOUD = 0.985  # of full scale, from which on samples that stay at their largest are cut off
RUN, SHARE = 3, 0.0005  # so many in a row, and so many of all, tell of clipping
PLAIN = TextPreprocess(length=8)


def inspect_sound(file: File) -> Fact:
    """Read a recording as a training does: its milliseconds, whether it is nearly silent or cut off, and its hash.

    Raises:
        DataError: it cannot be read.
    """
    stored = sound.stored(file)
    samples = sound.read(file, stored.rate)
    traits = Trait.NEAR_SILENT * (float(np.abs(samples).max()) < QUIET) | Trait.CLIPPED * is_clipped(samples)
    traits |= Trait.CHANNELS * (stored.channels > 1)
    like = 0 if traits & Trait.NEAR_SILENT else sound_hash(samples, stored.rate)
    return Fact(max(1, round(1000 * len(samples) / stored.rate)), stored.rate, Trait(traits), like)


def is_clipped(samples: Samples) -> bool:
    """Whether the tops of a wave are cut off: runs of samples that stay at its largest value, near full scale."""
    peak = float(np.abs(samples).max()) if len(samples) else 0.0
    if peak < LOUD:
        return False
    cut = np.abs(samples) >= peak - 1e-6
    edges = np.flatnonzero(np.diff(np.concatenate([[False], cut, [False]]).astype(np.int8)))
    runs = edges[1::2] - edges[::2]
    return bool(runs[runs >= RUN].sum() > SHARE * len(samples))


def inspect_text(file: File) -> Fact:
    """Read a text as a training does: its length in characters.

    Raises:
        DataError: it is empty, or no text.
    """
    return Fact(len(tokens.read(file, PLAIN)), 1, Trait(0), 0)
