"""Detectors around our backbones: RetinaNet, FCOS, Faster and Mask R-CNN, on a feature pyramid (arXiv 1612.03144).

Networks, losses, anchors and RoI operations are torchvision's; ours are the backbones, the width of the heads, and the
three steps that training, export and prediction need apart: `losses`, `raw` and `decode`. Tensors have torchvision's
names (`backbone.body.layer1..`, `backbone.fpn`, `head` or `rpn` and `roi_heads`), so its whole checkpoints load.

Called as torchvision's are, on a list of images [3, h, w] in 0..1, the networks normalise and resize by themselves and
answer with the same boxes and scores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import maskrcnn_inference
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelMaxPool, LastLevelP6P7

from resnetkit.nn.backbone import freeze_norms, freeze_stages, strides_of, widths_of
from resnetkit.nn.resnet import ResNet

BOXES, LABELS, SCORES, MASKS = "boxes", "labels", "scores", "masks"
# Of each image: boxes [n, 4] xyxy in pixels of the batch, labels [n]; for Mask R-CNN also masks [n, H, W].
Targets = Sequence[Mapping[str, Tensor]]
Found = list[dict[str, Tensor]]  # the same, and scores [n] from the highest down; of masks what is in the box [n, s, s]
Size = tuple[int, int]  # height and width in pixels
ROI_SIZE, MASK_SIZE = 7, 14  # height and width of what Faster R-CNN looks at of a region, and Mask R-CNN for its pixels


@dataclass(frozen=True)
class Options:
    """What is chosen of a detector beside its kind and its backbone.

    Attributes:
        width: channels of the pyramid and of the heads, a multiple of 32 from 64; torchvision's have 256.
        score_threshold: boxes with a lower score are no answer, 0..1.
        nms_threshold: of two boxes of a class that overlap more (IoU, 0..1), the one with the lower score is dropped.
        max_boxes: answers for an image, at most.
        freeze_norms: keep the backbone's BatchNorm as it came, see `backbone.freeze_norms`; from scratch
            they have to learn.
        norm_eps: what frozen norms add to variances; torchvision's published COCO_V1 weights of RetinaNet and Faster
            R-CNN were trained with 0.
        trained_stages: of the backbone, counted from its end, that learn; 5 is all of them with the stem; torchvision
            trains 3.
        regions: that Faster and Mask R-CNN learn from in each image of a step; 128 as in arXiv 1506.01497 for images of
            this size, torchvision takes 512 of larger ones.
        min_size, max_size: short and long side in pixels to which the network resizes images that are handed to it in
            a list; nothing else resizes.
    """

    width: int = 128
    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    max_boxes: int = 100
    freeze_norms: bool = True
    norm_eps: float | None = None
    trained_stages: int = 4
    regions: int = 128
    min_size: int = 800
    max_size: int = 1333


@dataclass(frozen=True)
class Raw:
    """What a network says of a batch, before boxes are chosen.

    Attributes:
        outputs: of the heads: logits and offsets of each anchor [N, A, ...], or of each proposed region.
        anchors: boxes [A, 4] of each image that the offsets start from.
        levels: anchors of each level of the pyramid; their sum is A.
        maps: features, where those of the chosen boxes are looked at again.
    """

    outputs: dict[str, Tensor]
    anchors: list[Tensor]
    levels: list[int]
    maps: Mapping[str, Tensor] = field(default_factory=dict)


class _OneStage(nn.Module):
    """A network whose heads judge every anchor."""

    backbone: nn.Module
    anchor_generator: AnchorGenerator
    head: nn.Module
    compute_loss: Callable[..., dict[str, Tensor]]
    postprocess_detections: Callable[..., Found]

    def raw(self, images: Tensor) -> Raw:
        """Normalised images [N, C, H, W] to what the heads say."""
        maps = list(self.backbone(images).values())
        anchors = self.anchor_generator(_listed(images), maps)
        each = self.anchor_generator.num_anchors_per_location()[0]
        return Raw(self.head(maps), anchors, [each * one.shape[2] * one.shape[3] for one in maps])

    def decode(self, raw: Raw, sizes: Sequence[Size]) -> Found:
        """The boxes of each image, inside its height and width of the batch."""
        outputs = {name: list(torch.split(each, raw.levels, 1)) for name, each in raw.outputs.items()}
        anchors = [list(torch.split(each, raw.levels)) for each in raw.anchors]
        return self.postprocess_detections(outputs, anchors, list(sizes))


class RetinaNet(_OneStage, detection.RetinaNet):  # type: ignore[misc]  # torchvision is not typed
    """Focal loss on nine anchors a place (arXiv 1708.02002)."""

    def losses(self, images: Tensor, targets: Targets) -> dict[str, Tensor]:
        """Normalised images [N, C, H, W] and their targets to named scalars, whose sum is learnt."""
        raw = self.raw(images)
        return self.compute_loss(targets, raw.outputs, raw.anchors)


class FCOS(_OneStage, detection.FCOS):  # type: ignore[misc]  # torchvision is not typed
    """One place, one box: no anchor sizes to choose (arXiv 1904.01355)."""

    def losses(self, images: Tensor, targets: Targets) -> dict[str, Tensor]:
        """Normalised images [N, C, H, W] and their targets to named scalars, whose sum is learnt."""
        raw = self.raw(images)
        return self.compute_loss(targets, raw.outputs, raw.anchors, raw.levels)


class _TwoStage(nn.Module):
    """Regions are proposed first, and then judged.

    Inside class 0 is the background; labels that come in and go out of `losses` and `decode` begin with the first class
    all the same, as those of the others do.
    """

    backbone: nn.Module
    rpn: nn.Module
    roi_heads: Any

    def losses(self, images: Tensor, targets: Targets) -> dict[str, Tensor]:
        """Normalised images [N, C, H, W] and their targets to named scalars, whose sum is learnt; in training mode."""
        shifted = [{**target, LABELS: target[LABELS] + 1} for target in targets]
        listed, maps = _listed(images), self.backbone(images)
        proposals, losses = self.rpn(listed, maps, shifted)
        return {**losses, **self.roi_heads(maps, proposals, listed.image_sizes, shifted)[1]}

    def raw(self, images: Tensor) -> Raw:
        """Normalised images [N, C, H, W] to the proposed regions and what is said of each; in evaluation mode."""
        listed, maps, heads = _listed(images), self.backbone(images), self.roi_heads
        proposals, _ = self.rpn(listed, maps)
        logits, offsets = heads.box_predictor(heads.box_head(heads.box_roi_pool(maps, proposals, listed.image_sizes)))
        outputs = {"class_logits": logits, "box_regression": offsets}
        return Raw(outputs, proposals, [len(each) for each in proposals], maps)

    def decode(self, raw: Raw, sizes: Sequence[Size]) -> Found:
        """The boxes of each image, inside its height and width of the batch."""
        outputs = raw.outputs["class_logits"], raw.outputs["box_regression"]
        chosen = self.roi_heads.postprocess_detections(*outputs, raw.anchors, list(sizes))
        return [{BOXES: b, LABELS: n - 1, SCORES: s} for b, s, n in zip(*chosen, strict=True)]


class FasterRCNN(_TwoStage, detection.FasterRCNN):  # type: ignore[misc]  # torchvision is not typed
    """Boxes (arXiv 1506.01497)."""


class MaskRCNN(_TwoStage, detection.MaskRCNN):  # type: ignore[misc]  # torchvision is not typed
    """Boxes, and the pixels of what is in each (arXiv 1703.06870)."""

    def decode(self, raw: Raw, sizes: Sequence[Size]) -> Found:
        """The boxes of each image, inside its height and width of the batch, and what is in each: 0..1 [n, 28, 28]."""
        found, heads = super().decode(raw, sizes), self.roi_heads
        regions = heads.mask_roi_pool(raw.maps, [each[BOXES] for each in found], list(sizes))
        logits = heads.mask_predictor(heads.mask_head(regions))
        shares = maskrcnn_inference(logits, [each[LABELS] + 1 for each in found])
        return [{**each, MASKS: share[:, 0]} for each, share in zip(found, shares, strict=True)]


Detector = RetinaNet | FCOS | FasterRCNN | MaskRCNN


def _listed(images: Tensor) -> ImageList:
    """A batch as torchvision hands it on; anchors are made for all of it, bars too, which answers are clipped to."""
    return ImageList(images, [(images.shape[2], images.shape[3])] * len(images))


def _pyramid(backbone: ResNet, first: int, extra: ExtraFPNBlock, width: int) -> BackboneWithFPN:
    """The backbone with a pyramid over its stages from the `first` on, counted from 0."""
    layers = {f"layer{stage + 1}": str(stage - first) for stage in range(first, len(backbone.stages))}
    return BackboneWithFPN(backbone, layers, widths_of(backbone)[first:], width, extra)


def _first_stage(backbone: ResNet) -> int:
    """One-stage detectors leave out C2, whose anchors are too many; of three stages they need all."""
    return max(0, len(backbone.stages) - 3)


def _one_stage_parts(backbone: ResNet, options: Options) -> tuple[BackboneWithFPN, list[int]]:
    """The pyramid with two levels above the stages, and the stride of each level."""
    first, width = _first_stage(backbone), options.width
    strides = strides_of(backbone)[first:]
    strides += [strides[-1] * 2, strides[-1] * 4]
    return _pyramid(backbone, first, LastLevelP6P7(width, width), width), strides


def _retinanet(backbone: ResNet, num_classes: int, options: Options) -> RetinaNet:
    pyramid, strides = _one_stage_parts(backbone, options)
    sizes = tuple(tuple(int(4 * stride * 2 ** (i / 3)) for i in range(3)) for stride in strides)
    anchors = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes))
    return RetinaNet(pyramid, num_classes, anchor_generator=anchors, **_settings(options))


def _fcos(backbone: ResNet, num_classes: int, options: Options) -> FCOS:
    pyramid, strides = _one_stage_parts(backbone, options)
    anchors = AnchorGenerator(tuple((stride,) for stride in strides), ((1.0,),) * len(strides))
    return FCOS(pyramid, num_classes, anchor_generator=anchors, **_settings(options))


def _faster_rcnn(backbone: ResNet, num_classes: int, options: Options) -> FasterRCNN:
    return FasterRCNN(**_two_stage_parts(backbone, num_classes, options))


def _mask_rcnn(backbone: ResNet, num_classes: int, options: Options) -> MaskRCNN:
    width = options.width
    return MaskRCNN(
        **_two_stage_parts(backbone, num_classes, options),
        mask_roi_pool=_regions(len(backbone.stages), MASK_SIZE),
        mask_head=MaskRCNNHeads(width, (width,) * 4, 1),
        mask_predictor=MaskRCNNPredictor(width, width, num_classes + 1),
    )


def _two_stage_parts(backbone: ResNet, num_classes: int, options: Options) -> dict[str, Any]:
    width, strides = options.width, strides_of(backbone)
    strides.append(strides[-1] * 2)
    # 1,024 numbers of a region at torchvision's width of 256
    box_head = TwoMLPHead(width * ROI_SIZE**2, 4 * width)
    anchors = AnchorGenerator(tuple((8 * s,) for s in strides), ((0.5, 1.0, 2.0),) * len(strides))
    return {
        "backbone": _pyramid(backbone, 0, LastLevelMaxPool(), width),
        "rpn_anchor_generator": anchors,
        "box_roi_pool": _regions(len(backbone.stages), ROI_SIZE),
        "box_head": box_head,
        "box_predictor": FastRCNNPredictor(4 * width, num_classes + 1),
        "box_batch_size_per_image": options.regions,
        **_settings(options, "box_"),
    }


def _regions(stages: int, size: int) -> nn.Module:
    names = [str(stage) for stage in range(stages)]
    regions: nn.Module = MultiScaleRoIAlign(featmap_names=names, output_size=size, sampling_ratio=2)
    return regions


def _settings(options: Options, prefix: str = "") -> dict[str, Any]:
    """The options by torchvision's names."""
    return {
        "min_size": options.min_size,
        "max_size": options.max_size,
        f"{prefix}score_thresh": options.score_threshold,
        f"{prefix}nms_thresh": options.nms_threshold,
        f"{prefix}detections_per_img": options.max_boxes,
    }


DETECTORS: Mapping[str, Callable[[ResNet, int, Options], Detector]] = {
    "retinanet": _retinanet,
    "fcos": _fcos,
    "fasterrcnn": _faster_rcnn,
    "maskrcnn": _mask_rcnn,
}


def detector(name: str, backbone: ResNet, num_classes: int, options: Options = Options()) -> Detector:  # noqa: B008
    """A detector around a backbone, which becomes part of it.

    Args:
        name: a key of `DETECTORS`.
        backbone: with whatever weights it has; its pooling and its classifier are not used.
        num_classes: K, the background not counted. A whole RetinaNet or FCOS of torchvision's counts one more.
        options: width, thresholds, what learns.

    Raises:
        KeyError: there is no such detector.
    """
    freeze_stages(backbone, options.trained_stages)
    if options.freeze_norms:
        freeze_norms(backbone, options.norm_eps)
    return DETECTORS[name](backbone, num_classes, options)
