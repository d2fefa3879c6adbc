"""A residual network that tells speakers apart: log-mel spectra to embeddings whose cosine says "the same voice".

The r-vector of Zeinali et al. 2019 (arXiv 1910.12592, table 2): a ResNet of 32, 64, 128 and 256 channels without
pooling in its stem, the mean and the deviation over time of its last maps, and a linear layer. With 80 bands and an
embedding of 256 it has the 6.63 M parameters that wespeaker gives for its ResNet34.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resnetkit.nn.blocks import BasicBlock
from resnetkit.nn.resnet import ResNet
from resnetkit.ops.verification import EPSILON, SCALE

MARGIN = 0.2


class StatisticsPooling(nn.Module):
    """Mean and deviation over time of every channel and band (Snyder et al. 2018, x-vectors)."""

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, F, T] to [N, 2 C F]: the means, then the deviations."""
        x = torch.flatten(x, 1, 2)
        mean = x.mean(2)
        variance = (x - mean[:, :, None]).square().mean(2)
        return torch.cat([mean, (variance + EPSILON).sqrt()], 1)


class CosineHead(nn.Module):
    """Logits that are scaled cosines between an embedding and each class: s cos(theta), without bias.

    Args:
        in_features: length of an embedding.
        num_classes: number of logits.
        scale: s.
    """

    def __init__(self, in_features: int, num_classes: int, scale: float = SCALE) -> None:
        super().__init__()
        self.scale = scale
        self.weight = nn.Parameter(torch.empty(num_classes, in_features))
        nn.init.xavier_normal_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings [N, in_features] to logits [N, num_classes] in -scale..scale."""
        return self.scale * F.linear(F.normalize(x), F.normalize(self.weight))


def with_margin(logits: Tensor, targets: Tensor, margin: float = MARGIN, scale: float = SCALE) -> Tensor:
    """Logits whose cross-entropy is the additive-margin softmax loss: s (cos(theta) - m) for the target.

    Wang et al. 2018, arXiv 1801.05599, equation 5.

    Args:
        logits: of a `CosineHead` [N, K].
        targets: class indices [N], or shares of the classes [N, K].
        margin: m, by which the target's cosine has to be larger than it would need to be.
        scale: s of the head.
    """
    shares = targets if targets.ndim == 2 else F.one_hot(targets, logits.shape[1])
    return logits - scale * margin * shares.to(logits.dtype)


class SpeakerResNet(ResNet):
    """Log-mel spectra [N, 1, mels, T] of any T to logits of the speakers that it is trained with [N, num_classes].

    Args:
        num_classes: speakers to train with.
        mels: bands of the spectra.
        layers: blocks of each stage, (3, 4, 6, 3) for ResNet-34.
        width: channels of the first stage.
        embedding: numbers of an embedding.
        scale: of the `CosineHead`.
        margin: that a training is to keep between speakers, see `with_margin`; the network itself has no use for it.
        copies: of every speaker, made of its voice, that training tells apart too; see `training.hearing`.
    """

    others: CosineHead | None

    def __init__(
        self,
        num_classes: int,
        *,
        mels: int = 80,
        layers: Sequence[int] = (3, 4, 6, 3),
        width: int = 32,
        embedding: int = 256,
        scale: float = SCALE,
        margin: float = MARGIN,
        copies: int = 0,
    ) -> None:
        super().__init__(BasicBlock, layers, 1, in_channels=1, width=width, stem="small")
        self.scale, self.margin = scale, margin
        halvings = len(layers) - 1
        bands = -(-mels // 2**halvings)
        self.mels = mels
        self.avgpool = StatisticsPooling()  # type: ignore[assignment]  # in the place of a mean
        self.seg_1 = nn.Linear(2 * width * 2**halvings * bands, embedding)
        self.fc = CosineHead(embedding, num_classes, scale)  # type: ignore[assignment]
        self.others = CosineHead(embedding, num_classes * copies, scale) if copies else None

    def forward_head(self, features: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The stages' features to the embedding [N, embedding] and the logits [N, num_classes].

        In training there are as many logits more for each copy.
        """
        embedding = self.seg_1(self.avgpool(list(features.values())[-1]))
        logits = self.fc(embedding)
        if self.others is None or not self.training:
            return embedding, logits
        return embedding, torch.cat([logits, self.others(embedding)], 1)
