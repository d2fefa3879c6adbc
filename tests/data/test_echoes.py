"""The same recording again, by whatever it was saved; and recordings that only sound alike."""

import io
from pathlib import Path

import numpy as np
import pytest

from resnetkit.data.duplicates import Near, near
from resnetkit.data.echoes import FITS, fit, same_sounds, sound_hash
from senses import babble, write_wav

soundfile = pytest.importorskip("soundfile")
soxr = pytest.importorskip("soxr")
RATE = 16_000  # of a babble


def saved(samples: np.ndarray, rate: int, form: str, **more: str) -> np.ndarray:
    """What is read of a file of this form."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=form, **more)
    buffer.seek(0)
    return soundfile.read(buffer, dtype="float32")[0]


COPIES = {
    "softer": lambda x: (saved(0.2 * x, RATE, "WAV"), RATE),
    "ogg": lambda x: (saved(x, RATE, "OGG"), RATE),
    "mp3": lambda x: (saved(x, RATE, "MP3"), RATE),
    "another rate": lambda x: (soxr.resample(x, RATE, 44_100).astype(np.float32), 44_100),
    "silence around": lambda x: (np.pad(x, (3_000, 1_000)), RATE),
    "upside down": lambda x: (-x, RATE),
    "telephone": lambda x: (saved(soxr.resample(x, RATE, 8_000), 8_000, "WAV", subtype="ULAW"), 8_000),
}


@pytest.mark.parametrize("name", COPIES)
def test_copies_have_the_same_hash_and_wave(name: str, tmp_path: Path) -> None:
    near_enough, confirmed = [], []
    for seed in range(8):
        whole = babble(seed)
        other, rate = COPIES[name](whole)
        bits = (sound_hash(whole, RATE) ^ sound_hash(other, rate)).bit_count()
        soundfile.write(tmp_path / "a.wav", whole, RATE)
        soundfile.write(tmp_path / "b.wav", other, rate)
        pair = Near(np.array([[0, 1]]), np.array([bits], np.uint8), True)
        near_enough.append(bits <= 8)
        confirmed.append(len(same_sounds(pair, [tmp_path / "a.wav", tmp_path / "b.wav"], 1).pairs))
    assert np.mean(near_enough) >= 0.8 and all(confirmed)


def test_others_are_not_found(tmp_path: Path) -> None:
    files = [write_wav(tmp_path / f"{i}.wav", babble(i), RATE) for i in range(40)]
    hashes = np.array([sound_hash(babble(i), RATE) for i in range(40)], np.uint64)
    assert not len(same_sounds(near(hashes), files, 2).pairs)
    assert max(fit(babble(i), babble(i + 1)) for i in range(20)) < FITS - 0.2


@pytest.mark.parametrize("samples", [np.zeros(8_000), np.zeros(3), np.zeros(1)])
def test_what_tells_nothing_has_no_hash(samples: np.ndarray) -> None:
    assert sound_hash(samples.astype(np.float32), 8_000) == 0


def test_a_file_that_went_away_is_like_nothing(tmp_path: Path) -> None:
    pair = Near(np.array([[0, 1]]), np.zeros(1, np.uint8), True)
    assert not len(same_sounds(pair, [tmp_path / "a.wav", tmp_path / "b.wav"], 1).pairs)
