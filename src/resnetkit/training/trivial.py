"""The operations of TrivialAugment; apart, since importing torchvision takes a second and few trainings need them."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor
from torchvision.transforms.v2 import functional as V


def _shift(image: Tensor, x: float, y: float) -> Tensor:
    moved: Tensor = V.affine(image, 0.0, [round(x), round(y)], 1.0, [0.0, 0.0])
    return moved


# TrivialAugment's wide space (arXiv 2103.10158, table 2): an image [C, H, W] in 0..1 and a strength of -1..1.
TRIVIAL: tuple[Callable[[Tensor, float], Tensor], ...] = (
    lambda image, s: image,
    lambda image, s: V.affine(image, 0.0, [0, 0], 1.0, [math.degrees(math.atan(0.99 * s)), 0.0]),
    lambda image, s: V.affine(image, 0.0, [0, 0], 1.0, [0.0, math.degrees(math.atan(0.99 * s))]),
    lambda image, s: _shift(image, s * image.shape[-1] / 4, 0),
    lambda image, s: _shift(image, 0, s * image.shape[-2] / 4),
    lambda image, s: V.rotate(image, 135 * s),
    lambda image, s: V.adjust_brightness(image, 1 + 0.99 * s),
    lambda image, s: V.adjust_saturation(image, 1 + 0.99 * s) if image.shape[0] == 3 else image,
    lambda image, s: V.adjust_contrast(image, 1 + 0.99 * s),
    lambda image, s: V.adjust_sharpness(image, 1 + 0.99 * s),
    lambda image, s: V.posterize(image, 8 - round(6 * abs(s))),
    lambda image, s: V.solarize(image, 1 - abs(s)),
    lambda image, s: V.autocontrast(image),
    lambda image, s: V.equalize(image),
)

GEOMETRIC = 6  # the first of them move pixels, and take any number of channels
