"""Detectors, beside torchvision's."""

from __future__ import annotations

import time

import pytest
import torch
from torchvision.models import detection as theirs
from torchvision.models.detection.roi_heads import paste_masks_in_image

from resnetkit import models
from resnetkit.nn.detection import DETECTORS, Options, Raw, detector

K = 5
BUILDERS = {
    "retinanet": theirs.retinanet_resnet50_fpn,
    "fcos": theirs.fcos_resnet50_fpn,
    "fasterrcnn": theirs.fasterrcnn_resnet50_fpn,
    "maskrcnn": theirs.maskrcnn_resnet50_fpn,
}
TWO_STAGE = ("fasterrcnn", "maskrcnn")  # which count the background as a class


def targets(height: int, width: int) -> list[dict[str, torch.Tensor]]:
    """Of two images: a large object and one of a pixel, and none."""
    masks = torch.zeros(2, height, width, dtype=torch.uint8)
    masks[0, 4:60, 3:40] = masks[1, 8:9, 8:9] = 1
    boxes = torch.tensor([[3.0, 4, 50, 60], [8, 8, 9, 9]])
    return [
        {"boxes": boxes, "labels": torch.tensor([2, 0]), "masks": masks},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "masks": masks[:0]},
    ]


def small(name: str, variant: str = "resnet18", **options: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return detector(name, models.build(variant, num_classes=2, width=16), K, Options(width=64, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("name", DETECTORS)
def test_a_checkpoint_of_torchvision_gives_the_same(name: str, frozen: bool) -> None:
    prefix = "box_" if name in TWO_STAGE else ""
    thresholds = {f"{prefix}score_thresh": 0.0, f"{prefix}nms_thresh": 0.5, f"{prefix}detections_per_img": 50}
    torch.manual_seed(0)
    peer = BUILDERS[name](weights=None, weights_backbone=None, num_classes=K, min_size=128, max_size=160, **thresholds)
    options = Options(256, 0.0, 0.5, 50, frozen, min_size=128, max_size=160)
    ours = detector(name, models.build("resnet50"), K - (name in TWO_STAGE), options)
    ours.load_state_dict(peer.state_dict())
    images = [torch.rand(3, 100, 130), torch.rand(3, 140, 90)]
    with torch.inference_mode():
        for mine, other in zip(ours.eval()(images), peer.eval()(images), strict=True):
            assert len(mine["boxes"]) == 50
            assert mine.keys() == other.keys() and ("masks" in mine) == (name == "maskrcnn")
            for key in mine:
                assert torch.equal(mine[key], other[key])


@pytest.mark.parametrize("name", DETECTORS)
def test_the_three_steps_are_the_whole(name: str) -> None:
    """`raw` and `decode` of a batch that needs no resizing answer as the call does, `losses` learns as it does."""
    network = small(name, score_threshold=0.0, min_size=96, max_size=128)
    images = torch.rand(2, 3, 96, 128)
    mean, std = (torch.tensor(v)[:, None, None] for v in (network.transform.image_mean, network.transform.image_std))
    batch = (images - mean) / std
    with torch.inference_mode():
        found = network.eval().decode(network.raw(batch), [(96, 128)] * 2)
        whole = network(list(images))
    shift = int(name in TWO_STAGE)
    for mine, other in zip(found, whole, strict=True):
        torch.testing.assert_close(mine["boxes"], other["boxes"])
        torch.testing.assert_close(mine["scores"], other["scores"])
        assert torch.equal(mine["labels"] + shift, other["labels"])
        assert mine["labels"].min() >= 0 and mine["labels"].max() < K
        if name == "maskrcnn":
            pasted = paste_masks_in_image(mine["masks"][:, None], mine["boxes"], (96, 128))
            torch.testing.assert_close(pasted, other["masks"])
    network.train()
    torch.manual_seed(1)
    for _ in images:
        torch.empty(1).uniform_()  # with which the whole chooses among one size
    losses = network.losses(batch, targets(96, 128))
    torch.manual_seed(1)
    expected = network(list(images), [{**t, "labels": t["labels"] + shift} for t in targets(96, 128)])
    assert losses.keys() == expected.keys()
    for key, value in losses.items():
        torch.testing.assert_close(value, expected[key])


@pytest.mark.parametrize("variant", ["resnet18", "resnet34d", "resnet50", "resnet20"])
@pytest.mark.parametrize("name", DETECTORS)
def test_any_backbone_learns(name: str, variant: str) -> None:
    network = small(name, variant).train()
    losses = network.losses(torch.rand(2, 3, 96, 64), targets(96, 64))
    total = torch.stack(list(losses.values())).sum()
    assert torch.isfinite(total)
    total.backward()
    names = [name for name, p in network.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    assert any(each.startswith("backbone.body") for each in names)
    assert any(each.startswith("backbone.fpn") for each in names)
    assert not any(".bn" in each for each in names)


@pytest.mark.parametrize("name", DETECTORS)
def test_images_without_boxes_alone(name: str) -> None:
    losses = small(name).train().losses(torch.rand(2, 3, 64, 64), [targets(64, 64)[1]] * 2)
    assert all(torch.isfinite(value) for value in losses.values())
    network = small(name, score_threshold=0.999).eval()
    with torch.inference_mode():
        found = network.decode(network.raw(torch.rand(1, 3, 64, 64)), [(64, 64)])
    assert found[0]["boxes"].shape == (0, 4)


def test_answers_lie_in_the_image() -> None:
    network = small("fcos", score_threshold=0.0).eval()
    with torch.inference_mode():
        (found,) = network.decode(network.raw(torch.rand(1, 3, 96, 96)), [(50, 80)])
    assert found["boxes"][:, 2].max() <= 80 and found["boxes"][:, 3].max() <= 50


def test_ten_thousand_boxes_into_nms() -> None:
    network = small("retinanet", score_threshold=0.0).eval()
    n = 10_800
    corner = torch.rand(n, 2) * 500
    raw = Raw(
        {"cls_logits": torch.randn(1, n, K), "bbox_regression": torch.zeros(1, n, 4)},
        [torch.cat([corner, corner + 1 + torch.rand(n, 2) * 90], 1)],
        [n],
    )
    network.topk_candidates = n * K
    started = time.monotonic()
    (found,) = network.decode(raw, [(600, 600)])
    assert len(found["boxes"]) == 100
    assert (found["scores"].diff() <= 0).all()
    assert time.monotonic() - started < 60


def test_unknown_names() -> None:
    with pytest.raises(KeyError):
        small("yolo")


@pytest.mark.parametrize("name", ["retinanet", "fcos"])
def test_more_than_ten_thousand_sure_boxes(name: str) -> None:
    """Every anchor of every class is sure of itself: the best hundred are left, none of which overlap, in no time."""
    network = small(name).eval()
    with torch.inference_mode():
        raw = network.raw(torch.rand(1, 3, 416, 416))
        logits = raw.outputs["cls_logits"]
        assert logits.numel() > 10_000
        raw.outputs["cls_logits"] = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0)) + 3
        if "bbox_ctrness" in raw.outputs:
            raw.outputs["bbox_ctrness"] = torch.full_like(raw.outputs["bbox_ctrness"], 9.0)
        started = time.monotonic()
        (found,) = network.decode(raw, [(416, 416)])
    assert len(found["boxes"]) == 100 and time.monotonic() - started < 20
    assert (found["scores"].diff() <= 0).all()
