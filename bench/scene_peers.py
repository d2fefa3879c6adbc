"""AP50 or mIoU against time: our defaults, and torchvision's own builders and loop, on the same data and minutes.

    python bench/scene_peers.py boxes DATA --weights resnet34.safetensors --minutes 8 > boxes.txt
    python bench/scene_peers.py masks DATA --weights resnet34.safetensors --minutes 8 --ignore 11 > masks.txt
    python bench/scene_peers.py --picture docs/scenes.svg boxes.txt masks.txt

One after the other: FCOS or the U-Net as `bench/scenes.py` trains them, with the weights and without, and torchvision's
networks as its builders make them, without weights, since none come with the package, at the same size of images. Their
loop is that of its reference scripts: SGD with momentum 0.9 and weight decay 1e-4, a warm-up, rate 0.005 for boxes and
0.02 for masks, mirror images; batches of 4 for all. Minutes are those of training, of one core. Scores are of the test
split, after learning from train and val.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scenes as ours
import torch
import torchvision
from torch import Tensor, nn

from resnetkit.data.annotated import Boxed
from resnetkit.data.masks import Masked
from resnetkit.ops.matching import Found
from resnetkit.tasks import boxes, masks
from resnetkit.training import scenes
from resnetkit.training.augment import draws
from resnetkit.training.scenes import Changes, Scene

BOXES = ("fasterrcnn_resnet50_fpn", "fasterrcnn_mobilenet_v3_large_320_fpn")
MASKS = ("fcn_resnet50", "lraspp_mobilenet_v3_large")
FLIPS = Changes(min_scale=1.0, max_scale=1.0, color=0.0)
LINE = r"^(\S.*): ([\d.]+) min, \d+ images: \S+ ([\d.]+) \(([\d.]+) to ([\d.]+)\)"


def box_peer(name: str, data: Boxed, held: list[int], options: argparse.Namespace) -> tuple[nn.Module, Any, Any]:
    """A detector of torchvision's, its loss of a batch in 0..1, and its scores."""
    size = {"min_size": min(options.size), "max_size": max(options.size)}
    build = getattr(torchvision.models.detection, name)
    network = build(weights=None, weights_backbone=None, num_classes=len(data.classes) + 1, **size)

    def loss(images: Tensor, seen: list[Scene]) -> Tensor:
        targets = [{"boxes": scene.boxes, "labels": scene.labels + 1} for scene in seen]
        return torch.stack(list(network(list(images), targets).values())).sum()

    def found(row: int) -> Found:
        scene = ours.scene_of(data, row, int(data.truth.sizes[data.targets[row]].max()))
        answer = network([scene.image.float() / 255])[0]
        return Found(answer["boxes"].numpy(), answer["labels"].numpy() - 1, answer["scores"].numpy())

    def score() -> dict[str, Any]:
        network.eval()
        with torch.inference_mode():
            answers = [found(row) for row in held]
        return ours.told(boxes.metrics(answers, [data.objects(row) for row in held], data.classes))

    return network, loss, score


def mask_peer(name: str, data: Masked, held: list[int], options: argparse.Namespace) -> tuple[nn.Module, Any, Any]:
    """A segmenter of torchvision's, likewise."""
    k = len(data.classes)
    network = getattr(torchvision.models.segmentation, name)(weights=None, weights_backbone=None, num_classes=k)

    def loss(images: Tensor, seen: list[Scene]) -> Tensor:
        out = network(scenes.normalised(images.clone()))["out"]
        return nn.functional.cross_entropy(out, scenes.mask_targets(seen), ignore_index=scenes.IGNORE)

    def confusion(row: int) -> Any:
        scene = ours.scene_of(data, row, 0)
        small = nn.functional.interpolate(scene.image[None].float() / 255, tuple(options.size), mode="bilinear")
        logits = network(scenes.normalised(small))["out"]
        full = nn.functional.interpolate(logits, scene.image.shape[1:], mode="bilinear", align_corners=False)
        return masks.confusion(full.argmax(1)[0].numpy().astype(np.uint8), data.mask(row), k)

    def score() -> dict[str, Any]:
        network.eval()
        with torch.inference_mode():
            return ours.told(masks.metrics(np.stack([confusion(row) for row in held]), data.classes))

    return network, loss, score


def run_peer(peer: tuple[nn.Module, Any, Any], stored: list[Scene], options: argparse.Namespace) -> Iterator[Any]:
    """Train until the minutes are over, as `scenes.run`."""
    network, loss_of, score = peer
    rate = 0.005 if options.task == "boxes" else 0.02
    optimizer = torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9, weight_decay=1e-4)
    limit, spent, moment, step = 60 * options.minutes, 0.0, 1, 0
    network.train()
    while spent < limit:
        started = time.process_time()
        rows = np.random.default_rng([0, step]).choice(len(stored), options.batch, replace=False)
        chosen = [stored[row] for row in rows]
        images, seen = scenes.augmented(chosen, tuple(options.size), FLIPS, draws(0, step, options.batch))
        # warm-up, then the polynomial decay of torchvision's scripts
        optimizer.param_groups[0]["lr"] = rate * min(1, (step + 1) / 60) * (1 - min(1, spent / limit)) ** 0.9
        loss = loss_of(images, seen)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step, spent = step + 1, spent + time.process_time() - started
        if spent >= limit * moment / options.scores:
            images_seen = step * options.batch
            yield {"minutes": spent / 60, "step": step, "images": images_seen, "scores": score()}
            network.train()
            moment += 1


def contest(options: argparse.Namespace) -> None:
    """All contestants, a line for each moment."""
    boxed = options.task == "boxes"
    scan: Any = ours.box_data.scan if boxed else partial(ours.mask_data.scan, ignore=options.ignore)
    data = scan(options.data)
    side = round(ours.STORE * max(options.size))
    stored = [ours.scene_of(data, row, side) for split in ("train", "val") for row in ours.rows_of(data, split)]
    held, headline = ours.rows_of(data, "test"), boxes.HEADLINE if boxed else masks.HEADLINE
    for weights, label in ((options.weights, "resnetkit"), (None, "resnetkit, from scratch")):
        options.weights = weights
        work = (ours.box_work if boxed else ours.mask_work)(data, held, options)
        for line in ours.run(work, stored, options):
            print(f"{label}: {ours.words(line, headline)}", flush=True)
    for name in BOXES if boxed else MASKS:
        torch.manual_seed(0)
        peer = (box_peer if boxed else mask_peer)(name, data, held, options)
        for line in run_peer(peer, stored, options):
            print(f"torchvision {name}: {ours.words(line, headline)}", flush=True)


def draw(path: Path, files: list[Path]) -> None:
    """Scores against minutes of training, with intervals, one panel a file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(files), 3.6), layout="constrained")
    for axis, file in zip(np.atleast_1d(figure.subplots(1, len(files))), files, strict=True):
        found: dict[str, list[list[float]]] = {}
        for name, *numbers in re.findall(LINE, file.read_text(encoding="utf-8"), re.MULTILINE):
            found.setdefault(name, []).append([float(number) for number in numbers])
        for name, rows in found.items():
            minutes, values, low, high = np.array(rows).T
            axis.plot(minutes, values, marker="o", markersize=3, label=name)
            axis.fill_between(minutes, low, high, alpha=0.15)
        axis.set(xlabel="minutes of training, one core", ylabel="AP50" if "fasterrcnn" in str(found) else "mIoU")
        axis.set_ylim(0, 1)
        axis.grid(alpha=0.3)
        axis.legend(frameon=False, fontsize="x-small")
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", nargs="?", choices=["boxes", "masks"])
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--weights", type=Path, help="of resnetkit's backbone")
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--size", type=int, nargs=2, default=(240, 320), help="height and width")
    parser.add_argument("--ignore", nargs="*", default=[], help="values of masks that are no class")
    parser.add_argument("--scores", type=int, default=4, help="how often to score")
    parser.add_argument("--picture", type=Path, nargs="+", help="draw the first from the other files")
    options = parser.parse_args()
    if options.picture:
        draw(options.picture[0], options.picture[1:])
        return
    vars(options).update(variant="resnet34", network=None, width=None, batch=4, backbone_lr=0.3, flip_vertical=0.0)
    vars(options).update(lr=1e-3 if options.task == "boxes" else 2e-3, live=True, out=None)
    torch.set_num_threads(1)
    contest(options)


if __name__ == "__main__":
    main()
