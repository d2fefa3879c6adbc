import io
import wave

import numpy as np
import pytest

from resnetkit.data.sources import Line
from resnetkit.trust.senses import SENSES, SPANS, marked, play, spans_of, text_of
from senses import tone, write_wav


def test_what_is_played_is_the_middle(tmp_path):
    pytest.importorskip("soundfile")
    path = write_wav(tmp_path / "a.wav", tone("low", 0, 5.0))
    with wave.open(io.BytesIO(play(path))) as opened:
        assert (opened.getnframes(), opened.getframerate(), opened.getsampwidth()) == (24_000, 8_000, 2)
    assert SENSES["sounds"].draw(path)[:2] == b"\xff\xd8"


def test_spans_are_the_text():
    text = "  one two\nthree " * 40
    assert "".join(spans_of(text)) == text.lstrip() and len(spans_of(text)) == SPANS
    assert spans_of("word") == ["word"] and spans_of(" ") == [" "]


class Counting:
    """A model that counts how often each of two letters is there."""

    def read(self, text):
        return np.array([text.count("a"), text.count("b")], np.float32)

    def backend(self, batch):
        return batch


def test_the_words_that_count_are_marked():
    found = list(marked(Counting(), [Line("x", "a bb c"), Line("y", "a")], [1, 0]))
    assert found[0] == (("a ", 0.0), ("bb ", 1.0), ("c", 0.0)) and found[1] == (("a", 1.0),)


def test_text_of(tmp_path):
    (tmp_path / "a.txt").write_text("héllo", encoding="utf-8-sig")
    assert text_of(tmp_path / "a.txt") == text_of(Line("x", "héllo")) == "héllo"
    assert text_of(tmp_path / "gone.txt") == ""
