"""Lay the Free Spoken Digit Dataset out for `resnetkit train`: its files, and the tables of the splits that we report.

    python bench/spoken.py ../shared/data/fsdd/recordings.zip digits

digits/recordings/*.wav; digits.csv, the source's own split (index 0 to 4 of each digit and speaker is the test set);
without-NAME.csv for each speaker, all of whose files are the test set; speakers.csv, four speakers to learn voices
from, and pairs.csv, pairs of files of the other two, `theo` and `lucas`, with whether they are of one of both;
speakers-0.csv, -1 and -2 and pairs-0.csv, -1 and -2 likewise, so that each speaker is held out once.

    python bench/spoken.py --scored scored-0.csv scored-1.csv scored-2.csv

tells the equal error rate of what three such models have answered, over all six speakers.
"""

from __future__ import annotations

import argparse
import csv
import zipfile
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from resnetkit.ops.verification import equal_error_rate

HELD_OUT = ("lucas", "theo")
PAIRS = 2_000


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
    print(f"{len(files):,} recordings of {len(speakers)} speakers in {folder}")


def voices(folder: Path, known: Sequence[tuple[str, Sequence[str]]], name: str, held_out: Sequence[str]) -> None:
    """The tables of a model of voices, to which two speakers are new."""
    rows = [(path, who, "val" if int(index) < 5 else "train") for path, (_, who, index) in known if who not in held_out]
    write_rows(folder / f"speakers{name}.csv", ("path", "label", "split"), rows)
    new = [(path, who) for path, (_, who, _) in known if who in held_out]
    pairs = list(combinations(range(len(new)), 2))
    chosen = np.random.default_rng(0).choice(len(pairs), PAIRS, replace=False)
    both = [(new[pairs[i][0]], new[pairs[i][1]]) for i in chosen.tolist()]
    told = [(a, b, int(first == second), first, second) for (a, first), (b, second) in both]
    write_rows(folder / f"pairs{name}.csv", ("a", "b", "same", "speaker_a", "speaker_b"), told)


def told_apart(tables: Sequence[Path]) -> None:
    """Print the equal error rate of scored pairs, whose files are named digit_speaker_index.wav."""
    rows = [row for table in tables for row in csv.DictReader(table.open(encoding="utf-8"))]
    scores, same = (np.array([float(row[name]) for row in rows]) for name in ("score", "same"))
    names = [[Path(row[side]).stem.split("_")[1] for side in ("a", "b")] for row in rows]
    speakers = np.unique(names, return_inverse=True)[1].reshape(-1, 2)
    for whom in (None, speakers):
        found = equal_error_rate(scores, same > 0, whom)
        assert found.value is not None and found.low is not None and found.high is not None
        print(f"EER {100 * found.value:.1f} % ({100 * found.low:.1f} to {100 * found.high:.1f}, {found.method})")


def main() -> None:
    """Parse the command and do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path, nargs="?")
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--scored", type=Path, nargs="+")
    arguments = parser.parse_args()
    if arguments.scored:
        told_apart(arguments.scored)
    elif arguments.archive and arguments.folder:
        lay_out(arguments.archive, arguments.folder)
    else:
        parser.error("give the archive and a folder, or --scored")


if __name__ == "__main__":
    main()
