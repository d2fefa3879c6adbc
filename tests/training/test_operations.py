"""Our kernels as functions of torch: outputs and gradients as torch's in float64, for every set of instructions."""

import pytest
import torch
from torch.nn import functional

from resnetkit.kernels.library import LEVELS, available, best_level
from resnetkit.training import operations
from resnetkit.training.operations import LAST, Ending, convolve, convolve_small, normalise

pytestmark = pytest.mark.skipif(not available(), reason="needs the compiled kernels: python -m resnetkit.kernels.build")


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
    (2, 352, 352, 31, 33),  # weights and images that no cache holds
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


@pytest.mark.parametrize("layout", [torch.contiguous_format, LAST])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (1, 2), (3, 2), (5, 1), (5, 2), (7, 2)])
@pytest.mark.parametrize("shape", [*SHAPES[:5], (2, 160, 144, 14, 15), (1, 64, 32, 120, 130)], ids=str)
def test_other_taps_and_strides_by_matrix_registers(monkeypatch, shape, kernel, stride, layout):
    if best_level() != "amx":
        pytest.skip("needs a processor with amx")
    n, channels, filters, height, width = shape
    torch.manual_seed(0)
    x, weight = torch.randn(n, channels, height, width), torch.randn(filters, channels, kernel, kernel)

    def theirs(x, weight):
        return functional.conv2d(x, weight, stride=stride, padding=kernel // 2)

    ours = of_all(lambda x, weight: convolve(x, weight, stride=stride), x, weight.contiguous(memory_format=layout))
    agree(ours, of_all(theirs, x.double(), weight.double()))


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
        return normalise(x, other if shortcut else None, weight, bias, epsilon=1e-5, relu=relu)[0] + (
            0 if shortcut else 0 * other
        )

    agree(of_all(ours, *given), of_all(theirs, *(each.double() for each in given)), 1e-3)
    _, mean, variance = normalise(x, None, *given[1:3], epsilon=1e-5, relu=relu)
    agree([mean, variance], [x.double().mean((0, 2, 3)), x.double().var((0, 2, 3), unbiased=False)])


def test_normalisation_is_the_same_to_the_bit_with_any_number_of_threads(monkeypatch):
    x = torch.randn(5, 32, 19, 17).to(memory_format=LAST)
    given = [x, torch.rand(32), torch.randn(32), torch.randn(x.shape)]
    found = []
    for threads in (1, 2, 3):
        made = operations.workers(threads)
        monkeypatch.setattr(operations, "workers", lambda _, made=made: made)
        found.append(of_all(lambda a, b, c, d: normalise(a, d, b, c, epsilon=1e-5, relu=True)[0], *given))
    for each in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(each, found[0], strict=True))


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
