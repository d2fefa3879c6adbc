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
from resnetkit.training.operations import Ending, convolve, convolve_small, normalise

pytestmark = pytest.mark.skipif(not available(), reason="needs the compiled kernels: python -m resnetkit.kernels.build")
LAST = torch.channels_last


@pytest.fixture(params=LEVELS)
def level(request, monkeypatch):
    if LEVELS.index(request.param) > LEVELS.index(best_level()):
        pytest.skip(f"needs a processor with {request.param}")
    made = operations.workers(2, request.param)
    monkeypatch.setattr(operations, "workers", lambda threads: made)


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


def of_all(function, *given):
    """What a function gives, and the gradients of all that it is given; of a weighted sum, so that none are alike."""
    given = [each.clone().requires_grad_() for each in given]
    out = function(*given)
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(out.dtype)
    out.backward(upstream)
    return [out.detach(), *(each.grad for each in given)]


def agree(ours, theirs, tolerance=3e-5):
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).abs().max() <= tolerance * b.abs().max()


@pytest.mark.parametrize("layout", [torch.contiguous_format, LAST])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_what_follows_a_convolution(level, shape, layout):
    """Factor, bias, shortcut and ReLU."""
    n, channels, filters, height, width = shape
    torch.manual_seed(0)
    given = [torch.randn(n, channels, height, width), torch.randn(filters, channels, 3, 3) / channels]
    given += [torch.rand(filters) - 1.1, torch.randn(filters), torch.randn(n, filters, height, width)]
    given[1] = given[1].contiguous(memory_format=layout)

    def expected(x, weight, factor, bias, shortcut):
        found = functional.conv2d(x, weight, padding=1)
        return functional.relu(found * factor[:, None, None] + bias[:, None, None] + shortcut)

    theirs = of_all(expected, *(each.double() for each in given))
    ours = of_all(lambda x, weight, *rest: convolve(x, weight, Ending(*rest)), *given)
    agree(ours, theirs, 2e-4)


SMALL_SHAPES = [(2, 2, 3, 1), (4, 3, 3, 2), (1, 1, 3, 1), (1, 5, 3, 2), (7, 6, 7, 2), (5, 4, 1, 2), (3, 2, 5, 1)]


@pytest.mark.parametrize(("height", "width", "kernel", "stride"), SMALL_SHAPES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, LAST])
def test_small_maps(height, width, kernel, stride, layout):
    torch.manual_seed(0)
    x = torch.randn(3, 8, height, width).to(memory_format=LAST)
    weight = torch.randn(5, 8, kernel, kernel).to(memory_format=layout)

    def theirs(x, weight):
        return functional.conv2d(x, weight, stride=stride, padding=kernel // 2)

    ours = of_all(lambda x, weight: convolve_small(x, weight, stride, kernel // 2), x, weight)
    agree(ours, of_all(theirs, x.double(), weight.double()))


def test_large_weights_on_small_maps_are_matrix_products(monkeypatch):
    used = []
    monkeypatch.setattr(kernels, "convolve_small", lambda *given: used.append(1) or convolve_small(*given))
    network = models.resnet34(num_classes=2).to(memory_format=LAST)
    with own_kernels(network, True):
        network(torch.randn(2, 3, 64, 64).to(memory_format=LAST)).sum().backward()
        assert len(used) == 11 + 1 + 5  # at 4 and 2 px, and between them
        network.to(memory_format=torch.contiguous_format)(torch.randn(2, 3, 64, 64)).sum().backward()
    assert len(used) == 17


@pytest.mark.parametrize("shortcut", [False, True])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("shape", [(2, 16, 2, 1), (3, 48, 7, 5), (1, 64, 33, 31), (16, 512, 7, 7)], ids=str)
def test_normalisation_is_that_of_torch_in_f64(level, shape, relu, shortcut):
    torch.manual_seed(0)
    x = (100 + 3 * torch.randn(shape)).to(memory_format=LAST)  # a mean that is large to the deviation
    given = [x, torch.rand(shape[1]) + 0.5, torch.randn(shape[1]), torch.randn(shape)]

    def theirs(x, weight, bias, other):
        found = functional.batch_norm(x, None, None, weight, bias, training=True) + shortcut * other
        return functional.relu(found) if relu else found

    def ours(x, weight, bias, other):
        return normalise(x, other if shortcut else None, weight, bias, (1e-5, relu))[0] + (0 if shortcut else 0 * other)

    agree(of_all(ours, *given), of_all(theirs, *(each.double() for each in given)), 1e-3)
    _, mean, variance = normalise(x, None, *given[1:3], (1e-5, relu))
    agree([mean, variance], [x.double().mean((0, 2, 3)), x.double().var((0, 2, 3), unbiased=False)])


def test_normalisation_is_the_same_to_the_bit_with_any_number_of_threads(monkeypatch):
    x = torch.randn(5, 32, 19, 17).to(memory_format=LAST)
    given = [x, torch.rand(32), torch.randn(32), torch.randn(x.shape)]
    found = []
    for threads in (1, 2, 3):
        made = operations.workers(threads)
        monkeypatch.setattr(operations, "workers", lambda _, made=made: made)
        found.append(of_all(lambda a, b, c, d: normalise(a, d, b, c, (1e-5, True))[0], *given))
    for each in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(each, found[0], strict=True))


@pytest.mark.parametrize("variant", ["resnet18", "resnet50", "resnet20"])
@pytest.mark.parametrize("kept", [False, True])
def test_whole_networks_have_the_gradients_of_torch(variant, kept):
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
    assert (gradient - expected).norm() <= 0.08 * expected.norm()


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
        assert not any(type(module) in OWN.values() for module in net.modules())
    assert used == [20, 0] and network.state_dict().keys() == other.state_dict().keys()
    for (name, ours), theirs in zip(network.state_dict().items(), other.state_dict().values(), strict=True):
        assert (ours - theirs).abs().max() <= 1e-3 * max(1, theirs.abs().max()), name


def test_what_the_kernels_cannot_do_is_left_to_torch(monkeypatch):
    kinds = [
        torch.nn.Conv2d(16, 16, 3, padding=1, bias=True),
        torch.nn.Conv2d(16, 16, 3, padding=1, stride=2, bias=False),
        torch.nn.Conv2d(16, 16, 3, padding=2, dilation=2, bias=False),
        torch.nn.Conv2d(16, 16, 3, padding=1, groups=4, bias=False),
        torch.nn.Conv2d(16, 24, 3, padding=1, bias=False),
        torch.nn.Conv2d(16, 16, 3, padding=1, bias=False, padding_mode="reflect"),
        torch.nn.Conv2d(16, 16, 1, bias=False),
    ]
    used = []
    monkeypatch.setattr(kernels, "convolve", lambda x, weight: used.append(1) or functional.conv2d(x, weight))
    x = torch.randn(4, 16, 32, 32).to(memory_format=LAST)
    for conv in (*kinds, torch.nn.Conv2d(16, 16, 3, padding=1, bias=False)):
        used.clear()
        with own_kernels(conv, True):
            conv(x)
        assert len(used) == (conv not in kinds)


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
