"""How well boxes or masks are found, at any step of a training and at its end."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.func import functional_call

from resnetkit import checkpoint
from resnetkit import recipe as recipes
from resnetkit.data.annotated import Boxed
from resnetkit.data.dataset import CODES
from resnetkit.data.masks import Masked
from resnetkit.errors import DataError
from resnetkit.ops.calibration import Calibration
from resnetkit.ops.windows import middle
from resnetkit.runtime.pipeline import read_ahead
from resnetkit.runtime.scenes import BATCH, Infer, Read, found_in, open_scene, read, said
from resnetkit.tasks.scenes import SceneTask, Truths, score
from resnetkit.training.device import gathered, same_as_first
from resnetkit.training.objective import preprocess_of
from resnetkit.training.state import TrainState
from resnetkit.trust.scene_report import SceneStory, write_scene_scores
from resnetkit.verbs.job import Job, final_part

LOOKED_AT, ALL = 2, 1 << 20  # windows a side of an image, after each epoch and at the end
Rows = NDArray[np.intp]
Seen = tuple[Any, Any]  # an answer and the truth


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

    value = target.value(_judged(job, "val", infer, LOOKED_AT), len(job.dataset.classes))
    # of equal ones the later is the better: where nothing is found yet, and where all is found already
    return {name: value}, None if value is None else value + state.step * 1e-12


def _judged(job: Job, split: str, infer: Infer, most: int = ALL) -> list[Any]:
    """What metrics need to know of each image of a split; each process looks at some, and all get all.

    Where images are seen in windows, `most` says how many a side of each, in its middle.
    """
    assert isinstance(job.task, SceneTask), "others have logits"
    part, target = job.dataset.select(split), job.task.target
    assert isinstance(part, Boxed | Masked), "its task says so"
    if not len(part):
        return []
    classes = len(part.classes)
    batches = np.array_split(np.arange(len(part)), math.ceil(len(part) / BATCH))[job.setup.rank :: job.setup.world]
    in_windows = job.recipe.image.resize == "window"
    seen = _in_windows(job, part, infer, (batches, most)) if in_windows else _at_once(job, part, infer, batches)
    mine = [[target.judge(answer, truth, classes) for answer, truth in batch] for batch in seen]
    return [each for batch in gathered(mine, job.setup) for each in batch]


def _at_once(job: Job, part: Boxed | Masked, infer: Infer, batches: Sequence[Rows]) -> Iterator[list[Seen]]:
    """Answers and truths of batches of images, which lie decoded on their canvases."""
    assert isinstance(job.task, SceneTask), "others have logits"
    truths, preprocess = Truths(part), preprocess_of(job.recipe)
    pixels = job.examples.pixels[CODES[part.splits[0]]]
    for rows, canvases in zip(batches, pixels.each(batches), strict=True):
        found = zip(infer(canvases), truths[rows], strict=True)
        yield [(job.task.target.placed(one, there.size, preprocess), there.truth) for one, there in found]


def _in_windows(job: Job, part: Boxed | Masked, infer: Infer, how: tuple[Sequence[Rows], int]) -> Iterator[list[Seen]]:
    """The same of large images, which are read again: of so many windows a side in the middle of each, at most."""
    assert isinstance(job.task, SceneTask), "others have logits"
    (batches, most), truths, preprocess = how, Truths(part), preprocess_of(job.recipe)
    height, width = (most * side for side in preprocess.canvas)
    for rows in batches:
        batch: list[Seen] = []
        for _, one in read_ahead([part.files[row] for row in rows], partial(read, job.task, preprocess), 2):
            if isinstance(one, DataError):
                raise one
            size = min(width, one.size[0]), min(height, one.size[1])
            (answer,) = found_in([Read(middle(one.canvas, (height, width)), size)], infer, job.task, preprocess)
            (there,) = truths[rows[len(batch) : len(batch) + 1]]
            assert there.mask is not None, "boxes are not looked for in windows"
            batch.append((answer, middle(there.mask, (height, width))))
        yield batch


def finished(
    job: Job, kept: checkpoint.Checkpoint, history: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, Any], Calibration | None]:
    """Score the held-out split, write metrics, predictions and the report; gives the metrics, and no calibration."""
    assert isinstance(job.task, SceneTask), "others have logits"
    model = open_scene(kept, job.setup.device)
    torch.set_num_threads(job.setup.threads)
    split, part = final_part(job)
    scores = score(job.task, split, job.dataset.classes, part.names, _judged(job, split, model.infer))
    if job.setup.rank == 0:
        story = SceneStory(scores, job.dataset, kept.meta, history, recipes.as_toml(job.recipe), model.answered)
        write_scene_scores(job.folder, story)
    return scores.as_dict(), None
