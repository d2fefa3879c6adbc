"""A network in two parts is the network."""

from __future__ import annotations

import pytest
import torch

from resnetkit import models
from resnetkit.nn.cut import cut, front, last_cut


@pytest.mark.parametrize("variant", ["resnet18", "resnet34d", "resnet50", "resnet20"])
@pytest.mark.parametrize(
    ("after", "pool"), [("layer1", "last"), ("last", "last"), ("avgpool", "last"), ("last", "all")]
)
def test_the_parts_are_the_whole(variant: str, after: str, pool: str) -> None:
    network = models.build(variant, num_classes=3, pool=pool).eval()
    after = last_cut(network) if after == "last" else after
    trunk, tail = cut(network, after)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(tail(trunk(images)), network(images))
    whole = network.state_dict()
    parts = trunk.state_dict() | tail.state_dict()
    assert parts.keys() == whole.keys()
    assert all(parts[name].data_ptr() == whole[name].data_ptr() for name in whole)


def test_where_the_last_stage_begins() -> None:
    wide, small, all_stages = models.build("resnet18"), models.build("resnet20"), models.build("resnet18", pool="all")
    assert [last_cut(network) for network in (wide, small, all_stages)] == ["layer3", "layer2", "avgpool"]
    with pytest.raises(ValueError, match="cannot be cut after layer3"):
        cut(all_stages, "layer3")


@pytest.mark.parametrize("pool", ["last", "all"])
def test_the_front_gives_the_maps_of_a_stage(pool: str) -> None:
    network = models.build("resnet20", num_classes=3, pool=pool).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        maps = network.forward_features(images)
        for after, name in (("layer1", "C2"), ("layer2", "C3"), ("layer3", "C4")):
            assert torch.equal(front(network, after)(images), maps[name])
