"""The residual unit is ReLU(F(x) + shortcut(x)), computed here by hand from the tensors of the block."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resnetkit.nn.blocks import BasicBlock, Bottleneck, Branch, PadShortcut, conv1x1

BLOCKS = pytest.mark.parametrize("block", [BasicBlock, Bottleneck])


def trained(block: nn.Module) -> nn.Module:
    """The block in eval, with norms that do something."""
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                tensor.uniform_(0.5, 1.5)
    return block.eval()


def normed(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    mean, var, weight, bias = (t[:, None, None] for t in (norm.running_mean, norm.running_var, norm.weight, norm.bias))
    return (x - mean) / torch.sqrt(var + norm.eps) * weight + bias


def branch_by_hand(block: nn.Module, x: Tensor, stride: int) -> Tensor:
    if isinstance(block, BasicBlock):
        x = normed(F.conv2d(x, block.conv1.weight, stride=stride, padding=1), block.bn1).clamp(min=0)
        return normed(F.conv2d(x, block.conv2.weight, padding=1), block.bn2)
    x = normed(F.conv2d(x, block.conv1.weight), block.bn1).clamp(min=0)
    x = normed(F.conv2d(x, block.conv2.weight, stride=stride, padding=1), block.bn2).clamp(min=0)
    return normed(F.conv2d(x, block.conv3.weight), block.bn3)


@BLOCKS
@pytest.mark.parametrize("shortcut", ["identity", "projection", "padding"])
def test_unit_is_relu_of_branch_plus_shortcut(block, shortcut):
    torch.manual_seed(0)
    stride, out = (1, 8) if shortcut == "identity" else (2, 16)
    x = torch.randn(2, 8, 7, 7)
    downsample, expected = {
        "identity": lambda: (None, x),
        "projection": lambda: (conv1x1(8, out, stride), None),
        "padding": lambda: (PadShortcut(8, out, stride), F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))),
    }[shortcut]()
    unit = trained(block(8, out // block.expansion, stride, downsample))
    if expected is None:
        expected = torch.einsum("oi,nihw->nohw", downsample.weight[:, :, 0, 0], x[:, :, ::2, ::2])
    before = x.clone()
    result = unit(x)
    torch.testing.assert_close(result, (branch_by_hand(unit, x, stride) + expected).clamp(min=0))
    assert result.shape == (2, out, 7, 7) if stride == 1 else (2, out, 4, 4)
    assert torch.equal(x, before), "the input is the caller's"


@pytest.mark.parametrize(("missing", "left"), [(4, 2), (3, 1), (0, 0)])
def test_pad_shortcut_subsamples_and_adds_zero_channels(missing, left):
    x = torch.rand(2, 5, 6, 7) + 1
    shortcut = PadShortcut(5, 5 + missing, 2)
    y = shortcut(x)
    assert not list(shortcut.parameters())
    assert torch.equal(y[:, left : left + 5], x[:, :, ::2, ::2])
    assert y.shape == (2, 5 + missing, 3, 4)
    assert y.sum() == y[:, left : left + 5].sum()


@BLOCKS
def test_stochastic_depth_skips_whole_branches_in_training_only(block):
    torch.manual_seed(0)
    x = torch.randn(1, 8, 5, 5).expand(64, -1, -1, -1)
    unit = block(8, 8 // block.expansion, branch=Branch(drop=0.5))
    plain = block(8, 8 // block.expansion)
    plain.load_state_dict(unit.state_dict())
    rows = unit(x)
    skipped = torch.isclose(rows, x.clamp(min=0)).flatten(1).all(1)
    branch = plain.last_norm.register_forward_hook(lambda module, inputs, output: 2 * output)
    kept = plain(x)
    branch.remove()
    assert 16 < skipped.sum() < 48
    torch.testing.assert_close(rows[~skipped], kept[~skipped])
    plain.load_state_dict(unit.state_dict())
    assert torch.equal(unit.eval()(x), plain.eval()(x))


@pytest.mark.parametrize("branch", [Branch(groups=2), Branch(base_width=128), Branch(dilation=2)])
def test_basic_block_refuses_what_it_does_not_have(branch):
    with pytest.raises(ValueError, match="Bottleneck"):
        BasicBlock(8, 8, branch=branch)


def test_bottleneck_takes_width_groups_dilation_and_norm():
    branch = Branch(groups=4, base_width=32, dilation=2, norm=lambda channels: nn.GroupNorm(2, channels))
    unit = Bottleneck(16, 8, 2, conv1x1(16, 32, 2), branch)
    assert unit.conv2.weight.shape == (16, 4, 3, 3), "8 planes * 32/64 * 4 groups, 4 channels a group"
    assert (unit.conv2.stride, unit.conv2.dilation, unit.conv2.padding) == ((2, 2), (2, 2), (2, 2))
    assert all(isinstance(norm, nn.GroupNorm) for norm in (unit.bn1, unit.bn2, unit.bn3))
    assert unit(torch.randn(1, 16, 9, 9)).shape == (1, 32, 5, 5)
