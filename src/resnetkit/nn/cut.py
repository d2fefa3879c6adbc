"""A network cut in two after a stage: what is frozen and runs once for each image, and what learns."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from resnetkit.nn.resnet import ResNet


def cut(network: ResNet, after: str) -> tuple[nn.Sequential, nn.Sequential]:
    """The network up to and including `after`, and the rest, with the network's own modules under their own names.

    Args:
        network: whole; what the parts learn, it has learnt.
        after: "layer1" .. "layer4", or "avgpool" to leave the head alone.

    Returns:
        Images [N, in_channels, H, W] to maps, and these to logits [N, num_classes].
    """
    parts = list(network.named_children())
    index = [name for name, _ in parts].index(after) + 1
    *middle, head = parts[index:]
    return nn.Sequential(OrderedDict(parts[:index])), nn.Sequential(
        OrderedDict([*middle, ("flatten", nn.Flatten()), head])
    )
