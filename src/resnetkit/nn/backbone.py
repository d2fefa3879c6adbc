"""A residual network as the backbone of another: its widths and strides, which parts learn, and at what resolution."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from resnetkit.nn.blocks import BasicBlock, Bottleneck, PadShortcut
from resnetkit.nn.resnet import ResNet


class StillNorm(nn.BatchNorm2d):
    """A BatchNorm that stays as it came: evaluation mode in either mode, no gradients; the same tensor names.

    torchvision's FrozenBatchNorm2d computes the same in two operations instead of one, and drops a tensor.
    """

    def train(self, mode: bool = True) -> StillNorm:
        """Stays in evaluation mode."""
        super().train(False)
        return self


def still(norm: nn.BatchNorm2d, eps: float | None = None) -> StillNorm:
    """A norm with the same numbers, and another `eps` if one is given, which no training moves."""
    made = StillNorm(
        norm.num_features, norm.eps if eps is None else eps, norm.momentum, norm.affine, norm.track_running_stats
    )
    made.load_state_dict(norm.state_dict())
    made.requires_grad_(False)
    return made.train()


def freeze_norms(network: nn.Module, eps: float | None = None) -> None:
    """Put a `StillNorm` in the place of every BatchNorm of a network.

    A batch of a few large images is too small to count means and variances in, and pretrained ones are good.

    Args:
        network: changed in place.
        eps: what is added to variances, where it is not to stay as it is.
    """
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, still(child, eps))


def freeze_stages(backbone: ResNet, learning: int) -> None:
    """No gradients for the stem and the stages, but for the last `learning` of these parts; the stem is the first."""
    parts = [nn.ModuleList([backbone.conv1, backbone.bn1]), *backbone.stages.values()]
    for part in parts[: max(0, len(parts) - learning)]:
        part.requires_grad_(False)


def widths_of(backbone: ResNet) -> list[int]:
    """Channels of each stage's features, C2 first."""
    lasts = (list(stage.children())[-1] for stage in backbone.stages.values())
    return [width_of(last.last_norm) for last in lasts if isinstance(last, BasicBlock | Bottleneck)]


def width_of(norm: nn.Module) -> int:
    """Channels of a norm."""
    return len(norm.get_parameter("weight"))


def strides_of(backbone: ResNet) -> list[int]:
    """Pixels of the image, along a side, that one of each stage's features stands for."""
    first = 1 if isinstance(backbone.maxpool, nn.Identity) else 4
    return [first * 2**stage for stage in range(len(backbone.stages))]


def dilate(backbone: ResNet, stages: int) -> ResNet:
    """Let the last stages keep the resolution of the one before them, in place; the weights fit as they are.

    Each removed stride doubles the dilation of the convolutions after it (arXiv 1606.00915, section 3.1): in a
    Bottleneck as torchvision's `replace_stride_with_dilation` does, and here in blocks of two 3x3 convolutions too.

    Args:
        backbone: changed in place, and returned.
        stages: how many, from the last; 0 changes nothing.
    """
    rate = 1
    for block in _blocks(backbone, stages):
        for module in block.modules():
            if isinstance(module, PadShortcut):
                module.stride = 1
        if isinstance(block.downsample, nn.Sequential):
            _keep_resolution(block.downsample)
        for conv in (part for part in block.children() if isinstance(part, nn.Conv2d)):
            stride = conv.stride[0]
            conv.stride = (1, 1)
            if conv.kernel_size != (1, 1):
                conv.dilation = conv.padding = (rate, rate)
            rate *= stride  # what comes after the stride looks at places further apart
    return backbone


def _blocks(backbone: ResNet, stages: int) -> Iterator[nn.Module]:
    chosen = list(backbone.stages.values())
    for stage in chosen[len(chosen) - stages :]:
        yield from stage


def _keep_resolution(shortcut: nn.Sequential) -> None:
    """A projection without its stride; one that averages 2x2 pixels first averages them at every place."""
    for index, module in enumerate(shortcut):
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
        elif isinstance(module, nn.AvgPool2d):
            shortcut[index] = nn.Sequential(nn.ReplicationPad2d((0, 1, 0, 1)), nn.AvgPool2d(2, 1))
