"""A network where it does not learn: run by torch, or on a CPU by the fastest engine that gives torch's answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from resnetkit import recipe as recipes
from resnetkit.checkpoint import Checkpoint, Meta
from resnetkit.errors import ResourceError, UsageError
from resnetkit.kernels.library import FIX
from resnetkit.nn.cut import AVGPOOL, cut
from resnetkit.nn.resnet import ResNet
from resnetkit.ops.metrics import relative_difference
from resnetkit.runtime import choice
from resnetkit.runtime.backends import Backend, open_backend, open_engine
from resnetkit.runtime.engines import PIP
from resnetkit.runtime.graph import Graph, graph_of
from resnetkit.runtime.save import options_of, variant_of
from resnetkit.settings import Recipe
from resnetkit.training.device import Setup
from resnetkit.training.objective import preprocess_of

BATCH = 32  # images that the trunk sees at a time
PIXELS = 32 * 64**2  # of a batch on which engines are compared, at most: less than a quarter of a second on one core
OWN = 1.5  # seconds of torch from which our own kernels, which open at once, are compared with it
WORTH = 10.0  # seconds of the faster of them under which comparing all engines would take longer than what is won
CLEAR = 1.5  # times torch from which our own kernels are taken: they were ahead of all engines then, or as fast
SHARE = 0.05  # of these seconds, or choice.SECONDS, to compare
Run = Callable[[Tensor], Tensor]  # images [n, C, H, W] to maps [n, D, h, w], both on the device


def engine_of(recipe: Recipe, setup: Setup) -> str:
    """What runs the frozen network; engines know CPUs only, and take all of its cores."""
    name = recipe.finetune.engine
    return name if name != "auto" and setup.kind == "cpu" and setup.world == 1 else "torch"


def made_by(recipe: Recipe, setup: Setup) -> str:
    """That with its version, since another one may give other bits."""
    name = engine_of(recipe, setup)
    return f"{name} {choice.version_of(name)}".rstrip()


def open_trunk(network: ResNet, after: str, recipe: Recipe, setup: Setup) -> Run:
    """The network up to and including `after`, in evaluation mode.

    Args:
        network: is put into evaluation mode; nothing that it learns later reaches an engine.
        after: a stage, or "avgpool".
        recipe: settled.
        setup: where it runs.

    Raises:
        ResourceError: the engine that the recipe names is not installed, or gives other maps than torch.
        ModelError, UsageError: that engine cannot run this network.
    """
    plain, name = cut(network, after)[0].eval(), engine_of(recipe, setup)
    if name == "torch":
        return plain
    engine = open_engine(graph_of(_checkpoint(network, recipe), "embedding" if after == AVGPOOL else after), name)

    def run(images: Tensor) -> Tensor:
        maps = torch.from_numpy(engine(np.ascontiguousarray(images.numpy())))
        return maps if maps.ndim == 4 else maps[:, :, None, None]

    images = torch.from_numpy(_noise(recipe, 2))
    with torch.inference_mode():
        difference = relative_difference(plain(images).numpy(), run(images).numpy())
    if difference > choice.MOST:
        what = f"{made_by(recipe, setup)} differs from torch by {difference:.1e} of the largest feature"
        raise ResourceError(what, fix="--set finetune.engine=torch")
    return run


def open_whole(found: Checkpoint, recipe: Recipe, setup: Setup) -> Backend:
    """A trained network that is to be scored: by the engine of its features, or by torch if that gives other answers.

    Args:
        found: the network.
        recipe: settled.
        setup: where it runs.
    """
    reference, name = open_backend(found, "torch", setup.device), engine_of(recipe, setup)
    if name == "torch" or not (recipe.finetune.head or recipe.finetune.views):
        return reference
    engine, prepare = open_backend(found, name, setup.device), preprocess_of(recipe)
    pixels = np.random.default_rng(0).integers(0, 256, (2, *prepare.shape), prepare.dtype)
    return reference if choice.disagreement(reference(pixels), engine(pixels)) else engine


def with_engine(network: ResNet, recipe: Recipe, setup: Setup, images: int, *, keep: bool = True) -> tuple[Recipe, str]:
    """The recipe with the engine that runs the frozen network, and why this one in words; "" if it had to be torch.

    Args:
        network: is put into evaluation mode.
        recipe: settled; an engine that it names is left as it is.
        setup: where it runs.
        images: that it is to see; torch is taken where they are too few.
        keep: whether later processes are to know.

    Raises:
        ResourceError: the engine that the recipe names is not installed.
    """
    if recipe.finetune.engine != "auto":
        named = engine_of(recipe, setup)
        if not choice.is_here(named):
            needed, fix = ("compiled kernels", FIX) if named == "native" else (f"the package {named}", PIP)
            raise ResourceError(f"finetune.engine={named} needs {needed}", fix=fix)
        return recipe, ""
    name, why = _fastest(network, recipe, setup, images, keep)
    return recipes.replace(recipe, {"finetune.engine": name}), f"features are made by {name} ({why})" if why else ""


def _fastest(network: ResNet, recipe: Recipe, setup: Setup, images: int, keep: bool) -> tuple[str, str]:
    names = choice.installed() if setup.kind == "cpu" and setup.world == 1 else ()
    if not names or not images:
        return "torch", ""
    try:
        found = _checkpoint(network, recipe)
    except UsageError:  # none of the family
        return "torch", ""
    batch = _noise(recipe, max(2, min(BATCH, PIXELS // preprocess_of(recipe).size ** 2)))
    key = f"features-{len(batch)}-{choice.key_of(_without_head(found), names)}"
    known = choice.remembered(key)
    if known:
        return known, "as measured before"
    reference: choice.Run = partial(_logits, network.eval())
    times = images / len(batch)
    by_torch = needed = times * seconds_of(partial(reference, batch))
    graph = cache(partial(graph_of, found))  # made once for all engines, and not for torch
    openers = {name: partial(_opened, graph, name) for name in names}
    best, told = "torch", ""
    if "native" in names and needed > OWN:
        best, run, told = choice.compared(batch, reference, {"native": openers["native"]}, SHARE * needed)
        needed = times * seconds_of(partial(run, batch))
    if needed > WORTH and by_torch < CLEAR * needed:
        best, _, told = choice.compared(batch, reference, openers, max(choice.SECONDS, SHARE * needed))
        if keep:
            choice.remember(key, best)
    return best, told


@torch.inference_mode()
def _logits(network: ResNet, batch: NDArray[np.float32]) -> NDArray[np.float32]:
    logits: NDArray[np.float32] = network(torch.from_numpy(batch)).numpy()
    return logits


def _opened(graph: Callable[[], Graph], name: str) -> choice.Run:
    return open_engine(graph(), name)


def seconds_of(work: Callable[[], object]) -> float:
    """Seconds of some work: the best of one or more after a first one, a fifth of a second of them."""
    work()
    found: list[float] = []
    while not found or sum(found) < 0.2:
        started = time.monotonic()
        work()
        found.append(time.monotonic() - started)
    return min(found)


def _noise(recipe: Recipe, count: int) -> NDArray[np.float32]:
    image = preprocess_of(recipe)
    return np.random.default_rng(0).standard_normal((count, image.channels, image.size, image.size), dtype=np.float32)


def _checkpoint(network: ResNet, recipe: Recipe) -> Checkpoint:
    """A network as if it had been read from a model folder."""
    tensors = {name: tensor.detach().cpu().numpy() for name, tensor in network.state_dict().items()}
    classes = tuple(map(str, range(network.fc.out_features)))
    preprocess = preprocess_of(recipe).as_dict()
    task = "classify" if recipe.data.task == "auto" else recipe.data.task
    meta = Meta(task, variant_of(network), options_of(network), classes, preprocess)
    return Checkpoint(Path("features"), meta, tensors)


def _without_head(found: Checkpoint) -> Checkpoint:
    """The head is made anew for each number of classes and each seed, and costs nothing."""
    return replace(found, tensors={name: array for name, array in found.tensors.items() if not name.startswith("fc.")})
