"""How well boxes or masks are found, at any step of a training and at its end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.func import functional_call

from resnetkit import checkpoint
from resnetkit import recipe as recipes
from resnetkit.data.annotated import Boxed
from resnetkit.data.masks import Masked
from resnetkit.ops.calibration import Calibration
from resnetkit.runtime.scenes import BATCH, Infer, open_scene, said
from resnetkit.tasks.scenes import SceneTask, Truths, score
from resnetkit.training.device import gathered, same_as_first
from resnetkit.training.objective import preprocess_of
from resnetkit.training.state import TrainState
from resnetkit.trust.scene_report import SceneStory, write_scene_scores
from resnetkit.verbs.job import Job, final_part


def validate(job: Job, state: TrainState) -> tuple[dict[str, float | None], float | None]:
    """The headline on the validation split with the weights that would be kept, twice; None without images."""
    from resnetkit.nn.finder import Finder  # imports torchvision

    assert isinstance(job.task, SceneTask), "others have logits"
    target, name = job.task.target, f"val_{job.task.target.headline}"
    if not job.dataset.num_samples("val"):
        return {name: None}, None
    weights = {f"network.{key}": tensor for key, tensor in state.evaluated().items()}
    same_as_first(weights, job.setup)
    finder = Finder(state.network).eval()
    preprocess, normalise = preprocess_of(job.recipe), job.task.modality.normalise

    @torch.inference_mode()
    def infer(canvases: Any) -> list[Any]:
        images = torch.from_numpy(normalise(canvases, preprocess)).to(job.setup.device)
        return said(functional_call(finder, weights, (images,)))

    value = target.value(_judged(job, "val", infer), len(job.dataset.classes))
    # as long as nothing is found, the later epoch is the better one
    return {name: value}, value or (None if value is None else state.step * 1e-12)


def _judged(job: Job, split: str, infer: Infer) -> list[Any]:
    """What metrics need to know of each image of a split; each process looks at some, and all get all."""
    assert isinstance(job.task, SceneTask), "others have logits"
    part, target = job.dataset.select(split), job.task.target
    assert isinstance(part, Boxed | Masked), "its task says so"
    if not len(part):
        return []
    truths, classes, preprocess = Truths(part), len(part.classes), preprocess_of(job.recipe)
    batches = np.array_split(np.arange(len(part)), math.ceil(len(part) / BATCH))[job.setup.rank :: job.setup.world]
    mine: list[list[Any]] = []
    for rows, canvases in zip(batches, job.examples.pixels[split].each(batches), strict=True):
        found = zip(infer(canvases), truths[rows], strict=True)
        placed = ((target.placed(one, there.size, preprocess), there.truth) for one, there in found)
        mine.append([target.judge(answer, truth, classes) for answer, truth in placed])
    return [each for batch in gathered(mine, job.setup) for each in batch]


def finished(
    job: Job, read: checkpoint.Checkpoint, history: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, Any], Calibration | None]:
    """Score the held-out split, write metrics, predictions and the report; gives the metrics, and no calibration."""
    assert isinstance(job.task, SceneTask), "others have logits"
    model = open_scene(read, job.setup.device)
    torch.set_num_threads(job.setup.threads)
    split, part = final_part(job)
    scores = score(job.task, split, job.dataset.classes, part.names, _judged(job, split, model.infer))
    if job.setup.rank == 0:
        story = SceneStory(scores, job.dataset, read.meta, history, recipes.as_toml(job.recipe), model.answered)
        write_scene_scores(job.folder, story)
    return scores.as_dict(), None
