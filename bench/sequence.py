"""How well the networks for sounds and texts do with plain loops, to find defaults; the linear model beside them.

    python bench/sequence.py digits ../shared/data/fsdd/recordings.zip --lr 2e-3 --seconds 200
    python bench/sequence.py digits ../shared/data/fsdd/recordings.zip --lr 2e-3 --seconds 200 --without theo
    python bench/sequence.py texts ../shared/data/sst2 --network words --seconds 50
    python bench/sequence.py texts ../shared/data/sst2 --network vdcnn --lr 1e-3 --seconds 480
    python bench/sequence.py linear ../shared/data/sst2

digits: a ResNet-18 of half the width on log-mel spectra, the source's split, or all of one speaker as the test set.
texts: `words` is TextResNet on words, `bytes` the same on bytes, `vdcnn` VDCNN on bytes. --seconds are of one CPU core
(`time.process_time`): the learning rate comes down to zero when they are over. The last weights are tested, not the
best ones. One JSON object a run.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from resnetkit.data import audio, text, tokens
from resnetkit.data.archive import members
from resnetkit.data.audio import AudioPreprocess
from resnetkit.data.text import Corpus
from resnetkit.data.tokens import TextPreprocess
from resnetkit.models import build
from resnetkit.nn.sequence import TextResNet, vdcnn
from resnetkit.ops.intervals import wilson
from resnetkit.training import sounds, texts

BATCH = 32


@dataclass(frozen=True)
class Work:
    """A network, and how its batches are made.

    Attributes:
        network: to be trained.
        size: training samples.
        batch: rows and a generator to inputs and target shares [n, K].
        lr: the highest learning rate of AdamW.
        seconds: of one core.
        decay: weight decay.
    """

    network: nn.Module
    size: int
    batch: Callable[[NDArray[np.intp], np.random.Generator], tuple[Tensor, Tensor]]
    lr: float
    seconds: float
    decay: float = 0.05


def fit(work: Work, seed: int) -> dict[str, float]:
    """Train until the seconds are over."""
    optimizer = torch.optim.AdamW(work.network.parameters(), work.lr, weight_decay=work.decay)
    rng = np.random.default_rng(seed)
    started, step, loss = time.process_time(), 0, 0.0
    for rows in _batches(work.size, rng):
        done = (time.process_time() - started) / work.seconds
        if done >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = work.lr * min(1, step / 100) * (1 + math.cos(math.pi * done)) / 2
        inputs, shares = work.batch(rows, rng)
        now = nn.functional.cross_entropy(work.network.train()(inputs), shares, label_smoothing=0.05)
        optimizer.zero_grad()
        now.backward()
        optimizer.step()
        step, loss = step + 1, 0.98 * loss + 0.02 * now.item()
        if step % 100 == 0:
            print(f"step {step:,}, {done:.0%}, loss {loss:.3f}", file=sys.stderr)
    return {"epochs": round(step * BATCH / work.size, 1), "seconds": round(time.process_time() - started, 1)}


def _batches(size: int, rng: np.random.Generator) -> Iterator[NDArray[np.intp]]:
    while True:
        order = rng.permutation(size)
        yield from (order[i : i + BATCH] for i in range(0, size - BATCH + 1, BATCH))


@torch.inference_mode()
def tested(network: nn.Module, inputs: Tensor, targets: NDArray[np.integer]) -> dict[str, Any]:
    """Accuracy with its interval, and milliseconds of one sample."""
    network.eval()
    found = torch.cat([network(part) for part in inputs.split(128)]).argmax(1).numpy()
    started = time.process_time()
    for i in range(20):
        network(inputs[i : i + 1])
    took = (time.process_time() - started) / 20 * 1000
    return {**wilson(int((found == targets).sum()), len(targets)).as_dict(), "ms a sample": round(took, 1)}


def _digits(archive: Path, preprocess: AudioPreprocess) -> tuple[audio.Clip, NDArray[np.int64], list[list[str]]]:
    found = members(archive)
    names = [Path(name).stem.split("_") for name in found]
    clips = np.stack([audio.clip(audio.read(member, preprocess), preprocess) for member in found.values()])
    return clips, np.array([int(name[0]) for name in names]), names


def digits(arguments: argparse.Namespace) -> dict[str, Any]:
    """A ResNet on spoken digits."""
    preprocess = AudioPreprocess(rate=8_000, seconds=1.0, mels=40)
    clips, targets, names = _digits(arguments.data, preprocess)
    out = arguments.without
    held = np.array([name[1] == out if out else int(name[2]) < 5 for name in names])
    spectra = audio.log_mel(clips[~held], preprocess)
    mean, std = float(spectra.mean()), float(spectra.std())
    preprocess = AudioPreprocess(rate=8_000, seconds=1.0, mels=40, mean=(mean,), std=(std,))
    waves, known = audio.to_floats(clips[~held]), torch.eye(10)[torch.from_numpy(targets[~held])]

    def batch(rows: NDArray[np.intp], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        changed = sounds.random_speed(waves[rows], np.linspace(*arguments.speeds, 7).round(3).tolist(), rng)
        changed = sounds.time_shift(changed, 1_000, rng)
        changed = sounds.random_noise(sounds.random_gain(changed, 6, rng), 5, 40, rng)
        inputs = torch.from_numpy(audio.normalise(audio.to_integers(changed), preprocess))
        inputs = sounds.spec_augment(inputs, sounds.SpecAugment(6, 12), rng)
        return sounds.mixup(inputs, known[rows], 0.2, rng) if arguments.mixup else (inputs, known[rows])

    network = build("resnet18", num_classes=10, in_channels=1, width=arguments.width)
    work = Work(network, len(waves), batch, arguments.lr, arguments.seconds, arguments.decay)
    told = fit(work, arguments.seed)
    return told | tested(network, torch.from_numpy(audio.normalise(clips[held], preprocess)), targets[held])


def _splits(folder: Path) -> tuple[Corpus, Corpus, Corpus]:
    corpus = text.scan(folder)
    return corpus.select("train"), corpus.select("val"), corpus.select("test")


def sentences(arguments: argparse.Namespace) -> dict[str, Any]:
    """A network on sentences."""
    train, val, test = _splits(arguments.data)
    words = tokens.train_words(train.texts, 20_000, lower=True) if arguments.network == "words" else ""
    preprocess = TextPreprocess(length=64 if words else 256, lower=True, vocabulary=words)
    known = torch.eye(len(train.rows.classes))
    seen, *held = (tokens.encode(split.texts, preprocess) for split in (train, val, test))
    shares = known[torch.from_numpy(train.rows.targets)]

    def batch(rows: NDArray[np.intp], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        changed = texts.drop_tokens(seen[rows], arguments.drop, rng, unknown=1 if words else 0)
        changed = texts.delete_spans(changed, 0.1, rng)
        return torch.from_numpy(tokens.normalise(changed, preprocess)), shares[rows]

    if arguments.network == "vdcnn":
        network: nn.Module = vdcnn(
            arguments.depth, len(known), preprocess.num_tokens, shortcut=arguments.shortcut, hidden=0
        )
    else:
        network = TextResNet(len(known), preprocess.num_tokens, dropout=arguments.dropout)
    told = fit(Work(network, len(train), batch, arguments.lr, arguments.seconds, arguments.decay), arguments.seed)
    parts = zip(("val", "test"), held, (val, test), strict=True)
    inputs = {name: (torch.from_numpy(tokens.normalise(each, preprocess)), s.rows.targets) for name, each, s in parts}
    return told | {name: tested(network, *pair) for name, pair in inputs.items()}


def linear(arguments: argparse.Namespace) -> dict[str, Any]:
    """TF-IDF of words and pairs of words, and logistic regression whose C is chosen on the validation split."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    started = time.process_time()
    train, val, test = _splits(arguments.data)
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\S+")
    seen = vectorizer.fit_transform(train.texts)
    models = [LogisticRegression(C=c, max_iter=1000).fit(seen, train.rows.targets) for c in (0.3, 1, 3, 10, 30)]
    best = max(models, key=lambda model: model.score(vectorizer.transform(val.texts), val.rows.targets))
    hits = int((best.predict(vectorizer.transform(test.texts)) == test.rows.targets).sum())
    return {"C": best.C, "seconds": round(time.process_time() - started, 1), **wilson(hits, len(test)).as_dict()}


def main() -> None:
    """Parse the command and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("digits", "texts", "linear"))
    parser.add_argument("data", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--without", default="", help="speaker to test on")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--speeds", type=float, nargs=2, default=(0.85, 1.15))
    parser.add_argument("--mixup", action="store_true")
    parser.add_argument("--network", choices=("words", "bytes", "vdcnn"), default="words")
    parser.add_argument("--depth", type=int, default=9)
    parser.add_argument("--shortcut", choices=("none", "A", "B"), default="none")
    parser.add_argument("--drop", type=float, default=0.1)
    parser.add_argument("--dropout", type=float, default=0.3)
    parser.add_argument("--lr", type=float, default=4e-3, help="digits and vdcnn want less")
    parser.add_argument("--decay", type=float, default=0.05)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    run = {"digits": digits, "texts": sentences, "linear": linear}[arguments.what]
    print(json.dumps(run(arguments)))


if __name__ == "__main__":
    main()
