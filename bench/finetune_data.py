"""The photo sets of finetune.py, as train/val/test folders of class folders.

cifar: CIFAR-10 as JPEG files of 32 px: 130 training and 20 validation images a class drawn by the seed (1,500 in all),
and always the same first 100 test images of each class (1,000).
elpv: electroluminescence photos of single solar cells, 300 px, grey (Deitsch et al., Solar Energy 185, 2019), from the
package elpv-dataset. Two classes: "defective" where the experts' probability of a defect is 0.5 or more (821 cells),
and "functional" (1,803, so always answering this scores 69 %). 1,499 to train, 225 to validate, drawn by the seed;
900 to test, the same for every seed. Cells of one module fall into all three: accuracies are for comparing contestants
only.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

Members = Mapping[str, list[str]]
CIFAR = {"train": 130, "val": 20, "test": 100}


def _shuffled(names: list[str], seed: int) -> list[str]:
    return [names[i] for i in np.random.default_rng(seed).permutation(len(names))]


def _by_class(names: list[str]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for name in sorted(names):
        grouped.setdefault(name.split("/")[0], []).append(name)
    return grouped


def _cifar(root: Path, source: Path, seed: int) -> None:
    for file, splits in (("train.zip", ("train", "val")), ("test.zip", ("test",))):
        with zipfile.ZipFile(source / "cifar10" / file) as archive:
            members = [name for name in archive.namelist() if name.endswith(".jpg")]
            for names in _by_class(members).values():
                left = _shuffled(names, seed) if file == "train.zip" else names
                for split in splits:
                    archive.extractall(root / split, left[: CIFAR[split]])
                    left = left[CIFAR[split] :]


def _elpv(root: Path, source: Path, seed: int) -> None:
    del source  # the photos come with the package
    import elpv_dataset

    folder = Path(elpv_dataset.__file__).parent / "data"
    rows = [line.split() for line in (folder / "labels.csv").read_text(encoding="utf-8").splitlines() if line]
    classes: dict[str, list[str]] = {"functional": [], "defective": []}
    for path, probability, _ in rows:
        classes["defective" if float(probability) >= 0.5 else "functional"].append(path)
    for name, paths in classes.items():
        paths = _shuffled(paths, 0)
        num_test, num_val = round(len(paths) * 900 / 2624), round(len(paths) * 225 / 2624)
        rest = _shuffled(paths[num_test:], seed)
        for split, chosen in (("test", paths[:num_test]), ("val", rest[:num_val]), ("train", rest[num_val:])):
            (root / split / name).mkdir(parents=True)
            for path in chosen:
                shutil.copy(folder / path, root / split / name)


MAKERS: Mapping[str, Callable[[Path, Path, int], None]] = {"cifar": _cifar, "elpv": _elpv}


def thin(root: Path, images: int) -> None:
    """Leave about so many images in each split, for a trial."""
    for split in root.iterdir():
        folders = sorted(split.iterdir())
        for folder in folders:
            for path in sorted(folder.iterdir())[max(2, images // len(folders)) :]:
                path.unlink()


def make(name: str, out: Path, source: Path, seed: int, images: int) -> Path:
    """The folder of a data set, made if it is not there; `source` is the folder of shared data sets."""
    root = out / f"{name}-{seed}"
    if not root.exists():
        unfinished = out / f"{root.name}.part"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        MAKERS[name](unfinished, source, seed)
        if images:
            thin(unfinished, images)
        unfinished.rename(root)
    return root
