"""Boxes or masks learnt on a CPU within a time limit: a plain loop, and a line of scores against minutes.

    python bench/scenes.py boxes DATA --weights resnet34.safetensors --minutes 60
    python bench/scenes.py masks DATA --weights resnet34.safetensors --minutes 60 --ignore 11

DATA is read in place (COCO JSON, Pascal VOC, YOLO; images with masks). Without --split it learns from train and scores
val; with --split test it learns from train and val and scores test. The defaults are what was found to work with
ResNet-34 at 240 x 320: FCOS of width 128, a U-Net of width 24, AdamW with a short warm-up and a cosine that ends with
the minutes, batches of 4, frozen BatchNorm, objects 0.75 to 1.5 times as large, mirror images and colours. Minutes are
those of one core's processor time that training takes; what scoring takes is not among them.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from resnetkit import models
from resnetkit.data import boxes as box_data
from resnetkit.data import image
from resnetkit.data import masks as mask_data
from resnetkit.data.annotated import Boxed
from resnetkit.data.dataset import CODES
from resnetkit.data.masks import Masked
from resnetkit.nn import detection, segmentation
from resnetkit.ops.boxes import scale
from resnetkit.ops.matching import Found
from resnetkit.tasks import boxes, masks
from resnetkit.training import scenes
from resnetkit.training.augment import draws
from resnetkit.training.scenes import Changes, Scene
from resnetkit.weights.fit import fit
from resnetkit.weights.read import read_state

WARM_UP = 60  # steps
STORE = 1.25  # how far stored images are larger than the canvas, so that crops keep their detail
Step = Callable[[Tensor, list[Scene]], Tensor]


@dataclass(frozen=True)
class Work:
    """A network and what is done with it: `loss` of a batch, and `score` of the held-out images."""

    network: nn.Module
    loss: Step
    score: Callable[[], dict[str, Any]]


def scene_of(dataset: Boxed | Masked, row: int, side: int) -> Scene:
    """A sample as tensors; images with boxes at most `side` pixels long, those with masks as they are."""
    if isinstance(dataset, Masked):
        mask = dataset.mask(row)
        picture = image.picture(dataset.files[row], max(mask.shape))
        nothing = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
        return Scene(pixels_of(picture), *nothing, torch.from_numpy(mask.copy()))
    picture, objects = image.picture(dataset.files[row], side), dataset.objects(row)
    width, height = dataset.truth.sizes[dataset.targets[row]].tolist()
    own = scale(objects.boxes, picture.width / width, picture.height / height)[~objects.crowds]
    return Scene(pixels_of(picture), torch.from_numpy(own), torch.from_numpy(objects.labels[~objects.crowds]))


def pixels_of(picture: Any) -> Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def seen_whole(scene: Scene, canvas: tuple[int, int]) -> tuple[Tensor, scenes.View]:
    """The network's input for a whole image, and where it lies in it."""
    view = scenes.whole((scene.image.shape[1], scene.image.shape[2]), canvas)
    return scenes.normalised(scenes.shown(scene, view, canvas).image[None].float() / 255), view


def box_work(data: Boxed, held: list[int], options: argparse.Namespace) -> Work:
    network = detection.detector(
        options.network or "fcos",
        backbone(options),
        len(data.classes),
        detection.Options(
            width=options.width or 128,
            score_threshold=0.02,
            freeze_norms=options.weights is not None,
            trained_stages=4 if options.weights else 5,
        ),
    )
    canvas = tuple(options.size)

    def found(row: int) -> Found:
        size = data.truth.sizes[data.targets[row]]
        inputs, view = seen_whole(scene_of(data, row, int(size.max())), canvas)
        answer = network.decode(network.raw(inputs), [canvas])[0]
        corners = answer["boxes"].numpy() / view.scale + np.array([view.left, view.top] * 2)
        return Found(corners, answer["labels"].numpy(), answer["scores"].numpy())

    def score() -> dict[str, Any]:
        network.eval()
        with torch.inference_mode():
            answers = [found(row) for row in held]
        return told(boxes.metrics(answers, [data.objects(row) for row in held], data.classes))

    return Work(network, lambda x, seen: scenes.box_loss(network.losses(x, scenes.box_targets(seen))), score)


def mask_work(data: Masked, held: list[int], options: argparse.Namespace) -> Work:
    k = len(data.classes)
    own = segmentation.Options(width=options.width or 24, freeze_norms=not options.live)
    network = segmentation.segmenter(options.network or "unet", backbone(options), k, own)
    weights = scenes.pixel_weights(data.counts("train"))
    canvas = tuple(options.size)

    def confusion(row: int) -> Any:
        scene = scene_of(data, row, 0)
        inputs, view = seen_whole(scene, canvas)
        logits = network(inputs)["out"]
        height, width = scene.image.shape[1:]
        top, left = round(-view.top * view.scale), round(-view.left * view.scale)
        inside = logits[:, :, top : top + round(height * view.scale), left : left + round(width * view.scale)]
        full = nn.functional.interpolate(inside, (height, width), mode="bilinear", align_corners=False)
        return masks.confusion(full.argmax(1)[0].numpy().astype(np.uint8), data.mask(row), k)

    def score() -> dict[str, Any]:
        network.eval()
        with torch.inference_mode():
            return told(masks.metrics(np.stack([confusion(row) for row in held]), data.classes))

    def loss(x: Tensor, seen: list[Scene]) -> Tensor:
        return scenes.mask_loss(network(x), scenes.mask_targets(seen), weights, 0.5)

    return Work(network, loss, score)


def told(metrics: Any) -> dict[str, Any]:
    return {name: metric.as_dict() for name, metric in metrics.items()}


def backbone(options: argparse.Namespace) -> Any:
    torch.manual_seed(0)
    network = models.build(options.variant, num_classes=2)
    if options.weights:
        fit(network, read_state(options.weights), str(options.weights))
    return network


def batches(stored: list[Scene], options: argparse.Namespace) -> Iterator[tuple[Tensor, list[Scene]]]:
    step = 0
    while True:
        rows = np.random.default_rng([0, step]).choice(len(stored), options.batch, replace=len(stored) < options.batch)
        changes = Changes(flip_vertical=options.flip_vertical)
        chosen = [stored[row] for row in rows]
        images, seen = scenes.augmented(chosen, tuple(options.size), changes, draws(0, step, options.batch))
        yield scenes.normalised(images), seen
        step += 1


def optimizer_of(network: nn.Module, backbone_lr: float) -> torch.optim.Optimizer:
    """AdamW; the backbone learns more slowly."""
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            own = name.startswith("backbone.") and ".fpn." not in name
            groups[own].append(parameter)
    shares = [{"params": group, "share": backbone_lr if own else 1.0} for own, group in groups.items() if group]
    return torch.optim.AdamW(shares, lr=0.0, weight_decay=0.01, fused=True)


def run(work: Work, stored: list[Scene], options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Train until the minutes are over; yields what the scores are at each of --scores moments."""
    optimizer = optimizer_of(work.network, options.backbone_lr)
    limit, spent, moment = 60 * options.minutes, 0.0, 1
    work.network.train()
    for step, (x, seen) in enumerate(batches(stored, options)):
        started = time.process_time()
        factor = min(1, (step + 1) / WARM_UP) * (1 + math.cos(math.pi * min(1, spent / limit))) / 2
        for group in optimizer.param_groups:
            group["lr"] = options.lr * factor * group["share"]
        loss = work.loss(x, seen)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(work.network.parameters(), 5.0)
        optimizer.step()
        spent += time.process_time() - started
        if spent >= limit * moment / options.scores:
            yield {
                "minutes": spent / 60,
                "step": step + 1,
                "images": (step + 1) * options.batch,
                "scores": work.score(),
            }
            work.network.train()
            moment += 1
        if spent >= limit:
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["boxes", "masks"])
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", type=Path, help="of the backbone; from scratch without")
    parser.add_argument("--variant", default="resnet34")
    parser.add_argument("--network", help="fcos, retinanet, fasterrcnn; unet, fcn, deeplabv3")
    parser.add_argument("--split", default="val", choices=["val", "test"])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--size", type=int, nargs=2, default=(240, 320), help="height and width")
    parser.add_argument("--width", type=int, help="of the heads or of the decoder")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--backbone-lr", type=float, default=0.3, help="share of the rate")
    parser.add_argument("--flip-vertical", type=float, default=0.0)
    parser.add_argument("--live", action="store_true", help="let the backbone's BatchNorm learn (masks)")
    parser.add_argument("--ignore", nargs="*", default=[], help="values of masks that are no class")
    parser.add_argument("--scores", type=int, default=4, help="how often to score")
    parser.add_argument("--out", type=Path, help="file for all scores as JSON lines")
    options = parser.parse_args()
    data: Boxed | Masked
    if options.task == "boxes":
        data = box_data.scan(options.data)
    else:
        data = mask_data.scan(options.data, ignore=options.ignore)
    for finding in data.findings:
        print(f"{finding.count} {finding.what}: {', '.join(finding.examples[:3])}")
    splits = ("train",) if options.split == "val" else ("train", "val")
    side = round(STORE * max(options.size))
    stored = [scene_of(data, row, side) for split in splits for row in rows_of(data, split)]
    make = box_work if isinstance(data, Boxed) else mask_work
    work = make(data, rows_of(data, options.split), options)  # type: ignore[arg-type]
    last: dict[str, Any] = {}
    for line in run(work, stored, options):
        print(words(line, boxes.HEADLINE if options.task == "boxes" else masks.HEADLINE), flush=True)
        last = line["scores"]
        if options.out:
            with options.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
    for name, value in last.items():
        there = value["value"] is not None
        text = f"{value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f})" if there else value["method"]
        print(f"  {name}: {text}")


def rows_of(data: Boxed | Masked, split: str) -> list[int]:
    return np.flatnonzero(data.splits == CODES.index(split)).tolist()


def words(line: dict[str, Any], headline: str) -> str:
    value = line["scores"][headline]
    score = f"{headline} {value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f})"
    return f"{line['minutes']:.1f} min, {line['images']} images: {score}"


if __name__ == "__main__":
    main()
