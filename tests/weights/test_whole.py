"""Whole checkpoints of detectors and segmenters."""

from __future__ import annotations

import logging

import pytest
import torch
from torchvision.models import detection, segmentation

from resnetkit import models
from resnetkit.errors import ModelError
from resnetkit.nn.detection import Options, detector
from resnetkit.nn.segmentation import segmenter
from resnetkit.weights.whole import fit_whole


@pytest.fixture(scope="module")
def retinanet() -> dict[str, torch.Tensor]:
    network = detection.retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=7)
    return dict(network.state_dict())


def ours(num_classes: int = 7, width: int = 256) -> torch.nn.Module:
    return detector("retinanet", models.build("resnet50"), num_classes, Options(width=width))


def test_all_of_it(retinanet: dict[str, torch.Tensor], caplog: pytest.LogCaptureFixture) -> None:
    state = {name: t for name, t in retinanet.items() if not name.endswith("num_batches_tracked")}  # of frozen norms
    network = ours()
    with caplog.at_level(logging.WARNING):
        message = fit_whole(network, state, "a.pth")
    assert message in caplog.text
    loaded = network.state_dict()
    assert message == f"a.pth: loaded {len(loaded)} of {len(loaded)} tensors"
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


def test_names_of_older_checkpoints(retinanet: dict[str, torch.Tensor]) -> None:
    """The published RetinaNet calls its convolutions conv.0, conv.2, ... where it is conv.0.0, conv.1.0 now."""
    old = {}
    for name, tensor in retinanet.items():
        for i in range(4):
            name = name.replace(f".conv.{i}.0.", f".conv.{2 * i}.OLD")
        old[name.replace("OLD", "")] = tensor
    network = ours()
    fit_whole(network, old, "a.pth")
    assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in retinanet.items())


def test_heads_of_other_classes(retinanet: dict[str, torch.Tensor]) -> None:
    network = ours(3)
    before = network.state_dict()["head.classification_head.cls_logits.weight"].clone()
    message = fit_whole(network, retinanet, "a.pth")
    assert message.endswith("heads re-initialised: head.classification_head.cls_logits")
    after = network.state_dict()
    assert torch.equal(after["head.classification_head.cls_logits.weight"], before)
    name = "head.regression_head.bbox_reg.weight"
    assert torch.equal(after[name], retinanet[name])


@pytest.mark.parametrize("name", ["fcn", "deeplabv3"])
def test_segmenters_of_other_classes(name: str) -> None:
    builder = {"fcn": segmentation.fcn_resnet50, "deeplabv3": segmentation.deeplabv3_resnet50}[name]
    state = builder(weights=None, weights_backbone=None, num_classes=21, aux_loss=False).state_dict()
    message = fit_whole(segmenter(name, models.build("resnet50"), 5), state, "a.pth")
    assert message.endswith("heads re-initialised: classifier.4")


def test_refused(retinanet: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ModelError, match=r"a.pth: are weights of another network: .*is \(256, .*not \(128"):
        fit_whole(ours(width=128), retinanet, "a.pth")
    with pytest.raises(ModelError, match=r"conv1.weight is missing; .*conv2 is not in the network"):
        changed = {name.replace("body.conv1.weight", "body.conv2"): t for name, t in retinanet.items()}
        fit_whole(ours(), changed, "a.pth")
    with pytest.raises(ModelError, match="NaN"):
        fit_whole(ours(), {**retinanet, "backbone.fpn.inner_blocks.0.0.bias": torch.full((256,), torch.nan)}, "a.pth")
