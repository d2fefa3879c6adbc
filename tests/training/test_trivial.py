"""TrivialAugment's operations, each at every strength."""

import torch

from resnetkit.training.trivial import TRIVIAL


def test_every_trivial_operation_keeps_shape_and_is_finite() -> None:
    for operation in TRIVIAL:
        for channels in (1, 3):
            image = torch.rand(channels, 16, 16)
            for strength in (-1.0, -0.3, 0.0, 0.6, 1.0):
                changed = operation(image, strength)
                assert changed.shape == image.shape and changed.isfinite().all()
