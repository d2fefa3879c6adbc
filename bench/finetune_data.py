"""The photo sets of finetune.py, as train/val/test folders of class folders.

cifar: CIFAR-10 as JPEG files of 32 px: 130 training and 20 validation images a class drawn by the seed (1,500 in all),
and always the same first 100 test images of each class (1,000).
elpv: electroluminescence photos of single solar cells, 300 px, grey (Deitsch et al., Solar Energy 185, 2019), from the
package elpv-dataset. Two classes: "defective" where the experts' probability of a defect is 0.5 or more (821 cells),
and "functional" (1,803, so always answering this scores 69 %). 1,499 to train, 225 to validate, drawn by the seed;
900 to test, the same for every seed. Cells of one module fall into all three: accuracies are for comparing contestants
only.
blood: the cells of BCCD's microscope photos, cut out along their boxes and a tenth more on each side, 20 to 300 px.
Three classes: all white cells and platelets, and at most three red cells of a photo. 254 photos to train and 38 to
validate (some 1,250 and 180 cells), drawn by the seed; the 72 photos of its test set (347 cells) are always the same.
"""

from __future__ import annotations

import shutil
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

Members = Mapping[str, list[str]]
CIFAR = {"train": 130, "val": 20, "test": 100}
RED = 3  # red cells of a photo, at most
SIDES = ("xmin", "ymin", "xmax", "ymax")


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


def _blood(root: Path, source: Path, seed: int) -> None:
    folder = source / "bccd"
    lists = {name: (folder / "ImageSets/Main" / f"{name}.txt").read_text().split() for name in ("trainval", "test")}
    rest = _shuffled(lists["trainval"], seed)
    for split, photos in (("train", rest[38:]), ("val", rest[:38]), ("test", lists["test"])):
        for photo in photos:
            with Image.open(folder / "JPEGImages" / f"{photo}.jpg") as image:
                for number, (name, box) in enumerate(_cells(folder / "Annotations" / f"{photo}.xml")):
                    (root / split / name).mkdir(parents=True, exist_ok=True)
                    image.crop(box).save(root / split / name / f"{photo}-{number}.png")


def _cells(file: Path) -> Iterator[tuple[str, tuple[int, int, int, int]]]:
    """Class and box of the cells of a photo, with a margin, but for most of the red ones."""
    red = 0
    for item in ET.parse(file).iter("object"):
        name = item.findtext("name", "")
        left, top, right, bottom = (int(item.findtext(f"bndbox/{side}", "0")) for side in SIDES)
        red += name == "RBC"
        if right > left and bottom > top and (name != "RBC" or red <= RED):
            x, y = (right - left) // 10, (bottom - top) // 10
            yield name, (max(0, left - x), max(0, top - y), min(640, right + x), min(480, bottom + y))


MAKERS: Mapping[str, Callable[[Path, Path, int], None]] = {"cifar": _cifar, "elpv": _elpv, "blood": _blood}


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
