"""Lay the Free Spoken Digit Dataset out for `resnetkit train`: its files, and the tables of the splits that we report.

    python bench/spoken.py ../shared/data/fsdd/recordings.zip digits

digits/recordings/*.wav; digits.csv, the source's own split (index 0 to 4 of each digit and speaker is the test set);
without-NAME.csv for each speaker, all of whose files are the test set; speakers.csv, four speakers to learn voices
from, and pairs.csv, pairs of files of the other two, `theo` and `lucas`, with whether they are of one of both;
speakers-0.csv, -1 and -2 and pairs-0.csv, -1 and -2 likewise, so that each speaker is held out once; joined/*.wav, ten
digits of a speaker one after the other, and joined-0.csv, -1 and -2, pairs of these.

    python bench/spoken.py --scored scored-0.csv scored-1.csv scored-2.csv

tells the equal error rate of what three such models have answered, over all six speakers;

    python bench/spoken.py --colours digits

that of the mean and the deviation of each band of the spectrum, without any network.
"""

from __future__ import annotations

import argparse
import csv
import wave
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnetkit.data import audio
from resnetkit.ops.verification import cosine, equal_error_rate

HELD_OUT = ("lucas", "theo")
PAIRS = 2_000
SPECTRA = audio.AudioPreprocess(rate=8_000, seconds=0.75, mels=40, level=True, mean=(0.0,), std=(1.0,))


def write_rows(path: Path, header: Sequence[str], rows: Iterable[Sequence[str | int]]) -> None:
    """A CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def lay_out(archive: Path, folder: Path) -> None:
    """All files and tables."""
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(folder)
    files = sorted(path.relative_to(folder) for path in folder.glob("recordings/*.wav"))
    parts = [path.stem.split("_") for path in files]
    names = ("path", "label", "split")
    known = list(zip(map(Path.as_posix, files), parts, strict=True))
    split = [(path, digit, "test" if int(index) < 5 else "train") for path, (digit, _, index) in known]
    write_rows(folder / "digits.csv", names, split)
    speakers = sorted({speaker for _, speaker, _ in parts})
    for left_out in speakers:
        rows = [(path, digit, "test" if who == left_out else "train") for path, (digit, who, _) in known]
        write_rows(folder / f"without-{left_out}.csv", names, rows)
    voices(folder, known, "", HELD_OUT)
    for fold in range(len(speakers) // 2):
        voices(folder, known, f"-{fold}", speakers[2 * fold :][:2])
        write_pairs(folder / f"joined-{fold}.csv", join(folder, known, speakers[2 * fold :][:2]))
    print(f"{len(files):,} recordings of {len(speakers)} speakers in {folder}")


def voices(folder: Path, known: Sequence[tuple[str, Sequence[str]]], name: str, held_out: Sequence[str]) -> None:
    """The tables of a model of voices, to which two speakers are new."""
    rows = [(path, who, "val" if int(index) < 5 else "train") for path, (_, who, index) in known if who not in held_out]
    write_rows(folder / f"speakers{name}.csv", ("path", "label", "split"), rows)
    write_pairs(folder / f"pairs{name}.csv", [(path, who) for path, (_, who, _) in known if who in held_out])


def join(folder: Path, known: Sequence[tuple[str, Sequence[str]]], speakers: Sequence[str]) -> list[tuple[str, str]]:
    """Write the ten digits of each index one after the other, as one file; gives its path and the speaker."""
    (folder / "joined").mkdir(exist_ok=True)
    indices = sorted({int(index) for _, (_, _, index) in known})
    names = [(f"joined/all_{who}_{index}.wav", who, index) for who in speakers for index in indices]
    for name, who, index in names:
        digits = [folder / f"recordings/{digit}_{who}_{index}.wav" for digit in range(10)]
        with wave.open(str(folder / name), "wb") as whole:
            whole.setparams(opened(digits[0])[0])
            whole.writeframes(b"".join(opened(path)[1] for path in digits))
    return [(name, who) for name, who, _ in names]


def opened(path: Path) -> tuple[Any, bytes]:
    """What a WAV says of itself, and its samples."""
    with wave.open(str(path), "rb") as file:
        return file.getparams(), file.readframes(file.getnframes())


def write_pairs(path: Path, new: Sequence[tuple[str, str]]) -> None:
    """A table of some pairs of files of new speakers, with whether they are of one."""
    pairs = list(combinations(range(len(new)), 2))
    chosen = np.random.default_rng(0).choice(len(pairs), PAIRS, replace=False)
    both = [(new[pairs[i][0]], new[pairs[i][1]]) for i in chosen.tolist()]
    told = [(a, b, int(first == second), first, second) for (a, first), (b, second) in both]
    write_rows(path, ("a", "b", "same", "speaker_a", "speaker_b"), told)


def told_apart(tables: Sequence[Path]) -> None:
    """Print the equal error rate of scored pairs, whose files are named digit_speaker_index.wav."""
    rows = [row for table in tables for row in read_rows(table)]
    tell(rows)


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV."""
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def tell(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the equal error rate of rows of a, b, score and same."""
    scores, same = (np.array([float(row[name]) for row in rows]) for name in ("score", "same"))
    names = [[Path(row[side]).stem.split("_")[1] for side in ("a", "b")] for row in rows]
    speakers = np.unique(names, return_inverse=True)[1].reshape(-1, 2)
    for whom in (None, speakers):
        found = equal_error_rate(scores, same > 0, whom)
        assert found.value is not None and found.low is not None and found.high is not None
        print(f"EER {100 * found.value:.1f} % ({100 * found.low:.1f} to {100 * found.high:.1f}, {found.method})")


def colours(folder: Path) -> None:
    """Print what the mean and the deviation of each band of the spectrum tell of the pairs, without any network."""
    for kind in ("pairs", "joined"):
        rows = []
        for fold in range(3):
            known = [colour(folder / row["path"]) for row in read_rows(folder / f"speakers-{fold}.csv")[::10]]
            table = read_rows(folder / f"{kind}-{fold}.csv")
            names = sorted({row[side] for row in table for side in ("a", "b")})
            found = {name: colour(folder / name) - np.mean(known, 0) for name in names}
            scores = cosine(*(np.stack([found[row[side]] for row in table]) for side in ("a", "b")))
            rows += [{**row, "score": score} for row, score in zip(table, scores.tolist(), strict=True)]
        print(kind)
        tell(rows)


def colour(path: Path) -> NDArray[np.float64]:
    """Mean and deviation of each band over the loud frames of a recording, its loudness taken out [2 mels]."""
    windows = audio.windows(audio.read(path, SPECTRA), SPECTRA)
    loudest = audio.log_mel(windows, SPECTRA)[:, 0].max(1)
    loud = loudest >= loudest.max(1, keepdims=True) - audio.QUIET_FRAME
    spectra = [each[:, rows] for each, rows in zip(audio.normalise(windows, SPECTRA)[:, 0], loud, strict=True)]
    return np.mean([np.concatenate([each.mean(1), each.std(1)]) for each in spectra], 0)


def main() -> None:
    """Parse the command and do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path, nargs="?")
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--scored", type=Path, nargs="+")
    parser.add_argument("--colours", type=Path)
    arguments = parser.parse_args()
    if arguments.scored:
        told_apart(arguments.scored)
    elif arguments.colours:
        colours(arguments.colours)
    elif arguments.archive and arguments.folder:
        lay_out(arguments.archive, arguments.folder)
    else:
        parser.error("give the archive and a folder, or --scored, or --colours")


if __name__ == "__main__":
    main()
