"""Statistics of BatchNorm on other images: where they end, and what stays."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from resnetkit.models import build
from resnetkit.training.statistics import PRIOR, renew


def test_they_end_between_those_of_the_weights_and_those_of_the_images() -> None:
    norm, images = nn.BatchNorm2d(2), 3 + 2 * torch.randn(PRIOR, 2, 5, 5)
    renew(norm, images.split(64))
    torch.testing.assert_close(norm.running_mean, images.mean((0, 2, 3)) / 2)
    variances = torch.stack([batch.var((0, 2, 3)) for batch in images.split(64)]).mean(0)
    torch.testing.assert_close(norm.running_var, (variances + 1) / 2)


def test_each_layer_sees_what_those_before_it_give_with_the_batch() -> None:
    torch.manual_seed(0)
    network = build("resnet20", width=16)
    renew(network, [torch.randn(50 * PRIOR, 3, 8, 8) * 7 + 2])
    with torch.no_grad():
        found = network.bn1(network.conv1(torch.randn(500, 3, 8, 8) * 7 + 2))
    assert found.mean((0, 2, 3)).abs().max() < 0.1 and (found.std((0, 2, 3)) - 1).abs().max() < 0.1


@pytest.mark.parametrize("count", [0, 2])
def test_few_images_change_little_and_none_nothing(count: int) -> None:
    norm = nn.BatchNorm2d(3, momentum=0.3).train()
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    renew(norm, [torch.randn(2, 3, 1, 1)] * (count // 2))
    assert norm.momentum == 0.3 and not norm.training
    assert all((norm.state_dict()[name] - value).abs().max() <= count / PRIOR * 4 for name, value in before.items())
    assert torch.equal(norm.num_batches_tracked, before["num_batches_tracked"])
