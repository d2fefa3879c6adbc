import numpy as np
import pytest

from resnetkit.data.inspect import Trait
from resnetkit.data.listen import inspect_sound, inspect_text, is_clipped
from resnetkit.data.sources import Line
from resnetkit.errors import DataError
from senses import tone, write_wav

pytest.importorskip("soundfile")


def test_of_sounds(tmp_path):
    found = {
        name: inspect_sound(write_wav(tmp_path / f"{name}.wav", samples))
        for name, samples in {
            "usual": tone("low", 1),
            "loud": 0.99 * tone("low", 2) / np.abs(tone("low", 2)).max(),
            "silent": np.zeros(4_000),
            "hiss": np.random.default_rng(0).normal(0, 0.0005, 4_000),
            "clipped": np.clip(8 * tone("low", 3), -1, 1),
        }.items()
    }
    assert {name: fact.traits for name, fact in found.items()} == {
        "usual": Trait(0),
        "loud": Trait(0),
        "silent": Trait.NEAR_SILENT,
        "hiss": Trait.NEAR_SILENT,
        "clipped": Trait.CLIPPED,
    }
    assert (found["usual"].width, found["usual"].height) == (600, 8_000)


def test_clipping_takes_runs():
    wave = np.sin(np.arange(8_000) / 3).astype(np.float32)
    assert not is_clipped(wave) and not is_clipped(0.5 * np.clip(2 * wave, -1, 1)) and not is_clipped(wave[:0])
    assert is_clipped(np.clip(2 * wave, -1, 1))


def test_of_texts():
    assert inspect_text(Line("a", "hello")).width == 5
    with pytest.raises(DataError, match="empty"):
        inspect_text(Line("a", " \n"))
