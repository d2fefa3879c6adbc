"""Training on our own kernels: gradients as torch's, the network as it was, and only where they can be used."""

import copy

import pytest
import torch
from torch.nn import functional

from resnetkit import models
from resnetkit import recipe as recipes
from resnetkit.kernels.library import LEVELS, available, best_level
from resnetkit.training import kernels, operations
from resnetkit.training.device import Setup
from resnetkit.training.kernels import OWN, OwnConv2d, own_kernels
from resnetkit.training.operations import convolve_small

pytestmark = pytest.mark.skipif(not available(), reason="needs the compiled kernels: python -m resnetkit.kernels.build")
LAST = torch.channels_last


@pytest.fixture(params=["avx2", "amx"])
def level(request, monkeypatch):
    """Winograd's convolutions, or those with matrix registers."""
    if LEVELS.index(request.param) > LEVELS.index(best_level()):
        pytest.skip(f"needs a processor with {request.param}")
    made = operations.workers(2, request.param)
    monkeypatch.setattr(operations, "workers", lambda threads: made)
    return request.param


def test_large_weights_on_small_maps_are_matrix_products(monkeypatch, level):
    used = []
    monkeypatch.setattr(kernels, "convolve_small", lambda *given: used.append(1) or convolve_small(*given))
    network = models.resnet34(num_classes=2).to(memory_format=LAST)
    with own_kernels(network, True):
        network(torch.randn(2, 3, 64, 64).to(memory_format=LAST)).sum().backward()
        assert len(used) == (11 + 1 + 5 if level == "avx2" else 1 + 5)  # at 4 and 2 px, and between them
        network.to(memory_format=torch.contiguous_format)(torch.randn(2, 3, 64, 64)).sum().backward()
    assert len(used) == (17 if level == "avx2" else 6)


@pytest.mark.parametrize("variant", ["resnet18", "resnet50", "resnet20"])
@pytest.mark.parametrize("kept", [False, True])
def test_whole_networks_have_the_gradients_of_torch(variant, kept, level):
    """With the batch's statistics and with those that are kept, which the weights then hold."""
    torch.manual_seed(0)
    network = getattr(models, variant)(num_classes=5, zero_init_residual=False).to(memory_format=LAST)
    images = torch.randn(6, 3, 64, 64).to(memory_format=LAST)
    with torch.no_grad():
        for _ in range(3):
            network.train()(images)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.train(not kept)
    found = []
    for wanted in (True, False):
        other = copy.deepcopy(network)
        with own_kernels(other, wanted):
            out = other(images)
            functional.cross_entropy(out, torch.arange(6) % 5).backward()
        gradient = torch.cat([each.grad.flatten() for each in other.parameters()])
        found.append([out.detach(), *other.buffers(), gradient])
    *ours, gradient = found[0]
    *theirs, expected = found[1]
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).abs().max() <= 1e-3 * other.abs().max() + 1e-7
    # a ReLU that one of both sees just above zero moves gradients: torch itself is 0.03 away from float64
    assert (gradient - expected).norm() <= (0.15 if level == "amx" else 0.08) * expected.norm()


def test_a_whole_network_learns_the_same_and_stays_what_it_is(level):
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
        assert not any(type(module) in OWN.values() for module in net.modules())
    assert used == [20, 0] and network.state_dict().keys() == other.state_dict().keys()
    for (name, ours), theirs in zip(network.state_dict().items(), other.state_dict().values(), strict=True):
        assert (ours - theirs).abs().max() <= 2e-3 * max(1, theirs.abs().max()), name


def test_what_the_kernels_cannot_do_is_left_to_torch(monkeypatch, level):
    kinds = [
        torch.nn.Conv2d(16, 16, 3, padding=1, bias=True),
        torch.nn.Conv2d(16, 16, 3, padding=1, stride=3, bias=False),
        torch.nn.Conv2d(16, 16, 3, padding=1, stride=(1, 2), bias=False),
        torch.nn.Conv2d(16, 16, 3, padding=2, dilation=2, bias=False),
        torch.nn.Conv2d(16, 16, 3, padding=1, groups=4, bias=False),
        torch.nn.Conv2d(16, 24, 3, padding=1, bias=False),
        torch.nn.Conv2d(16, 16, 3, padding=1, bias=False, padding_mode="reflect"),
        torch.nn.Conv2d(16, 16, 3, padding=0, bias=False),
        torch.nn.Conv2d(16, 16, (3, 1), padding=(1, 0), bias=False),
    ]
    squares = [
        torch.nn.Conv2d(16, 16, 1, bias=False),
        torch.nn.Conv2d(16, 16, 3, padding=1, stride=2, bias=False),
        torch.nn.Conv2d(16, 16, 7, padding=3, stride=2, bias=False),
    ]
    kinds += squares if level == "avx2" else []
    used = []
    monkeypatch.setattr(kernels, "convolve", lambda x, weight, stride: used.append(1) or functional.conv2d(x, weight))
    x = torch.randn(4, 16, 32, 32).to(memory_format=LAST)
    for conv in (*kinds, *squares, torch.nn.Conv2d(16, 16, 3, padding=1, bias=False)):
        used.clear()
        with own_kernels(conv, True):
            conv(x)
        assert len(used) == (conv not in kinds)


def test_inputs_that_they_do_not_take_go_to_torch(monkeypatch, level):
    monkeypatch.setattr(kernels, "convolve", lambda *_, stride: pytest.fail("not these"))
    layer = OwnConv2d(16, 16, 3, padding=1, bias=False)
    wide = torch.randn(4, 16, 32, 32)
    layer(wide)
    if level == "avx2":
        layer(wide[:1, :, :4, :4].contiguous(memory_format=LAST))
    with torch.autocast("cpu", torch.bfloat16):
        layer(wide.to(memory_format=LAST))
    layer.double()(wide.double().to(memory_format=LAST))


def test_what_auto_is_is_written_down(monkeypatch):
    auto, cpu = recipes.read("", {}), Setup("cpu", "f32")
    assert kernels.kernels_for(auto, cpu) == "own"
    assert (
        kernels.kernels_for(auto, Setup("cuda:0", "f32")) == kernels.kernels_for(auto, Setup("cpu", "bf16")) == "torch"
    )
    assert kernels.kernels_for(recipes.replace(auto, {"train.kernels": "torch"}), cpu) == "torch"
    monkeypatch.setattr(kernels, "available", lambda: False)
    assert kernels.kernels_for(auto, cpu) == "torch"
