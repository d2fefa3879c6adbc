"""A deeper network that computes the same: blocks are added whose residual branch is zero.

What enters a residual unit has passed a ReLU, so it is not negative; a unit whose branch ends in a BatchNorm of zero
weight and bias gives ReLU(0 + x) = x, bit for bit. Such blocks start as the identity (arXiv 1706.02677, section 5.1)
and learn from there: a trained ResNet-18 becomes a ResNet-34 that knows what it knew (compare Net2DeeperNet, arXiv
1511.05641).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

from torch import nn

from resnetkit.nn.blocks import PlainBlock
from resnetkit.nn.resnet import ResNet, initialise


def grow(network: ResNet, layers: Sequence[int]) -> ResNet:
    """A copy of a network with more blocks at the end of its stages; the same logits in evaluation, bit for bit.

    Args:
        network: with identity shortcuts inside its stages (any shortcut but C), and BatchNorm.
        layers: number of blocks of each stage, none fewer than now.

    Raises:
        ValueError: blocks would have to go, or new ones could not be the identity.
    """
    grown = copy.deepcopy(network)
    have = [len(stage) for stage in grown.stages.values()]
    if len(layers) != len(have) or any(new < old for new, old in zip(layers, have, strict=True)):
        raise ValueError(f"a network of {have} blocks cannot grow to {list(layers)}")
    first = grown.layer1[0]
    if network.shortcut == "C" or isinstance(first, PlainBlock) or not isinstance(first.last_norm, nn.BatchNorm2d):
        raise ValueError("only networks with identity shortcuts and BatchNorm can grow")
    for stage, count in zip(grown.stages.values(), layers, strict=True):
        stage.extend(_identity(stage[-1]) for _ in range(count - len(stage)))
    return grown


def _identity(block: nn.Module) -> nn.Module:
    """A fresh block of the same shape, whose residual branch is zero."""
    if block.downsample is not None:
        raise ValueError("a stage of one block, which changes the shape, cannot grow")
    fresh = copy.deepcopy(block)
    for module in fresh.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
    initialise(fresh, zero_init_residual=True)
    return fresh
