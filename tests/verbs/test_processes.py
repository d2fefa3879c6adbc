"""Several processes: `torchrun --nproc-per-node 2` gives what one process gives."""

from __future__ import annotations

import csv
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from conftest import start, tiny, write_classes
from senses import write_reviews, write_tones


def weights_of(run: Path) -> dict[str, np.ndarray]:
    return safetensors.numpy.load_file(run / "model" / "model.safetensors")


def column(run: Path, file: str, name: str) -> list[str]:
    with (run / file).open(encoding="utf-8") as rows:
        return [row[name] for row in csv.DictReader(rows)]


def test_two_processes_give_what_one_gives(tmp_path: Path, run_cli) -> None:
    """With frozen BatchNorm: weights within 1e-5, and each held-out sample scored once, with the same answer."""
    write_classes(tmp_path / "photos", 30)
    flags = tiny("model.freeze=layer4", "train.epochs=2", "data.val=0.3", "augment.erasing=0.3")
    other = start("train", "photos", *flags, "--out", "two", "--quiet")
    out, err = other.communicate(timeout=240)
    assert other.returncode == 0, err
    code, _, err = run_cli("train", "photos", *flags, "--out", "one", "--quiet")
    assert code == 0, err
    one, two = weights_of(tmp_path / "one"), weights_of(tmp_path / "two")
    assert one.keys() == two.keys()
    assert max(np.abs(one[name] - two[name]).max() for name in one) < 1e-5
    assert not np.array_equal(one["fc.weight"], np.zeros_like(one["fc.weight"]))
    for name in ("path", "target", "label", "correct"):
        assert column(tmp_path / "one", "predictions.csv", name) == column(tmp_path / "two", "predictions.csv", name)
    for name in ("epoch", "step", "val_accuracy", "val_macro_f1"):
        assert column(tmp_path / "one", "results.csv", name) == column(tmp_path / "two", "results.csv", name)
    losses = (column(tmp_path / run, "results.csv", "train_loss") for run in ("one", "two"))
    assert [float(loss) for loss in next(losses)] == pytest.approx([float(loss) for loss in next(losses)], abs=1e-5)
    assert out.count("accuracy ") == 1, "the first process alone tells the result"


@pytest.mark.parametrize("kind", ["sounds", "texts"])
def test_sounds_and_texts_too(kind: str, tmp_path: Path, run_cli) -> None:
    """With frozen BatchNorm and without dropout, whose numbers are each process's own."""
    pytest.importorskip("soundfile")
    pytest.importorskip("tokenizers")
    source = write_tones(tmp_path / "tones", 12) if kind == "sounds" else write_reviews(tmp_path / "reviews.csv", 90)
    settings = ["model.freeze=layer4", "train.epochs=2", "data.val=0.3", "train.batch_size=8"]
    settings += ["model.width=8", "sound.mels=24", "augment.mixup=0" if kind == "sounds" else "text.dropout=0"]
    flags = [flag for each in settings for flag in ("--set", each)]
    other = start("train", str(source), *flags, "--out", "two", "--quiet")
    _, err = other.communicate(timeout=240)
    assert other.returncode == 0, err
    code, _, err = run_cli("train", source, *flags, "--out", "one", "--quiet")
    assert code == 0, err
    one, two = weights_of(tmp_path / "one"), weights_of(tmp_path / "two")
    assert max(np.abs(one[name] - two[name]).max() for name in one) < 1e-4
    for name in ("path", "target", "label", "correct"):
        assert column(tmp_path / "one", "predictions.csv", name) == column(tmp_path / "two", "predictions.csv", name)


@pytest.mark.parametrize("number", [signal.SIGTERM])
def test_a_signal_to_one_stops_and_saves_all(tmp_path: Path, number: int, run_cli) -> None:
    """Whichever process hears it, the first one saves, and one process can go on from there."""
    write_classes(tmp_path / "photos", 30)
    flags = tiny("train.epochs=500")
    both = start("train", "photos", *flags, "--out", "run")
    log = tmp_path / "run" / "results.csv"
    try:
        deadline = time.monotonic() + 120
        while not log.exists():
            assert time.monotonic() < deadline and both.poll() is None
            time.sleep(0.1)
        children = Path(f"/proc/{both.pid}/task/{both.pid}/children")
        if not children.exists():
            pytest.skip("this system does not list a process's children")
        ranks = {_rank(child): int(child) for child in children.read_text().split()}
        os.kill(ranks["1"], number)
        _, err = both.communicate(timeout=120)
    finally:
        both.kill()
    assert "go on with: resnetkit train --resume" in err
    assert list((tmp_path / "run" / "state").iterdir())


def _rank(process: str) -> str:
    pairs = Path(f"/proc/{process}/environ").read_text().split("\0")
    return dict(pair.partition("=")[::2] for pair in pairs).get("RANK", "")
