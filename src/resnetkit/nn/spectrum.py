"""The log-mel spectrum as a layer, so that a network, and what is exported of it, takes the samples themselves."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resnetkit.ops.spectrum import Mel, bank, projection


class LogMel(nn.Module):
    """Samples to normalised log-mel spectra: two convolutions and a logarithm, equal to `ops.spectrum.fbank`.

    Args:
        mel: the spectrum.
        mean, std: that it is normalised with, one number or one a band.

    Raises:
        ValueError: other numbers of them.
    """

    projection: Tensor
    bank: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, mel: Mel, mean: Sequence[float] = (0.0,), std: Sequence[float] = (1.0,)) -> None:
        super().__init__()
        if {len(mean), len(std)} - {1, mel.mels}:
            raise ValueError(f"mean and std need one number or {mel.mels}, not {len(mean)} and {len(std)}")
        self.hop, self.bins, self.floor = mel.hop, mel.fft // 2, mel.floor
        # made from the settings, so they are no part of a checkpoint
        self.register_buffer("projection", torch.tensor(projection(mel).T.copy())[:, None], persistent=False)
        self.register_buffer("bank", torch.tensor(bank(mel).T.copy())[:, :, None], persistent=False)
        self.register_buffer("mean", torch.tensor(mean)[:, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None], persistent=False)

    def forward(self, samples: Tensor) -> Tensor:
        """Samples of -1..1 [N, L] to [N, 1, mels, frames]."""
        parts = F.conv1d(samples[:, None], self.projection, stride=self.hop).square()
        energy = F.conv1d(parts[:, : self.bins] + parts[:, self.bins :], self.bank)
        return ((energy.clamp_min(self.floor).log() - self.mean) / self.std)[:, None]
