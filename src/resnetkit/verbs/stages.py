"""The stages of a training: the last layer and layer4 on stored features where the network is fine-tuned, then all.

Each stage starts from the best that the ones before it have reached on the validation split; the best of all is kept.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from resnetkit.data.duplicates import content_digest
from resnetkit.errors import Interrupted, ResourceError
from resnetkit.nn.cut import AVGPOOL, cut, last_cut
from resnetkit.nn.resnet import ResNet
from resnetkit.ops.metrics import cross_entropy
from resnetkit.runtime.pipeline import num_threads
from resnetkit.tasks.scenes import SceneTask
from resnetkit.training import features
from resnetkit.training.device import from_first, layout_of, same_as_first
from resnetkit.training.heads import choose
from resnetkit.training.kernels import kernels_wanted, own_kernels
from resnetkit.training.loader import Loader
from resnetkit.training.maps import Maps
from resnetkit.training.pixels import make_room
from resnetkit.training.state import TrainState
from resnetkit.training.statistics import IMAGES, renew
from resnetkit.training.trunk import BATCH, made_by, open_trunk
from resnetkit.verbs import scenes
from resnetkit.verbs.caches import cache_folder
from resnetkit.verbs.console import Signals, bar, note
from resnetkit.verbs.job import Job, Rows, images_of, on_validation, validate

SPLITS_USED = ("train", "val")
LAYER4 = "layer4"


@dataclass(frozen=True)
class Stage:
    """A part of a training with a schedule of its own.

    Attributes:
        name: in results.csv.
        network: what learns.
        loader: of what it learns from.
        validate: scores the weights that would be kept; see `job.validate`.
        epochs: passes over the training images.
        folder: of its states.
    """

    name: str
    network: nn.Module
    loader: Loader
    validate: Callable[[TrainState], tuple[dict[str, float | None], float | None]]
    epochs: int
    folder: Path

    @property
    def total_steps(self) -> int:
        """Steps of the whole stage."""
        return self.epochs * self.loader.steps_per_epoch


def whole(job: Job, network: nn.Module) -> Stage:
    """The stage in which all of the network learns, from pixels."""
    validated = partial(validate, job, images_of(job, "val"))
    if isinstance(job.task, SceneTask):
        validated = partial(scenes.validate, job)
    return Stage("all", network, job.loader, validated, job.recipe.train.epochs, job.folder / "state")


def layer4(job: Job, network: ResNet, stored: dict[str, Maps]) -> Stage:
    """The stage in which the last stage and the head learn, from stored maps of the one before it."""
    _, tail = cut(network, last_cut(network))  # 82 % of ResNet-34's multiply-adds lie before it

    def held_out(batches: Sequence[Rows]) -> Iterator[NDArray[np.float32]]:
        return (stored["val"].take(0, rows) for rows in batches)

    epochs = job.recipe.finetune.layer4_epochs
    assert epochs != "auto", "the verb decides before the first step"
    loader = replace(job.loader, maps=stored["train"])
    return Stage(LAYER4, tail, loader, partial(validate, job, held_out), epochs, job.folder / "state" / LAYER4)


def stored_maps(job: Job, network: ResNet, signals: Signals) -> tuple[nn.Sequential, dict[str, Maps]]:
    """What learns on stored features, and these of the training and validation images, from the cache or made now.

    Raises:
        Interrupted: a signal came; what was made is kept, if there is a cache.
    """
    views = job.recipe.finetune.views
    assert views != "auto", "the verb decides before the first step"
    after = last_cut(network) if views else AVGPOOL
    trunk, tail = cut(network, after)
    counts = {split: job.dataset.num_samples(split) for split in SPLITS_USED}
    numbers = {"train": max(1, views), "val": 1}
    folder = _folder(job, trunk, sum(counts[split] * numbers[split] for split in counts))
    preprocess = job.examples.preprocess

    def held_out(view: int, rows: Rows) -> Tensor:
        return torch.from_numpy(job.task.modality.normalise(job.examples.pixels["val"].store(rows), preprocess))

    run = open_trunk(network, after, job.recipe, job.setup)
    images = {"train": features.training_images(job.loader), "val": held_out}
    found = {}
    for split, count in counts.items():
        place = folder / split if folder else None
        label = f"features of {split}"
        with bar(label, count * numbers[split], quiet=job.quiet) as advance:
            progress = partial(_progress, job, signals, advance)
            found[split] = features.extract(run, images[split], (count, numbers[split]), place, job.setup, progress)
    return tail, found


def _progress(job: Job, signals: Signals, advance: Callable[[int], None], done: int) -> None:
    advance(done)
    if signals.received:
        fix = f"go on with: resnetkit train --resume --out {job.folder}"
        raise Interrupted(signals.received, path=job.folder, fix=fix)


def renew_statistics(job: Job, network: ResNet, signals: Signals) -> None:
    """Move BatchNorm's statistics towards those of the training images, the same ones in every process.

    Raises:
        Interrupted: a signal came.
    """
    rows = np.random.default_rng(job.recipe.train.seed).permutation(job.dataset.num_samples("train"))[:IMAGES]
    images = features.training_images(job.loader)
    batches = np.array_split(rows, math.ceil(len(rows) / BATCH))
    own = own_kernels(network, kernels_wanted(job.recipe, job.setup))
    with own, bar("looking at training images", len(rows), quiet=job.quiet) as advance:

        def seen() -> Iterator[Tensor]:
            for done, batch in enumerate(batches, 1):
                yield images(0, batch).to(job.setup.device, memory_format=layout_of(job.recipe))
                _progress(job, signals, advance, sum(map(len, batches[:done])))

        renew(network, seen())
    same_as_first(network.state_dict(), job.setup)


def _folder(job: Job, trunk: nn.Module, images: int) -> Path | None:
    """Where the features lie, with room for them; None for memory. Says how large they are."""
    with torch.inference_mode():
        size = job.recipe.image.size
        assert size != "auto", "the verb decides before the first step"
        image = torch.zeros(1, job.recipe.image.channels, size, size, device=job.setup.device)
        needed = 2 * images * trunk.eval()(image).numel()
    pixels = cache_folder(job.recipe.cache.folder)
    files = [file for split in SPLITS_USED for file in job.dataset.select(split).files]
    counts = [job.dataset.num_samples(split) for split in SPLITS_USED]
    key = features.key_of(trunk, job.recipe, job.setup, repr(counts).encode() + content_digest(files, num_threads()))
    folder = None
    if pixels is not None:
        place = pixels.parent if job.recipe.cache.folder == "auto" else pixels
        folder = _with_room(job, place / "features" / key, needed)
    by = made_by(job.recipe, job.setup)
    note(f"features: {needed / 1e6:,.0f} MB, made by {by}, kept in {folder or 'memory'}", job.quiet)
    return folder


def _with_room(job: Job, folder: Path, needed: int) -> Path | None:
    """The folder, once there is room for it; None where it cannot be had. The first process decides for all."""
    told = {"error": ""}
    if job.setup.rank == 0:
        with suppress(OSError):  # one that is used stays longest
            os.utime(folder)
        try:
            if not folder.exists():
                make_room(folder.parent, needed, int(job.recipe.cache.gb * 1e9))
        except ResourceError as error:
            told["error"] = str(error)
    told = from_first(told, job.setup)
    if told["error"]:
        note(f"take care: features stay in memory: {told['error']}", job.quiet)
    return None if told["error"] else folder


def fit_head(job: Job, tail: nn.Sequential, stored: dict[str, Maps], started: float) -> dict[str, Any]:
    """Fit the last layer on stored features and put it into the network; gives its row of results.csv.

    Its seconds are those since `started`, a time.monotonic(), so that the features are among them.
    """
    targets = [job.dataset.select(split).targets for split in SPLITS_USED]
    known = [features.embeddings(tail, stored[split], job.setup) for split in SPLITS_USED]
    fit, balanced = job.loader.objective.heads, job.recipe.optim.class_weights == "balanced"
    assert fit is not None, "the verb decides before the first step"
    head = choose(fit(known[0], targets[0], job.loader.num_classes, balanced), known[1], targets[1])
    with torch.no_grad():
        tail.fc.weight.copy_(torch.from_numpy(head.weight))  # type: ignore[union-attr, operator]
        tail.fc.bias.copy_(torch.from_numpy(head.bias))  # type: ignore[union-attr, operator]
    found = on_validation(job, head(known[1]))
    note(f"head on frozen features: {head.name}{_percent(found['val_accuracy'])}", job.quiet)
    return {
        "epoch": 0,
        "stage": "head",
        "step": 0,
        "train_loss": float(cross_entropy(head(known[0]), targets[0]).mean()),
        **found,
        "lr": 0.0,
        "best": 1,
        "seconds": round(time.monotonic() - started, 1),
    }


def _percent(value: float | None) -> str:
    return "" if value is None else f", val {100 * value:.1f} %"
