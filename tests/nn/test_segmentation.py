"""Segmenters, beside torchvision's."""

from __future__ import annotations

import pytest
import torch
from torchvision.models import segmentation as theirs

from resnetkit import models
from resnetkit.nn.segmentation import SEGMENTERS, Options, segmenter

K = 4
BUILDERS = {"fcn": theirs.fcn_resnet50, "deeplabv3": theirs.deeplabv3_resnet50}


@pytest.mark.parametrize("name", BUILDERS)
def test_a_checkpoint_of_torchvision_gives_the_same(name: str) -> None:
    torch.manual_seed(0)
    peer = BUILDERS[name](weights=None, weights_backbone=None, num_classes=K, aux_loss=True).eval()
    ours = segmenter(name, models.build("resnet50"), K, Options(aux=True)).eval()
    ours.load_state_dict(peer.state_dict())
    x = torch.rand(2, 3, 96, 80)
    with torch.inference_mode():
        mine, other = ours(x), peer(x)
    assert list(mine) == list(other) == ["out", "aux"]
    assert all(torch.equal(mine[key], other[key]) for key in mine)


@pytest.mark.parametrize("variant", ["resnet18", "resnet34d", "resnet50", "resnext50_32x4d", "resnet20"])
@pytest.mark.parametrize("name", SEGMENTERS)
def test_any_backbone_learns(name: str, variant: str) -> None:
    torch.manual_seed(0)
    backbone = models.build(variant, num_classes=2)
    network = segmenter(name, backbone, K, Options(width=8, freeze_norms=True, aux=True)).train()
    outputs = network(torch.rand(2, 3, 70, 52))
    assert list(outputs) == (["out"] if name == "unet" else ["out", "aux"])
    assert {each.shape for each in outputs.values()} == {(2, K, 70, 52)}
    sum(each.square().mean() for each in outputs.values()).backward()
    with_gradient = [name for name, p in network.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    assert any(each.startswith("backbone.conv1") for each in with_gradient)
    assert not any(each.startswith("backbone.layer") and ".bn" in each for each in with_gradient)


def test_the_unet_is_as_fine_as_its_stem() -> None:
    network = segmenter("unet", models.build("resnet18", num_classes=2), K, Options(width=8)).eval()
    sizes = []
    network.classifier.register_forward_hook(lambda module, inputs, out: sizes.append(tuple(out.shape[2:])))
    network(torch.rand(1, 3, 64, 96))
    assert sizes == [(32, 48)]
