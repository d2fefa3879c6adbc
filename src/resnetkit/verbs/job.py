"""A training that is ready for its first step, and how well its network does at any step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.func import functional_call

from resnetkit import checkpoint
from resnetkit import recipe as recipes
from resnetkit.data.dataset import Dataset
from resnetkit.errors import DataError, UsageError
from resnetkit.nn.cut import cut, last_cut
from resnetkit.nn.resnet import ResNet
from resnetkit.runtime.backends import Backend
from resnetkit.runtime.model import Model
from resnetkit.settings import Recipe
from resnetkit.tasks.evaluate import Scores, calibrated_loss, score
from resnetkit.tasks.scenes import SCENES, SceneTask, seconds_to_score
from resnetkit.tasks.task import TASKS, Task
from resnetkit.training.device import Setup, from_first, gathered, layout_of, same_as_first
from resnetkit.training.loader import Loader
from resnetkit.training.objective import OBJECTIVES
from resnetkit.training.optim import make_optimizer
from resnetkit.training.pixels import Pixels, bytes_of, in_memory
from resnetkit.training.places import times_shown, windows_of
from resnetkit.training.plan import (
    Costs,
    Stages,
    choose,
    epochs_that_fit,
    formats_to_try,
    least_costs,
    likely_format,
    measure,
    measure_costs,
    predicted,
    seconds_with_growth,
)
from resnetkit.training.prepare import evaluated, stored
from resnetkit.training.state import TrainState, growth_of
from resnetkit.training.trunk import open_whole, with_engine
from resnetkit.trust.calibrate import calibrate
from resnetkit.trust.gallery import OVERLAYS
from resnetkit.verbs.console import note
from resnetkit.verbs.examples import Examples, decoded, task_of

Rows = NDArray[np.intp]
Inputs = Callable[[Sequence[Rows]], Iterator[NDArray[Any]]]  # batches of rows to what is inferred from
Infer = Callable[[NDArray[Any]], NDArray[np.floating]]
EVAL_BATCH = 64
SECONDS_AFTER = 3.0  # to write the model and the report
PROBED, PROBED_BYTES = 24, 1 << 28  # images that are decoded to predict how long all take, and bytes of them, at most


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
    task: Task | SceneTask
    loader: Loader
    started: float
    deadline: float
    quiet: bool

    @property
    def dataset(self) -> Dataset:
        """The samples of all splits."""
        return self.examples.dataset


def blank_job(folder: Path, recipe: Recipe, dataset: Dataset, setup: Setup, choices: Choices) -> Job:
    """A job whose images are all black, or sounds silent: all that a plan needs, and nothing is decoded or written."""
    kept, n = stored(recipe, dataset), dataset.num_samples("train")
    black = Pixels(
        lambda rows: lambda: np.zeros((len(rows), *kept.shape), kept.dtype), np.ones(n), np.zeros(n, np.uint64)
    )
    found = Examples(dataset, {"train": black}, [], [], evaluated(recipe, dataset))
    return _job(folder, recipe, found, setup, choices)


def open_job(folder: Path, recipe: Recipe, dataset: Dataset, setup: Setup, choices: Choices) -> Job:
    """Decode the examples, and put together what a training of them needs."""
    _refuse_too_few(recipe, dataset.num_samples("train"), setup.world)
    return _job(folder, recipe, decoded(dataset, recipe, setup, choices.quiet), setup, choices)


def _job(folder: Path, recipe: Recipe, found: Examples, setup: Setup, choices: Choices) -> Job:
    key = task_of(recipe)
    targets, pixels = found.learnt(times_shown(recipe))
    objective, classes = OBJECTIVES[key], len(found.dataset.classes)
    loader = Loader(pixels, targets, classes, recipe, objective, setup.rank, setup.world, setup.augments_on)
    limit = recipe.train.time_limit
    # a tenth is left for scoring and the report
    deadline = choices.started + 0.9 * limit if limit else math.inf
    task = SCENES[key] if key in SCENES else TASKS[key]
    return Job(folder, recipe, found, setup, task, loader, choices.started, deadline, choices.quiet)


def _refuse_too_few(recipe: Recipe, images: int, world: int) -> None:
    """BatchNorm needs two images a process in every batch."""
    if images < 2 * world or recipe.train.batch_size < 2 * world:
        what = f"{images} training samples in batches of {recipe.train.batch_size} are too few for {world} processes"
        raise UsageError(what, fix=f"a --batch-size of {2 * world} or more, or fewer processes")


def planned(job: Job, network: nn.Module, *, keep: bool = True) -> Job:
    """Measure what a choice depends on and decide it: the engine, the memory format, the stages, the epochs that fit.

    Args:
        job: whose recipe has "auto" in it.
        network: at its beginning.
        keep: whether later processes are to know which engine is the fastest.
    """
    if isinstance(network, ResNet):
        recipe, told = with_engine(network, job.recipe, job.setup, _num_frozen(job), keep=keep)
        note(told, job.quiet or not told)
        job = replace(job, recipe=recipe, loader=replace(job.loader, recipe=recipe))
    if isinstance(network, ResNet) and job.recipe.finetune.views == "auto":
        job, changes = _stages_that_fit(job, network)
    else:
        job, changes = _epochs_that_fit(job, network)
    settled = recipes.replace(job.recipe, from_first(changes, job.setup))
    return replace(job, recipe=settled, loader=replace(job.loader, recipe=settled))


def _num_frozen(job: Job) -> int:
    """Images, each of its views for one, that the frozen network is to see, and the final one at the end."""
    tune = job.recipe.finetune
    views = 1 if tune.views == "auto" else tune.views or int(tune.head)
    counts = [job.dataset.num_samples(split) for split in ("train", "val", "val", "test")]
    return counts[0] * views + sum(counts[1:]) if views else 0


def _epochs_that_fit(job: Job, network: nn.Module) -> tuple[Job, dict[str, Any]]:
    """Also the deadline, which leaves the time for what comes after."""
    recipe = job.recipe
    total = recipe.train.epochs * job.loader.steps_per_epoch
    limited = job.deadline < math.inf
    # few steps pay no measuring
    formats = formats_to_try(recipe, job.setup) if total >= 200 else (likely_format(recipe, job.setup),)
    changes: dict[str, Any] = {"train.memory_format": formats[0]}
    if total and (len(formats) > 1 or limited or (job.dataset.noun == "texts" and total >= 200)):
        state = TrainState(network, make_optimizer(network, recipe.optim), total, growth=growth_of(recipe, total))
        pace = measure(job.loader, job.setup, state, formats)
        changes["train.memory_format"] = pace.fastest
        seconds = seconds_with_growth(job.loader, job.setup, state, pace)
        words = f"{pace.fastest}, {job.setup.precision}: {seconds * 1000:.0f} ms a step"
        note(f"{words}, {total:,} steps: {total * seconds:.0f} s", job.quiet)
        if limited:
            # an image is learnt from in about three times what it takes to evaluate it
            after = _seconds_after(job, seconds / recipe.train.batch_size / 3)
            job = replace(job, deadline=min(job.deadline, job.started + recipe.train.time_limit - after))
            left = job.deadline - time.monotonic()
            changes["train.epochs"] = epochs_that_fit(recipe.train.epochs, job.loader.steps_per_epoch, seconds, left)
            note(f"{changes['train.epochs']} of {recipe.train.epochs} epochs fit the time limit", job.quiet)
    return job, changes


def _stages_that_fit(job: Job, network: ResNet) -> tuple[Job, dict[str, Any]]:
    """Also the deadline, which leaves the time to score the held-out images and to write the report."""
    recipe = job.recipe
    layout, costs = _costs_that_matter(job, network)
    after = from_first({"after": _seconds_after(job, costs.features)}, job.setup)["after"]
    job = replace(job, deadline=job.started + recipe.train.time_limit - after)
    left = job.deadline - time.monotonic()
    stages = choose(costs, *_sizes(job, network), recipe.train.epochs, left, _most_views(job, network))
    # without a head there must be something else that learns
    epochs = stages.epochs or int(not (recipe.finetune.head or stages.views))
    seconds = _tell_prediction(job, network, costs, replace(stages, head=recipe.finetune.head, epochs=epochs))
    if seconds > left + after:
        late = seconds - left - after
        note(f"take care: the least that can be done takes about {late:.0f} s more than the time limit", job.quiet)
    return job, {
        "train.memory_format": layout,
        "train.epochs": epochs,
        "model.freeze": recipe.model.freeze if stages.frozen == "none" else stages.frozen,
        "finetune.views": stages.views,
        "finetune.layer4_epochs": stages.layer4_epochs,
    }


def _costs_that_matter(job: Job, network: ResNet) -> tuple[str, Costs]:
    """The memory format and what all costs in it; what learning takes is not measured where there is no time for it."""
    layout, least = least_costs(job.loader, job.setup, network)
    left = job.started + job.recipe.train.time_limit - _seconds_after(job, least.features) - time.monotonic()
    stages = choose(least, *_sizes(job, network), job.recipe.train.epochs, left, _most_views(job, network))
    fits = from_first({"all": bool(stages.epochs), "layer4": bool(stages.views)}, job.setup)
    if job.recipe.finetune.head and not (fits["all"] or fits["layer4"]):
        return layout, least
    return measure_costs(job.loader, job.setup, network, least, whole=fits["all"] or not fits["layer4"])


def _most_views(job: Job, network: ResNet) -> int:
    """Views of the training images whose maps fit the cache; none where the network cannot be cut before layer4."""
    if network.pool == "all":
        return 0
    size, channels = job.recipe.image.size, job.recipe.image.channels
    assert size != "auto", "the verb decides before the first step"
    with torch.inference_mode():
        maps = cut(network, last_cut(network))[0].eval()(torch.zeros(1, channels, size, size, device=job.setup.device))
    return int(job.recipe.cache.gb * 1e9 / (2 * maps.numel() * job.dataset.num_samples("train")))


def tell_plan(job: Job, network: nn.Module) -> Job:
    """Plan a training that is not to happen, and say how long each part of it would take.

    Returns:
        The job, whose recipe is the one that would be written.
    """
    files = job.dataset.select("train").files
    kept = stored(job.recipe, job.dataset)
    most = min(PROBED, max(1, PROBED_BYTES // bytes_of(1, kept)))
    probed = [files[row] for row in range(0, len(files), max(1, len(files) // most))][:most]
    started = time.monotonic()
    in_memory(probed, kept, lambda done: None)
    seconds = (time.monotonic() - started) / len(probed) * len(job.dataset)
    note(f"decoding {len(job.dataset):,} {job.dataset.noun}: {seconds:.0f} s, unless they are in the cache", job.quiet)
    late = replace(job, started=job.started - seconds, deadline=job.deadline - seconds)
    job = planned(late, network, keep=False)
    if not isinstance(network, ResNet) or job.dataset.noun != "images":
        state = TrainState(network, make_optimizer(network, job.recipe.optim), job.loader.steps_per_epoch)
        each = min(measure(job.loader, job.setup, state, [job.recipe.train.memory_format]).seconds.values())
        steps = job.recipe.train.epochs * job.loader.steps_per_epoch
        after = _seconds_after(job, each / job.recipe.train.batch_size / 3)
        words = f"{steps:,} steps of {1000 * each:.0f} ms: {steps * each:.0f} s; scoring and report {after:.0f} s"
        note(f"plan: {words}", job.quiet)
    elif not job.recipe.train.time_limit:
        tune = job.recipe.finetune
        assert tune.views != "auto" and tune.layer4_epochs != "auto", "they are decided"
        stages = Stages(tune.head, tune.views, tune.layer4_epochs, job.recipe.train.epochs)
        least = least_costs(job.loader, job.setup, network)[1]
        _tell_prediction(job, network, measure_costs(job.loader, job.setup, network, least)[1], stages)
    return job


def _sizes(job: Job, network: ResNet) -> tuple[tuple[int, int], int]:
    images = job.dataset.num_samples("train"), job.dataset.num_samples("val")
    return images, network.fc.in_features * job.loader.num_classes


def _seconds_after(job: Job, forward: float) -> float:
    """Seconds in which validation images calibrate the model, the test images are scored, and the report is drawn.

    `forward` is what an image takes.
    """
    images = job.dataset.num_samples("test") + job.dataset.num_samples("val") + OVERLAYS
    scoring = seconds_to_score(job.task, job.dataset) if isinstance(job.task, SceneTask) else 0.0
    return SECONDS_AFTER + images * forward * windows_of(job.dataset, job.recipe) + scoring


def _tell_prediction(job: Job, network: ResNet, costs: Costs, stages: Stages) -> float:
    """Say what each part takes; gives the seconds of all."""
    seconds = predicted(costs, *_sizes(job, network), stages)
    seconds["scoring and report"] = _seconds_after(job, costs.features)
    words = ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items() if value)
    learnt = f"{1000 * costs.step_above(stages.frozen):.1f} ms to learn from, " if stages.epochs or stages.views else ""
    note(f"an image: {learnt}{1000 * costs.features:.1f} ms for its features", job.quiet)
    note(f"plan: {words}; {sum(seconds.values()):.0f} s in all", job.quiet)
    return sum(seconds.values())


def _logits(job: Job, split: str, inputs: Inputs, infer: Infer) -> NDArray[np.floating]:
    """Logits [n, K] of a split; each process infers some of its batches, and all get all."""
    n = job.dataset.num_samples(split)
    if not n:
        return np.zeros((0, job.loader.num_classes), np.float32)
    batches = np.array_split(np.arange(n), math.ceil(n / EVAL_BATCH))[job.setup.rank :: job.setup.world]
    mine = [infer(batch) for batch in inputs(batches)]
    return np.concatenate(gathered(mine, job.setup))


def images_of(job: Job, split: str) -> Inputs:
    """Batches of rows of a split to the network's input, float32 [n, C, H, W]."""
    preprocess = job.examples.preprocess

    def inputs(batches: Sequence[Rows]) -> Iterator[NDArray[Any]]:
        for squares in job.examples.pixels[split].each(batches):
            yield job.task.modality.normalise(squares, preprocess)

    return inputs


def validate(job: Job, inputs: Inputs, state: TrainState) -> tuple[dict[str, float | None], float | None]:
    """What results.csv says of the validation split, with the weights that would be kept; None without images.

    And how good that is: what the best epoch has the most of.
    """
    targets = job.dataset.select("val").targets
    if not len(targets):
        return on_validation(job, np.zeros((0, job.loader.num_classes))), None
    weights = state.evaluated()
    same_as_first(weights, job.setup)
    state.network.eval()

    @torch.inference_mode()
    def infer(batch: NDArray[np.float32]) -> NDArray[np.floating]:
        on_device = torch.from_numpy(batch).to(job.setup.device, memory_format=layout_of(job.recipe))
        logits: NDArray[np.floating] = functional_call(state.network, weights, (on_device,)).float().cpu().numpy()
        return logits

    found = on_validation(job, _logits(job, "val", inputs, infer))
    loss = found["val_calibrated_loss"]
    return found, None if loss is None else -loss


def on_validation(job: Job, logits: NDArray[np.floating]) -> dict[str, float | None]:
    """Loss, calibrated loss (which chooses the best epoch), the headline and macro-F1 of validation logits [n, K]."""
    assert isinstance(job.task, Task), "scenes have no logits"
    target, targets = job.task.target, job.dataset.select("val").targets
    scores = target.metrics(logits, targets, job.dataset.classes)
    some = bool(len(targets))
    return {
        "val_loss": float(target.judge(logits, targets).losses.mean()) if some else None,
        "val_calibrated_loss": calibrated_loss(target, logits, targets) if some else None,
        f"val_{target.headline}": scores[target.headline].value,
        "val_macro_f1": scores["macro_f1"].value,
    }


def final_scores(job: Job, read: checkpoint.Checkpoint) -> tuple[Scores, Model]:
    """Scores of the model, on the very pixels that it would be given, and the model as validation has calibrated it."""
    assert isinstance(job.task, Task), "scenes have no logits"
    backend = open_whole(read, job.recipe, job.setup)
    torch.set_num_threads(job.setup.threads)

    def infer(batch: NDArray[Any]) -> NDArray[np.floating]:
        return np.concatenate(backend.outputs(batch), 1)

    def outputs(split: str) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        rows = _logits(
            job, split, *(_whole_files(job, split, read, backend) or (job.examples.pixels[split].each, infer))
        )
        return rows[:, : job.loader.num_classes], rows[:, job.loader.num_classes :]

    split, part = final_part(job)
    found = {name: outputs(name) for name in dict.fromkeys(("val", split))}
    targets = job.dataset.select("val").targets
    calibration = calibrate(job.task.target, found["val"], targets, job.recipe.calibrate.sets)
    model = Model(replace(read, calibration=calibration), backend)
    logits = np.asarray(found[split][0] / model.temperature, np.float32)
    return score(job.task, split, job.dataset.classes, part.names, part.targets, list(logits)), model


def _whole_files(job: Job, split: str, read: checkpoint.Checkpoint, backend: Backend) -> tuple[Inputs, Infer] | None:
    """The inputs and answers of recordings that are longer than what the network hears: all of each, in windows.

    None where none is longer, or the data are no sounds: then what was decoded is all there is.
    """
    if job.dataset.noun != "sounds" or not (job.examples.pixels[split].aspects > 1).any():
        return None
    files, model = job.dataset.select(split).files, Model(read, backend)

    def infer(rows: NDArray[Any]) -> NDArray[np.floating]:
        found = []
        for _, answer in model.outputs(files[row] for row in rows.tolist()):
            if isinstance(answer, DataError):
                raise answer
            found.append(answer)
        return np.stack(found)

    return iter, infer  # batches of rows as they are


def final_part(job: Job) -> tuple[str, Dataset]:
    """The held-out split that is scored at the end: test, or else val, which has also chosen the epoch."""
    for split in ("test", "val"):
        if job.dataset.num_samples(split):
            if split == "val":
                too = " and calibrated them" if isinstance(job.task, Task) else ""
                what = f"the scores are those of val, which chose the epoch{too}"
                note(f"no test {job.dataset.noun}: {what}", job.quiet)
            return split, job.dataset.select(split)
    note(f"no held-out {job.dataset.noun}: nothing was scored", job.quiet)
    return "test", job.dataset.select("test")
