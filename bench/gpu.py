"""A training step on a GPU: its operations started one by one as in any loop of torch, and as a CUDA graph, in turns.

    python bench/gpu.py
    python bench/gpu.py --hands 1

From bytes in memory to updated weights: crops, colour, AdamW, bfloat16, channels_last, as `resnetkit train` has them
there. A step is the mean over those after the first twenty, in which the loader gets ahead and shapes are recorded.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

from resnetkit import recipe as recipes
from resnetkit.training import train as loop
from resnetkit.training.device import Setup, processes
from resnetkit.training.loader import Loader
from resnetkit.training.objective import OBJECTIVES, store_preprocess
from resnetkit.training.optim import make_optimizer
from resnetkit.training.pixels import Pixels
from resnetkit.training.settle import settle
from resnetkit.training.state import TrainState
from resnetkit.verbs.memory import keep_freed_memory

WORK = (("resnet34", 64, 32), ("resnet34", 224, 32), ("resnet34", 224, 128), ("resnet50", 224, 64))
CLASSES, WARM = 10, 20


def ready(variant: str, size: int, batch: int, setup: Setup) -> tuple[TrainState, Loader]:
    """A network before its first step, and random squares to learn from."""
    own = {"model.variant": variant, "image.size": size, "train.batch_size": batch, "model.weights": "none"}
    more = {"model.stem": "imagenet", "train.memory_format": "channels_last", "optim.optimizer": "adamw"}
    recipe = settle(recipes.read("", own | more), size)
    side, images = store_preprocess(recipe).size, 16 * batch
    squares = np.random.default_rng(0).integers(0, 256, (images, side, side, 3), np.uint8)
    pixels = Pixels(lambda rows: lambda: squares[rows], np.ones(images), np.zeros(images, np.uint64))
    objective = OBJECTIVES["classify"]
    loader = Loader(pixels, np.arange(images) % CLASSES, CLASSES, recipe, objective, device=setup.augments_on)
    network = objective.build(recipe, CLASSES).to(setup.device, memory_format=torch.channels_last)
    return TrainState(network, make_optimizer(network, recipe.optim), 100_000), loader


def milliseconds(state: TrainState, loader: Loader, setup: Setup, hands: int, steps: int) -> float:
    """Of a step, the loading in threads beside it included."""
    batches = loader.batches(state.step, state.step + WARM + steps, hands=hands)
    marks = [time.perf_counter() for _ in loop.train(state, batches, loader.objective, loop.plan_of(loader, setup))]
    return 1000 * (marks[-1] - marks[WARM - 1]) / steps


def main() -> None:
    """Print a row for each size of work."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to see that this file runs")
    parser.add_argument("--hands", type=int, default=-1, help="threads that make batches; -1: as in a training")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--work", type=int, default=len(WORK), help="rows of the table, from the first")
    options = parser.parse_args()
    keep_freed_memory()
    with processes(options.device, "auto") as setup:
        torch.set_num_threads(setup.threads)
        hands = setup.hands if options.hands < 0 else options.hands
        print(f"{Path(__file__).name}: {setup.words}, {hands} threads make batches, torch {torch.__version__}")
        for variant, size, batch in WORK[: options.work]:
            state, loader = ready(variant, size, batch, setup)
            plain, recorded = [], []
            for _ in range(options.rounds):
                with patch.object(loop, "_can_be_recorded", lambda plan: False):
                    plain.append(milliseconds(state, loader, setup, hands, options.steps))
                recorded.append(milliseconds(state, loader, setup, hands, options.steps))
            one, other = float(np.median(plain)), float(np.median(recorded))
            words = (
                f"{one:.1f} ms one by one, {other:.1f} recorded: {one / other:.1f} times, {1000 * batch / other:,.0f}"
            )
            print(f"{variant}, {size} px, batch {batch}: {words} images/s", flush=True)


if __name__ == "__main__":
    main()
