"""Lay the Free Spoken Digit Dataset out for `resnetkit train`: its files, and the tables of the splits that we report.

    python bench/spoken.py ../shared/data/fsdd/recordings.zip digits

digits/recordings/*.wav; digits.csv, the source's own split (index 0 to 4 of each digit and speaker is the test set);
without-NAME.csv for each speaker, all of whose files are the test set; speakers.csv, four speakers to learn voices
from, and pairs.csv, pairs of files of the other two, `theo` and `lucas`, with whether they are of one of both.
"""

from __future__ import annotations

import argparse
import csv
import zipfile
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

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
    rows = [(path, who, "val" if int(index) < 5 else "train") for path, (_, who, index) in known if who not in HELD_OUT]
    write_rows(folder / "speakers.csv", names, rows)
    new = [(path, who) for path, (_, who, _) in known if who in HELD_OUT]
    pairs = list(combinations(range(len(new)), 2))
    chosen = np.random.default_rng(0).choice(len(pairs), PAIRS, replace=False)
    both = [(new[pairs[i][0]], new[pairs[i][1]]) for i in chosen.tolist()]
    told = [(a, b, int(first == second), first, second) for (a, first), (b, second) in both]
    write_rows(folder / "pairs.csv", ("a", "b", "same", "speaker_a", "speaker_b"), told)
    print(f"{len(files):,} recordings of {len(speakers)} speakers in {folder}")


def main() -> None:
    """Parse the command and do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    lay_out(arguments.archive, arguments.folder)


if __name__ == "__main__":
    main()
