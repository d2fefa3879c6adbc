"""Augmentation of sounds: of clips in NumPy, of log-mel spectra as tensors; every number comes from one generator.

What is drawn is drawn for the whole batch in a fixed order, so a generator of the same state gives the same batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import gcd

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from resnetkit.ops.spectrum import Mel, mel_of
from resnetkit.training.shared import Rng

Samples = NDArray[np.float32]
KNOTS = 6  # of an emphasis
SILENT = 1 / 65_536  # what becomes 0 in 16 bits
FINE = 1000  # speeds are told apart to a thousandth


@dataclass(frozen=True)
class SpecAugment:
    """How much of a spectrum is hidden (Park et al. 2019, arXiv 1904.08779, section 2; no time warping).

    Attributes:
        bands: bands that one mask hides at most.
        frames: frames that one mask hides at most.
        num_bands, num_frames: masks of each kind.
    """

    bands: int = 8
    frames: int = 12
    num_bands: int = 2
    num_frames: int = 2


def spec_augment(spectra: Tensor, settings: SpecAugment, rng: Rng) -> Tensor:
    """Spectra with bands and frames hidden, each sample's others.

    Args:
        spectra: normalised, so that 0 is the mean [N, 1, mels, T].
        settings: how much; no mask hides more than half of the bands or frames.
        rng: of the masks.

    Returns:
        A new tensor, 0 where it is hidden.
    """
    n, _, mels, frames = spectra.shape
    in_bands = _spans(n, mels, settings.bands, settings.num_bands, rng)
    in_frames = _spans(n, frames, settings.frames, settings.num_frames, rng)
    hidden = in_bands[:, None, :, None] | in_frames[:, None, None, :]
    return spectra.masked_fill(torch.from_numpy(hidden).to(spectra.device), 0.0)


def _spans(n: int, length: int, most: int, count: int, rng: Rng) -> NDArray[np.bool_]:
    """Whether each place lies in one of `count` spans of 0 to `most` places [n, length]."""
    widths = rng.integers(0, min(most, length // 2) + 1, (n, count, 1))
    starts = np.floor(rng.random((n, count, 1)) * (length - widths + 1)).astype(np.int64)
    places = np.arange(length)
    return np.asarray(((places >= starts) & (places < starts + widths)).any(1))


def time_shift(clips: Samples, most: int, rng: Rng) -> Samples:
    """Clips moved by up to `most` samples to either side, each by its own number; zeros come in [N, L]."""
    n, length = clips.shape
    shifts = rng.integers(-most, most + 1, (n, 1))
    sources = np.arange(length) - shifts
    inside = (sources >= 0) & (sources < length)
    moved = np.take_along_axis(clips, sources.clip(0, length - 1), 1)
    return np.asarray(np.where(inside, moved, np.float32(0)))


def speed(clips: Samples, factor: float) -> Samples:
    """Clips that play `factor` times as fast, pitch and all, about their middle, at their own length [..., L].

    What a slower clip has too much is cut on both sides, what a faster one lacks is zeros (Ko et al. 2015, "Audio
    augmentation for speech recognition"). Band-limited (SciPy's polyphase filter); the factor is rounded to 1/1000.
    """
    from scipy.signal import resample_poly

    up, down = FINE, max(1, round(FINE * factor))
    up, down = up // gcd(up, down), down // gcd(up, down)
    if up == down:
        return clips.copy()
    played = resample_poly(clips, up, down, axis=-1, window=_low_pass(max(up, down))).astype(np.float32)
    length, n = clips.shape[-1], played.shape[-1]
    if n >= length:
        return np.asarray(played[..., (n - length) // 2 :][..., :length])
    before = (length - n) // 2
    return np.pad(played, [(0, 0)] * (clips.ndim - 1) + [(before, length - n - before)])


@lru_cache(maxsize=64)
def _low_pass(rate: int) -> Samples:
    """The filter that SciPy would design anew for each call, which takes longer than the filtering."""
    from scipy.signal import firwin

    return np.asarray(firwin(20 * rate + 1, 1 / rate, window=("kaiser", 5.0)), np.float32)


def random_speed(clips: Samples, factors: Sequence[float], rng: Rng) -> Samples:
    """Clips each at one of some speeds [N, L]."""
    return at_speeds(clips, factors, rng.integers(0, len(factors), len(clips)))


def at_speeds(clips: Samples, factors: Sequence[float], chosen: NDArray[np.integer]) -> Samples:
    """Clips [N, L], each at the speed that is chosen for it [N]."""
    played = clips.copy()
    for i in np.unique(chosen).tolist():
        if factors[i] != 1:
            played[chosen == i] = speed(clips[chosen == i], factors[i])
    return played


def add_noise(clips: Samples, snr: NDArray[np.floating], noise: Samples) -> Samples:
    """Clips with noise at a ratio of powers.

    Args:
        clips: [N, L].
        snr: power of the clip over that of the noise, in dB, of each [N].
        noise: of any loudness [N, L].

    Returns:
        Clips [N, L] whose noise has exactly that ratio; a clip or a noise without power stays as it is.
    """
    signal, disturbance = (np.square(each, dtype=np.float64).mean(1) for each in (clips, noise))
    wanted = signal / 10 ** (snr / 10)
    gain = np.sqrt(np.divide(wanted, disturbance, out=np.zeros_like(wanted), where=disturbance > 0))
    return np.asarray(clips + gain[:, None].astype(np.float32) * noise)


def random_noise(clips: Samples, low: float, high: float, rng: Rng) -> Samples:
    """Clips, half of them with noise at a ratio of `low` to `high` dB, each its own [N, L].

    Its power falls with frequency as f^-2 at most (the rumble of a room, of a car), and rises as f^0.5 at most (hiss).
    Of a clip that is shorter than L every other noise ends where the sound does, as that of a noisy file with silence
    around it; and what stays as it is, is there because a network that never heard silence takes it for something.
    """
    length = clips.shape[1]
    snr = rng.uniform(low, high, len(clips))
    slopes = rng.uniform(-0.5, 2.0, (len(clips), 1)).astype(np.float32)
    kinds = rng.random((len(clips), 1))[:, 0]
    rows = np.flatnonzero(kinds < 0.5)
    bins = length // 2 + 1
    spectrum = rng.standard_normal((len(clips), 2 * bins), np.float32).view(np.complex64)[rows]  # of white noise
    places = (np.maximum(np.arange(bins), bins / 80) / bins).astype(np.float32)
    spectrum *= np.exp(-slopes[rows] / 2 * np.log(places))
    noise = np.fft.irfft(spectrum, length).astype(np.float32)
    noise *= _sounding(clips[rows]) | (kinds[rows, None] < 0.25)
    noisy = clips.copy()
    noisy[rows] = add_noise(clips[rows], snr[rows], noise)
    return noisy


def _sounding(clips: Samples) -> NDArray[np.bool_]:
    """Where a clip is between its first and its last sample that is not silence in 16 bits [N, L]."""
    loud = np.abs(clips) >= SILENT
    return np.asarray(np.maximum.accumulate(loud, 1) & np.maximum.accumulate(loud[:, ::-1], 1)[:, ::-1])


def random_rooms(clips: Samples, rate: int, longest: float, rng: Rng) -> Samples:
    """Clips as in rooms: half of them with an echo that dies away [N, L].

    Noise that falls by 60 dB in 0.05 to `longest` seconds, up to as loud as the sound itself, is what is left of a
    room's answer without its first reflections (Polack 1988).

    Args:
        clips: [N, L].
        rate: samples a second.
        longest: time in which the echo falls by 60 dB, seconds.
        rng: of the rooms.
    """
    from scipy.fft import irfft, next_fast_len, rfft

    n, length = clips.shape
    seconds = np.arange(1, min(length, math.ceil(rate * longest)), dtype=np.float32) / np.float32(rate)
    times = rng.uniform(min(0.05, longest), longest, (n, 1)).astype(np.float32)
    shares = rng.uniform(0, 1, (n, 1)).astype(np.float32)
    rows = np.flatnonzero(rng.random((n, 1)) < 0.5)
    echoes = rng.standard_normal((n, len(seconds)), np.float32)[rows]
    echoes *= np.exp(np.float32(-math.log(1_000)) * seconds / times[rows])
    echoes *= shares[rows] / np.maximum(np.linalg.norm(echoes, axis=1, keepdims=True), np.float32(1e-9))
    answers = np.concatenate([np.ones((len(rows), 1), np.float32), echoes], 1)
    size = next_fast_len(length + len(seconds), real=True)
    heard = clips.copy()
    heard[rows] = irfft(rfft(clips[rows], size) * rfft(answers, size), size)[:, :length]
    return heard


def random_gain(clips: Samples, most: float, rng: Rng) -> Samples:
    """Clips made up to `most` dB louder or quieter, each by its own number [N, L]."""
    decibels = rng.uniform(-most, most, (len(clips), 1))
    return np.asarray(clips * (10 ** (decibels / 20)).astype(np.float32))


def emphasis(spectra: Tensor, most: float, rng: Rng) -> Tensor:
    """Spectra whose bands are made louder or quieter, smoothly along them, as a microphone or a room does.

    Args:
        spectra: normalised log-mel [N, 1, mels, T].
        most: largest change, in the spectra's own measure.
        rng: of the changes: at `KNOTS` places along the bands, with straight lines between.

    Returns:
        A new tensor; what is as quiet as the quietest of a sample stays.
    """
    n, _, mels, _ = spectra.shape
    knots = rng.uniform(-most, most, (n, KNOTS))
    places = np.linspace(0, KNOTS - 1, mels)
    curves = np.stack([np.interp(places, np.arange(KNOTS), each) for each in knots]).astype(np.float32)
    there = spectra > spectra.amin((1, 2, 3), keepdim=True)
    return spectra + there * torch.from_numpy(curves)[:, None, :, None].to(spectra.device)


def voices(spectra: Tensor, mel: Mel, most: float, rng: Rng) -> Tensor:
    """Spectra as another throat would have made them: each with all frequencies times a factor of its own.

    Vocal tract length perturbation (Jaitly and Hinton 2013), on the bands: what was at f stands at f / factor.

    Args:
        spectra: [N, 1, mels, T].
        mel: of these.
        most: largest change of a factor, 0..1, up or down.
        rng: of the factors.
    """
    edges = np.linspace(mel_of(mel.low), mel_of(mel.high), mel.mels + 2)
    hertz = 700 * np.expm1(edges[1:-1] / 1127)
    factors = np.exp(rng.uniform(-1, 1, (len(spectra), 1)) * np.log1p(most))
    return _read_at(spectra, (mel_of(hertz * factors) - edges[1]) / (edges[1] - edges[0]), 2)


def paces(spectra: Tensor, most: float, rng: Rng) -> Tensor:
    """Spectra that run faster or slower about their middle, at their own length and pitch [N, 1, mels, T].

    What comes in at the ends is the first or the last frame.
    """
    places = np.arange(spectra.shape[3]) - (spectra.shape[3] - 1) / 2
    factors = np.exp(rng.uniform(-1, 1, (len(spectra), 1)) * np.log1p(most))
    return _read_at(spectra, factors * places - places[0], 3)


def _read_at(spectra: Tensor, places: NDArray[np.floating], dim: int) -> Tensor:
    """Each spectrum at places [N, L] of a dimension: between two the mean of both by distance, at the ends these."""
    last = spectra.shape[dim] - 1
    first = np.clip(np.floor(places), 0, last)
    share = torch.from_numpy(np.clip(places - first, 0, 1).astype(np.float32)).to(spectra.device)
    shape = (len(spectra), 1, -1, 1) if dim == 2 else (len(spectra), 1, 1, -1)
    lower, upper = (
        spectra.gather(
            dim, torch.from_numpy(rows.astype(np.int64)).to(spectra.device).reshape(shape).expand_as(spectra)
        )
        for rows in (first, np.minimum(first + 1, last))
    )
    return lower.lerp(upper, share.reshape(shape))


def mixup(inputs: Tensor, targets: Tensor, alpha: float, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Each sample mixed with another, its target too (Zhang et al. 2018, arXiv 1710.09412, section 2).

    Args:
        inputs: [N, ...].
        targets: shares of the classes [N, K].
        alpha: both parameters of the Beta law that the share is drawn from; above 0.
        rng: of shares and partners.

    Returns:
        Mixed inputs and targets, each sample's own share at least a half.
    """
    shares = rng.beta(alpha, alpha, len(inputs)).astype(np.float32)
    own = torch.from_numpy(np.maximum(shares, 1 - shares)).to(inputs.device)
    partner = torch.from_numpy(rng.permutation(len(inputs))).to(inputs.device)
    wide = own.reshape(-1, *[1] * (inputs.ndim - 1))
    mixed = wide * inputs + (1 - wide) * inputs[partner]
    return mixed, own[:, None] * targets + (1 - own[:, None]) * targets[partner]
