"""Splits as lists of names in ImageSets, as Pascal VOC has them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from resnetkit.data.place import Findings, Place, split_in
from resnetkit.data.tree import SPLITS
from resnetkit.errors import DataError

LISTS = (*SPLITS, "trainval")
OF_BOXES = ("ImageSets/Main", "ImageSets")
OF_MASKS = ("ImageSets/Segmentation", "ImageSets")


def splits(place: Place, paths: Iterable[str], folders: Sequence[str], findings: Findings) -> dict[str, str]:
    """The split of each image that the lists name; of all images, by their folders, where there are no lists.

    Args:
        place: where both are.
        paths: of the images.
        folders: in which lists may lie.
        findings: images that are in no list, and names in lists that are no image.

    Raises:
        DataError: an image is in two lists.
    """
    lists, paths = _lists(place, folders), list(paths)
    if not lists:
        return {path: split_in(path) for path in paths}
    by_stem = {PurePosixPath(path).stem: path for path in paths}
    seen: dict[str, str] = {}
    for split, stems in lists.items():
        for stem in stems:
            path = by_stem.get(stem) or by_stem.get(PurePosixPath(stem).stem)
            if path is None:
                findings.add("images that are not there, but in a list", f"{split}.txt: {stem}")
            elif seen.setdefault(path, split) != split:
                what = f"is in the lists of {seen[path]} and {split}"
                raise DataError(what, path=place.path(path), fix="take it out of one of them")
    for path in paths:
        if path not in seen:
            findings.add("images in no list of ImageSets, left out", path)
    return {path: seen[path] for path in paths if path in seen}


def _lists(place: Place, folders: Sequence[str]) -> dict[str, list[str]]:
    """What is in the lists, by split."""
    found = {}
    for split in LISTS:
        for folder in folders:
            names = [name for name in place.names if f"/{name}".endswith(f"/{folder}/{split}.txt")]  # of several years
            if names and split not in found:
                found[split] = [line.split()[0] for name in names for line in place.lines(name) if line.strip()]
    both = found.pop("trainval", [])  # the union of train and val
    if both and "train" not in found:
        held_out = set(found.get("val", ()))
        found["train"] = [stem for stem in both if stem not in held_out]
    return found
