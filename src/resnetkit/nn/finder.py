"""A detector or a segmenter as prediction needs it: images of one size to what is found in each."""

from __future__ import annotations

from torch import Tensor, nn

from resnetkit.nn.detection import FCOS, FasterRCNN, Found, RetinaNet
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
        if isinstance(self.network, RetinaNet | FCOS | FasterRCNN):
            return self.network.decode(self.network.raw(images), [(images.shape[2], images.shape[3])] * len(images))
        logits: Tensor = self.network(images)[OUT]
        return logits
