"""Residual networks in one dimension: for texts (VDCNN, and a small one) and for the samples of a sound.

    network      input               blocks            after Conneau et al. 2017 / Dai et al. 2017
    vdcnn        tokens [N, L]       9, 17, 29, 49     arXiv 1606.01781, figure 1 and table 2
    TextResNet   tokens [N, L]       one a stage       small, for thousands of texts, not millions
    WaveResNet   samples [N, 1, L]   M34-res           arXiv 1610.00087, table 1

Their stages are called as in the networks for images: conv1 bn1 layer1 .. layer4 fc, and downsample for the shortcut.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Shortcut = Literal["none", "A", "B"]
VDCNN_LAYERS = {9: (1, 1, 1, 1), 17: (2, 2, 2, 2), 29: (5, 5, 2, 2), 49: (8, 8, 5, 3)}  # blocks of two convolutions


def conv3(in_planes: int, out_planes: int, stride: int = 1) -> nn.Conv1d:
    """Convolution over three steps with padding, without bias: [N, in_planes, L] to [N, out_planes, ceil(L/stride)]."""
    return nn.Conv1d(in_planes, out_planes, 3, stride=stride, padding=1, bias=False)


def kmax(x: Tensor, k: int) -> Tensor:
    """The k largest values of each channel in the order in which they stand: [N, C, L] to [N, C, k].

    Kalchbrenner et al. 2014, arXiv 1404.2188, section 3.3. Where L < k, zeros follow. Of equal values the first are
    taken, here as in ONNX; after ReLU there are many, and `topk` would take any of them.
    """
    x = F.pad(x, (0, max(0, k - x.shape[-1])))
    places = torch.sort(x, dim=-1, descending=True, stable=True).indices[..., :k]
    return x.gather(-1, places.sort(-1).values)


class PadShortcut1d(nn.Module):
    """Shortcut A: the identity with zeros for the channels that are not there; no parameters."""

    def __init__(self, in_planes: int, out_planes: int) -> None:
        super().__init__()
        self.missing = out_planes - in_planes

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_planes, L] to [N, out_planes, L]."""
        return F.pad(x, (0, 0, 0, self.missing))


class Block1d(nn.Module):
    """Residual unit of two convolutions over three steps: ReLU(F(x) + shortcut(x)), or ReLU(F(x)) without one.

    The unit of He et al. 2015 (arXiv 1512.03385, section 3.3) in one dimension; the convolutional block of Conneau et
    al. (figure 2). F is conv1 bn1 relu conv2 bn2.

    Args:
        inplanes: channels that come in.
        planes: channels that go out.
        shortcut: "none", "A" (zeros for new channels) or "B" (a 1x1 convolution and a norm where channels change).
    """

    def __init__(self, inplanes: int, planes: int, shortcut: Shortcut = "B") -> None:
        super().__init__()
        self.conv1 = conv3(inplanes, planes)
        self.bn1 = nn.BatchNorm1d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = conv3(planes, planes)
        self.bn2 = nn.BatchNorm1d(planes)
        self.plain = shortcut == "none"
        self.downsample: nn.Module | None = None
        if inplanes != planes and shortcut == "A":
            self.downsample = PadShortcut1d(inplanes, planes)
        elif inplanes != planes and shortcut == "B":
            self.downsample = nn.Sequential(nn.Conv1d(inplanes, planes, 1, bias=False), nn.BatchNorm1d(planes))

    def forward(self, x: Tensor) -> Tensor:
        """[N, inplanes, L] to [N, planes, L]."""
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        if not self.plain:
            out = out + (x if self.downsample is None else self.downsample(x))
        return self.relu(out)  # type: ignore[no-any-return]


def _stages(network: nn.Module, layers: Sequence[int], width: int, shortcut: Shortcut) -> int:
    """Give a network layer1, layer2, ..., each twice as wide as the one before; the width of the last."""
    if shortcut not in ("none", "A", "B"):
        raise ValueError(f'shortcut must be "none", "A" or "B", not {shortcut!r}')
    if not layers or min(layers) < 1:
        raise ValueError(f"layers must be numbers of blocks, not {list(layers)}")
    inplanes = width
    for stage, blocks in enumerate(layers):
        planes = width * 2**stage
        units = [Block1d(inplanes if i == 0 else planes, planes, shortcut) for i in range(blocks)]
        setattr(network, f"layer{stage + 1}", nn.Sequential(*units))
        inplanes = planes
    return inplanes


def _initialise(network: nn.Module) -> None:
    """Kaiming for convolutions (arXiv 1502.01852, fan_out, ReLU); small vectors, which few texts can still turn."""
    for module in network.modules():
        if isinstance(module, nn.Conv1d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.1)
            with torch.no_grad():
                module.weight[0] = 0


class VDCNN(nn.Module):
    """The very deep convolutional network for texts: tokens [N, L] to logits [N, num_classes].

    Stages of 64, 128, 256 and 512 channels with max-pooling (3, stride 2) between them, then the k largest values of
    each channel, then `fc1`, `fc2` and `fc`. Any L will do; under 8 * k zeros fill up. The convolutions of 9, 17, 29
    and 49 layers have 1.58, 3.66, 4.03 and 7.15 M parameters; table 2 of the paper says 0.6 M more of each.

    Args:
        layers: blocks of each of the four stages.
        num_classes: number of logits.
        num_tokens: different tokens; token 0 is the padding, whose vector stays zero.
        shortcut: "none", "A" or "B", see `Block1d`. In the paper shortcuts help at 49 layers only (table 6).
        dim: of a token's vector.
        k: of the pooling before the head.
        hidden: width of `fc1` and `fc2`; 0 leaves both out, which suits small data.

    Raises:
        ValueError: an argument out of its range.
    """

    def __init__(
        self,
        layers: Sequence[int],
        num_classes: int,
        num_tokens: int = 257,
        *,
        shortcut: Shortcut = "none",
        dim: int = 16,
        k: int = 8,
        hidden: int = 2048,
    ) -> None:
        super().__init__()
        if len(layers) != 4 or k < 1:
            raise ValueError(f"layers must be four numbers of blocks and k above 0, not {list(layers)} and {k}")
        self.k, self.shortcut = k, shortcut
        self.embedding = nn.Embedding(num_tokens, dim, padding_idx=0)
        self.conv1 = conv3(dim, 64)
        planes = _stages(self, layers, 64, shortcut)
        self.maxpool = nn.MaxPool1d(3, stride=2, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.fc1 = nn.Linear(planes * k, hidden) if hidden else nn.Identity()
        self.fc2 = nn.Linear(hidden, hidden) if hidden else nn.Identity()
        self.fc = nn.Linear(hidden or planes * k, num_classes)
        _initialise(self)

    def forward_features(self, x: Tensor) -> dict[str, Tensor]:
        """Feature maps of the stages by name: C2 [N, 64, L], C3 [N, 128, L/2], C4 [N, 256, L/4], C5 [N, 512, L/8]."""
        x = self.conv1(self.embedding(x).transpose(1, 2))
        features = {}
        for stage in range(4):
            x = self.get_submodule(f"layer{stage + 1}")(x if stage == 0 else self.maxpool(x))
            features[f"C{stage + 2}"] = x
        return features

    def forward_head(self, features: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The features to the embedding, which is what `fc` sees, and the logits [N, num_classes]."""
        x = torch.flatten(kmax(features["C5"], self.k), 1)
        if isinstance(self.fc1, nn.Linear):
            x = self.relu(self.fc2(self.relu(self.fc1(x))))
        return x, self.fc(x)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [N, L] to logits [N, num_classes]."""
        return self.forward_head(self.forward_features(x))[1]


def vdcnn(
    depth: int,
    num_classes: int,
    num_tokens: int = 257,
    *,
    shortcut: Shortcut = "none",
    k: int = 8,
    hidden: int = 2048,
) -> VDCNN:
    """VDCNN of 9, 17, 29 or 49 layers (arXiv 1606.01781, table 2); the other arguments are those of `VDCNN`.

    Raises:
        ValueError: another depth, or an argument out of its range.
    """
    if depth not in VDCNN_LAYERS:
        raise ValueError(f"depth must be one of {', '.join(map(str, VDCNN_LAYERS))}, not {depth}")
    return VDCNN(VDCNN_LAYERS[depth], num_classes, num_tokens, shortcut=shortcut, k=k, hidden=hidden)


class TextResNet(nn.Module):
    """A small residual network for texts: tokens [N, L] to logits [N, num_classes].

    What the head sees is the largest value of each channel after the last stage, beside the mean of the tokens'
    vectors: with the latter alone it is a linear model of a bag of words (fastText, arXiv 1607.01759), which with few
    texts is hard to beat, and the convolutions have to add to it.

    Args:
        num_classes: number of logits.
        num_tokens: different tokens; token 0 is the padding.
        layers: blocks of each stage; between stages the length is halved.
        dim: of a token's vector.
        width: channels of the first stage; each next has twice as many.
        dropout: share of the vectors' numbers, and of what the head sees, that is left out in training, 0..1.
        shortcut: "none", "A" or "B", see `Block1d`.

    Raises:
        ValueError: an argument out of its range.
    """

    def __init__(
        self,
        num_classes: int,
        num_tokens: int = 257,
        *,
        layers: Sequence[int] = (1, 1),
        dim: int = 128,
        width: int = 64,
        dropout: float = 0.3,
        shortcut: Shortcut = "B",
    ) -> None:
        super().__init__()
        self.num_stages, self.shortcut = len(layers), shortcut
        self.embedding = nn.Embedding(num_tokens, dim, padding_idx=0)
        self.dropout = nn.Dropout(dropout)
        self.conv1 = conv3(dim, width)
        self.bn1 = nn.BatchNorm1d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool1d(3, stride=2, padding=1)
        planes = _stages(self, layers, width, shortcut)
        self.fc = nn.Linear(planes + dim, num_classes)
        _initialise(self)

    def forward_features(self, x: Tensor) -> dict[str, Tensor]:
        """The mean vector C1 [N, dim, 1], and the stages' maps: C2 [N, width, L], C3 [N, 2 width, L/2], ..."""
        vectors = self.dropout(self.embedding(x)).transpose(1, 2)
        count = (x != 0).sum(1, keepdim=True).clamp_min(1)
        features = {"C1": (vectors.sum(2) / count)[:, :, None]}
        x = self.relu(self.bn1(self.conv1(vectors)))
        for stage in range(self.num_stages):
            x = self.get_submodule(f"layer{stage + 1}")(x if stage == 0 else self.maxpool(x))
            features[f"C{stage + 2}"] = x
        return features

    def forward_head(self, features: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The features to the embedding [N, planes + dim] and the logits [N, num_classes]."""
        last = features[f"C{self.num_stages + 1}"]
        embedding = torch.cat([last.amax(2), features["C1"][:, :, 0]], 1)
        return embedding, self.fc(self.dropout(embedding))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [N, L] to logits [N, num_classes]."""
        return self.forward_head(self.forward_features(x))[1]


class WaveResNet(nn.Module):
    """A residual network on the samples of a sound: [N, 1, L] to logits [N, num_classes].

    With the defaults M34-res of Dai et al. (arXiv 1610.00087, table 1): a first convolution over 80 samples with stride
    4, which is 10 ms at 8 kHz, then stages of 48, 96, 192 and 384 channels, each after a max-pooling of 4.

    Args:
        num_classes: number of logits.
        layers: blocks of each stage.
        width: channels of the first stage; each next has twice as many.
        kernel: samples that the first convolution sees.
        stride: of the first convolution.
        shortcut: "none", "A" or "B", see `Block1d`; the paper pads, which is A.

    Raises:
        ValueError: an argument out of its range.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        layers: Sequence[int] = (3, 4, 6, 3),
        width: int = 48,
        kernel: int = 80,
        stride: int = 4,
        shortcut: Shortcut = "A",
    ) -> None:
        super().__init__()
        self.num_stages, self.shortcut = len(layers), shortcut
        self.conv1 = nn.Conv1d(1, width, kernel, stride=stride, padding=kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm1d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool1d(4, ceil_mode=True)
        planes = _stages(self, layers, width, shortcut)
        self.avgpool = nn.AdaptiveAvgPool1d(1)
        self.fc = nn.Linear(planes, num_classes)
        _initialise(self)

    def forward_features(self, x: Tensor) -> dict[str, Tensor]:
        """Feature maps of the stages: C2 [N, width, L/16], C3 [N, 2 width, L/64], ..."""
        x = self.relu(self.bn1(self.conv1(x)))
        features = {}
        for stage in range(self.num_stages):
            features[f"C{stage + 2}"] = x = self.get_submodule(f"layer{stage + 1}")(self.maxpool(x))
        return features

    def forward_head(self, features: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The features to the embedding [N, planes] and the logits [N, num_classes]."""
        embedding = torch.flatten(self.avgpool(features[f"C{self.num_stages + 1}"]), 1)
        return embedding, self.fc(embedding)

    def forward(self, x: Tensor) -> Tensor:
        """Samples [N, 1, L] of -1..1 to logits [N, num_classes]."""
        return self.forward_head(self.forward_features(x))[1]
