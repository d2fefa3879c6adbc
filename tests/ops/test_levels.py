import math

import numpy as np

from resnetkit.ops.levels import levels

TONE = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)


def test_a_tone():
    found = levels(0.5 * TONE)
    assert math.isclose(found.peak, -6.02, abs_tol=0.01)
    assert math.isclose(found.rms, -9.03, abs_tol=0.01)
    assert not (found.is_silent or found.is_clipped)


def test_next_to_nothing():
    hiss = np.random.default_rng(0).normal(0, 2e-4, 16_000)
    assert levels(hiss).is_silent and levels(np.zeros(100)).is_silent and levels(np.zeros(0)).is_silent
    assert levels(hiss + 0.3).is_silent, "an offset is nothing to hear"
    assert levels(np.zeros(100)).peak == -math.inf
    assert not levels(20 * hiss).is_silent


def test_cut_off():
    assert levels(np.clip(1.5 * TONE, -1, 1)).is_clipped
    assert not levels(np.clip(0.6 * 1.5 * TONE, -0.5, 0.5)).is_clipped, "nothing is at full scale"
    single = 0.2 * TONE
    single[::100] = 1.0
    assert not levels(single).is_clipped, "clicks are loud but whole"
    assert not levels(0.985 * TONE).is_clipped
