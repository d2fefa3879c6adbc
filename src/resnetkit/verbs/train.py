"""train: a folder of examples to a run folder with a model in it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from resnetkit import checkpoint, run
from resnetkit import recipe as recipes
from resnetkit.data.annotated import Boxed
from resnetkit.data.dataset import Dataset
from resnetkit.data.masks import Masked
from resnetkit.errors import ResourceError, UsageError
from resnetkit.files import read_errors, write
from resnetkit.models import Network
from resnetkit.ops.calibration import Calibration
from resnetkit.runtime.save import options_of, tensors_of, variant_of
from resnetkit.settings import Recipe
from resnetkit.tasks.task import Task, task_for
from resnetkit.training import places
from resnetkit.training import state as states
from resnetkit.training.device import Setup, is_out_of_memory, processes, wait_for_first
from resnetkit.training.kernels import kernels_for
from resnetkit.training.objective import OBJECTIVES
from resnetkit.training.optim import freeze
from resnetkit.training.plan import memory_format
from resnetkit.training.prepare import defaults_of, preparing_of
from resnetkit.training.scene_plan import settle_scene
from resnetkit.trust.report import Story, doubts
from resnetkit.verbs import scenes
from resnetkit.verbs.console import note, stop_signals
from resnetkit.verbs.eval import overlays_of, write_scores
from resnetkit.verbs.examples import FIXES, read_dataset, task_of, tell_of_choices
from resnetkit.verbs.fit import Reached, begun, train_stages
from resnetkit.verbs.job import Choices, Job, blank_job, final_scores, open_job, planned, tell_plan
from resnetkit.verbs.stages import whole

FREE = {"train.workers", "cache.folder", "cache.gb"}  # settings that may change when a run is resumed


def train(
    data: str | Path = "",
    *,
    model: str | None = None,
    weights: str | Path | None = None,
    recipe: str | Path = "",
    epochs: int | None = None,
    batch_size: int | None = None,
    time_limit: str | float | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    task: str | None = None,
    seed: int | None = None,
    device: str | None = None,
    settings: Mapping[str, Any] | None = None,
    quiet: bool = False,
    started: float | None = None,
) -> run.Run:
    """Train a residual network on class folders, an archive of them or a CSV; gives the run's folder and metrics.

    Args:
        data: the folder, archive or CSV; not needed with `resume`.
        model: short for model.variant.
        weights: a published name, a file, hf://owner/name, or "none".
        recipe: name or file of a recipe.
        epochs: short for train.epochs.
        batch_size: short for train.batch_size.
        time_limit: "10m"; the number of epochs is cut to what fits.
        out: run folder; "runs/" and the data's name by default.
        resume: go on with the run in `out`.
        overwrite: move an older run in `out` aside.
        dry_run: say what would be done, and write nothing.
        task: short for data.task.
        seed: short for train.seed.
        device: short for train.device.
        settings: any setting by its dotted key.
        quiet: no notes and no progress on stderr.
        started: time.monotonic() from which the time limit counts, if not now.

    Raises:
        ResnetkitError: see `errors`; each names its cause and the way out.
    """
    named = {
        "data.source": str(data) or None,
        "data.task": task,
        "model.variant": model,
        "model.weights": None if weights is None else str(weights),
        "train.epochs": epochs,
        "train.batch_size": batch_size,
        "train.time_limit": time_limit and recipes.parse_duration(time_limit),
        "train.seed": seed,
        "train.device": device,
    }
    given = recipes.merged({key: value for key, value in named.items() if value is not None}, settings or {})
    folder = Path(out) if out else _default_folder(str(given.get("data.source", "")))
    _refuse(folder, resume=resume, overwrite=overwrite, dry_run=dry_run)
    wanted = partial(_frozen, folder, given) if resume else partial(recipes.read, recipe, given)
    return _run(folder, wanted, Choices(resume, overwrite, dry_run, quiet or not _first(), started or time.monotonic()))


def _refuse(folder: Path, *, resume: bool, overwrite: bool, dry_run: bool) -> None:
    """Refuse a run folder that holds something else, or cannot be written to, before any work."""
    run.refuse(folder, resume=resume, overwrite=overwrite or (dry_run and not resume))
    if not dry_run and _first():
        run.probe(folder)


def _refuse_to_move(folder: Path, fixes: str) -> None:
    """Refuse to move aside a folder with the file that is to be read."""
    if fixes and Path(fixes).resolve().is_relative_to(folder.resolve()):
        raise UsageError("holds data.fixes, which would be moved aside", path=folder, fix="copy that file elsewhere")


def _first() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _default_folder(source: str) -> Path:
    path = Path(source).resolve()
    return Path("runs") / (path.name if path.is_dir() else path.stem)


def _run(folder: Path, wanted: Callable[[Mapping[str, Any]], Recipe], choices: Choices) -> run.Run:
    """Decide what "auto" is, and train in as many processes as there are.

    `wanted` gives the recipe that was asked for, over the defaults of a task.
    """
    recipe = wanted({})
    _refuse_to_move(folder, recipe.data.fixes if choices.overwrite else "")
    own = folder / FIXES  # the copy of a run that is resumed
    read = recipes.replace(recipe, {"data.fixes": str(own)}) if choices.resume and own.is_file() else recipe
    dataset = read_dataset(read, choices.quiet)
    task = task_for(dataset)
    recipe = recipes.replace(wanted(defaults_of(task, recipe, dataset)), {"data.task": task})
    if isinstance(dataset, Boxed | Masked):
        settled = settle_scene(recipe, dataset)
    else:
        settled = preparing_of(dataset).settle(recipe, dataset)
    tell_of_choices(settled, choices.quiet)
    with processes(settled.train.device, settled.train.precision) as setup:
        workers = setup.threads if settled.train.workers == "auto" else settled.train.workers
        settled = recipes.replace(settled, {"train.precision": setup.precision, "train.workers": workers})
        settled = recipes.replace(settled, {"train.kernels": kernels_for(settled, setup)})
        if choices.dry_run:
            return _rehearse(folder, settled, dataset, setup, choices)
        return _train(folder, settled, dataset, setup, choices)


def _rehearse(folder: Path, recipe: Recipe, dataset: Dataset, setup: Setup, choices: Choices) -> run.Run:
    """Say what would be done and how long it would take; nothing is written or downloaded."""
    torch.set_num_threads(setup.threads)
    unweighted = recipes.replace(recipe, {"model.weights": "none"})  # which cost the same
    network = OBJECTIVES[task_of(recipe)].build(unweighted, len(dataset.classes)).to(setup.device)
    job = tell_plan(blank_job(folder, recipe, dataset, setup, choices), network)
    note(f"would train into {folder} with this recipe:\n{recipes.as_toml(job.recipe)}", choices.quiet)
    return run.Run(folder, {})


def _frozen(folder: Path, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> Recipe:
    """The recipe of the run to resume; what is given besides must agree with it, or change no result.

    It has a value for every setting, so no defaults are looked at.
    """
    frozen = recipes.read(folder / run.RECIPE)
    for key in given.keys() - FREE:
        section, _, name = key.partition(".")
        wanted = recipes.as_dict(recipes.replace(frozen, {key: given[key]}))[section][name]
        had = recipes.as_dict(frozen)[section][name]
        if had != wanted:
            fix = "leave it out, or train anew into another --out"
            raise UsageError(f"{key} is {had!r} in the run to resume, not {given[key]!r}", path=folder, fix=fix)
    return recipes.replace(frozen, {key: given[key] for key in given.keys() & FREE})


def _train(folder: Path, recipe: Recipe, dataset: Dataset, setup: Setup, choices: Choices) -> run.Run:
    torch.set_num_threads(setup.threads)
    note(f"on {setup.words}", choices.quiet or setup.kind == "cpu")
    # before anything is decoded: weights that cannot be had are said at once
    network = OBJECTIVES[task_of(recipe)].build(recipe, len(dataset.classes)).to(setup.device)
    job = open_job(folder, recipe, dataset, setup, choices)
    try:
        with _memory_told(folder):
            return _trained(job, network, choices, dataset.fingerprint())
    finally:
        for pixels in job.examples.pixels.values():
            pixels.close()


@contextlib.contextmanager
def _memory_told(folder: Path) -> Iterator[None]:
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        fix = "a smaller --batch-size or image.size, or a smaller --model"
        raise ResourceError("out of memory in a training step", path=folder, fix=fix) from error


def _trained(job: Job, network: nn.Module, choices: Choices, fingerprint: str) -> run.Run:
    setup, folder = job.setup, job.folder
    if isinstance(network, Network):
        freeze(network, job.recipe.model.freeze)
    if not choices.resume:
        job = planned(job, network)
        if isinstance(network, Network):  # of which a plan may leave more as it is
            freeze(network, job.recipe.model.freeze)
    network.to(memory_format=memory_format(job.recipe.train.memory_format))
    with run.locked(folder) if setup.rank == 0 else contextlib.nullcontext():
        if setup.rank == 0:
            _prepare(job, network, choices, fingerprint)
        wait_for_first(setup)
        with stop_signals() as signals:
            trained = train_stages(job, network, signals, choices.resume, fingerprint)
        return _finish(job, *trained)


def _prepare(job: Job, network: nn.Module, choices: Choices, fingerprint: str) -> None:
    run.check_space(job.folder, _bytes_needed(job, network, fingerprint))
    words, again = job.setup.words, choices.resume
    aside = run.prepare(job.folder, resume=again, overwrite=choices.overwrite, data=fingerprint, device=words)
    if aside:
        note(f"moved the older {job.folder} to {aside}", job.quiet)
    write(job.folder / run.RECIPE, recipes.as_toml(job.recipe))
    if job.recipe.data.fixes and not choices.resume:
        with read_errors(job.recipe.data.fixes):
            write(job.folder / FIXES, Path(job.recipe.data.fixes).read_bytes())
    job.examples.write_findings(job.folder)


def _bytes_needed(job: Job, network: nn.Module, fingerprint: str) -> int:
    """Of a saved state, or of the model where only a head is fitted; making an optimizer takes torch a second."""
    if job.recipe.train.epochs or job.recipe.finetune.views:
        return states.size(begun(job, whole(job, network), Reached(), fingerprint))
    return sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())


def _finish(job: Job, trained: nn.Module, reached: Reached) -> run.Run:
    """Score the held-out split with the best weights, write metrics and report, and publish the model."""
    network = trained.to(memory_format=torch.contiguous_format).cpu().eval()
    tensors = tensors_of(network)
    checkpoint.refuse_unsound(tensors, job.folder)
    recipe = job.recipe
    named = (
        (variant_of(network), options_of(network))
        if isinstance(network, Network)
        else (recipe.model.variant, places.meta_options(recipe))
    )
    preprocess = job.examples.preprocess.as_dict()
    meta = checkpoint.Meta(task_of(recipe), *named, job.dataset.classes, preprocess, recipe.model.weights)
    read = checkpoint.Checkpoint(job.folder / "model", meta, tensors)
    finish = finished if isinstance(job.task, Task) else scenes.finished
    metrics, calibration = finish(job, read, reached.history)
    if job.setup.rank:
        return run.Run(job.folder, {})
    checkpoint.write(job.folder / "model", replace(meta, scores=metrics), tensors, calibration)
    run.log_event(job.folder, "finished", {"best_epoch": reached.epoch})
    return run.Run(job.folder, metrics)


def finished(
    job: Job, read: checkpoint.Checkpoint, history: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, Any], Calibration | None]:
    """Score the held-out split, write metrics, predictions and the report; gives the metrics and the calibration."""
    scores, model = final_scores(job, read)
    calibration = model.checkpoint.calibration
    if job.setup.rank == 0:
        told = recipes.as_toml(job.recipe)
        story = Story(scores, job.dataset, read.meta, calibration, history, told, overlays_of(model))
        write_scores(job.folder, story)
        for doubt in doubts(scores, history):
            note(f"take care: {doubt}", job.quiet)
    return scores.as_dict(), calibration
