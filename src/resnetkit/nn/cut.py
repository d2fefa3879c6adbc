"""A network cut in two after a stage: what is frozen and runs once for each image, and what learns."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from torch import Tensor, nn

from resnetkit.nn.resnet import ResNet, pooled

AVGPOOL = "avgpool"


class Pyramid(nn.Module):
    """The parts of a network up to its pooling, whose embedding is of all stages: images to [N, D, 1, 1]."""

    avgpool: nn.Module

    def __init__(self, parts: Iterable[tuple[str, nn.Module]]) -> None:
        super().__init__()
        for name, part in parts:
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        """Images [N, in_channels, H, W] to the pooled features of all stages, side by side."""
        maps = []
        for name, part in self.named_children():
            if name != AVGPOOL:
                x = part(x)
            if name.startswith("layer"):
                maps.append(x)
        return pooled(self.avgpool, maps)[:, :, None, None]


def front(network: ResNet, after: str) -> nn.Sequential:
    """The network up to and including `after`, with its own modules under their own names: images to maps.

    Args:
        network: whole.
        after: a stage, "layer1" .. "layer4", or "avgpool".
    """
    parts = list(network.named_children())
    return nn.Sequential(OrderedDict(parts[: [name for name, _ in parts].index(after) + 1]))


def cut(network: ResNet, after: str) -> tuple[nn.Module, nn.Sequential]:
    """The network up to and including `after`, and the rest, with the network's own modules under their own names.

    Args:
        network: whole; what the parts learn, it has learnt.
        after: "layer1" .. "layer4", or "avgpool" to leave the head alone.

    Returns:
        Images [N, in_channels, H, W] to maps, and these to logits [N, num_classes].

    Raises:
        ValueError: the head of a network with pool="all" needs what a cut after a stage leaves out.
    """
    parts = list(network.named_children())
    index = [name for name, _ in parts].index(after) + 1
    *middle, head = parts[index:]
    tail = nn.Sequential(OrderedDict([*middle, ("flatten", nn.Flatten()), head]))
    if network.pool == "last":
        return front(network, after), tail
    if after != AVGPOOL:
        raise ValueError(f'a network with pool="all" cannot be cut after {after}')
    return Pyramid(parts[:index]), tail


def last_cut(network: ResNet) -> str:
    """Where the last stage begins, for a network that can be cut there; else before the head."""
    return AVGPOOL if network.pool == "all" else f"layer{len(network.stages) - 1}"
