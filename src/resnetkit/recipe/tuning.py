"""Settings of what is learnt beside, or before, the whole network."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from resnetkit.recipe.kinds import STRICT, Auto, Share


@dataclass(frozen=True, config=STRICT)
class Finetune:
    """What is learnt on stored features of the frozen network, before all of it learns in train.epochs."""

    head: bool = True
    """Fit the last layer alone first, on features that are computed once; only with weights."""
    keep_statistics: bool = True
    """BatchNorm keeps the means and deviations that the weights came with, and learns its scale and shift only."""
    views: Annotated[int, Field(ge=0, le=64)] | Auto = "auto"
    """Augmented views of each image whose maps of layer3 are stored, so that layer4 and the head learn from them; 0: no
    such stage; auto: as many as a time limit allows, 0 without one."""
    layer4_epochs: Annotated[int, Field(ge=0, le=100_000)] | Auto = "auto"
    """Passes over the training images of that stage, one view in each."""
    engine: Literal["auto", "torch", "onnxruntime", "openvino", "ncnn"] = "auto"
    """What runs the frozen network on a CPU; auto: the fastest that gives torch's answers, where it is worth measuring;
    elsewhere, and in several processes, torch."""


@dataclass(frozen=True, config=STRICT)
class Grow:
    """Train a shallower network first, and let it grow into model.variant on the way."""

    from_: str = ""
    """The variant to begin with, as resnet18 for resnet34; model.weights are its own; "": none."""
    at: Share = 0.5
    """Share of the steps after which it grows."""
