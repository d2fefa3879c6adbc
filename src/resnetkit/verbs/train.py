"""train: a folder of examples to a run folder with a model in it."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.func import functional_call

from resnetkit import checkpoint, run
from resnetkit import recipe as recipes
from resnetkit.data.dataset import Dataset, assign_splits, refuse_untrainable
from resnetkit.data.image import normalise
from resnetkit.errors import DataError, DivergedError, Interrupted, ModelError, UsageError
from resnetkit.files import write
from resnetkit.ops.metrics import cross_entropy
from resnetkit.recipe import Recipe
from resnetkit.runtime.backends import open_backend
from resnetkit.runtime.model import Model
from resnetkit.runtime.pipeline import num_threads
from resnetkit.runtime.save import options_of, save, variant_of
from resnetkit.tasks.task import TASKS, Task, task_named
from resnetkit.training import state as states
from resnetkit.training.device import Setup, any_process, from_first, processes, wait_for_first
from resnetkit.training.loader import Loader, Pixels, open_pixels, store_preprocess
from resnetkit.training.objective import OBJECTIVES, preprocess_of
from resnetkit.training.optim import freeze, make_optimizer
from resnetkit.training.plan import epochs_that_fit, measure, memory_format, settle, typical_side
from resnetkit.training.state import Saver, TrainState
from resnetkit.training.train import Tick, plan_of
from resnetkit.training.train import train as ticks
from resnetkit.trust.report import doubts
from resnetkit.verbs.console import Signals, bar, note, stop_signals
from resnetkit.verbs.eval import score_split, write_scores

RESULT_COLUMNS = ("epoch", "step", "train_loss", "val_loss", "val_accuracy", "val_macro_f1", "lr", "best", "seconds")


@dataclass(frozen=True)
class Choices:
    """What is asked of a run beside its recipe; `started` is a time.monotonic()."""

    resume: bool
    overwrite: bool
    dry_run: bool
    quiet: bool
    started: float


@dataclass(frozen=True)
class Job:
    """A training that is ready for its first step."""

    folder: Path
    recipe: Recipe
    dataset: Dataset
    setup: Setup
    task: Task
    loader: Loader
    val: Pixels
    deadline: float
    quiet: bool


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
    """Train a residual network on a folder of class folders or a CSV; gives the run's folder and metrics.

    Args:
        data: the folder or CSV; not needed with `resume`.
        model: short for model.variant.
        weights: a published name, a file, or "none".
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
    run.refuse(folder, resume=resume, overwrite=overwrite or dry_run)
    wanted = _frozen(folder, given) if resume else recipes.read(recipe, given)
    return _run(folder, wanted, Choices(resume, overwrite, dry_run, quiet or not _first(), started or time.monotonic()))


def _first() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _default_folder(source: str) -> Path:
    path = Path(source).resolve()
    return Path("runs") / (path.stem if path.suffix.lower() == ".csv" else path.name)


def _run(folder: Path, recipe: Recipe, choices: Choices) -> run.Run:
    """Decide what "auto" is, and train in as many processes as there are."""
    dataset = _dataset(recipe, choices.quiet)
    settled = settle(recipe, typical_side(dataset.paths))
    if choices.dry_run:
        note(f"would train into {folder} with this recipe:\n{recipes.as_toml(settled)}", choices.quiet)
        return run.Run(folder, {})
    with processes(settled.train.device, settled.train.precision) as setup:
        settled = recipes.replace(settled, {"train.precision": setup.precision})
        return _train(folder, settled, dataset, setup, choices)


def _frozen(folder: Path, given: Mapping[str, Any]) -> Recipe:
    """The recipe of the run to resume; what is given besides must agree with it."""
    frozen = recipes.read(folder / run.RECIPE)
    for key, value in given.items():
        section, _, name = key.partition(".")
        had = getattr(getattr(frozen, section, None), name, None)
        if had != getattr(getattr(recipes.replace(frozen, {key: value}), section), name):
            fix = "leave it out, or train anew into another --out"
            raise UsageError(f"{key} is {had!r} in the run to resume, not {value!r}", path=folder, fix=fix)
    return frozen


def _dataset(recipe: Recipe, quiet: bool) -> Dataset:
    """The examples with their splits; says how many there are and what was passed over."""
    if not recipe.data.source:
        raise UsageError("no data given", fix="resnetkit train FOLDER")
    source = Path(recipe.data.source)
    task = task_named("classify" if recipe.data.task == "auto" else recipe.data.task)
    dataset = task.modality.scan(source)
    refuse_untrainable(dataset, source, allow_empty_class=recipe.data.allow_empty_class)
    given = {sample.split for sample in dataset.samples} - {""}
    dataset = assign_splits(dataset, val=recipe.data.val, test=recipe.data.test, seed=recipe.train.seed)
    sizes = {split: int(dataset.counts(split).sum()) for split in ("train", "val", "test")}
    if sizes["train"] < 2:
        raise DataError("leaves fewer than two images to train on", path=source, fix="add images")
    origin = "as given" if "val" in given else f"cut with seed {recipe.train.seed}"
    counted = ", ".join(f"{n:,} {split}" for split, n in sizes.items())
    note(f"{source}: {len(dataset.classes)} classes, {counted} ({origin})", quiet)
    for what, count in dataset.ignored:
        note(f"  ignored: {count:,} {what}", quiet)
    return dataset


def _train(folder: Path, recipe: Recipe, dataset: Dataset, setup: Setup, choices: Choices) -> run.Run:
    torch.set_num_threads(max(1, num_threads() // setup.world))
    job = _open(folder, recipe, dataset, setup, choices)
    network = job.loader.objective.build(recipe, len(dataset.classes)).to(setup.device)
    freeze(network, recipe.model.freeze)
    state = TrainState(network, make_optimizer(network, recipe.optim), recipe.train.epochs * job.loader.steps_per_epoch)
    if not choices.resume:
        job = _measured(job, state)
    network.to(memory_format=memory_format(job.recipe.train.memory_format))
    state.total_steps = job.recipe.train.epochs * job.loader.steps_per_epoch
    if job.recipe.optim.ema_decay:
        state.average = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    if setup.rank == 0:
        aside = run.prepare(folder, resume=choices.resume, overwrite=choices.overwrite)
        if aside:
            note(f"moved the older {folder} to {aside}", job.quiet)
        write(folder / run.RECIPE, recipes.as_toml(job.recipe))
    wait_for_first(setup)
    if choices.resume:
        _resume(job, state)
    with stop_signals() as signals:
        _fit(job, state, signals)
    return _finish(job, state) if setup.rank == 0 else run.Run(folder, {})


def _open(folder: Path, recipe: Recipe, dataset: Dataset, setup: Setup, choices: Choices) -> Job:
    """Decode everything once, so that a file that cannot be read stops the run before its first step."""
    key = "classify" if recipe.data.task == "auto" else recipe.data.task
    parts = {split: dataset.select(split) for split in ("train", "val", "test")}
    pixels = {}
    for split, part in parts.items():
        prepared = store_preprocess(recipe) if split == "train" else preprocess_of(recipe)
        # the test split is decoded to be checked, and read again when it is scored
        room = 0.0 if split == "test" else recipe.train.cache_gb
        with bar(f"decoding {split}", len(part), quiet=choices.quiet) as advance:
            pixels[split] = open_pixels(part.paths, prepared, room, advance)
    loader = Loader(
        pixels["train"], parts["train"].targets, len(dataset.classes), recipe, OBJECTIVES[key], setup.rank, setup.world
    )
    limit = recipe.train.time_limit
    # a tenth is left for scoring and the report
    deadline = choices.started + 0.9 * limit if limit else math.inf
    return Job(folder, recipe, dataset, setup, TASKS[key], loader, pixels["val"], deadline, choices.quiet)


def _measured(job: Job, state: TrainState) -> Job:
    """Measure a few steps where a choice depends on it: the memory format, and the epochs that fit the time limit."""
    recipe = job.recipe
    changes: dict[str, Any] = {}
    formats: list[str] = [recipe.train.memory_format]
    limited = job.deadline < math.inf
    if recipe.train.memory_format == "auto":
        formats = ["contiguous", "channels_last"] if state.total_steps >= 200 else ["contiguous"]
        changes["train.memory_format"] = formats[0]
    if len(formats) > 1 or limited:
        pace = measure(job.loader, job.setup, state, formats)
        changes["train.memory_format"] = pace.fastest
        seconds = pace.seconds[pace.fastest]
        note(f"{pace.fastest}, {job.setup.precision}: {seconds * 1000:.0f} ms a step", job.quiet)
        if limited:
            left = job.deadline - time.monotonic()
            changes["train.epochs"] = epochs_that_fit(recipe.train.epochs, job.loader.steps_per_epoch, seconds, left)
            note(f"{changes['train.epochs']} of {recipe.train.epochs} epochs fit the time limit", job.quiet)
    settled = recipes.replace(recipe, from_first(changes, job.setup))
    return Job(**{**vars(job), "recipe": settled, "loader": Loader(**{**vars(job.loader), "recipe": settled})})


def _resume(job: Job, state: TrainState) -> None:
    """Load the newest state that is whole; an older one with a loud note where the newest is damaged."""
    for folder in reversed(states.saved_states(job.folder / "state")):
        try:
            states.load(state, folder)
        except ModelError as error:
            note(f"note: {error}; trying the state before it")
            continue
        note(f"resuming at step {state.step} of {state.total_steps}", job.quiet)
        return
    note("no state was saved yet: starting from the first step", job.quiet)


def _fit(job: Job, state: TrainState, signals: Signals) -> None:
    """The training itself; an interruption and a divergence leave as errors that say how to go on."""
    try:
        _loop(job, state, signals)
    except DivergedError as error:
        kept = states.saved_states(job.folder / "state")
        run.log_event(job.folder, "diverged", {"step": state.step})
        where = f"the last good state is state/{kept[-1].name}" if kept else "no state was saved yet"
        raise DivergedError(f"{error.what}; {where}", path=job.folder, fix=error.fix) from error
    if signals.received:
        command = f"resnetkit train --resume --out {job.folder}"
        raise Interrupted(signals.received, path=job.folder, fix=f"saved at step {state.step}; go on with: {command}")


def _loop(job: Job, state: TrainState, signals: Signals) -> None:
    saver = Saver()
    plan = plan_of(job.loader, job.setup)
    batches = job.loader.batches(state.step, state.total_steps, ahead=job.setup.kind != "cpu")
    started = time.monotonic()
    with bar("training", state.total_steps, done=state.step, quiet=job.quiet) as advance:
        for tick in ticks(state, batches, job.loader.objective, plan):
            if tick.epoch:
                _end_epoch(job, state, tick, time.monotonic() - started)
            advance(tick.step, _words(state, tick))
            over = bool(tick.epoch) and _patience_is_over(job.recipe, state)
            stop = any_process(bool(signals.received) or over or time.monotonic() > job.deadline, job.setup)
            if job.setup.rank == 0 and (signals.received or (saver.due(tick.epoch is not None) and not stop)):
                saver.save(state, job.folder / "state")
            if stop:
                break


def _words(state: TrainState, tick: Tick) -> str:
    last = state.history[-1] if state.history else {}
    val = f"  val {100 * last['val_accuracy']:.1f} %" if last.get("val_accuracy") is not None else ""
    return f"loss {tick.loss:.3f}{val}"


def _patience_is_over(recipe: Recipe, state: TrainState) -> bool:
    return bool(recipe.train.patience) and len(state.history) - state.best_epoch >= recipe.train.patience


def _end_epoch(job: Job, state: TrainState, tick: Tick, seconds: float) -> None:
    """Score the validation split, keep the best weights, and write the row of results.csv."""
    assert tick.epoch is not None
    scores, loss = _validate(job, state)
    accuracy = scores["accuracy"].value
    # without validation images the last epoch is the best
    best = state.keep_best(tick.epoch.number if accuracy is None else accuracy, tick.epoch.number)
    row = {
        "epoch": tick.epoch.number,
        "step": tick.step,
        "train_loss": tick.epoch.loss,
        "val_loss": loss,
        "val_accuracy": accuracy,
        "val_macro_f1": scores["macro_f1"].value,
        "lr": tick.lr,
        "best": int(best),
        "seconds": round(seconds, 1),
    }
    state.history.append(row)
    if job.setup.rank == 0:
        write(job.folder / "results.csv", run.as_csv(RESULT_COLUMNS, state.history))
        run.log_event(job.folder, "epoch", row)


def _validate(job: Job, state: TrainState) -> tuple[Mapping[str, Any], float | None]:
    """Metrics and mean loss on the validation split, with the weights that would be kept."""
    targets = job.dataset.select("val").targets
    if not len(targets):
        return job.task.target.metrics(np.zeros((0, job.loader.num_classes)), targets, job.dataset.classes), None
    preprocess = preprocess_of(job.recipe)
    weights = state.evaluated()
    state.network.eval()
    found = []
    with torch.inference_mode():
        for rows in np.array_split(np.arange(len(targets)), math.ceil(len(targets) / 64)):
            images = torch.from_numpy(normalise(job.val.store(rows), preprocess)).to(job.setup.device)
            found.append(functional_call(state.network, weights, (images,)).float().cpu().numpy())
    logits = np.concatenate(found)
    return job.task.target.metrics(logits, targets, job.dataset.classes), float(cross_entropy(logits, targets).mean())


def _finish(job: Job, state: TrainState) -> run.Run:
    """Score the held-out split with the weights to be kept, write metrics and report, and publish the model."""
    if state.best is not None:
        state.network.load_state_dict(state.best)
    elif state.average is not None:
        state.network.load_state_dict(state.average)
    network = state.network.to(memory_format=torch.contiguous_format).cpu().eval()
    tensors = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    preprocess = preprocess_of(job.recipe)
    checkpoint.refuse_unsound(tensors, job.folder)
    weights = job.recipe.model.weights
    meta = checkpoint.Meta(
        "classify",
        variant_of(network),
        options_of(network),
        job.dataset.classes,
        preprocess.as_dict(),
        weights,
    )
    read = checkpoint.Checkpoint(job.folder / "model", meta, tensors)
    scores = score_split(Model(read, open_backend(read, device=job.recipe.train.device)), _final_part(job), job.quiet)
    source = Path(job.recipe.data.source)
    root = source if source.is_dir() else source.parent
    write_scores(job.folder, scores, root, state.history, recipes.as_toml(job.recipe))
    for doubt in doubts(scores, state.history):
        note(f"take care: {doubt}")
    save(
        network,
        job.folder / "model",
        classes=job.dataset.classes,
        preprocess=preprocess,
        weights=weights,
        scores=scores.as_dict(),
    )
    run.log_event(job.folder, "finished", {"step": state.step, "best_epoch": state.best_epoch})
    return run.Run(job.folder, scores.as_dict())


def _final_part(job: Job) -> tuple[str, Dataset]:
    """The held-out split that is scored at the end: test, or else val, which has also chosen the epoch."""
    for split in ("test", "val"):
        if job.dataset.counts(split).sum():
            if split == "val":
                note("no test images: the scores are those of val, which also chose the epoch", job.quiet)
            return split, job.dataset.select(split)
    note("no held-out images: nothing was scored", job.quiet)
    return "test", job.dataset.select("test")
