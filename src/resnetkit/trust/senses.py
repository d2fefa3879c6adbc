"""How a report shows images, sounds and texts, and which words of a text speak for an answer."""

from __future__ import annotations

import io
import re
import wave
from collections.abc import Iterator, Sequence

import numpy as np

from resnetkit.data import audio, sound
from resnetkit.data.dataset import File
from resnetkit.data.sources import Line
from resnetkit.errors import DataError
from resnetkit.runtime.model import Model
from resnetkit.trust.gallery import IMAGES, Senses, Words

PLAYED = 3.0  # seconds of a recording that a report holds
PLAY_RATE = 16_000
SHOWN = 1_000  # characters of a text
SPANS = 32  # into which a text is cut at most
WORD = re.compile(r"\S+\s*")


def play(file: File) -> bytes:
    """The middle of a recording as a WAV of 16 bits.

    Raises:
        DataError: it cannot be read.
    """
    rate = min(PLAY_RATE, sound.stored(file).rate)
    samples = sound.read(file, rate)
    most = round(PLAYED * rate)
    start = max(0, len(samples) - most) // 2
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(audio.to_integers(samples[start : start + most]).astype("<i2").tobytes())
    return buffer.getvalue()


def words(file: File) -> Words:
    """The beginning of a text, of which nothing is marked."""
    text = text_of(file)
    return ((text[:SHOWN] + ("..." if len(text) > SHOWN else ""), 0.0),)


def text_of(file: File) -> str:
    """The text of a sample; "" where its file cannot be read any more."""
    if isinstance(file, Line):
        return file.text
    try:
        with file.open("rb") as opened:
            return opened.read().decode("utf-8-sig", "replace")
    except OSError:
        return ""


def spans_of(text: str) -> list[str]:
    """A text in at most `SPANS` runs of words that together are the text."""
    pieces = WORD.findall(text) or [text]
    parts = np.array_split(np.arange(len(pieces)), min(SPANS, len(pieces)))
    return ["".join(pieces[i] for i in part) for part in parts]


def marked(model: Model, files: Sequence[File], classes: Sequence[int]) -> Iterator[Words | DataError]:
    """The spans of each text, with how much the logit of a class falls without each: 1 is what counts most.

    What is left out says what counts, whatever the network is (occlusion, Zeiler and Fergus 2014, arXiv 1311.2901).
    """
    for file, index in zip(files, classes, strict=True):
        spans = spans_of(text_of(file)[:SHOWN])
        without = ["".join(spans[:i] + spans[i + 1 :]) for i in range(len(spans))]
        texts = ["".join(spans), *(text if text.strip() else "-" for text in without)]
        try:
            batch = np.stack([model.read(text) for text in texts])
        except DataError as error:
            yield error
            continue
        logits = model.backend(batch)[:, index]
        falls = logits[0] - logits[1:]
        most = max(float(np.abs(falls).max()), 1e-6)
        yield tuple((span, round(float(fall / most), 3)) for span, fall in zip(spans, falls, strict=True))


SENSES = {
    "images": IMAGES,
    "sounds": Senses(audio.thumbnail, play, None),
    "texts": Senses(None, None, words),
}
