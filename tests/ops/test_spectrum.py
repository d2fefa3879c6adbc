import numpy as np
import pytest
import torch

from resnetkit.ops.spectrum import Mel, bank, fbank, mel_of, projection

EPSILON = float(np.finfo(np.float32).eps)
TOLERANCE = 1e-3  # of a natural logarithm, see the module's docstring


def kaldi(samples, mel):
    knf = pytest.importorskip("kaldi_native_fbank")
    options = knf.FbankOptions()
    options.frame_opts.dither = 0
    options.frame_opts.samp_freq = mel.rate
    options.frame_opts.frame_length_ms = 1000 * mel.window / mel.rate
    options.frame_opts.frame_shift_ms = 1000 * mel.hop / mel.rate
    options.mel_opts.num_bins = mel.mels
    options.mel_opts.low_freq, options.mel_opts.high_freq = mel.low, mel.high
    computer = knf.OnlineFbank(options)
    computer.accept_waveform(mel.rate, (samples * 32768).tolist())
    computer.input_finished()
    return np.array([computer.get_frame(i) for i in range(computer.num_frames_ready)])


def noisy_tone(rate, seed=0):
    rng = np.random.default_rng(seed)
    time = np.arange(rate) / rate
    return (0.3 * np.sin(2 * np.pi * 440 * time) + 0.05 * rng.normal(size=rate) + 0.1).astype(np.float32)


@pytest.mark.parametrize(
    "mel",
    [
        Mel(floor=EPSILON),
        Mel(8_000, 200, 80, 40, 20, 4_000, EPSILON),
        Mel(16_000, 400, 160, 80, 20, 7_600, EPSILON),
        Mel(44_100, 1102, 441, 64, 0, 22_050, EPSILON),
    ],
)
def test_equal_to_kaldi(mel):
    samples = noisy_tone(mel.rate)
    ours, theirs = fbank(samples, mel), kaldi(samples, mel)
    assert ours.shape == theirs.shape == (mel.num_frames(mel.rate), mel.mels)
    assert np.abs(ours - theirs).max() < TOLERANCE


def test_equal_to_an_fft_in_double_precision():
    mel = Mel()
    samples = noisy_tone(mel.rate).astype(np.float64) * 32768
    frame = samples[160:560] - samples[160:560].mean()
    frame = frame - 0.97 * np.concatenate([frame[:1], frame[:-1]])
    frame *= np.hanning(400) ** 0.85
    power = np.abs(np.fft.rfft(frame, 512)[:-1]) ** 2
    assert np.allclose(fbank(noisy_tone(mel.rate), mel)[1], np.log(power @ bank(mel)), atol=TOLERANCE)


def test_the_same_in_a_graph_of_convolutions():
    """What an export is made of: two convolutions and a logarithm."""
    mel, samples = Mel(), noisy_tone(16_000)
    first = torch.tensor(projection(mel).T.copy())[:, None]
    second = torch.tensor(bank(mel).T.copy())[:, :, None]
    parts = torch.conv1d(torch.tensor(samples)[None, None], first, stride=mel.hop).square()
    energy = torch.conv1d(parts[:, :256] + parts[:, 256:], second)
    assert np.allclose(energy.clamp_min(mel.floor).log()[0].T.numpy(), fbank(samples, mel), atol=TOLERANCE)


def test_silence_is_zero_and_too_little_has_no_frame():
    assert (fbank(np.zeros(1600, np.float32), Mel()) == 0).all()
    assert fbank(np.zeros((2, 399), np.float32), Mel()).shape == (2, 0, 64)
    assert fbank(np.full(1600, 0.5, np.float32), Mel()).max() < 0.1  # an offset is nothing to hear


def test_many_sounds_at_once_as_one_by_one(monkeypatch):
    from resnetkit.ops import spectrum

    monkeypatch.setattr(spectrum, "AT_ONCE", 2 * 98 * 512)
    sounds = np.stack([noisy_tone(16_000, seed) for seed in range(5)])
    alone = np.stack([fbank(sound, Mel()) for sound in sounds])
    assert np.allclose(fbank(sounds, Mel()), alone, atol=1e-5)


def test_a_tone_is_loudest_in_its_band():
    mel = Mel()
    found = fbank(np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000).astype(np.float32), mel)[10].argmax()
    edges = np.linspace(mel_of(mel.low), mel_of(mel.high), mel.mels + 2)
    assert found == np.abs(edges[1:-1] - mel_of(1000.0)).argmin()


def test_refuses_what_cannot_be():
    for wrong in ({"high": 9000}, {"low": 8000}, {"hop": 0}, {"floor": 0}):
        with pytest.raises(ValueError, match=r"must be"):
            Mel(**wrong)
    with pytest.raises(ValueError, match="too many"):
        bank(Mel(8_000, 80, 80, 128, 20, 4_000))
