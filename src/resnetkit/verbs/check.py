"""check: may one train on this data? Files, splits, classes and, if asked, labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from resnetkit import recipe as recipes
from resnetkit import run
from resnetkit.data.dataset import CODES, Dataset, File, refuse_untrainable
from resnetkit.data.duplicates import Near, confirmed, near, refuse_leaks
from resnetkit.data.fixes import COLUMNS
from resnetkit.data.inspect import Fact, Facts, inspect
from resnetkit.data.listen import inspect_sound, inspect_text
from resnetkit.data.stratify import linked
from resnetkit.data.tree import SPLITS
from resnetkit.errors import DataError, UsageError
from resnetkit.files import new_folder, set_aside, write
from resnetkit.nn.resnet import ResNet
from resnetkit.runtime.pipeline import num_threads
from resnetkit.settings import Recipe
from resnetkit.tasks.task import MODALITIES, TASKS
from resnetkit.training.device import processes
from resnetkit.training.embed import embed
from resnetkit.training.objective import OBJECTIVES
from resnetkit.training.pixels import refuse_unreadable
from resnetkit.training.settle import settle, typical_side
from resnetkit.training.trunk import with_engine
from resnetkit.trust.check import Findings, Seen, findings, inspected
from resnetkit.trust.check_page import write_page
from resnetkit.trust.labels import FOLDS, Suspicions, suspicions
from resnetkit.verbs.console import bar, note
from resnetkit.verbs.examples import CONFIRMING, refuse_few, scanned, with_splits

MOST_NEAR = 100_000  # pairs


def check(
    data: str | Path,
    *,
    labels: bool = False,
    weights: str | Path = "IMAGENET1K_V1",
    write: str | Path | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    device: str = "auto",
    settings: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> Findings:
    """Look for what would harm a training or its score: in files, splits, classes and, if asked, labels.

    Args:
        data: a folder of class folders, an archive of them, or a CSV.
        labels: also look for images whose label is probably wrong, by the features of a pretrained network.
        weights: of that network: a published name, a file, or hf://owner/name.
        write: file for the proposed fixes, a CSV that data.fixes takes; must not exist.
        out: folder for check.html and check.json; "checks/" and the data's name by default.
        overwrite: move an older check in `out` aside.
        device: where the network runs, "auto", "cpu", "cuda", ...
        settings: of the training that the data is for, by dotted key.
        quiet: no notes and no progress on stderr.

    Raises:
        DataError: there is nothing to look at.
        UsageError, ModelError, NetworkError, ResourceError: see `errors`.
    """
    source = Path(data)
    folder = Path(out) if out else Path("checks") / _name(source)
    run.refuse(folder, overwrite=overwrite, fix="--overwrite to move it aside, or another --out")
    run.probe(folder)
    _refuse_file(write)
    given = {"data.source": str(data), **({"model.weights": str(weights)} if labels else {})}
    usual = {"model.pool": "all"} if labels else {}  # features of all stages tell more of labels
    recipe = recipes.read("", {**usual, **recipes.merged(given, settings or {})})
    dataset = scanned(recipe)
    judge = _judge(dataset, recipe) if labels else None  # weights that cannot be had are said at once
    seen = look(dataset, recipe, quiet)
    if judge is not None:
        seen = replace(seen, suspicions=_suspicions(seen, judge, device, quiet))
    found = Findings(seen, findings(seen))
    _publish(found, folder, write, quiet)
    return found


def _name(source: Path) -> str:
    path = source.resolve()
    return path.name if path.is_dir() else path.stem


def _refuse_file(path: str | Path | None) -> None:
    if path is not None and Path(path).exists():
        raise UsageError("is there already", path=path, fix="choose another --write")
    if path is not None and not Path(path).parent.is_dir():
        raise UsageError(
            "is in a folder that is not there", path=path, fix="make the folder, or choose another --write"
        )


def look(dataset: Dataset, recipe: Recipe, quiet: bool) -> Seen:
    """What can be told without a network: every file is read once, those of equal size twice."""
    note(f"{dataset.root}: {len(dataset):,} {dataset.noun}", quiet)
    with bar("reading", len(dataset), quiet=quiet) as advance:
        facts = inspected(dataset.files, _inspecting(dataset, recipe), advance)
    first = MODALITIES[dataset.noun].copies(dataset, num_threads())
    split = with_splits(dataset, recipe, first)
    alone = first == np.arange(len(first))  # copies are found by their bytes
    hashes = np.where(alone, facts.hashes, np.uint64(0))
    candidates = _near(dataset, hashes)
    note(f"comparing {len(candidates.pairs):,} pairs that may be nearly the same", quiet or not len(candidates.pairs))
    pairs = CONFIRMING.get(dataset.noun, confirmed)(candidates, dataset.files, num_threads())
    refusals = dict(_refusals(dataset, split, facts, (recipe, first)))
    return Seen(dataset, split, facts, first, pairs, refusals)


def _inspecting(dataset: Dataset, recipe: Recipe) -> Callable[[File], Fact]:
    """What looks at a file of this data."""
    known: dict[str, Callable[[File], Fact]] = {"sounds": inspect_sound, "texts": inspect_text}
    return known.get(dataset.noun, partial(inspect, channels=recipe.image.channels))


def _near(dataset: Dataset, hashes: NDArray[np.uint64]) -> Near:
    """Pairs across splits first, so that they are among those that are listed."""
    found = near(hashes, most=MOST_NEAR)
    if found.complete or not dataset.has_splits:
        return found
    splits = dataset.splits
    across = near(hashes, lambda a, b: splits[a] != splits[b], MOST_NEAR)
    pairs, rows = np.unique(np.concatenate([across.pairs, found.pairs]), axis=0, return_index=True)
    return Near(pairs, np.concatenate([across.bits, found.bits])[rows], False)


def _refusals(
    dataset: Dataset, split: Dataset, facts: Facts, how: tuple[Recipe, NDArray[np.intp]]
) -> Iterator[tuple[str, DataError]]:
    """What a training would refuse, each by the function with which it does."""
    recipe, first = how
    data, source = recipe.data, Path(recipe.data.source)

    def unreadable() -> None:
        for name in SPLITS:
            rows = split.splits == CODES.index(name)
            refuse_unreadable(
                [each for each in facts.failed if rows[each[0]]], int(rows.sum()), data.max_bad, dataset.noun
            )

    attempts: dict[str, Callable[[], None]] = {
        "classes": lambda: refuse_untrainable(dataset, source, allow_empty_class=data.allow_empty_class),
        "copies_across": lambda: None if data.allow_leak else refuse_leaks(dataset, first),
        "few": lambda: refuse_few(split),
        "unreadable": unreadable,
    }
    for kind, attempt in attempts.items():
        try:
            attempt()
        except DataError as error:
            yield kind, error


def _judge(dataset: Dataset, recipe: Recipe) -> tuple[Recipe, ResNet]:
    """The network whose features tell of labels, and the recipe with all of its choices made.

    Raises:
        UsageError: the images have several labels, or no weights are named.
        ModelError, NetworkError: the weights cannot be had.
    """
    if dataset.noun != "images":
        raise UsageError(f"--labels judges images, not {dataset.noun}", path=dataset.root, fix="leave --labels out")
    if dataset.several:
        fix = "leave --labels out"
        raise UsageError("holds several labels an image: --labels judges one only", path=dataset.root, fix=fix)
    if recipe.model.weights == "none":
        raise UsageError("labels are judged by the features of a trained network", fix="name its --weights")
    settled = settle(recipe, typical_side(dataset.files))
    network = OBJECTIVES["classify"].build(settled, len(dataset.classes))
    assert isinstance(network, ResNet)
    return settled, network


def _suspicions(seen: Seen, judge: tuple[Recipe, ResNet], device: str, quiet: bool) -> Suspicions:
    """Labels that the features speak against; what is nearly the same picture is never in two folds."""
    files, (recipe, network) = seen.dataset.files, judge
    with processes(device, "f32") as setup:
        torch.set_num_threads(setup.threads)
        recipe, told = with_engine(network.to(setup.device), recipe, setup, len(files))
        note(told, quiet or not told)
        with bar("features", len(files), quiet=quiet) as advance:
            features = embed(network, files, (recipe, TASKS["classify"].modality, setup), advance)
    rows = np.flatnonzero(seen.first != np.arange(len(seen.first)))
    pairs = np.concatenate([seen.near.pairs, np.stack([seen.first[rows], rows], 1)])
    with bar("judging labels", FOLDS, quiet=quiet) as advance:
        return suspicions(features, seen.dataset.targets, linked(len(files), pairs), advance)


def _publish(found: Findings, folder: Path, fixes: str | Path | None, quiet: bool) -> None:
    """Write the page, the JSON and the fixes, each whole or not at all."""
    aside: Path | None = None
    with suppress(FileNotFoundError):
        aside = set_aside(folder) if any(folder.iterdir()) else None
    if aside:
        note(f"moved the older {folder} to {aside}", quiet)
    with new_folder(folder, manifest=False) as temporary:
        run.write_json(temporary / "check.json", found.as_dict())
        write_page(temporary / "check.html", found)
    if fixes is not None:
        rows = found.fixes()
        write(Path(fixes), run.as_csv(COLUMNS, rows))
        note(f"{len(rows):,} proposed fixes in {fixes}: look through them, then --set data.fixes={fixes}", quiet)
