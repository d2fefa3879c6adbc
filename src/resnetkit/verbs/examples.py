"""The examples of a training or an evaluation: read, checked for copies, and with a split each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from resnetkit import run
from resnetkit.data import boxes, fixes, masks
from resnetkit.data.annotated import Boxed
from resnetkit.data.archive import is_archive
from resnetkit.data.dataset import CODES, Dataset, assign_splits, refuse_untrainable
from resnetkit.data.duplicates import (
    across_splits,
    confirmed,
    listed,
    near_pairs,
    of_two_labels,
    refuse_leaks,
)
from resnetkit.data.echoes import same_sounds
from resnetkit.data.masks import Masked
from resnetkit.data.prepared import Prepared
from resnetkit.data.stratify import together
from resnetkit.data.tree import SPLITS
from resnetkit.errors import DataError, ResourceError, UsageError, printable
from resnetkit.files import write
from resnetkit.runtime.pipeline import num_threads
from resnetkit.settings import Recipe
from resnetkit.tasks.scenes import SCENES, Truths
from resnetkit.tasks.task import MODALITIES, modality_of, task_for, task_named
from resnetkit.training.device import Setup, from_first
from resnetkit.training.loader import Targets
from resnetkit.training.pixels import (
    Pixels,
    bytes_of,
    cached,
    decoded_each_time,
    in_memory,
    key_of,
    make_room,
    refuse_unreadable,
)
from resnetkit.training.prepare import PREPARING, columns_of, evaluated, stored
from resnetkit.verbs.caches import cache_folder
from resnetkit.verbs.console import Advance, bar, note

BAD_COLUMNS = ("path", "split", "reason")
UNEVEN = 10  # times as many images of one class as of another, from which on it is told
CONFIRMING = {"sounds": same_sounds}  # what looks again at pairs that may be nearly the same, where they are no images
NEAR_COLUMNS = ("train", "other", "split", "bits")
ANNOTATIONS = (".json", ".yaml", ".yml")
FIXES = "fixes.csv"  # in a run folder: a copy of data.fixes


@dataclass(frozen=True)
class Examples:
    """What a training learns from and is judged by.

    Attributes:
        dataset: without the images that could not be read.
        pixels: pixels, clips or tokens of each split, in the data set's order.
        bad: rows for unreadable.csv.
        near: rows for near_duplicates.csv.
        preprocess: how an input is prepared.
    """

    dataset: Dataset
    pixels: dict[str, Pixels]
    bad: list[dict[str, str]]
    near: list[dict[str, str | int]]
    preprocess: Prepared

    def learnt(self, times: int) -> tuple[Targets, Pixels]:
        """The targets and pixels of an epoch, which shows each training sample so many times."""
        part, pixels = self.dataset.select("train"), self.pixels["train"]
        if times > 1:
            rows = np.repeat(np.arange(len(part)), times)
            part, pixels = part.take(rows), pixels.take(rows)
        return Truths(part) if isinstance(part, Boxed | Masked) else part.targets, pixels

    def write_findings(self, folder: Path) -> None:
        """unreadable.csv and near_duplicates.csv, where there is something to tell."""
        for name, columns, rows in (
            ("unreadable.csv", BAD_COLUMNS, self.bad),
            ("near_duplicates.csv", NEAR_COLUMNS, self.near),
        ):
            if rows:
                write(folder / name, run.as_csv(columns, rows))


def task_of(recipe: Recipe) -> str:
    """Key of TASKS that a recipe means."""
    return "classify" if recipe.data.task == "auto" else recipe.data.task


def with_splits(dataset: Dataset, recipe: Recipe, first: NDArray[np.intp] | None = None) -> Dataset:
    """A data set with a run's splits; copies (`first`, or found now) and groups stay together."""
    first = MODALITIES[dataset.noun].copies(dataset, num_threads()) if first is None else first
    first = together(first, dataset.groups)
    return assign_splits(dataset, val=recipe.data.val, test=recipe.data.test, seed=recipe.train.seed, first=first)


def scanned(recipe: Recipe) -> Dataset:
    """The examples as they lie there, with the targets of their task, and with what data.fixes changes.

    Raises:
        UsageError: no data is named, or there is no such task.
        DataError: there is nothing to learn from, or a line of data.fixes is wrong.
    """
    if not recipe.data.source:
        raise UsageError("no data given", fix="resnetkit train FOLDER")
    found = found_in(Path(recipe.data.source), recipe)
    key = task_for(found) if recipe.data.task == "auto" else recipe.data.task
    if key not in SCENES:
        return fixed(task_named(key).target.prepare(found), recipe.data.fixes)
    if recipe.data.fixes:
        what = "data.fixes is for images with classes"
        raise UsageError(what, path=recipe.data.fixes, fix="correct the boxes or masks themselves")
    return SCENES[key].target.prepare(found)


def found_in(source: Path, recipe: Recipe, known: Sequence[str] = ()) -> Dataset:
    """What lies at a source: images with boxes or masks where that is what they have, else images with classes.

    Args:
        source: of the data.
        recipe: whose task, links and ignored classes are looked for.
        known: classes of a model, for masks that nothing names.

    Raises:
        DataError: there is nothing that can be read.
    """
    task, links = recipe.data.task, recipe.data.follow_links
    ignore = [word.strip() for word in recipe.data.ignore.split(",") if word.strip()]
    if task in ("detect", "instances"):
        return boxes.scan(source, follow_links=links, outlines=task == "instances")
    if task == "segment":
        return masks.scan(source, ignore=ignore, follow_links=links, known=known)
    found: Dataset | None = None
    if task == "auto" and (source.is_dir() or is_archive(source) or source.suffix.lower() in ANNOTATIONS):
        try:
            found = boxes.recognised(source, follow_links=links)
            found = found or masks.recognised(source, ignore=ignore, follow_links=links)
        except DataError as error:
            fix = f"{error.fix}; --task classify if these are class folders"
            raise DataError(error.what, path=error.path, fix=fix) from error
    modality = modality_of(source, columns_of(recipe)) if task == "auto" else task_named(task).modality
    return found or modality.scan(source, follow_links=links, columns=columns_of(recipe))


def fixed(dataset: Dataset, path: str | Path) -> Dataset:
    """A data set with what a fix file says; without one ("") as it is.

    Raises:
        DataError: a line is wrong, or nothing is left.
    """
    if not str(path):
        return dataset
    found = fixes.apply(dataset, fixes.read(Path(path)), Path(path))
    if not len(found):
        raise DataError(f"leaves no {dataset.noun}", path=path, fix="remove some lines")
    return found


def read_dataset(recipe: Recipe, quiet: bool) -> Dataset:
    """The examples with their splits; says how many there are, what was passed over, and what is twice.

    Raises:
        UsageError: no data is named, or there is no such task.
        DataError: there is nothing to learn from, or given splits share images.
    """
    dataset, source = scanned(recipe), Path(recipe.data.source)
    refuse_untrainable(dataset, source, allow_empty_class=recipe.data.allow_empty_class)
    origin = "as given" if "val" in dataset.given_splits else f"cut with seed {recipe.train.seed}"
    first = MODALITIES[dataset.noun].copies(dataset, num_threads())
    if not recipe.data.allow_leak:
        refuse_leaks(dataset, first)
    split = with_splits(dataset, recipe, first)
    refuse_few(split)
    sizes = {name: split.num_samples(name) for name in SPLITS}
    counted = ", ".join(f"{n:,} {name}" for name, n in sizes.items())
    note(f"{source}: {_kinds(dataset)}, {counted} ({origin})", quiet)
    for what, count in dataset.ignored:
        note(f"  ignored: {count:,} {what}", quiet)
    if isinstance(dataset, Boxed | Masked):
        for finding in dataset.findings:
            note(f"  {finding.count:,} {finding.what}: {', '.join(map(printable, finding.examples[:3]))}", quiet)
    _tell_of_copies(dataset, first, quiet)
    _tell_of_groups(dataset, quiet)
    _tell_of_counts(split, quiet)
    return split


def _tell_of_groups(dataset: Dataset, quiet: bool) -> None:
    """Groups are kept together in splits of our own; given splits may tear them apart."""
    if dataset.groups is None:
        return
    parts = np.unique(np.stack([dataset.groups, dataset.splits]), axis=1)[0]
    torn = int((np.bincount(parts) > 1).sum())
    if torn:
        note(f"take care: {torn:,} groups are in two splits: the scores flatter what is new to the model", quiet)
    else:
        note(f"  {len(parts):,} groups, kept on one side of the splits", quiet)


def refuse_few(split: Dataset) -> None:
    """Refuse splits that leave nothing to learn from.

    Raises:
        DataError: fewer than two samples are in train.
    """
    if split.num_samples("train") < 2:
        raise DataError(f"leaves fewer than two {split.noun} to train on", path=split.root, fix=f"add {split.noun}")


def _kinds(dataset: Dataset) -> str:
    if isinstance(dataset, Boxed):
        number = sum(int(dataset.counts(split).sum()) for split in CODES)
        return f"{len(dataset.classes)} classes, {number:,} boxes ({dataset.form})"
    if isinstance(dataset, Masked):
        return f"{len(dataset.classes)} classes of pixels"
    if not dataset.several:
        return f"{len(dataset.classes)} classes"
    each = dataset.targets.sum(1)
    none = f", {int((each == 0).sum()):,} {dataset.noun} have none" if (each == 0).any() else ""
    one = ("an " if dataset.noun == "images" else "a ") + dataset.noun[:-1]
    return f"{len(dataset.classes)} labels, several {one} ({each.mean():.1f} on average{none})"


def _tell_of_counts(dataset: Dataset, quiet: bool) -> None:
    """What few or very uneven images mean for the scores."""
    train, noun = dataset.counts("train"), "labels" if dataset.several else "classes"
    held_out = sum(dataset.counts(name) for name in SPLITS if name != "train")
    lonely = np.flatnonzero((train > 0) & (held_out == 0))
    if len(lonely) and len(lonely) < len(train):
        named = ", ".join(repr(dataset.classes[k]) for k in lonely[:10]) + (" ..." if len(lonely) > 10 else "")
        what = f"no held-out {dataset.noun} of {len(lonely)} {noun} of few {dataset.noun}, so no score tells"
        note(f"take care: {what}: {named}", quiet)
    most, least = int(train.argmax()), int(np.where(train > 0, train, train.max()).argmin())
    if train[most] >= UNEVEN * max(1, train[least]) and not isinstance(dataset, Boxed | Masked):
        names = dataset.classes
        what = f"{train[most]:,} training {dataset.noun} of {names[most]!r}, {train[least]:,} of {names[least]!r}"
        note(f"take care: {what}: look at macro_f1, or try --set optim.class_weights=balanced", quiet)


def tell_of_choices(recipe: Recipe, quiet: bool) -> None:
    """The network that was decided on, in a line."""
    noun = "images" if task_of(recipe) in SCENES else task_named(task_of(recipe)).modality.noun
    note(PREPARING[noun].told(recipe), quiet)


def _tell_of_copies(dataset: Dataset, first: NDArray[np.intp], quiet: bool) -> None:
    leaks, both = across_splits(dataset, first), of_two_labels(dataset, first)
    if leaks:
        note(f"take care: {len(leaks)} {dataset.noun} are in two splits: {listed(dataset, leaks)}", quiet)
    if both:
        note(f"take care: {len(both)} {dataset.noun} have two labels: {listed(dataset, both)}", quiet)
    copies = int((first != np.arange(len(first))).sum()) - len(leaks)
    if copies:
        note(f"  {copies:,} exact copies, kept on one side of the splits", quiet)


def decoded(dataset: Dataset, recipe: Recipe, setup: Setup, quiet: bool) -> Examples:
    """Decode everything once, so that a file that cannot be read stops the run before its first step.

    Raises:
        DataError: more images than allowed cannot be read.
    """
    size = sum(bytes_of(dataset.num_samples(split), _prepared(split, recipe, dataset)) for split in SPLITS)
    keep = size <= recipe.cache.gb * 1e9
    where = f"kept in {cache_folder(recipe.cache.folder) or 'memory'}"
    anew = f"over cache.gb, so each epoch decodes anew in {recipe.train.workers} processes"
    note(f"decoded {dataset.noun}: {_gb(size)}, {where if keep else anew}", quiet)
    rows: list[NDArray[np.intp]] = []
    bad: list[dict[str, str]] = []
    pixels: dict[str, Pixels] = {}
    for split in SPLITS:
        members = np.flatnonzero(dataset.splits == CODES.index(split))
        part = dataset.take(members)
        with bar(f"decoding {split}", len(part), quiet=quiet) as advance:
            found = _pixels(part, _prepared(split, recipe, dataset), (recipe, setup, keep), advance)
        refuse_unreadable(found.failed, len(part), recipe.data.max_bad, dataset.noun)
        failed = {row for row, _ in found.failed}
        good = np.array([row for row in range(len(part)) if row not in failed], np.intp)
        for _, error in found.failed:
            note(f"left out: {error}", quiet)
            bad.append({"path": printable(error.path or ""), "split": split, "reason": error.what})
        pixels[split] = found.take(good) if failed else found
        rows.append(members[good])
    order = np.concatenate(rows)
    hashes = np.concatenate([pixels[split].hashes for split in SPLITS])
    kept = dataset.take(np.sort(order))
    near = _near(kept, hashes[np.argsort(order)], quiet)
    return Examples(kept, pixels, bad, near, _prepared("val", recipe, dataset))


def _near(dataset: Dataset, hashes: NDArray[np.uint64], quiet: bool) -> list[dict[str, str | int]]:
    """Rows for near_duplicates.csv."""
    found = near_pairs(hashes, dataset.splits)
    near, complete = CONFIRMING.get(dataset.noun, confirmed)(found, dataset.files, num_threads()), found.complete
    # the one in train first
    pairs = [sorted(pair, key=lambda row: int(dataset.splits[row])) for pair in near.pairs.tolist()]
    if pairs:
        first = " and ".join(printable(dataset.names[row]) for row in pairs[0][::-1])
        count = f"{len(pairs)}" if complete else f"{len(pairs)} or more"
        note(f"take care: {count} near-duplicates across splits, as {first}: see near_duplicates.csv", quiet)
    return [
        {
            "train": printable(dataset.names[train]),
            "other": printable(dataset.names[other]),
            "split": CODES[dataset.splits[other]],
            "bits": int(bits),
        }
        for (train, other), bits in zip(pairs, near.bits, strict=True)
    ]


def _prepared(split: str, recipe: Recipe, dataset: Dataset) -> Prepared:
    found: Prepared = (stored if split == "train" else evaluated)(recipe, dataset)
    return found


def _pixels(part: Dataset, prepared: Prepared, how: tuple[Recipe, Setup, bool], advance: Advance) -> Pixels:
    recipe, setup, keep = how
    folder = cache_folder(recipe.cache.folder)
    if not keep:
        assert recipe.train.workers != "auto", "the verb decides before the first step"
        return decoded_each_time(part.files, prepared, recipe.train.workers, advance)
    if folder is not None:
        try:
            return _from_cache(part, prepared, folder, int(recipe.cache.gb * 1e9), setup, advance)
        except ResourceError as error:
            note(f"decoded {part.noun} stay in memory: {error}")
    return in_memory(part.files, prepared, advance)


def _from_cache(part: Dataset, prepared: Prepared, folder: Path, limit: int, setup: Setup, advance: Advance) -> Pixels:
    """From the cache, which the first process makes while the others wait; what it cannot do, none tries."""
    found: Pixels | None = None
    refusal: ResourceError | None = None
    told = {"key": "", "error": ""}
    if setup.rank == 0:
        told["key"] = key_of(part.files, prepared)
        try:
            if not (folder / told["key"]).exists():
                make_room(folder, bytes_of(len(part), prepared), limit)
            found = cached(part.files, prepared, folder / told["key"], advance)
        except ResourceError as error:
            refusal, told["error"] = error, str(error)
    told = from_first(told, setup)
    if told["error"]:
        raise refusal or ResourceError(told["error"])
    return found or cached(part.files, prepared, folder / told["key"], advance)


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
