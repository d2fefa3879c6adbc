"""The peers of finetune.py, each with its own recipe; run by it, one process each.

Same files, same trunk weights, and the test images seen in the same way: the centre square resized to --size with
Pillow's antialiased bilinear filter, ImageNet's mean and standard deviation. What a recipe does to training images is
its own. Recipes that fine-tune make six passes over the training images, in batches of 32 (fastai's default is 64).

* fastai: `vision_learner(...).fine_tune(5)` as in its tutorials: default head, `aug_transforms()`, base_lr 2e-3, one
  frozen epoch before the five.
* torchvision: the loop of references/classification: random resized crop, mirror, SGD with momentum 0.9, weight decay
  1e-4, learning rate along a cosine; 0.001 for batches of 4 as in PyTorch's transfer learning tutorial, scaled with
  the batch.
* timm: `create_model`, `create_dataset`, `create_loader`, `create_optimizer_v2`, `create_scheduler_v2` as in its
  train.py, with that script's defaults for images (random resized crop, colour 0.4, mirror) and label smoothing 0.1;
  we found no documented setting to fine-tune with it, so these are ours, not tuned: AdamW, 5e-4, weight decay 0.05,
  layer decay 0.75, one epoch of warm-up, cosine to zero.
* linear-probe: the tutorial's "ConvNet as fixed feature extractor": the torchvision peer with a frozen trunk, which
  runs in every step, ten passes.
* tuned-probe: the same with a learning rate of 0.1 and three passes, which we found to reach on CIFAR's test images
  what the tutorial's rate reaches in ten (so the choice favours the peer): it shows how much of the time to a linear
  probe's accuracy is the recipe's choice of rate.

The clock starts where finetune.py starts the process, so imports and decoding count; measuring the accuracy on the test
images after each epoch does not. No peer validates: the accuracies after the last epoch are what they deliver.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PASSES, PROBE_PASSES, TUNED_PASSES, TUNED_RATE = 6, 10, 3, 0.1


def cpu() -> float:
    """CPU seconds of this process and of the loading workers that have ended."""
    return sum(os.times()[:4])


class Clock:
    """Seconds since the process was started, and its CPU seconds, without those spent on measuring accuracy."""

    def __init__(self, args: argparse.Namespace) -> None:
        from torchvision import transforms
        from torchvision.datasets import ImageFolder

        steps = [transforms.Resize(args.size), transforms.CenterCrop(args.size), transforms.ToTensor()]
        change = transforms.Compose([*steps, transforms.Normalize(MEAN, STD)])
        self.test = ImageFolder(str(args.root / "test"), change)
        self.started, self.cpu, self.points = args.started, 0.0, list[dict[str, float]]()
        self.every, self.passes = args.every, 0

    def mark(self, network: nn.Module) -> None:
        """Note the time and the accuracy on the test images after a pass, and stop the clock meanwhile."""
        self.passes += 1
        if self.passes % self.every:
            return
        now, spent = time.time(), cpu()
        was_training = network.training
        network.eval()
        with torch.inference_mode():
            right = sum(
                int((network(images).argmax(1) == targets).sum()) for images, targets in DataLoader(self.test, 50)
            )
        network.train(was_training)
        clocks = {"seconds": now - self.started, "cpu": spent - self.cpu}
        self.points.append({**clocks, "passes": self.passes, "accuracy": right / len(self.test), "n": len(self.test)})
        self.started += time.time() - now
        self.cpu += cpu() - spent


def trunk_of(path: Path) -> dict[str, torch.Tensor]:
    """The trunk's tensors in float32, by torchvision's names."""
    from safetensors.torch import load_file

    tensors = {name: tensor for name, tensor in load_file(path).items() if not name.startswith("fc.")}
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def load_trunk(network: nn.Module, path: Path) -> nn.Module:
    """`network` with the trunk's weights; only its head keeps its own."""
    missing, unexpected = network.load_state_dict(trunk_of(path), strict=False)
    left = {name for name in missing if not name.endswith("num_batches_tracked")}
    assert left <= {"fc.weight", "fc.bias"} and not unexpected, (left, unexpected)
    return network


def reference_loop(args: argparse.Namespace, clock: Clock, passes: int, rate: float, frozen: bool) -> None:
    """torchvision's; `frozen` trains the last layer only."""
    from torchvision import models, transforms
    from torchvision.datasets import ImageFolder

    steps = [transforms.RandomResizedCrop(args.size), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    data = ImageFolder(str(args.root / "train"), transforms.Compose([*steps, transforms.Normalize(MEAN, STD)]))
    loader = DataLoader(data, args.batch, shuffle=True, num_workers=args.workers)
    network = load_trunk(models.resnet34(num_classes=len(data.classes)), args.weights)
    if frozen:
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name.startswith("fc."))
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=rate, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, passes)
    criterion = nn.CrossEntropyLoss()
    for _ in range(passes):
        network.train()
        for images, targets in loader:
            loss = criterion(network(images), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
        clock.mark(network)


def torchvisions(args: argparse.Namespace, clock: Clock) -> None:
    """The reference loop with the tutorial's learning rate."""
    reference_loop(args, clock, args.passes or PASSES, 0.001 * args.batch / 4, frozen=False)


def linear_probe(args: argparse.Namespace, clock: Clock) -> None:
    """The same with a frozen trunk."""
    reference_loop(args, clock, args.passes or PROBE_PASSES, 0.001 * args.batch / 4, frozen=True)


def tuned_probe(args: argparse.Namespace, clock: Clock) -> None:
    """The same with a higher learning rate and fewer passes."""
    reference_loop(args, clock, args.passes or TUNED_PASSES, TUNED_RATE, frozen=True)


def timms(args: argparse.Namespace, clock: Clock) -> None:
    """The parts of timm's train.py."""
    import timm
    from timm.data import create_dataset, create_loader
    from timm.loss import LabelSmoothingCrossEntropy
    from timm.optim import create_optimizer_v2
    from timm.scheduler import create_scheduler_v2

    data = create_dataset("", root=str(args.root), split="train", is_training=True)
    loader = create_loader(
        data,
        input_size=(3, args.size, args.size),
        batch_size=args.batch,
        is_training=True,
        interpolation="random",
        num_workers=args.workers,
        mean=MEAN,
        std=STD,
        device=torch.device("cpu"),
        use_prefetcher=False,
        persistent_workers=args.workers > 0,
    )
    network = load_trunk(timm.create_model("resnet34", num_classes=len(clock.test.classes)), args.weights)
    optimizer = create_optimizer_v2(
        network, opt="adamw", lr=args.timm_lr, weight_decay=0.05, layer_decay=args.timm_decay
    )
    passes = args.passes or PASSES
    schedule, passes = create_scheduler_v2(
        optimizer,
        sched="cosine",
        num_epochs=passes,
        warmup_epochs=min(1, passes - 1),
        warmup_prefix=False,
        step_on_epochs=False,
        updates_per_epoch=len(loader),
    )
    criterion, updates = LabelSmoothingCrossEntropy(0.1), 0
    for _ in range(passes):
        network.train()
        for images, targets in loader:
            loss = criterion(network(images), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            updates += 1
            schedule.step_update(updates)
        clock.mark(network)


def fastais(args: argparse.Namespace, clock: Clock) -> None:
    """`fine_tune` of fastai, whose validation is replaced by the clock's mark."""
    from fastai.callback.core import Callback, CancelValidException
    from fastai.callback.schedule import Learner  # noqa: F401  gives learners their fine_tune
    from fastai.data.transforms import Normalize
    from fastai.torch_core import set_seed
    from fastai.vision.augment import Resize, aug_transforms
    from fastai.vision.data import ImageDataLoaders
    from fastai.vision.learner import create_body, vision_learner
    from torchvision.models import resnet34

    class Mark(Callback):
        def before_validate(self) -> None:
            clock.mark(self.learn.model)
            raise CancelValidException

    set_seed(args.seed)
    batch_transforms = [*aug_transforms(), Normalize.from_stats(MEAN, STD)]
    data = ImageDataLoaders.from_folder(
        args.root,
        train="train",
        valid="val",
        item_tfms=Resize(args.size),
        batch_tfms=batch_transforms,
        bs=args.batch,
        num_workers=args.workers,
        device=torch.device("cpu"),
    )
    learner = vision_learner(data, resnet34, pretrained=False, normalize=False, cbs=[Mark()])
    trunk = load_trunk(resnet34(num_classes=len(clock.test.classes)), args.weights)
    learner.model[0].load_state_dict(create_body(trunk, cut=-2).state_dict())
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune((args.passes or PASSES) - 1, base_lr=2e-3, freeze_epochs=1)


PEERS: dict[str, Callable[[argparse.Namespace, Clock], Any]] = {
    "linear-probe": linear_probe,
    "tuned-probe": tuned_probe,
    "fastai": fastais,
    "torchvision": torchvisions,
    "timm": timms,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("--root", type=Path, required=True, help="folder of train, val and test")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--passes", type=int, default=0, help="over the training images; 0: the recipe's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2, help="processes that load images")
    parser.add_argument("--every", type=int, default=1, help="passes from one measured accuracy to the next")
    parser.add_argument("--timm-lr", type=float, default=5e-4)
    parser.add_argument("--timm-decay", type=float, default=0.75, help="layer decay; 1: none")
    parser.add_argument("--started", type=float, default=time.time(), help="time.time() at the start of the process")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    clock = Clock(args)
    PEERS[args.peer](args, clock)
    print(json.dumps(clock.points))


if __name__ == "__main__":
    main()
