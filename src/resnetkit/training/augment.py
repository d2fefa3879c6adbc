"""Augmentation of whole batches on tensors; every number is drawn from one NumPy generator for (seed, step).

The pixels of the training set are stored squashed to squares; `aspects` (width / height of the original) undoes that in
the same resampling that crops and turns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from resnetkit.data.image import Preprocess
from resnetkit.settings import Augment

Floats = NDArray[np.floating]
# How far a batch of stored squares is larger than what the network sees, so that crops keep their detail.
STORE_RATIO = 1.15


@dataclass(frozen=True)
class Draws:
    """Random numbers of a step: drawn for its whole batch in every process, of which each keeps those of its samples.

    So the number of processes changes nothing.

    Attributes:
        rng: generator of the step.
        total: samples of the step over all processes.
        part: those of this process.
        device: where images are changed, as far as that is not faster on bytes.
    """

    rng: np.random.Generator
    total: int
    part: slice
    device: str = "cpu"

    def uniform(self, low: float, high: float, *shape: int) -> Floats:
        """Numbers [n, *shape] in low..high, for the n samples of this process."""
        return self.rng.uniform(low, high, (self.total, *shape))[self.part]

    def integers(self, stop: int) -> NDArray[np.integer]:
        """Integers [n] in 0..stop-1."""
        return self.rng.integers(0, stop, self.total)[self.part]


def draws(seed: int, step: int, total: int, part: slice | None = None, device: str = "cpu") -> Draws:
    """The one source of randomness of a step; `part` is this process's share of its samples, all by default."""
    return Draws(np.random.default_rng([seed, step]), total, slice(None) if part is None else part, device)


def crop_boxes(aspects: Floats, settings: Augment, rng: Draws) -> Floats:
    """Random resized crop (arXiv 1409.4842, section 6): centre x, y, half width, height [n, 4] in -1..1 of the image.

    A share of min_scale..1 of the area, proportions changed by at most max_aspect, inside the image.
    """
    area = rng.uniform(settings.min_scale, 1)
    ratio = np.exp(rng.uniform(-1, 1) * math.log(settings.max_aspect))
    width = np.minimum(np.sqrt(area * ratio / aspects), 1)
    height = np.minimum(np.sqrt(area / ratio * aspects), 1)
    x, y = rng.uniform(-1, 1) * (1 - width), rng.uniform(-1, 1) * (1 - height)
    return np.stack([x, y, width, height], 1)


def centre_boxes(aspects: Floats, preprocess: Preprocess) -> Floats:
    """What the network sees of an image in evaluation, as boxes like those of `crop_boxes` [n, 4].

    The whole image where it is not cropped: letterboxing adds bars, which a part of an image cannot have.
    """
    width, height = np.minimum(1, 1 / aspects), np.minimum(1, aspects)
    if preprocess.resize != "crop":
        width = height = np.ones_like(aspects)
    ratio = preprocess.crop_ratio if preprocess.resize == "crop" else 1.0
    return np.stack([0 * aspects, 0 * aspects, ratio * width, ratio * height], 1)


def crops(pixels: Tensor, boxes: Floats, mirror: NDArray[np.bool_], size: int, device: str = "cpu") -> Tensor:
    """Boxes [n, 4] of uint8 [n, S, S, C], mirrored or not, resized with antialiasing: float32 [n, C, size, size].

    The bytes are resized by the CPU, and go to the device as bytes.
    """
    side = pixels.shape[1]
    first = np.clip(np.floor((boxes[:, :2] - boxes[:, 2:] + 1) / 2 * side).astype(int), 0, side - 1)
    last = np.clip(np.ceil((boxes[:, :2] + boxes[:, 2:] + 1) / 2 * side).astype(int), first + 1, side)
    channels_first = pixels.permute(0, 3, 1, 2)  # a view: resizing is fastest on bytes with channels last
    images = torch.empty(len(pixels), pixels.shape[3], size, size, dtype=torch.uint8)
    for i, (left, top, right, bottom) in enumerate(np.concatenate([first, last], 1).tolist()):
        crop = channels_first[i : i + 1, :, top:bottom, left:right]
        crop = F.interpolate(crop, (size, size), mode="bilinear", antialias=True)[0]
        images[i].copy_(crop.flip(2) if mirror[i] else crop)
    return images.to(device).float()


def turned_crops(pixels: Tensor, boxes: Floats, mirror: NDArray[np.bool_], degrees: Floats, size: int) -> Tensor:
    """As `crops`, turned by `degrees` [n] besides, in one resampling: float32 [n, C, size, size]."""
    x, y, width, height = boxes.T
    sign, angle = np.where(mirror, -1, 1), np.deg2rad(degrees)
    cos, sin = np.cos(angle), np.sin(angle)
    theta = np.stack([width * cos * sign, -width * sin, x, height * sin * sign, height * cos, y], 1)
    images = pixels.permute(0, 3, 1, 2).float()
    shape = [len(images), images.shape[1], size, size]
    moved = torch.from_numpy(theta.reshape(-1, 2, 3).astype(np.float32)).to(pixels.device)
    grid = F.affine_grid(moved, shape, align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def color(images: Tensor, strength: float, rng: Draws) -> Tensor:
    """Brightness, contrast and saturation of [n, C, H, W] in 0..1, in place; each scaled by 1 +- strength, by image."""
    if strength == 0:
        return images
    drawn = rng.uniform(1 - strength, 1 + strength, 3, 1, 1, 1).astype(np.float32)
    factors = torch.from_numpy(drawn).to(images.device).unbind(1)
    images.mul_(factors[0])
    mean = images.mean((1, 2, 3), keepdim=True)
    images.sub_(mean).mul_(factors[1]).add_(mean)
    if images.shape[1] == 3:
        grey = _grey(images)
        images.sub_(grey).mul_(factors[2]).add_(grey)
    return images.clamp_(0, 1)


def _grey(images: Tensor) -> Tensor:
    """Brightness by ITU-R BT.601 of RGB images [n, 3, H, W], as torchvision computes it: [n, 1, H, W]."""
    red, green, blue = images.unbind(1)
    return (red * 0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114)[:, None]


def trivial(images: Tensor, rng: Draws) -> Tensor:
    """TrivialAugment: for each image one operation of random strength; of colours for grey and RGB only."""
    from resnetkit.training.trivial import GEOMETRIC, TRIVIAL

    operations = TRIVIAL if images.shape[1] in (1, 3) else TRIVIAL[:GEOMETRIC]
    choices, strengths = rng.integers(len(operations)), rng.uniform(-1, 1)
    pairs = zip(images, choices, strengths, strict=True)
    return torch.stack([operations[choice](image, float(s)).clamp(0, 1) for image, choice, s in pairs])


def rectangles(size: int, areas: Floats, rng: Draws) -> Tensor:
    """Boolean masks [n, 1, size, size] of one rectangle each, of the share `areas` [n] of the image or less."""
    ratio = np.exp(rng.uniform(-1, 1) * math.log(3.3))
    halves = np.stack([np.sqrt(areas * ratio), np.sqrt(areas / ratio)], 1)[:, :, None] * size / 2
    centres = rng.uniform(0, size, 2, 1)
    inside = np.abs(np.arange(size) + 0.5 - centres) < halves
    return torch.from_numpy(inside[:, 0, None, :, None] & inside[:, 1, None, None, :])


def erase(images: Tensor, probability: float, rng: Draws) -> Tensor:
    """Random erasing: a rectangle of 2 to 33 % of the normalised image becomes 0, its mean."""
    if probability == 0:
        return images
    mask = rectangles(images.shape[-1], rng.uniform(0.02, 0.33), rng)
    chosen = torch.from_numpy(rng.uniform(0, 1, 1, 1, 1) < probability)
    return images.masked_fill((mask & chosen).to(images.device), 0.0)


def mix(images: Tensor, targets: Tensor, settings: Augment, rng: Draws) -> tuple[Tensor, Tensor]:
    """Mixup or cutmix of a batch with itself in another order, within each process; targets [n, K] are mixed alike."""
    active = [name for name, alpha in (("mixup", settings.mixup), ("cutmix", settings.cutmix)) if alpha > 0]
    if not active:
        return images, targets
    chosen = active[rng.rng.integers(len(active))]
    other = torch.from_numpy(rng.rng.permutation(len(images)))
    share = float(
        rng.rng.beta(settings.mixup, settings.mixup)
        if chosen == "mixup"
        else rng.rng.beta(settings.cutmix, settings.cutmix)
    )
    if chosen == "mixup":
        return images.lerp(images[other], 1 - share), targets.lerp(targets[other], 1 - share)
    mask = rectangles(images.shape[-1], np.array([1 - share]), Draws(rng.rng, 1, slice(None)))
    covered = float(mask.float().mean())
    return torch.where(mask.to(images.device), images[other], images), targets.lerp(targets[other], covered)


def augment(pixels: Tensor, aspects: Floats, size: int, settings: Augment, rng: Draws) -> Tensor:
    """Stored squares to what the network sees, but for the normalisation.

    Args:
        pixels: uint8 [n, S, S, C], squashed.
        aspects: width / height of the originals [n].
        size: height and width of the result.
        settings: what is changed and how much.
        rng: the step's random numbers.

    Returns:
        float32 [n, C, size, size] in 0..1, on the device of `rng`.
    """
    boxes = crop_boxes(aspects, settings, rng)
    mirror = rng.uniform(0, 1) < (0.5 if settings.flip else 0.0)
    degrees = rng.uniform(-settings.rotate, settings.rotate)
    if settings.rotate:
        images = turned_crops(pixels.to(rng.device), boxes, mirror, degrees, size)
    else:
        images = crops(pixels, boxes, mirror, size, rng.device)
    if settings.flip_vertical:
        upside_down = torch.from_numpy(rng.uniform(0, 1) < 0.5).to(images.device)
        images[upside_down] = images[upside_down].flip(2)
    images.div_(255)
    # of other channels it is not known what they measure
    images = color(images, settings.color if images.shape[1] in (1, 3) else 0.0, rng)
    return trivial(images, rng) if settings.trivial_augment else images
