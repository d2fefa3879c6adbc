"""The family against torchvision and timm, its table of sizes, and its builders with their weights."""

import functools
import re
from inspect import signature

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from resnetkit import models
from resnetkit.errors import NetworkError, UsageError
from resnetkit.models import PUBLISHED, VARIANTS, build, resnet18, resnet34
from resnetkit.nn.blocks import BasicBlock
from resnetkit.nn.resnet import ResNet

TABLE = {name: row for name, *row in re.findall(r"^ +(\w+) +([\d,]+) +([\d.]+) G$", models.__doc__, re.MULTILINE)}


def pair(variant, **options):
    """Our network and torchvision's from the same seed."""
    torch.manual_seed(0)
    ours = build(variant, num_classes=7, **options)
    torch.manual_seed(0)
    return ours, torchvision.models.get_model(variant, weights=None, num_classes=7, **options)


def same(ours, theirs):
    """Whether two lists of named tensors agree in names, order and every bit."""
    ours, theirs = dict(ours), dict(theirs)
    return list(ours) == list(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


def train_step(network, x):
    """Loss and gradients of one step of SGD, taken in place."""
    loss = nn.functional.cross_entropy(network.train()(x), torch.tensor([1, 5]))
    loss.backward()
    torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4).step()
    return {"loss": loss.detach(), **{name: p.grad for name, p in network.named_parameters()}}


def shapes(network):
    return {name: tensor.shape for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("variant", PUBLISHED)
def test_torchvision_parity(variant):
    ours, theirs = pair(variant)
    assert same(ours.state_dict(), theirs.state_dict())
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(ours.eval()(x), theirs.eval()(x))
    steps = train_step(ours, x), train_step(theirs, x)
    assert all(tensor.isfinite().all() for tensor in steps[0].values())
    assert same(*steps)
    assert same(ours.state_dict(), theirs.state_dict())


@pytest.mark.parametrize("variant", PUBLISHED)
def test_state_dicts_load_both_ways(variant):
    with torch.device("meta"):
        ours, theirs = pair(variant)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict(), strict=True, assign=True)
    theirs.load_state_dict(ours.state_dict(), strict=True, assign=True)


@pytest.mark.parametrize(
    ("variant", "options"),
    [
        ("resnet50", {"replace_stride_with_dilation": [False, True, True]}),
        ("resnet18", {"zero_init_residual": True}),
        ("resnet18", {"norm_layer": functools.partial(nn.GroupNorm, 32)}),
        ("resnext50_32x4d", {"groups": 16, "width_per_group": 8}),
    ],
)
def test_torchvision_parity_of_options(variant, options):
    if "groups" in options:  # torchvision's builder of the variant overwrites them: compare with its class
        torch.manual_seed(0)
        theirs = torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, [3, 4, 6, 3], 7, **options)
        torch.manual_seed(0)
        ours = build(variant, num_classes=7, **options)
    else:
        ours, theirs = pair(variant, **options)
    x = torch.randn(2, 3, 64, 64)
    assert same(train_step(ours, x), train_step(theirs, x))
    assert same(ours.state_dict(), theirs.state_dict())
    with torch.no_grad():
        assert torch.equal(ours.eval()(x), theirs.eval()(x))


@pytest.mark.parametrize("variant", ["resnet18", "resnet34", "resnet50"])
def test_timm_weights_give_the_same_logits(variant):
    torch.manual_seed(0)
    theirs = timm.create_model(variant, pretrained=False, num_classes=7, zero_init_last=False)
    x = torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        theirs(x)  # moves the running statistics
        ours = build(variant, num_classes=7)
        ours.load_state_dict(theirs.state_dict(), strict=True)
        assert torch.equal(ours.eval()(x), theirs.eval()(x))


@pytest.mark.parametrize("side", [64, 75])
@pytest.mark.parametrize("variant", ["resnet34d", "resnet50d"])
def test_timm_parity_of_resnet_d(variant, side):
    """As with torchvision, which has none: names, weights from the same seed, logits, loss, gradients, statistics."""
    torch.manual_seed(0)
    theirs = timm.create_model(variant, pretrained=False, num_classes=7, zero_init_last=False)
    torch.manual_seed(0)
    ours = build(variant, num_classes=7)
    assert same(ours.state_dict(), theirs.state_dict())
    for norm in (module for module in theirs.modules() if isinstance(module, nn.BatchNorm2d)):
        for tensor in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
            tensor.uniform_(0.5, 1.5)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(2, 3, side, side)
    with torch.no_grad():
        assert torch.equal(ours.eval()(x), theirs.eval()(x))
    assert same(train_step(ours, x), train_step(theirs, x))
    assert same(ours.state_dict(), theirs.state_dict())


def test_table_names_every_variant():
    assert list(TABLE) == [name for name in VARIANTS if not name.startswith("plain")]


@pytest.mark.parametrize("variant", TABLE)
def test_parameters_and_multiply_adds_of_the_table(variant):
    parameters, multiply_adds = TABLE[variant]
    with torch.device("meta"):
        network, x = build(variant).eval(), torch.empty(1, 3, 224, 224)
        x = x if VARIANTS[variant].width == 64 else torch.empty(1, 3, 32, 32)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(x)
    assert f"{sum(p.numel() for p in network.parameters()):,}" == parameters
    assert f"{counter.get_total_flops() / 2e9:.2f}" == multiply_adds


@pytest.mark.parametrize("variant", TABLE)
def test_builder(variant):
    builder = getattr(models, variant)
    assert list(signature(builder).parameters) == ["pretrained", "progress", "options"]
    with torch.device("meta"):
        network = builder(pretrained=False, progress=True, num_classes=4, in_channels=1, stem="small", shortcut="A")
        expected = build(variant, num_classes=4, in_channels=1, stem="small", shortcut="A")
        assert shapes(network) == shapes(expected)
        assert shapes(builder(False, False)) == shapes(build(variant))


def test_class_takes_block_and_layers_by_position():
    with torch.device("meta"):
        assert shapes(ResNet(BasicBlock, [3, 4, 6, 3])) == shapes(resnet34())
        assert ResNet(BasicBlock, [3, 4, 6, 3], 10, True).fc.out_features == 10


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: build("resnet35"), r"'resnet35'.*resnet18, resnet34, .*wide_resnet101_2"),
        (lambda: resnet34(weights="IMAGENET1K_V2"), r"IMAGENET1K_V2.*IMAGENET1K_V1"),
        (lambda: resnet34(stem="tiny"), "stem"),
        (lambda: resnet34(replace_stride_with_dilation=(False, False, True)), "Bottleneck"),
    ],
)
def test_usage_errors(call, match):
    with torch.device("meta"), pytest.raises(UsageError, match=match) as caught:
        call()
    assert caught.value.exit_code == 2


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Torch's cache of checkpoints, empty and in a folder of the test."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("RESNETKIT_OFFLINE", "0")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    return tmp_path / "home" / "hub" / "checkpoints"


@pytest.mark.parametrize("variable", ["RESNETKIT_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_with_an_empty_cache_names_both_ways_out(cache, monkeypatch, variable):
    monkeypatch.setenv(variable, "1")
    with pytest.raises(NetworkError) as caught:
        resnet18(pretrained=True)
    assert caught.value.exit_code == 8
    for word in (str(cache / "resnet18-f37072fd.pth"), "copy the file there", "--weights PATH", "--weights none"):
        assert word in str(caught.value)
    assert not cache.exists()
