"""Features once: what a frozen trunk makes of every view of every image, computed one time and kept.

View 0 of an image is what evaluation sees; the others are augmented. A network that is fine-tuned on stored maps of
layer3 runs its first stages, which are four fifths of ResNet-34's work, once a view and not once a step.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from resnetkit.files import resource_errors, write
from resnetkit.settings import Recipe
from resnetkit.training.augment import Draws
from resnetkit.training.device import Setup, wait_for_first
from resnetkit.training.loader import Loader, made
from resnetkit.training.maps import CHUNK, Half, Maps
from resnetkit.training.objective import preprocess_of
from resnetkit.training.trunk import BATCH, Run, made_by

FORMAT = 1
Images = Callable[[int, NDArray[np.intp]], Tensor]  # a view and rows to [n, C, H, W]
Progress = Callable[[int], None]


def training_images(loader: Loader) -> Images:
    """The views of the training images: the first as in evaluation, the others each from (seed, view, first row)."""

    def images(view: int, rows: NDArray[np.intp]) -> Tensor:
        pixels, aspects = torch.from_numpy(loader.pixels.store(rows)), loader.pixels.aspects[rows]
        if view == 0:
            assert loader.objective.centre is not None, "the recipe of such a task stores no features"
            return loader.objective.centre(pixels, aspects, loader.recipe)
        rng = np.random.default_rng([loader.recipe.train.seed, view, int(rows[0]), 1])
        drawn = Draws(rng, len(rows), slice(None), loader.device)
        return loader.objective.augment(pixels, None, aspects, loader.recipe, drawn)[0]

    return images


def num_chunks(images: int) -> int:
    """Files of a view."""
    return math.ceil(images / CHUNK)


def extract(
    trunk: Run, images: Images, shape: tuple[int, int], folder: Path | None, setup: Setup, progress: Progress
) -> Maps:
    """The maps of all views of all images, from their folder as far as they lie there.

    Args:
        trunk: images to maps, as `trunk.open_trunk` gives it.
        images: makes a view of some rows.
        shape: number of images, and of views.
        folder: where they are kept; None: in memory.
        setup: each of several processes computes some of the files, where there is a folder.
        progress: called with the number of images done.

    Raises:
        ResourceError: the disk refuses.
    """
    total, views = shape
    jobs = [(view, chunk) for view in range(views) for chunk in range(num_chunks(total))]
    found: dict[tuple[int, int], Half] = {}
    for done, (view, chunk) in enumerate(jobs):
        if folder is not None and done % setup.world != setup.rank:
            continue
        rows = np.arange(chunk * CHUNK, min((chunk + 1) * CHUNK, total))
        make = partial(_maps, trunk, images, (view, rows), setup)
        if folder is None:
            found[view, chunk] = make()
        else:
            _keep(folder / _name(view, chunk), len(rows), make)
        progress(view * total + int(rows[-1]) + 1)
    if folder is not None:
        wait_for_first(setup)
        return Maps(
            [[folder / _name(view, chunk) for chunk in range(num_chunks(total))] for view in range(views)], total
        )
    return Maps([[found[view, chunk] for chunk in range(num_chunks(total))] for view in range(views)], total)


def _name(view: int, chunk: int) -> str:
    return f"{view:03d}-{chunk:06d}.npy"


def _keep(path: Path, count: int, make: Callable[[], Half]) -> None:
    """Make a file that is not there, is cut short, or has another number of images."""
    with suppress(OSError, ValueError, EOFError):
        if len(np.load(path, mmap_mode="r")) == count:
            return
    buffer = io.BytesIO()
    np.save(buffer, make())
    with resource_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    write(path, buffer.getvalue())


@torch.inference_mode()
def _maps(trunk: Run, images: Images, which: tuple[int, NDArray[np.intp]], setup: Setup) -> Half:
    view, rows = which
    works = (partial(images, view, part) for part in np.array_split(rows, math.ceil(len(rows) / BATCH)))
    parts = [trunk(batch.to(setup.device)).clamp_(-65504, 65504).half().cpu() for batch in made(works, setup.hands)]
    found: Half = torch.cat(parts).numpy()
    return found


def key_of(trunk: nn.Module, recipe: Recipe, setup: Setup, content: bytes) -> str:
    """Name of the store of these features: of the trunk, what runs it, how images are made, and their bytes."""
    digest = hashlib.blake2b(content, digest_size=16)
    for name, tensor in trunk.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    model = recipe.model
    network = [model.variant, model.stem, model.shortcut, model.pool, *(name for name, _ in trunk.named_children())]
    how = {"network": network, "preprocess": preprocess_of(recipe).as_dict(), "augment": asdict(recipe.augment)}
    parts = {
        "format": FORMAT,
        "torch": torch.__version__,
        "by": made_by(recipe, setup),
        "on": setup.kind,
        "seed": recipe.train.seed,
        **how,
    }
    digest.update(json.dumps(parts, sort_keys=True).encode())
    return digest.hexdigest()


@torch.inference_mode()
def embeddings(tail: nn.Sequential, maps: Maps, setup: Setup) -> NDArray[np.float32]:
    """The input of the last layer [n, D] for every image, as evaluation sees it."""
    below, width = tail[:-1].eval(), tail.fc.weight.shape[1]  # type: ignore[union-attr, index]
    batches = [rows for rows in np.array_split(np.arange(maps.images), num_chunks(maps.images) or 1) if len(rows)]
    parts = [below(torch.from_numpy(maps.take(0, rows)).to(setup.device)).cpu() for rows in batches]
    found: NDArray[np.float32] = torch.cat(parts).numpy() if parts else np.zeros((0, int(width)), np.float32)
    return found
