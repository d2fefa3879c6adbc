"""Sounds and texts that the tests make: tones of three pitches, and sentences that praise or blame."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np

RATE = 8_000
PITCHES = {"high": 1_800.0, "low": 200.0, "rising": 0.0}
GOOD = ("lovely", "great", "brilliant", "moving", "funny", "charming")
BAD = ("dull", "awful", "boring", "clumsy", "flat", "tedious")
THINGS = ("film", "story", "plot", "cast", "ending", "music", "picture")

# settings of runs that take seconds
TINY = {
    "sounds": ("model.width=8", "train.epochs=14", "train.batch_size=8", "sound.mels=24", "optim.lr=0.004"),
    "texts": ("model.width=16", "train.epochs=8", "train.batch_size=16"),
}


def tone(name: str, seed: int, seconds: float = 0.6) -> np.ndarray:
    """A tone of a class with noise, of its own loudness [n] in -1..1."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(RATE * seconds)) / RATE
    pitch = PITCHES[name] * rng.uniform(0.9, 1.1) or 300 + 1_200 * t / max(t[-1], 1e-9) / 2
    return 0.1 * rng.uniform(1, 3) * np.sin(2 * np.pi * pitch * t + rng.uniform(0, 6)) + rng.normal(0, 0.01, len(t))


def babble(seed: int, seconds: float = 1.2, rate: int = 16_000) -> np.ndarray:
    """Syllables of noise and of harmonics, each with its own pitch, colour and length [n] in -1..1."""
    rng = np.random.default_rng(seed)
    parts = []
    while sum(map(len, parts)) < rate * seconds:
        n = int(rate * rng.uniform(0.06, 0.25))
        t = np.arange(n) / rate
        voiced = sum(np.sin(2 * np.pi * rng.uniform(90, 220) * k * t + k) * rng.uniform(0, 1) / k for k in range(1, 20))
        part = voiced if rng.random() < 0.7 else rng.normal(0, 0.5, n)
        parts += [part * np.hanning(n) * rng.uniform(0.2, 1), np.zeros(int(rate * rng.uniform(0, 0.05)))]
    found = np.concatenate(parts)[: int(rate * seconds)]
    return (0.5 * found / np.abs(found).max() + rng.normal(0, 1e-4, len(found))).astype(np.float32)


def write_wav(path: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    """A WAV of 16 bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(np.clip(np.rint(samples * 32767), -32768, 32767).astype("<i2").tobytes())
    return path


def write_tones(root: Path, count: int = 20, seconds: float = 0.6) -> Path:
    """A folder of class folders of WAV files."""
    for number, name in enumerate(PITCHES):
        for i in range(count):
            write_wav(root / name / f"{i}.wav", tone(name, 1_000 * number + i, seconds))
    return root


def sentences(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Texts with their labels, all different."""
    rng, found = np.random.default_rng(seed), {}
    while len(found) < count:
        label = ("bad", "good")[len(found) % 2]
        words = GOOD if label == "good" else BAD
        first, second = rng.choice(words, 2)
        one, other = rng.choice(THINGS, 2)
        found[f"the {one} was {first} , and number {rng.integers(1000)} of the {other} is {second}"] = label
    return list(found.items())


def write_reviews(path: Path, count: int = 200, seed: int = 0) -> Path:
    """A CSV of text,label."""
    lines = [f'"{text}",{label}' for text, label in sentences(count, seed)]
    path.write_text("text,label\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return path


def data_of(kind: str, root: Path) -> Path:
    """Sounds or texts to learn from."""
    return write_tones(root / "tones") if kind == "sounds" else write_reviews(root / "reviews.csv")
