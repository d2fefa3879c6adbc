import numpy as np
import pytest
import torch

from resnetkit.ops.spectrum import Mel, fbank
from resnetkit.training import sounds
from resnetkit.training.sounds import SpecAugment


def rng(seed=0):
    return np.random.default_rng(seed)


def clips(n=4, length=800):
    return rng(9).normal(0, 0.1, (n, length)).astype(np.float32)


def test_spec_augment_hides_whole_bands_and_frames():
    spectra = torch.ones(200, 1, 40, 60)
    settings = SpecAugment(bands=5, frames=7, num_bands=1, num_frames=1)
    found = sounds.spec_augment(spectra, settings, rng())
    assert spectra.min() == 1, "the input stays"
    bands, frames = (found[:, 0] == 0).all(2).sum(1), (found[:, 0] == 0).all(1).sum(1)
    assert bands.max() == 5 and frames.max() == 7 and bands.min() == frames.min() == 0
    assert torch.equal(found[:, 0].sum((1, 2)), ((40 - bands) * (60 - frames)).float())
    assert torch.equal(found, sounds.spec_augment(spectra, settings, rng()))
    assert (found[1:] != found[:-1]).any((1, 2, 3)).float().mean() > 0.9
    edges = (found[:, 0] == 0).all(2).float().mean(0)
    assert edges[0] > 0 and edges[-1] > 0


def test_spec_augment_of_little():
    assert sounds.spec_augment(torch.ones(9, 1, 8, 1), SpecAugment(100, 100, 1, 1), rng()).sum((1, 2, 3)).min() >= 4
    none = SpecAugment(0, 0)
    assert sounds.spec_augment(torch.ones(2, 1, 8, 8), none, rng()).min() == 1


def test_time_shift():
    ramp = np.tile(np.arange(1, 11, dtype=np.float32), (50, 1))
    found = sounds.time_shift(ramp, 3, rng())
    starts = {tuple(row.astype(int)) for row in found}
    assert (4, 5, 6, 7, 8, 9, 10, 0, 0, 0) in starts and (0, 0, 0, 1, 2, 3, 4, 5, 6, 7) in starts and len(starts) == 7
    assert np.array_equal(sounds.time_shift(ramp, 0, rng()), ramp)


@pytest.mark.parametrize("factor", [0.8, 0.9, 1.1, 1.25])
def test_speed(factor):
    tone = np.sin(2 * np.pi * 100 * np.arange(8000) / 8000).astype(np.float32)
    found = sounds.speed(tone, factor)
    assert found.shape == tone.shape and found.dtype == np.float32
    middle = found[2000:6000]
    assert abs(np.abs(np.fft.rfft(middle)).argmax() * 2 - 100 * factor) <= 1
    assert (factor > 1) == (found[0] == 0)


def test_random_speed():
    found = sounds.random_speed(clips(), (1.0,), rng())
    assert np.array_equal(found, clips())
    assert sounds.random_speed(clips(), (0.9, 1.1), rng()).shape == (4, 800)
    assert sounds.random_speed(clips(0), (0.9,), rng()).shape == (0, 800)


@pytest.mark.parametrize("snr", [-5.0, 0.0, 20.0])
def test_noise_has_the_ratio_that_was_asked_for(snr):
    noise = rng(1).normal(0, 3, (4, 800)).astype(np.float32)
    added = sounds.add_noise(clips(), np.full(4, snr), noise) - clips()
    ratio = 10 * np.log10((clips() ** 2).mean(1) / (added**2).mean(1))
    assert np.allclose(ratio, snr, atol=1e-3)


def test_noise_of_silence_is_silence():
    silent = np.zeros((2, 800), np.float32)
    assert not sounds.random_noise(silent, 0, 10, rng()).any()
    assert np.array_equal(sounds.add_noise(clips(2), np.zeros(2), silent), clips(2))


def test_noise_and_gain_are_in_range():
    added = sounds.random_noise(clips(100), 5, 15, rng()) - clips(100)
    noisy = added.any(1)
    assert 35 < noisy.sum() < 65, "half of the clips stay as they are"
    ratio = 10 * np.log10((clips(100)[noisy] ** 2).mean(1) / (added[noisy] ** 2).mean(1))
    assert 4.9 < ratio.min() < 6 and 14 < ratio.max() < 15.1
    gains = 20 * np.log10(sounds.random_gain(clips(100), 6, rng())[:, 0] / clips(100)[:, 0])
    assert -6.01 < gains.min() < -5 and 5 < gains.max() < 6.01


def test_some_noise_ends_where_the_sound_does():
    padded = np.pad(clips(200), ((0, 0), (200, 300)))
    noise = sounds.random_noise(padded, 0, 10, rng()) - padded
    inside, around = noise[:, 200:1_000].any(1), noise[:, :200].any(1) & noise[:, 1_000:].any(1)
    assert 70 < inside.sum() < 130 and 25 < around.sum() < 75 and not (around & ~inside).any()


def test_mixup():
    inputs, targets = torch.arange(6.0)[:, None].expand(6, 3), torch.eye(6)
    mixed, shares = sounds.mixup(inputs, targets, 0.5, rng())
    assert torch.allclose(shares.sum(1), torch.ones(6)) and (shares.diagonal() >= 0.5).all()
    assert torch.allclose(mixed[:, 0], shares @ torch.arange(6.0))
    assert (shares.diagonal() < 1).any()


def test_the_same_generator_gives_the_same_batch():
    for change in (
        lambda r: sounds.time_shift(clips(), 100, r),
        lambda r: sounds.random_speed(clips(), (0.9, 1.0, 1.1), r),
        lambda r: sounds.random_noise(clips(), 0, 20, r),
        lambda r: sounds.random_gain(clips(), 6, r),
        lambda r: sounds.mixup(torch.from_numpy(clips()), torch.eye(4), 0.3, r)[0].numpy(),
    ):
        assert np.array_equal(change(rng(3)), change(rng(3))) and not np.array_equal(change(rng(3)), change(rng(4)))


def test_emphasis_is_smooth_along_the_bands_and_the_same_in_time():
    spectra = torch.randn(4, 1, 40, 10)
    spectra[:, :, :, 0] = -9.0  # silence
    found = sounds.emphasis(spectra, 2.0, np.random.default_rng(0))
    change = (found - spectra)[:, 0]
    assert (change[:, :, 0] == 0).all() and change.abs().max() <= 2 and change.abs().max() > 0.5
    assert torch.allclose(change[:, :, 1:2].expand(-1, -1, 9), change[:, :, 1:], atol=1e-5)
    assert change[:, :, 1].diff(dim=1).abs().max() < 0.6 and not torch.allclose(change[0], change[1])


class Fixed:
    """A generator of one number."""

    def __init__(self, value):
        self.value = value

    def uniform(self, low, high, size):
        return np.full(size, self.value)


@pytest.mark.parametrize("direction", [-1, 0, 1])
def test_another_voice_has_its_tones_elsewhere(direction):
    """A tone of 1,000 Hz read with all frequencies times 1.2 is one of 833 Hz, and so on."""
    mel = Mel(16_000, mels=64)
    t = np.arange(16_000) / 16_000
    tones = torch.from_numpy(fbank(0.3 * np.sin(2 * np.pi * 1_000 * t), mel).T.copy())[None, None]
    factor = 1.2**direction
    wanted = fbank(0.3 * np.sin(2 * np.pi * 1_000 / factor * t), mel).T
    found = sounds.voices(tones, mel, 0.2, Fixed(direction))
    assert found.shape == tones.shape
    assert (found[0, 0].argmax(0) - torch.from_numpy(wanted.argmax(0))).abs().max() <= 1
    assert direction or torch.allclose(found, tones, atol=1e-4)


@pytest.mark.parametrize("direction", [-1, 0, 1])
def test_another_pace_keeps_the_middle(direction):
    spectra = torch.zeros(1, 1, 8, 41)
    spectra[..., 20] = 1  # the middle
    spectra[..., 26] = 2
    found = sounds.paces(spectra, 0.25, Fixed(direction))
    assert found[..., 20].min() == 1 and found.shape == spectra.shape
    at = {-1: 27, 0: 26, 1: 25}[direction]
    assert found[0, 0, 0, at - 1 : at + 2].max() > 1 and torch.equal(found[:, :, :1].expand_as(found), found)
    assert direction or torch.allclose(found, spectra, atol=1e-6)


def test_voices_and_paces_are_of_each_sample():
    spectra = torch.rand(6, 1, 40, 30, generator=torch.Generator().manual_seed(0))
    for change in (lambda r: sounds.voices(spectra, Mel(mels=40), 0.2, r), lambda r: sounds.paces(spectra, 0.2, r)):
        found = change(rng(3))
        assert torch.equal(found, change(rng(3))) and not torch.equal(found[0], found[1])
        assert found.min() >= spectra.min() and found.max() <= spectra.max()


def test_noise_is_of_several_colours():
    silence = np.full((300, 4_000), 1e-3, np.float32)
    noise = sounds.random_noise(silence, 0, 1, rng()) - silence
    noise = noise[noise.any(1)]
    power = np.abs(np.fft.rfft(noise)) ** 2
    slopes = np.log(power[:, 1_000:2_000].mean(1) / power[:, 100:200].mean(1)) / np.log(10)
    assert slopes.min() < -1.5 and slopes.max() > 0.2 and np.isfinite(noise).all()


def test_rooms_answer_after_the_sound():
    clicks = np.zeros((200, 4_000), np.float32)
    clicks[:, 1_000] = 1
    found = sounds.random_rooms(clicks, 8_000, 0.3, rng())
    assert np.abs(found[:, :1_000]).max() < 1e-5 and np.allclose(found[:, 1_000], 1, atol=1e-5)
    tails = np.linalg.norm(found[:, 1_001:], axis=1)
    assert 0.35 < (tails < 1e-4).mean() < 0.65 and 0.8 < tails.max() <= 1.001
    assert np.abs(found[:, 1_000 + 2_400 :]).max() < 1e-5
    assert sounds.random_rooms(clicks[:3, :40], 8_000, 0.3, rng()).shape == (3, 40)
