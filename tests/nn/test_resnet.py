"""What the constructor of ResNet promises, each option against the plain network."""

import math
import re

import pytest
import torch
from torch import nn
from torchvision.ops import StochasticDepth

from resnetkit.nn import resnet
from resnetkit.nn.blocks import BasicBlock, Bottleneck, PadShortcut
from resnetkit.nn.resnet import ResNet

BLOCKS = pytest.mark.parametrize("block", [BasicBlock, Bottleneck])


def network(block=BasicBlock, layers=(2, 1, 2, 1), **options):
    torch.manual_seed(0)
    return ResNet(block, layers, 5, **options)


def units(net):
    return {name: module for name, module in net.named_modules() if isinstance(module, BasicBlock | Bottleneck)}


@BLOCKS
@pytest.mark.parametrize("shortcut", "ABCD")
def test_shortcut_is_the_identity_where_shapes_agree(block, shortcut):
    net = network(block, shortcut=shortcut)
    changed = {"layer2.0", "layer3.0", "layer4.0"} | ({"layer1.0"} if block is Bottleneck else set())
    shortcuts = {name: unit.downsample for name, unit in units(net).items() if unit.downsample is not None}
    assert shortcuts.keys() == (units(net).keys() if shortcut == "C" else changed)
    for name, module in shortcuts.items():
        stride = (1, 1) if name not in changed or name == "layer1.0" else (2, 2)
        if shortcut == "A":
            assert isinstance(module, PadShortcut)
            assert not list(module.parameters())
        else:
            *pool, conv, norm = module
            if shortcut == "D":
                assert isinstance(pool[0], nn.Identity if stride == (1, 1) else nn.AvgPool2d)
                stride = (1, 1)
            assert (conv.kernel_size, conv.stride, conv.bias, type(norm)) == ((1, 1), stride, None, nn.BatchNorm2d)
    assert net(torch.randn(2, 3, 33, 47)).shape == (2, 5)


@BLOCKS
@pytest.mark.parametrize("norm_layer", [None, lambda channels: nn.GroupNorm(32, channels)])
def test_zero_init_residual_starts_each_unit_as_the_identity(block, norm_layer):
    net = network(block, zero_init_residual=True, norm_layer=norm_layer).eval()
    last = {f"{name}.{'bn2' if block is BasicBlock else 'bn3'}" for name in units(net)}
    norms = {name: m for name, m in net.named_modules() if isinstance(m, nn.BatchNorm2d | nn.GroupNorm)}
    assert {name for name, norm in norms.items() if not norm.weight.any()} == last
    identities = [unit for unit in units(net).values() if unit.downsample is None]
    assert len(identities) == (3 if block is BasicBlock else 2)
    for unit in identities:
        x = torch.rand(2, unit.conv1.in_channels, 6, 6)
        assert torch.equal(unit(x), x)


@pytest.mark.parametrize(("block", "groups"), [(BasicBlock, 1), (Bottleneck, 1), (Bottleneck, 2)])
def test_convolutions_start_kaiming_normal_by_fan_out(block, groups):
    convolutions = [m.weight.data for m in network(block, groups=groups).modules() if isinstance(m, nn.Conv2d)]
    for weight in convolutions:
        std = math.sqrt(2 / (weight.shape[0] * weight.shape[2] * weight.shape[3]))
        assert weight.std().item() == pytest.approx(std, rel=5 / math.sqrt(2 * weight.numel()))
        assert weight.mean().item() == pytest.approx(0, abs=5 * std / math.sqrt(weight.numel()))


def test_norm_layer_replaces_every_norm():
    net = network(norm_layer=lambda channels: nn.GroupNorm(32, channels))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in net.modules())
    x = torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(net(x), torch.cat([net(row[None]) for row in x]), msg="samples must not mix")


@pytest.mark.parametrize("in_channels", [1, 3, 6])
@pytest.mark.parametrize(("stem", "stride", "kernel"), [("small", 1, 3), ("imagenet", 4, 7)])
def test_stem(stem, stride, kernel, in_channels):
    net = network(stem=stem, in_channels=in_channels)
    assert net.conv1.weight.shape == (64, in_channels, kernel, kernel) and net.in_channels == in_channels
    assert any(isinstance(module, nn.MaxPool2d) for module in net.modules()) == (stem == "imagenet")
    features = net.forward_features(torch.randn(2, in_channels, 32, 32))
    assert [f.shape[-1] * stride * 2**i for i, f in enumerate(features.values())] == [32] * 4


def test_stem_of_spectra_halves_bands_twice_and_frames_once():
    usual, own = network(in_channels=1).eval(), network(stem="spectrum", in_channels=1).eval()
    own.load_state_dict(usual.state_dict())  # the same tensors
    spectra = torch.randn(2, 1, 40, 73)
    assert usual.forward_stem(spectra).shape[2:] == (10, 19) and own.forward_stem(spectra).shape[2:] == (10, 37)
    assert torch.equal(usual.forward_stem(spectra), own.forward_stem(spectra)[..., ::2])


def test_deep_stem_is_three_convolutions_that_see_11_pixels():
    net = network(stem="deep", in_channels=2).eval()
    assert [tuple(m.weight.shape) for m in net.conv1 if isinstance(m, nn.Conv2d)] == [
        (32, 2, 3, 3),
        (32, 32, 3, 3),
        (64, 32, 3, 3),
    ]
    assert net.in_channels == 2
    x = torch.randn(1, 2, 64, 64, requires_grad=True)
    out = net.conv1(x)
    assert out.shape == (1, 64, 32, 32), "the convolutions halve, the pooling after them halves again"
    out[0, :, 16, 16].sum().backward()
    assert [(x.grad[0] != 0).any(0).any(side).sum() for side in (0, 1)] == [11, 11], "3 + 2 * (2 + 2)"


def test_shortcut_d_uses_every_pixel():
    """The mean of each 2x2 pixels, of those that are there at an odd edge."""
    pool = network(shortcut="D").layer2[0].downsample[0]
    x = torch.arange(15.0).view(1, 1, 3, 5)
    assert torch.equal(pool(x)[0, 0], torch.tensor([[3.0, 5.0, 6.5], [10.5, 12.5, 14.0]]))


def test_stochastic_depth_rises_linearly_and_is_off_in_eval():
    plain, net = network().eval(), network(stochastic_depth=0.5).eval()
    x = torch.randn(4, 3, 32, 32)
    assert torch.equal(net(x), plain(x))
    drops = [unit.drop.p if isinstance(unit.drop, StochasticDepth) else 0 for unit in units(net).values()]
    assert drops == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])
    for module in (net, plain):
        module.train()
    assert torch.equal(plain(x), plain(x))
    assert not torch.equal(net(x), net(x))


@BLOCKS
def test_features_are_those_of_the_docstring(block):
    rows = re.findall(r"(C\d) +(layer\d) +\[N, +(.+?)\] / \[N, +(.+?)\] +(\d+)", resnet.__doc__)
    shapes = {name: tuple(map(int, (basic, wide)[block is Bottleneck].split(","))) for name, _, basic, wide, _ in rows}
    with torch.device("meta"):
        net, x = network(block), torch.empty(2, 3, 224, 224)
    outputs = {}
    for name, layer, *_ in rows:
        net.get_submodule(layer).register_forward_hook(lambda m, i, output, name=name: outputs.update({name: output}))
    features = net.forward_features(x)
    assert list(features) == ["C2", "C3", "C4", "C5"]
    assert all(features[name] is outputs[name] for name in features)
    assert {name: tuple(feature.shape[1:]) for name, feature in features.items()} == shapes
    assert [224 // feature.shape[-1] for feature in features.values()] == [int(row[-1]) for row in rows]


@BLOCKS
def test_head_gives_embedding_and_logits(block):
    net = network(block).eval()
    x = torch.randn(2, 3, 40, 56)
    features = net.forward_features(x)
    embedding, logits = net.forward_head(features)
    torch.testing.assert_close(embedding, features["C5"].mean((2, 3)))
    assert torch.equal(logits, net.fc(embedding))
    assert torch.equal(logits, net(x))


@BLOCKS
@pytest.mark.parametrize("layers", [(1, 1, 1, 1), (1, 1, 1)])
def test_pooled_features_of_all_stages(block, layers):
    net = network(block, layers, pool="all").eval()
    x = torch.randn(2, 3, 40, 56)
    features = net.forward_features(x)
    embedding, logits = net.forward_head(features)
    torch.testing.assert_close(embedding, torch.cat([maps.mean((2, 3)) for maps in features.values()], 1))
    assert torch.equal(logits, net(x)) and net.fc.in_features == embedding.shape[1]
    assert net.state_dict().keys() == network(block, layers).state_dict().keys()


@pytest.mark.parametrize(
    ("dilate", "strides", "dilations"),
    [
        ((False, False, False), [4, 8, 16, 32], [1, 1, 1, 1]),
        ((False, False, True), [4, 8, 16, 16], [1, 1, 1, 2]),
        ([False, True, True], [4, 8, 8, 8], [1, 1, 2, 4]),
        ((True, True, True), [4, 4, 4, 4], [1, 2, 4, 8]),
        ((True, False, False), [4, 4, 8, 16], [1, 2, 2, 2]),
    ],
)
def test_dilation_keeps_resolution_and_tensors(dilate, strides, dilations):
    with torch.device("meta"):
        plain = network(Bottleneck, (2, 2, 2, 2))
        net = network(Bottleneck, (2, 2, 2, 2), replace_stride_with_dilation=dilate)
        features = net.forward_features(torch.empty(1, 3, 64, 64))
    assert [64 // feature.shape[-1] for feature in features.values()] == strides
    assert [net.get_submodule(f"layer{i}.1").conv2.dilation[0] for i in range(1, 5)] == dilations
    assert [net.get_submodule(f"layer{i}.0").conv2.dilation[0] for i in range(1, 5)] == [1, *dilations[:-1]]
    assert {k: v.shape for k, v in net.state_dict().items()} == {k: v.shape for k, v in plain.state_dict().items()}


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"layers": (2, 2)}, "layers"),
        ({"layers": (2, 0, 2, 2)}, "layers"),
        ({"replace_stride_with_dilation": (True,)}, "replace_stride_with_dilation"),
        ({"replace_stride_with_dilation": (False, False, True), "layers": (1, 1, 1, 2)}, "Bottleneck"),
        ({"shortcut": "E"}, "shortcut"),
        ({"shortcut": "AB"}, "shortcut"),
        ({"stem": "tiny"}, "stem"),
        ({"stochastic_depth": 1.0}, "stochastic_depth"),
        ({"stochastic_depth": -0.1}, "stochastic_depth"),
        ({"stochastic_depth": math.nan}, "stochastic_depth"),
        ({"groups": 2}, "Bottleneck"),
        ({"width_per_group": 128}, "Bottleneck"),
        ({"norm_layer": lambda channels: nn.GroupNorm(48, channels)}, "divisible"),
    ],
)
def test_constructor_refuses(options, match):
    with torch.device("meta"), pytest.raises(ValueError, match=match):
        network(**options)
