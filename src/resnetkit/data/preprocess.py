"""How an image is prepared for a network: one frozen value, which travels in model.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from resnetkit.data.bands import MAX_CHANNELS
from resnetkit.data.prepared import prepared_from

Resize = Literal["crop", "squash", "letterbox", "window"]
Interpolation = Literal["bilinear", "bicubic"]
LARGEST = 16_384  # pixels of a side


@dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class Preprocess:
    """From upright RGB pixels to the input of a network.

    Attributes:
        size: height of the result in pixels, and its width unless that is given.
        resize: "crop" takes the centre square, "squash" the whole image without its proportions, "letterbox" the whole
            image with bars in the colour of the mean; "window" does not resize: what is larger is seen through windows.
        crop_ratio: side of the centre square as a share of the image's short side (crop only), 0..1.
        interpolation: filter of the resize; always with antialiasing, as Pillow does it.
        mean, std: per channel, of pixels in 0..1; their number is that of the channels (1 grey, 3 RGB,
            others as they come).
        background: grey level 0..255 under transparent pixels.
        draft: a JPEG is decoded at the smallest of 1/1, 1/2, 1/4 and 1/8 of its size, in whole pixels, at which either
            side still has this many times the pixels that the resize leaves of it; from 1, or 0 to decode it whole.
        width: of the result in pixels; 0 is a square.
    """

    size: Annotated[int, Field(ge=8, le=LARGEST)] = 224
    resize: Resize = "crop"
    crop_ratio: Annotated[float, Field(gt=0, le=1)] = 0.875
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    background: Annotated[int, Field(ge=0, le=255)] = 255
    draft: Annotated[float, Field(ge=0, le=64)] = 2.0
    width: Annotated[int, Field(ge=0, le=LARGEST)] = 0

    def __post_init__(self) -> None:
        if not 1 <= len(self.mean) <= MAX_CHANNELS or len(self.mean) != len(self.std) or min(self.std) <= 0:
            raise ValueError(f"mean and std need as many numbers, 1 to {MAX_CHANNELS}, std above 0")
        if 0 < self.draft < 1:
            raise ValueError("draft is 0 or from 1")
        if self.width and self.resize == "crop":
            raise ValueError("a crop is a square: it has no width of its own")

    @property
    def channels(self) -> int:
        """Number of channels of the network's input."""
        return len(self.mean)

    @property
    def canvas(self) -> tuple[int, int]:
        """Height and width of the network's input in pixels."""
        return self.size, self.width or self.size

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the pixels of an image."""
        return *self.canvas, self.channels

    @property
    def dtype(self) -> type[np.uint8]:
        """Of the pixels of an image."""
        return np.uint8

    def as_dict(self) -> dict[str, Any]:
        """As it stands in model.json; a square has no width there, as before there were others."""
        values = asdict(self)
        return values if self.width else {name: value for name, value in values.items() if name != "width"}


def mean_and_std(channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """ImageNet's, which the published weights expect; of other channels than RGB, that of their brightness for each."""
    if channels == 3:
        return (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return (0.449,) * channels, (0.226,) * channels


def preprocess_from(values: Mapping[str, Any], path: Path) -> Preprocess:
    """The Preprocess in a model.json at `path`; one without `draft` is older than it, and meant 0.

    Raises:
        ModelError: it is missing or not valid.
    """
    return prepared_from(Preprocess, {"draft": 0.0, **values}, path)
