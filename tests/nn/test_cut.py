"""A network in two parts is the network."""

from __future__ import annotations

import pytest
import torch

from resnetkit import models
from resnetkit.nn.cut import cut


@pytest.mark.parametrize("variant", ["resnet18", "resnet34d", "resnet50", "resnet20"])
@pytest.mark.parametrize("after", ["layer1", "layer3", "avgpool"])
def test_the_parts_are_the_whole(variant: str, after: str) -> None:
    network = models.build(variant, num_classes=3).eval()
    trunk, tail = cut(network, after)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(tail(trunk(images)), network(images))
    whole = network.state_dict()
    parts = trunk.state_dict() | tail.state_dict()
    assert parts.keys() == whole.keys()
    assert all(parts[name].data_ptr() == whole[name].data_ptr() for name in whole)
