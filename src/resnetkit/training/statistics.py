"""BatchNorm's statistics for images that the weights were not trained on."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

IMAGES = 512  # that are looked at, at most
PRIOR = 256  # images whose weight the statistics that came with the weights have


@torch.no_grad()
def renew(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Move the mean and variance of each BatchNorm towards those of some images, which need no labels.

    Of n images they are n / (n + PRIOR) of the way there (arXiv 2006.16971, equation 1; after AdaBN, 1603.04779).
    The network is in evaluation mode afterwards.

    Args:
        network: with statistics that fit its weights.
        batches: of inputs [m, C, H, W] on the network's device, of two or more each.
    """
    network.eval()
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    known = [({name: buffer.clone() for name, buffer in norm.named_buffers()}, norm.momentum) for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    count = 0
    for batch in batches:
        network(batch)
        count += len(batch)
    kept = PRIOR / (count + PRIOR)
    for norm, (before, momentum) in zip(norms, known, strict=True):
        for name, buffer in norm.named_buffers():
            buffer.copy_(buffer.lerp(before[name], kept) if buffer.is_floating_point() else before[name])
        norm.momentum = momentum
        norm.eval()
