"""A residual network as a backbone."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models import resnet50
from torchvision.ops import FrozenBatchNorm2d

from resnetkit import models
from resnetkit.nn import backbone as parts


@pytest.mark.parametrize(
    ("variant", "widths", "strides"),
    [
        ("resnet18", [64, 128, 256, 512], [4, 8, 16, 32]),
        ("resnet50", [256, 512, 1024, 2048], [4, 8, 16, 32]),
        ("resnet20", [16, 32, 64], [1, 2, 4]),
        ("resnet34d", [64, 128, 256, 512], [4, 8, 16, 32]),
    ],
)
def test_widths_and_strides(variant: str, widths: list[int], strides: list[int]) -> None:
    network = models.build(variant, num_classes=2)
    assert (parts.widths_of(network), parts.strides_of(network)) == (widths, strides)
    maps = network.eval().forward_features(torch.zeros(1, 3, 64, 64)).values()
    assert [each.shape[1] for each in maps] == widths
    assert [64 // each.shape[2] for each in maps] == strides


def test_still_norms_stay() -> None:
    network = models.build("resnet18", num_classes=2)
    for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.uniform_(norm.running_mean)
        nn.init.uniform_(norm.running_var)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    x = torch.rand(2, 3, 32, 32)
    expected = network.eval()(x)
    parts.freeze_norms(network)
    network.train()
    torch.testing.assert_close(network(x), expected)
    network(torch.rand(4, 3, 32, 32) * 9).sum().backward()
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and all(not m.training and m.weight.grad is None for m in norms)
    assert network.conv1.weight.grad is not None


def test_a_still_norm_is_torchvisions_frozen_one() -> None:
    norm, theirs = nn.BatchNorm2d(3), FrozenBatchNorm2d(3, eps=0.0)
    nn.init.uniform_(norm.running_var)
    nn.init.uniform_(norm.weight)
    theirs.load_state_dict({k: v for k, v in norm.state_dict().items() if "num" not in k})
    x = torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(parts.still(norm, 0.0)(x), theirs(x))


@pytest.mark.parametrize(("learning", "frozen"), [(5, []), (3, ["conv1", "bn1", "layer1"]), (0, None)])
def test_stages_that_learn(learning: int, frozen: list[str] | None) -> None:
    network = models.build("resnet18", num_classes=2)
    parts.freeze_stages(network, learning)
    still = {name.split(".")[0] for name, p in network.named_parameters() if not p.requires_grad}
    everything = {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4"}
    assert still == (everything if frozen is None else set(frozen))


@pytest.mark.parametrize("stages", [1, 2])
def test_dilated_as_torchvision_does(stages: int) -> None:
    torch.manual_seed(0)
    theirs = resnet50(replace_stride_with_dilation=[False, stages == 2, True]).eval()
    ours = models.build("resnet50").eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.rand(1, 3, 64, 96)
    torch.testing.assert_close(parts.dilate(ours, stages)(x), theirs(x))


@pytest.mark.parametrize("variant", ["resnet18", "resnet34d", "resnet20", "resnext50_32x4d"])
def test_dilated_stages_see_the_same(variant: str) -> None:
    """Every second number of the dilated map is the number that the strided one has there."""
    torch.manual_seed(0)
    network = models.build(variant, num_classes=2).eval()
    x = torch.rand(1, 3, 128, 128)
    coarse = list(network.forward_features(x).values())
    fine = list(parts.dilate(network, 1).forward_features(x).values())
    assert fine[-1].shape[2:] == coarse[-2].shape[2:]
    torch.testing.assert_close(fine[-2], coarse[-2])
    torch.testing.assert_close(fine[-1][:, :, ::2, ::2], coarse[-1], atol=1e-4, rtol=1e-4)
