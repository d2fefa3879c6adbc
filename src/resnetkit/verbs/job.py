"""A training that is ready for its first step, and how well its network does at any step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.func import functional_call

from resnetkit import checkpoint
from resnetkit import recipe as recipes
from resnetkit.data.dataset import Dataset
from resnetkit.errors import UsageError
from resnetkit.recipe import Recipe
from resnetkit.runtime.backends import open_backend
from resnetkit.runtime.model import Model
from resnetkit.tasks.evaluate import Scores, score
from resnetkit.tasks.task import TASKS, Task
from resnetkit.training.device import Setup, from_first, gathered, same_as_first
from resnetkit.training.loader import Loader
from resnetkit.training.objective import OBJECTIVES, preprocess_of
from resnetkit.training.plan import epochs_that_fit, measure, seconds_with_growth
from resnetkit.training.state import TrainState
from resnetkit.verbs.console import note
from resnetkit.verbs.examples import Examples, decoded, task_of

Infer = Callable[[NDArray[np.uint8]], NDArray[np.floating]]
EVAL_BATCH = 64


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
    examples: Examples
    setup: Setup
    task: Task
    loader: Loader
    deadline: float
    quiet: bool

    @property
    def dataset(self) -> Dataset:
        """The samples of all splits."""
        return self.examples.dataset


def open_job(folder: Path, recipe: Recipe, dataset: Dataset, setup: Setup, choices: Choices) -> Job:
    """Decode the examples, and put together what a training of them needs."""
    key = task_of(recipe)
    _refuse_too_few(recipe, dataset.num_samples("train"), setup.world)
    found = decoded(dataset, recipe, setup, choices.quiet)
    targets = found.dataset.select("train").targets
    objective, classes = OBJECTIVES[key], len(dataset.classes)
    loader = Loader(found.pixels["train"], targets, classes, recipe, objective, setup.rank, setup.world)
    limit = recipe.train.time_limit
    # a tenth is left for scoring and the report
    deadline = choices.started + 0.9 * limit if limit else math.inf
    return Job(folder, recipe, found, setup, TASKS[key], loader, deadline, choices.quiet)


def _refuse_too_few(recipe: Recipe, images: int, world: int) -> None:
    """BatchNorm needs two images a process in every batch."""
    if images < 2 * world or recipe.train.batch_size < 2 * world:
        what = f"{images} training images in batches of {recipe.train.batch_size} are too few for {world} processes"
        raise UsageError(what, fix=f"a --batch-size of {2 * world} or more, or fewer processes")


def measured(job: Job, state: TrainState) -> Job:
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
        seconds = seconds_with_growth(job.loader, job.setup, state, pace)
        note(f"{pace.fastest}, {job.setup.precision}: {seconds * 1000:.0f} ms a step", job.quiet)
        if limited:
            left = job.deadline - time.monotonic()
            changes["train.epochs"] = epochs_that_fit(recipe.train.epochs, job.loader.steps_per_epoch, seconds, left)
            note(f"{changes['train.epochs']} of {recipe.train.epochs} epochs fit the time limit", job.quiet)
    settled = recipes.replace(recipe, from_first(changes, job.setup))
    return replace(job, recipe=settled, loader=replace(job.loader, recipe=settled))


def _logits(job: Job, split: str, infer: Infer) -> NDArray[np.floating]:
    """Logits [n, K] of a split; each process infers some of its batches, and all get all."""
    n = job.dataset.num_samples(split)
    if not n:
        return np.zeros((0, job.loader.num_classes), np.float32)
    batches = np.array_split(np.arange(n), math.ceil(n / EVAL_BATCH))[job.setup.rank :: job.setup.world]
    mine = [infer(squares) for squares in job.examples.pixels[split].each(batches)]
    return np.concatenate(gathered(mine, job.setup))


def validate(job: Job, state: TrainState) -> tuple[Mapping[str, Any], float | None]:
    """Metrics and mean loss on the validation split, with the weights that would be kept."""
    targets = job.dataset.select("val").targets
    if not len(targets):
        return job.task.target.metrics(np.zeros((0, job.loader.num_classes)), targets, job.dataset.classes), None
    preprocess = preprocess_of(job.recipe)
    weights = state.evaluated()
    same_as_first(weights, job.setup)
    state.network.eval()

    @torch.inference_mode()
    def infer(squares: NDArray[np.uint8]) -> NDArray[np.floating]:
        images = torch.from_numpy(job.task.modality.normalise(squares, preprocess)).to(job.setup.device)
        logits: NDArray[np.floating] = functional_call(state.network, weights, (images,)).float().cpu().numpy()
        return logits

    logits = _logits(job, "val", infer)
    return job.task.target.metrics(logits, targets, job.dataset.classes), float(
        job.task.target.judge(logits, targets).losses.mean()
    )


def final_scores(job: Job, read: checkpoint.Checkpoint) -> Scores:
    """Scores of the finished model, by the backend that will run it, on the very pixels that it would be given."""
    split, part = _final_part(job)
    model = Model(read, open_backend(read, device=job.setup.device))
    torch.set_num_threads(job.setup.threads)
    logits = _logits(job, split, lambda squares: model.backend(job.task.modality.normalise(squares, model.preprocess)))
    return score(job.task, split, job.dataset.classes, part.names, part.targets, list(logits))


def _final_part(job: Job) -> tuple[str, Dataset]:
    """The held-out split that is scored at the end: test, or else val, which has also chosen the epoch."""
    for split in ("test", "val"):
        if job.dataset.num_samples(split):
            if split == "val":
                note("no test images: the scores are those of val, which also chose the epoch", job.quiet)
            return split, job.dataset.select(split)
    note("no held-out images: nothing was scored", job.quiet)
    return "test", job.dataset.select("test")
