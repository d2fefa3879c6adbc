"""The CIFAR networks of He et al. 2015, section 4.2: 6n + 2 layers for images of 32 px.

A 3x3 stem without pooling, then three stages of n blocks with 16, 32 and 64 channels at 32, 16 and 8 px, global average
pooling and a linear layer. Shortcuts are of kind A, so a residual network has the parameters of its plain twin:

    n     3       5       7       9       18
    6n+2  20      32      44      56      110
          0.27 M  0.46 M  0.66 M  0.85 M  1.7 M
"""

from __future__ import annotations

from resnetkit.nn.blocks import BasicBlock
from resnetkit.nn.resnet import ResNet

WIDTH = 16


def cifar_layers(depth: int) -> tuple[int, int, int]:
    """Blocks of the three stages of a network of `depth` = 6n + 2 layers.

    Raises:
        ValueError: the depth is none of these.
    """
    n, rest = divmod(depth - 2, 6)
    if n < 1 or rest:
        raise ValueError(f"depth must be 6n + 2 (20, 32, 44, 56, 110, ...), not {depth}")
    return n, n, n


def cifar_resnet(depth: int, num_classes: int = 10, block: type[BasicBlock] = BasicBlock) -> ResNet:
    """The residual network of `depth` layers: images [N, 3, 32, 32] to logits [N, num_classes].

    Args:
        depth: 20, 32, 44, 56, 110, ...
        num_classes: number of logits.
        block: `PlainBlock` for the plain twin.

    Raises:
        ValueError: the depth is not 6n + 2.
    """
    return ResNet(block, cifar_layers(depth), num_classes, width=WIDTH, stem="small", shortcut="A")
