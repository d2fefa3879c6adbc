"""eval: a model and data with known answers to scores with intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnetkit import recipe as recipes
from resnetkit import run
from resnetkit.data.annotated import Boxed
from resnetkit.data.dataset import Dataset, File
from resnetkit.data.masks import Masked
from resnetkit.data.text import Chosen
from resnetkit.data.tree import SPLITS
from resnetkit.errors import DataError, UsageError
from resnetkit.files import resource_errors, write
from resnetkit.runtime.model import Model, load
from resnetkit.runtime.scenes import SceneModel
from resnetkit.settings import Recipe
from resnetkit.tasks.classes import encode
from resnetkit.tasks.evaluate import PREDICTION_COLUMNS, Scores, score
from resnetkit.tasks.scenes import SceneScores, Truths, in_classes_of
from resnetkit.tasks.scenes import score as score_scenes
from resnetkit.tasks.task import SOUND, TEXT
from resnetkit.training.prepare import columns_of
from resnetkit.trust.gallery import OVERLAY_SIDE, Overlays
from resnetkit.trust.report import Story, write_report
from resnetkit.trust.scene_report import SceneStory, write_scene_scores
from resnetkit.trust.senses import marked
from resnetkit.verbs.console import bar, note
from resnetkit.verbs.examples import FIXES, fixed, found_in, with_splits


def evaluate(
    model: str | Path,
    data: str | Path,
    *,
    split: str | None = None,
    out: str | Path | None = None,
    backend: str = "auto",
    device: str = "auto",
    mirror: bool = False,
    quiet: bool = False,
) -> Scores | SceneScores:
    """Score a model on data with known answers; the labels are matched to the model's classes by name.

    Args:
        model: a run folder or a model folder.
        data: a folder of class folders, an archive of them, or a CSV.
        split: "train", "val", "test" or "all". By default test (or else val) where the data has splits, or where the
            run cut them from this same data, and all otherwise.
        out: folder for metrics.json, predictions.csv and report.html; must not exist.
        backend: what runs the network, "auto" (the fastest), "torch", "onnxruntime", "openvino", "ncnn" or "native".
        device: where, "auto", "cpu", "cuda", ...
        mirror: answer with the mean over an image and its mirror image, in twice the time.
        quiet: no notes and no progress on stderr.

    Returns:
        The scores; files that could not be read are in `failed` and in no metric.

    Raises:
        ModelError, DataError, UsageError: see `errors`.
    """
    if out is not None:
        run.refuse(Path(out), fix="choose another --out")
    opened = load(model, backend=backend, device=device, mirror=mirror)
    source = Path(data)
    own = run_on(Path(model), source)
    if isinstance(opened, SceneModel):
        return _evaluate_scenes(opened, own, source, (split, out, quiet))
    dataset, chosen, part = part_of(opened, own, source, split)
    note(f"{source}: {len(part):,} {part.noun} ({chosen})", quiet)
    scores = score_split(opened, (chosen, part), quiet)
    if out is not None:
        with resource_errors(out):
            Path(out).mkdir(parents=True, exist_ok=True)
        told = opened.checkpoint
        new = own is None or chosen == "test"  # on what it was calibrated on, any promise is kept
        known = told.calibration if new else None
        write_scores(Path(out), Story(scores, dataset, told.meta, known, overlays=overlays_of(opened)))
    return scores


def _evaluate_scenes(
    model: SceneModel, own: Path | None, source: Path, how: tuple[str | None, str | Path | None, bool]
) -> SceneScores:
    """As `evaluate`, for boxes and masks."""
    split, out, quiet = how
    dataset, chosen, part = scene_part(model, own, source, split)
    note(f"{source}: {len(part):,} images ({chosen})", quiet)
    scores = scene_scores(model, (chosen, part), quiet)
    if out is not None:
        with resource_errors(out):
            Path(out).mkdir(parents=True, exist_ok=True)
        write_scene_scores(Path(out), SceneStory(scores, dataset, model.checkpoint.meta, (), "", model.answered))
    return scores


def scene_part(model: SceneModel, own: Path | None, source: Path, split: str | None) -> tuple[Dataset, str, Dataset]:
    """As `part_of`, for boxes and masks."""
    trained = run_of(model.checkpoint.folder)
    recipe = recipes.read(trained / run.RECIPE) if trained else recipes.read("")
    recipe = recipes.replace(recipe, {"data.task": model.checkpoint.meta.task})
    found = model.task.target.prepare(found_in(source, recipe, model.classes))
    dataset: Dataset = in_classes_of(found, _index(found, model.classes, source), model.classes)
    if own is not None and split != "all":
        dataset = _with_run_splits(dataset, recipe, own)
    chosen = _chosen(dataset, split, source)
    return dataset, chosen, dataset if chosen == "all" else dataset.select(chosen)


def scene_scores(model: SceneModel, part: tuple[str, Dataset], quiet: bool) -> SceneScores:
    """Scores of a model of boxes or masks on one split; files that cannot be read are in `failed`."""
    split, dataset = part
    assert isinstance(dataset, Boxed | Masked), "its target has prepared it"
    truths, target, judged = Truths(dataset), model.task.target, []
    with bar(f"scoring {split}", len(dataset), quiet=quiet) as advance:
        for row, (_, answer) in enumerate(model.answers(dataset.files)):
            if isinstance(answer, DataError):
                judged.append(answer)
            else:
                truth = truths[np.array([row])][0].truth
                judged.append(target.judge(answer[0], truth, len(model.classes)))
            advance(len(judged), "")
    return score_scenes(model.task, split, model.classes, dataset.names, judged)


def _index(dataset: Dataset, classes: Sequence[str], source: Path) -> NDArray[np.int64]:
    """The model's number of each class of a data set [K].

    Raises:
        DataError: the model does not know one of them.
    """
    try:
        return encode(dataset.classes, classes)
    except DataError as error:
        raise DataError(error.what, path=source, fix=error.fix) from error


def part_of(model: Model, own: Path | None, source: Path, split: str | None) -> tuple[Dataset, str, Dataset]:
    """The data in the model's classes, the name of the split that is scored, and its samples; see `evaluate`.

    `own` is a run on this very data, which may have cut its splits from it, or None.
    """
    recipe = recipes.read(own / run.RECIPE) if own else None
    columns = columns_of(recipe) if recipe else Chosen()
    links = bool(recipe and recipe.data.follow_links)
    dataset = model.task.modality.scan(source, follow_links=links, columns=columns)
    if own is not None and recipe is not None and recipe.data.fixes:
        # the run's own copy: with its images and labels it was trained
        dataset = fixed(model.task.target.prepare(dataset), own / FIXES)
    dataset = _with_classes_of(model, dataset, source)
    if own is not None and recipe is not None and split != "all":
        dataset = _with_run_splits(dataset, recipe, own)
    chosen = _chosen(dataset, split, source)
    return dataset, chosen, dataset if chosen == "all" else dataset.select(chosen)


def _with_classes_of(model: Model, dataset: Dataset, source: Path) -> Dataset:
    """A data set with the model's kind of targets, and its classes in its order."""
    target = model.task.target
    try:
        own = target.prepare(dataset)
        index = target.encode(own.classes, model.classes)
    except DataError as error:
        raise DataError(error.what, path=source, fix=error.fix) from error
    # of several labels, the sample's own columns [n, K'] go where the model has them [K', K]
    targets = own.targets @ index if own.several else index[own.targets]
    return replace(own, classes=model.classes, targets=targets)


def run_of(model: Path) -> Path | None:
    """The run folder that a model is of, whether named itself or by its model/; None where it is of no run."""
    return next((folder for folder in (model, model.parent) if (folder / run.RECIPE).is_file()), None)


def run_on(model: Path, source: Path) -> Path | None:
    """The run folder that a model is of, if it was trained on this source."""
    folder = run_of(model)
    trained_on = Path(recipes.read(folder / run.RECIPE).data.source) if folder else None
    return folder if trained_on and trained_on.resolve() == source.resolve() else None


def _with_run_splits(dataset: Dataset, recipe: Recipe, folder: Path) -> Dataset:
    """The splits that the run in `folder` cut from this very data, so that nothing is scored that it was trained on.

    Raises:
        DataError: the data has changed since, or the run does not say what it was, so that the cut may be another.
    """
    cut = with_splits(dataset, recipe)
    if run.trained_on(folder) == cut.fingerprint():
        return cut
    if dataset.has_splits:
        return dataset
    fix = "--split all scores all, also those that it was trained on; or give the data a test folder"
    what = f"has changed since the run, which cut its test {dataset.noun} from it"
    if not run.trained_on(folder):
        what = f"may be other data than the run cut its test {dataset.noun} from, which its env.json does not say"
    raise DataError(what, path=dataset.root, fix=fix)


def _chosen(dataset: Dataset, split: str | None, source: Path) -> str:
    present = [name for name in SPLITS if dataset.num_samples(name)]
    if split is None:
        return next((name for name in ("test", "val") if name in present), "all")
    if split != "all" and split not in SPLITS:
        raise UsageError(f"there is no split {split!r}", fix=f"one of {', '.join(SPLITS)}, all")
    if split != "all" and split not in present:
        there = f"it has {', '.join(present)}" if present else "it has no splits: --split all"
        raise DataError(f"has no split {split!r}", path=source, fix=there)
    return split


def score_split(model: Model, part: tuple[str, Dataset], quiet: bool) -> Scores:
    """Scores of a model on one split of a data set; files that cannot be read are in `failed`."""
    split, dataset = part
    answers = []
    with bar(f"scoring {split}", len(dataset), quiet=quiet) as advance:
        for _, answer in model.answers(dataset.files):
            answers.append(answer)
            advance(len(answers), "")
    return score(model.task, split, model.classes, dataset.names, dataset.targets, answers)


def overlays_of(model: Model) -> Overlays | None:
    """What a report draws over pictures; nothing of an export, into which one cannot look."""
    if model.task.modality is TEXT:
        return partial(marked, model)
    if model.checkpoint.deployed is not None:
        return None

    @cache
    def opened() -> Model:
        from resnetkit.trust.explain import on_torch

        return on_torch(model)

    def overlays(files: Sequence[File], classes: Sequence[int]) -> Iterator[Image.Image | DataError]:
        from resnetkit.trust import explain
        from resnetkit.trust.spectra import heard

        draws = heard if model.task.modality is SOUND else None
        return explain.overlays(opened(), files, classes, OVERLAY_SIDE, draws)

    return overlays


def write_scores(folder: Path, story: Story) -> None:
    """metrics.json, predictions.csv and report.html of a run or an evaluation."""
    run.write_json(folder / "metrics.json", story.scores.as_dict())
    write(folder / "predictions.csv", run.as_csv(PREDICTION_COLUMNS, story.scores.rows()))
    write_report(folder / "report.html", story)
