"""Loading photos for training: resnetkit against torchvision's ImageFolder + DataLoader(2), same files, same crops.

    python bench/load.py --photos ../shared/data/imagenet-samples
    python bench/load.py --photos ../shared/data/photos/large --count 200 --large

Distinct crops of the photos given are written as JPEG files in class folders (their sides are multiples of 16, as those
of cameras are); without photos they are made. Each side is a process of its own, in turns; it counts from opening the
folder to the last normalised batch of an epoch (random resized crop to 224 px and mirror, batches of 32), without
imports. Ours hashes, decodes and keeps the pixels in the first epoch; the next ones read them. The ratios are medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

CLASSES, SIZE, BATCH, EPOCHS = 10, 224, 32, 3


def write_photos(root: Path, source: Path | None, count: int, smallest: float) -> None:
    """`count` different JPEG files: crops of `smallest`..1 of the sides of the photos in `source`."""
    import numpy as np
    from PIL import Image, ImageOps

    rng = np.random.default_rng(0)
    paths = (
        sorted(p for p in source.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".webp", ".avif")) if source else []
    )
    for number in range(max(1, len(paths))):
        noise = Image.fromarray(rng.integers(0, 255, (12, 16, 3), np.uint8)).resize(
            (500, 375), Image.Resampling.BICUBIC
        )
        photo = ImageOps.exif_transpose(Image.open(paths[number])).convert("RGB") if paths else noise
        for i in range(number, count, max(1, len(paths))):
            width, height = (int(side * rng.uniform(smallest, 1)) // 16 * 16 for side in photo.size)
            left, top = rng.integers(0, photo.width - width + 1), rng.integers(0, photo.height - height + 1)
            folder = root / f"class{i % CLASSES}"
            folder.mkdir(parents=True, exist_ok=True)
            photo.crop((left, top, left + width, top + height)).save(folder / f"{i}.jpg", quality=90)


def ours(root: Path) -> Iterator[float]:
    """Seconds of each epoch with resnetkit."""
    from resnetkit.verbs.memory import keep_freed_memory

    keep_freed_memory()
    import torch

    from resnetkit import recipe as recipes
    from resnetkit.tasks.task import TASKS
    from resnetkit.training.loader import Loader
    from resnetkit.training.objective import OBJECTIVES, store_preprocess
    from resnetkit.training.pixels import cached, key_of
    from resnetkit.training.settle import settle

    torch.set_num_threads(2)
    chosen = {"image.size": SIZE, "train.batch_size": BATCH, "augment.min_scale": 0.08, "augment.color": 0.0}
    recipe = settle(recipes.read("", {**chosen, "model.weights": "none"}), 300)
    prepared = store_preprocess(recipe)
    with tempfile.TemporaryDirectory() as cache:
        started = time.perf_counter()
        dataset = TASKS["classify"].modality.scan(root)
        folder = Path(cache) / key_of(dataset.files, prepared)
        pixels = cached(dataset.files, prepared, folder, lambda now: None)
        loader = Loader(pixels, dataset.targets, CLASSES, recipe, OBJECTIVES["classify"])
        for epoch in range(EPOCHS):
            steps = range(epoch * loader.steps_per_epoch, (epoch + 1) * loader.steps_per_epoch)
            count = sum(len(batch.images) for batch in loader.batches(steps.start, steps.stop))
            assert count == len(dataset)
            yield time.perf_counter() - started
            started = time.perf_counter()


def torchvisions(root: Path) -> Iterator[float]:
    """Seconds of each epoch with torchvision's ImageFolder and torch's DataLoader of two workers."""
    import torch
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    torch.set_num_threads(2)
    started = time.perf_counter()
    change = transforms.Compose(
        [
            transforms.RandomResizedCrop(SIZE, (0.08, 1.0)),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    dataset = ImageFolder(str(root), change)
    loader = DataLoader(dataset, BATCH, shuffle=True, num_workers=2, persistent_workers=True)
    for _ in range(EPOCHS):
        assert sum(len(images) for images, _ in loader) == len(dataset)
        yield time.perf_counter() - started
        started = time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default=None, help="folder of photos to cut crops from")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--large", action="store_true", help="crops of 90 to 100 %% of the sides, not 60 to 100 %%")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", choices=("ours", "torchvision"), help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        print(json.dumps(list((ours if args.side == "ours" else torchvisions)(args.root))))
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "photos"
        write_photos(root, args.photos, args.count, 0.9 if args.large else 0.6)
        files = [path.stat().st_size for path in root.rglob("*.jpg")]
        print(f"{len(files)} files, {sum(files) / 1e6:.0f} MB")
        seconds: dict[str, list[list[float]]] = {"ours": [], "torchvision": []}
        for _ in range(args.rounds):
            for side, runs in seconds.items():
                command = [sys.executable, __file__, "--side", side, "--root", str(root)]
                runs.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    for name, pick in (("first epoch", lambda run: run[0]), ("later epochs", lambda run: statistics.mean(run[1:]))):
        mine, theirs = ([pick(run) for run in seconds[side]] for side in ("ours", "torchvision"))
        ratios = sorted(b / a for a, b in zip(mine, theirs, strict=True))
        print(
            f"{name}: ours {statistics.median(mine):.2f} s, torchvision {statistics.median(theirs):.2f} s, "
            f"{statistics.median(ratios):.2f} times faster ({ratios[0]:.2f} to {ratios[-1]:.2f}, {args.rounds} rounds)"
        )


if __name__ == "__main__":
    main()
