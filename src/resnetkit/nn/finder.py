"""A detector or a segmenter as prediction needs it: images of one size to what is found in each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from resnetkit.nn.detection import BOXES, FCOS, LABELS, MASKS, SCORES, FasterRCNN, Found, MaskRCNN, RetinaNet
from resnetkit.nn.segmentation import OUT


class Finder(nn.Module):
    """A network with the choice of its boxes in one call.

    Args:
        network: from `nn.detection.detector` or `nn.segmentation.segmenter`.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Found | Tensor:
        """Normalised images [N, C, H, W] to the boxes of each, or to logits [N, K, H, W]."""
        if isinstance(self.network, RetinaNet | FCOS | FasterRCNN | MaskRCNN):
            return self.network.decode(self.network.raw(images), [(images.shape[2], images.shape[3])] * len(images))
        logits: Tensor = self.network(images)[OUT]
        return logits


class FromPixels(nn.Module):
    """A `Finder` with the normalisation before it, as an export holds it.

    Args:
        finder: in evaluation mode.
        mean, std: of each channel, of pixels in 0..1.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, finder: Finder, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.finder = finder
        self.register_buffer("mean", 255 * torch.tensor(mean)[:, None, None])
        self.register_buffer("std", 255 * torch.tensor(std)[:, None, None])
        self.eval()

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Canvases uint8 [N, H, W, C] to boxes [n, 4], labels [n] and scores [n] of the one, or logits [N, K, H, W].

        Where masks are found, also what is in each box [n, s, s].
        """
        found = self.finder((pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std)
        if isinstance(found, list):
            return tuple(found[0][name] for name in (BOXES, LABELS, SCORES, MASKS) if name in found[0])
        return (found,)
