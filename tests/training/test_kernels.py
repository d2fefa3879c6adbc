"""Training on our own kernels: gradients as torch's, the network as it was, and only where they can be used."""

import copy

import pytest
import torch
from torch.nn import functional

from resnetkit import models
from resnetkit import recipe as recipes
from resnetkit.kernels.library import LEVELS, available, best_level
from resnetkit.training import kernels
from resnetkit.training.device import Setup
from resnetkit.training.kernels import OwnConv2d, convolve, own_kernels

pytestmark = pytest.mark.skipif(not available(), reason="needs the compiled kernels: python -m resnetkit.kernels.build")
LAST = torch.channels_last


@pytest.fixture(params=LEVELS)
def level(request, monkeypatch):
    if LEVELS.index(request.param) > LEVELS.index(best_level()):
        pytest.skip(f"needs a processor with {request.param}")
    made = kernels.workers(2, request.param)
    monkeypatch.setattr(kernels, "workers", lambda threads: made)


def gradients(function, x, weight, upstream):
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    y = function(x, weight)
    y.backward(upstream.to(y.dtype))
    return y.detach(), x.grad, weight.grad


def direct(x, weight):
    return functional.conv2d(x, weight, padding=1)


SHAPES = [
    (1, 16, 16, 1, 1),
    (2, 16, 48, 5, 7),
    (3, 64, 32, 8, 8),
    (33, 32, 16, 7, 7),
    (2, 32, 64, 28, 13),
    (5, 160, 144, 14, 14),
    (4, 256, 256, 7, 7),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradients_are_those_of_torch_in_f64(level, shape):
    n, channels, filters, height, width = shape
    torch.manual_seed(0)
    x, weight = torch.randn(n, channels, height, width), torch.randn(filters, channels, 3, 3)
    upstream = torch.randn(n, filters, height, width)
    expected = gradients(direct, x.double(), weight.double(), upstream)
    for layout in (torch.contiguous_format, LAST):
        given = [each.contiguous(memory_format=layout) for each in (x, weight, upstream)]
        for ours, theirs in zip(gradients(convolve, *given), expected, strict=True):
            assert (ours - theirs).abs().max() <= 3e-5 * theirs.abs().max()


def test_only_what_is_asked_for_is_computed():
    x, weight = torch.randn(2, 16, 6, 6), torch.randn(16, 16, 3, 3, requires_grad=True)
    convolve(x, weight).sum().backward()
    assert weight.grad is not None and x.grad is None
    fixed, x = weight.detach(), x.requires_grad_()
    convolve(x, fixed).sum().backward()
    assert x.grad is not None
    with torch.no_grad():
        assert not convolve(x, fixed).requires_grad


def test_a_whole_network_learns_the_same_and_stays_what_it_is():
    torch.manual_seed(0)
    network = models.resnet18(num_classes=5).to(memory_format=LAST).train()
    other = copy.deepcopy(network)
    images = torch.randn(8, 3, 96, 96).to(memory_format=LAST)
    used = []
    for net, wanted in ((network, True), (other, False)):
        optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
        with own_kernels(net, wanted):
            used.append(sum(type(module) is OwnConv2d for module in net.modules()))
            for _ in range(2):
                optimizer.zero_grad()
                functional.cross_entropy(net(images), torch.arange(8) % 5).backward()
                optimizer.step()
        assert not any(type(module) is OwnConv2d for module in net.modules())
    assert used == [13, 0] and network.state_dict().keys() == other.state_dict().keys()
    for (name, ours), theirs in zip(network.state_dict().items(), other.state_dict().values(), strict=True):
        assert (ours - theirs).abs().max() <= 1e-3 * max(1, theirs.abs().max()), name


def test_what_the_kernels_cannot_do_is_left_to_torch():
    kinds = [
        torch.nn.Conv2d(16, 16, 3, padding=1, bias=True),
        torch.nn.Conv2d(16, 16, 3, padding=1, stride=2, bias=False),
        torch.nn.Conv2d(16, 16, 3, padding=2, dilation=2, bias=False),
        torch.nn.Conv2d(16, 16, 3, padding=1, groups=4, bias=False),
        torch.nn.Conv2d(3, 16, 3, padding=1, bias=False),
        torch.nn.Conv2d(16, 24, 3, padding=1, bias=False),
        torch.nn.Conv2d(16, 16, 3, padding=1, bias=False, padding_mode="reflect"),
        torch.nn.Conv2d(16, 16, 1, bias=False),
    ]
    network = torch.nn.Sequential(*kinds, torch.nn.Conv2d(16, 16, 3, padding=1, bias=False))
    with own_kernels(network, True):
        assert [type(module) is OwnConv2d for module in network] == [False] * len(kinds) + [True]


def test_inputs_that_they_do_not_take_go_to_torch(monkeypatch):
    monkeypatch.setattr(kernels, "convolve", lambda *_: pytest.fail("not these"))
    layer = OwnConv2d(16, 16, 3, padding=1, bias=False)
    wide = torch.randn(4, 16, 32, 32)
    layer(wide)
    layer(wide[:1, :, :4, :4].contiguous(memory_format=LAST))
    with torch.autocast("cpu", torch.bfloat16):
        layer(wide.to(memory_format=LAST))
    layer.double()(wide.double().to(memory_format=LAST))


def test_what_does_not_fit_is_refused():
    x, weight = torch.randn(2, 16, 5, 5), torch.randn(16, 16, 3, 3)
    for one, other in (
        (x[:, :8], weight[:, :8]),
        (x.double(), weight),
        (x[0], weight),
        (x[:0], weight),
        (x, weight[:8]),
    ):
        with pytest.raises(ValueError, match="no convolution for these kernels"):
            convolve(one, other)


def test_what_auto_is_is_written_down(monkeypatch):
    auto, cpu = recipes.read("", {}), Setup("cpu", "f32")
    assert kernels.kernels_for(auto, cpu) == "own"
    assert (
        kernels.kernels_for(auto, Setup("cuda:0", "f32")) == kernels.kernels_for(auto, Setup("cpu", "bf16")) == "torch"
    )
    assert kernels.kernels_for(recipes.replace(auto, {"train.kernels": "torch"}), cpu) == "torch"
    monkeypatch.setattr(kernels, "available", lambda: False)
    assert kernels.kernels_for(auto, cpu) == "torch"
