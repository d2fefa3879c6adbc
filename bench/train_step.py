"""A training step of resnetkit against a plain torchvision ResNet-34 + DataLoader loop: same batch, same files.

    python bench/train_step.py --size 64 --batch 32
    python bench/train_step.py --size 224 --batch 16

Both train ResNet-34 from scratch on the same generated JPEG files, from the file to the updated weights: random resized
crop and mirror, cross-entropy, SGD with Nesterov momentum. Ours is what `resnetkit train` runs, in a process of its own
with the command line's allocator setting; the peer is the loop of torchvision's tutorials with ImageFolder and a
DataLoader of two workers. Processes alternate, and each reports images per second without its first steps; decoding
once is inside our figure only where an epoch falls into the measured steps, so it is printed apart.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CLASSES, WARM = 10, 3


def write_photos(root: Path, count: int, side: int) -> None:
    """Distinct JPEG files of noise and blobs in class folders."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for i in range(count):
        folder = root / f"class{i % CLASSES}"
        folder.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(rng.integers(0, 255, (12, 16, 3), np.uint8))
        small.resize((side * 4 // 3, side), Image.Resampling.BICUBIC).save(folder / f"{i}.jpg", quality=90)


def ours(root: Path, size: int, batch: int, steps: int) -> dict[str, float]:
    """Images per second of resnetkit's loop, and seconds to decode everything once."""
    from resnetkit.verbs.memory import keep_freed_memory

    keep_freed_memory()
    import torch

    from resnetkit import recipe as recipes
    from resnetkit.tasks.task import TASKS
    from resnetkit.training.device import Setup
    from resnetkit.training.loader import Loader
    from resnetkit.training.objective import OBJECTIVES, store_preprocess
    from resnetkit.training.optim import make_optimizer
    from resnetkit.training.pixels import in_memory
    from resnetkit.training.plan import measure, memory_format
    from resnetkit.training.settle import settle
    from resnetkit.training.state import TrainState
    from resnetkit.training.train import plan_of, train

    torch.set_num_threads(2)
    overrides = {"image.size": size, "train.batch_size": batch, "model.weights": "none", "augment.min_scale": 0.08}
    recipe = settle(recipes.read("", overrides | {"model.stem": "imagenet", "augment.color": 0.0}), size)
    dataset = TASKS["classify"].modality.scan(root)
    started = time.perf_counter()
    pixels = in_memory(dataset.files, store_preprocess(recipe), lambda now: None)
    decoding = time.perf_counter() - started
    objective = OBJECTIVES["classify"]
    setup = Setup("cpu", "f32")
    network = objective.build(recipe, CLASSES)
    state = TrainState(network, make_optimizer(network, recipe.optim), 1000)
    loader = Loader(pixels, dataset.targets, CLASSES, recipe, objective)
    layout = measure(loader, setup, state, ["contiguous", "channels_last"]).fastest
    network.to(memory_format=memory_format(layout))
    loader = Loader(**{**vars(loader), "recipe": recipes.replace(recipe, {"train.memory_format": layout})})
    batches = loader.batches(0, steps)
    marks = [time.perf_counter() for _ in train(state, batches, objective, plan_of(loader, setup))]
    return {"rate": batch * (steps - WARM) / (marks[-1] - marks[WARM - 1]), "decoding": decoding, "layout": layout}


def peer(root: Path, size: int, batch: int, steps: int) -> dict[str, float]:
    """Images per second of the plain torchvision loop."""
    import torch
    import torchvision
    from torch import nn
    from torchvision import transforms

    torch.set_num_threads(2)
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(size),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    data = torchvision.datasets.ImageFolder(str(root), transform)
    loader = torch.utils.data.DataLoader(data, batch, shuffle=True, num_workers=2, drop_last=True)
    network = torchvision.models.resnet34(num_classes=CLASSES)
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    criterion = nn.CrossEntropyLoss()
    marks: list[float] = []
    while len(marks) < steps:
        for images, targets in loader:
            loss = criterion(network(images), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()
            marks.append(time.perf_counter())
            if len(marks) == steps:
                break
    return {"rate": batch * (steps - WARM) / (marks[-1] - marks[WARM - 1])}


def main() -> None:
    """Alternate the two in processes of their own, and print the ratio of medians with the spread."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=0, help="steps a process; by default about 15 seconds of them")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--one", choices=("ours", "peer"), help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    steps = options.steps or (40 if options.size <= 64 else 8)
    if options.one:
        run = ours if options.one == "ours" else peer
        print(json.dumps(run(options.root, options.size, options.batch, steps)))
        return
    rates: dict[str, list[float]] = {"ours": [], "peer": []}
    with tempfile.TemporaryDirectory() as folder:
        write_photos(Path(folder), max(640, options.batch * 4), 2 * options.size)
        for repeat in range(options.repeats):
            for name in ("ours", "peer"):
                flags = [
                    "--one",
                    name,
                    "--root",
                    folder,
                    "--size",
                    options.size,
                    "--batch",
                    options.batch,
                    "--steps",
                    steps,
                ]
                done = subprocess.run(
                    [sys.executable, __file__, *map(str, flags)], capture_output=True, text=True, check=True
                )
                found = json.loads(done.stdout)
                rates[name].append(found["rate"])
                print(repeat, name, found, flush=True)
    ratios = [a / b for a, b in zip(rates["ours"], rates["peer"], strict=True)]
    medians = {name: statistics.median(values) for name, values in rates.items()}
    print(f"{options.size} px, batch {options.batch}: {medians['ours']:.1f} against {medians['peer']:.1f} images/s")
    print(f"ratio, median of {len(ratios)}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
