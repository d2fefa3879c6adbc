"""What `resnetkit check` finds of what was planted: wrong labels, leaks, broken files; and how long it takes.

    python bench/check.py --data test.zip --count 10000 --weights resnet56.pth --set model.variant=resnet56
    python bench/check.py

Images of class folders (or an archive of them; made ones without --data) are copied into train/ and test/, four to one.
Then 5 % get the label of another class, 20 training images are put into test/ too (10 byte for byte, 5 re-encoded as
JPEG at quality 50 to 85, 5 resized to 1.25 to 2 times their size, or to half to twice where they have 64 px or more),
and 30 broken files are added. What is found beside the planted pairs counts as false, though it may be real.
"""

from __future__ import annotations

import argparse
import io
import shutil
import struct
import tempfile
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from resnetkit import api
from resnetkit.data.dataset import Dataset, scan
from resnetkit.data.image import EXTENSIONS, Preprocess, decode, shown
from resnetkit.recipe import parse_setting
from resnetkit.trust.check import Findings

WRONG, LEAKS, BROKEN = 0.05, 20, 30
WHOLE = Preprocess(draft=0.0)


@dataclass
class Planted:
    """Paths of what was planted: label by path, pairs of train and test, broken files."""

    wrong: dict[str, str] = field(default_factory=dict)
    leaks: set[tuple[str, str]] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)


def made(root: Path, count: int) -> Path:
    """Ten classes of pictures of soft forms and noise: nothing of their labels is to be seen."""
    rng = np.random.default_rng(0)
    for i in range(count):
        forms = Image.fromarray(rng.integers(0, 255, (7, 9, 3), np.uint8)).resize((160, 120), Image.Resampling.BICUBIC)
        folder = root / f"class{i % 10}"
        folder.mkdir(parents=True, exist_ok=True)
        forms.save(folder / f"{i}.jpg", quality=90)
    return root


def drawn(dataset: Dataset, count: int) -> np.ndarray:
    """`count` rows, as many of each class as of the others."""
    rng = np.random.default_rng(1)
    each = count // len(dataset.classes)
    of = [rng.permutation(np.flatnonzero(dataset.targets == k))[:each] for k in range(len(dataset.classes))]
    return np.concatenate(of)


def plant(dataset: Dataset, count: int, root: Path) -> Planted:
    """Copy the images, and put in what is to be found."""
    rng, planted = np.random.default_rng(2), Planted()
    rows = drawn(dataset, count)
    wrong = set(rng.choice(len(rows), round(WRONG * len(rows)), replace=False).tolist())
    for k in range(len(dataset.classes) * 2):
        (root / ("train", "test")[k % 2] / dataset.classes[k // 2]).mkdir(parents=True)
    train = []
    for number, row in enumerate(rows.tolist()):
        target, split = int(dataset.targets[row]), "test" if number % 5 == 0 else "train"
        label = (
            (target + int(rng.integers(1, len(dataset.classes)))) % len(dataset.classes) if number in wrong else target
        )
        name = f"{split}/{dataset.classes[label]}/{number}{Path(dataset.names[row]).suffix.lower()}"
        with dataset.files[row].open("rb") as source, (root / name).open("wb") as copy:
            shutil.copyfileobj(source, copy)
        if number in wrong:
            planted.wrong[name] = dataset.classes[target]
        elif split == "train":
            train.append(name)
    for number, name in enumerate(rng.choice(train, LEAKS, replace=False).tolist()):
        planted.leaks.add((name, leak(root, name, number, rng)))
    for number in range(BROKEN):
        planted.broken.add(broken(root, dataset.classes[number % len(dataset.classes)], train[number], number))
    return planted


def leak(root: Path, name: str, number: int, rng: np.random.Generator) -> str:
    """A copy of a training image in test/, under the same label."""
    target = Path("test", Path(name).parent.name, f"leak{number}").with_suffix(Path(name).suffix)
    if number < LEAKS // 2:
        shutil.copyfile(root / name, root / target)
        return str(target)
    image = shown(decode(root / name, WHOLE))
    if number < LEAKS * 3 // 4:
        target = target.with_suffix(".jpg")
        image.save(root / target, "JPEG", quality=int(rng.integers(50, 86)))
        return str(target)
    factor = rng.uniform(0.5 if min(image.size) >= 64 else 1.25, 2)
    size = (round(image.width * factor), round(image.height * factor))
    target = target.with_suffix(".png")
    image.resize(size, Image.Resampling.BICUBIC).save(root / target)
    return str(target)


def broken(root: Path, label: str, whole: str, number: int) -> str:
    """A file that cannot be read: truncated, empty, text, of unreasonable size, or with junk after a good beginning."""
    buffer = io.BytesIO()
    shown(decode(root / whole, WHOLE)).save(buffer, "JPEG", quality=90)
    jpeg = buffer.getvalue()
    parts = ((b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b"\0" * 99)))
    chunks = (struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in parts)
    bomb = b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
    kinds = (jpeg[: int(0.3 * len(jpeg))], jpeg[: int(0.9 * len(jpeg))], b"", b"<html>not found", bomb, jpeg[:200])
    name = f"train/{label}/broken{number}.jpg"
    (root / name).write_bytes(kinds[number % len(kinds)])
    return name


def told(what: str, found: set[object], wanted: set[object]) -> None:
    right = len(found & wanted)
    print(f"{what}: recall {right}/{len(wanted)}, precision {right}/{len(found)}")


def paths(found: Findings, *kinds: str) -> set[object]:
    findings = [finding for kind in kinds if (finding := found.of(kind))]
    items = [item for finding in findings for item in found.items(finding)]
    return {tuple(sorted(item["paths"], reverse=True)) if "paths" in item else item["path"] for item in items}


def report(found: Findings, planted: Planted) -> None:
    """Recall and precision of each kind."""
    leaks = {tuple(sorted(pair, reverse=True)) for pair in planted.leaks}
    told("broken files", paths(found, "unreadable"), set(planted.broken))
    told("leaks", paths(found, "copies_across", "near_across"), leaks)
    if found.seen.suspicions is None:
        return
    told("wrong labels", paths(found, "labels"), set(planted.wrong))
    finding = found.of("labels")
    items = list(found.items(finding)) if finding else []
    right = [item["suggested"] == planted.wrong[item["path"]] for item in items if item["path"] in planted.wrong]
    print(f"the right label is suggested for {sum(right)} of {len(right)}")
    ranking = found.seen.suspicions.ranking
    first = {found.seen.dataset.names[row] for row in ranking[: len(ranking) // 10].tolist()}
    share = len(first & set(planted.wrong)) / len(planted.wrong)
    print(f"of the wrong labels {100 * share:.1f} % are in the first 10 % of the ranking")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="class folders, or an archive of them")
    parser.add_argument("--count", type=int, default=2_000)
    parser.add_argument("--weights", help="to judge labels by; without them labels are not judged")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    settings = dict(map(parse_setting, arguments.set))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        source = arguments.data or made(root / "source", arguments.count)
        planted = plant(scan(source, EXTENSIONS), arguments.count, root / "planted")
        started = time.perf_counter()
        found = api.check(root / "planted", out=root / "fast", settings=settings, quiet=True)
        fast = time.perf_counter() - started
        print(f"{len(found.seen.facts):,} files, fast part {fast:.1f} s")
        if arguments.weights:
            started, out = time.perf_counter(), root / "labels"
            found = api.check(
                root / "planted", labels=True, weights=arguments.weights, out=out, settings=settings, quiet=True
            )
            print(f"labels {time.perf_counter() - started - fast:.1f} s more")
        report(found, planted)


if __name__ == "__main__":
    main()
