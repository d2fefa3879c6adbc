"""Every layer gives what torch gives, whatever the sizes, channels, threads and instructions; nonsense is refused."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from resnetkit.kernels import layers
from resnetkit.kernels.layers import ConvLayer, Moves, Pixels, empty, padded
from resnetkit.kernels.library import LEVELS, Workers, available, best_level

pytestmark = pytest.mark.skipif(not available(), reason="needs the compiled kernels: python -m resnetkit.kernels.build")
MOST = 2e-5  # of the largest output
SAME = Moves(padding=1)


@pytest.fixture(params=LEVELS)
def workers(request):
    if LEVELS.index(request.param) > LEVELS.index(best_level()):
        pytest.skip(f"needs a processor with {request.param}")
    return Workers(2, request.param)


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def last(x, channels):
    """[N, C, H, W] to [N, H, W, channels] with zeros for what is added."""
    found = empty((len(x), *x.shape[2:], channels))
    found[:] = 0
    found[..., : x.shape[1]] = x.transpose(0, 2, 3, 1)
    return found


def first(y, channels):
    assert not y[..., channels:].any(), "what was added stays zero"
    return y[..., :channels].transpose(0, 3, 1, 2)


def compare(
    workers, shape, filters, kernel, *, residual=False, relu=True, exact=False, transforms=None, block=0, **how
):
    """A layer against torch in float64: the largest difference over the largest output."""
    x, groups = random(*shape), how.get("groups", 1)
    weight, bias = random(filters, shape[1] // groups, kernel, kernel, seed=1), random(filters, seed=2)
    layer = ConvLayer(workers, weight, bias, Moves(**how), relu=relu, exact=exact)
    given = last(x, layer.channels)
    out = empty(layer.shape(given.shape))
    out[:] = np.nan
    more = random(len(x), filters, *out.shape[1:3], seed=3) if residual else None
    added = None if more is None else last(more, layer.filters)
    layer._run(given, added, out, layer.transforms(given.shape) if transforms is None else transforms, block)
    wide = (torch.from_numpy(array).double() for array in (x, weight, bias))
    expected = functional.conv2d(*wide, **how)
    if more is not None:
        expected += torch.from_numpy(more)
    expected = (expected.relu() if relu else expected).numpy()
    return np.abs(first(out, filters) - expected).max() / np.abs(expected).max()


WINOGRAD = {"padding": 1, "transforms": True}


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 14, 28])
def test_tiles_cover_every_size(workers, size):
    assert compare(workers, (3, 16, size, size), 32, 3, **WINOGRAD) < MOST
    assert compare(workers, (2, 32, size, 65 - size), 16, 3, residual=True, **WINOGRAD) < MOST


@pytest.mark.parametrize("images", [1, 2, 5, 16, 33])
@pytest.mark.parametrize("channels", [8, 24, 64])
def test_batches_and_channels(workers, images, channels):
    for transforms in (True, False):
        how = {"padding": 1, "transforms": transforms, "residual": True}
        assert compare(workers, (images, channels, 7, 9), 40, 3, **how) < MOST


@pytest.mark.parametrize("block", [1, 3, 50, -1, -7, -1000])
def test_blocks_of_tiles(workers, block):
    """A thread's own (positive), and those that threads share (negative)."""
    assert compare(workers, (3, 32, 14, 7), 48, 3, block=block, residual=True, **WINOGRAD) < MOST


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_threads(threads):
    workers = Workers(threads)
    assert compare(workers, (2, 160, 14, 14), 160, 3, **WINOGRAD) < MOST  # shared blocks
    assert compare(workers, (2, 32, 14, 14), 32, 3, **WINOGRAD) < MOST
    assert compare(workers, (1, 256, 9, 9), 512, 3, padding=1, stride=2) < MOST
    assert compare(workers, (3, 64, 9, 9), 32, 1) < MOST


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(("kernel", "padding"), [(1, 0), (3, 1), (3, 0), (5, 2), (7, 3), (2, 1)])
def test_kernels_and_strides(workers, kernel, padding, stride):
    for height, width in ((8, 8), (13, 15), (31, 7)):
        how = {"stride": stride, "padding": padding, "transforms": False}
        assert compare(workers, (2, 24, height, width), 48, kernel, residual=True, **how) < MOST
        assert compare(workers, (2, 3, height, width), 20, kernel, exact=True, relu=False, **how) < MOST


@pytest.mark.parametrize("dilation", [2, 4])
def test_dilation(workers, dilation):
    assert compare(workers, (2, 32, 15, 12), 32, 3, dilation=dilation, padding=dilation) < MOST


@pytest.mark.parametrize(("channels", "filters", "groups"), [(128, 128, 32), (32, 64, 2), (48, 96, 3), (16, 32, 16)])
@pytest.mark.parametrize("stride", [1, 2])
def test_groups(workers, channels, filters, groups, stride):
    assert compare(workers, (2, channels, 9, 7), filters, 3, padding=1, stride=stride, groups=groups) < MOST


def test_shapes_at_random(workers):
    rng = np.random.default_rng(0)
    for _ in range(60):
        kernel = int(rng.choice([1, 3, 3, 3, 7]))
        channels, filters = (int(number) for number in rng.integers(1, 80, 2))
        shape = (int(rng.integers(1, 5)), channels, *(int(side) for side in rng.integers(kernel, 30, 2)))
        how = {"stride": int(rng.choice([1, 1, 2])), "padding": kernel // 2, "residual": bool(rng.integers(2))}
        assert compare(workers, shape, filters, kernel, **how) < MOST, (shape, filters, kernel, how)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(("kernel", "stride"), [(7, 2), (3, 1), (1, 1)])
def test_pixels(workers, channels, kernel, stride):
    rng = np.random.default_rng(0)
    batch = rng.integers(0, 256, (3, 33, 31, channels), np.uint8)
    mean, scale = (
        rng.uniform(90, 130, channels).astype(np.float32),
        rng.uniform(0.01, 0.02, channels).astype(np.float32),
    )
    weight, bias, padding = random(20, channels, kernel, kernel), random(20, seed=1), kernel // 2
    layer = ConvLayer(workers, weight, bias, Moves(stride, padding), pixels=Pixels(mean, scale))
    x = torch.from_numpy(((batch - mean) * scale).transpose(0, 3, 1, 2)).double()
    wide = (torch.from_numpy(array).double() for array in (weight, bias))
    expected = functional.conv2d(x, *wide, stride=stride, padding=padding).numpy()
    assert np.abs(first(layer(batch), 20) - expected).max() < MOST * np.abs(expected).max()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (7, 8), (56, 5)])
def test_pools(workers, height, width):
    x = random(3, 20, height, width)
    given, wide = last(x, padded(20)), torch.from_numpy(x)
    largest = functional.max_pool2d(wide, 3, 2, 1).numpy()
    np.testing.assert_array_equal(first(layers.max_pool(workers, given), 20), largest)
    halved = functional.avg_pool2d(wide, 2, ceil_mode=True, count_include_pad=False).numpy()
    np.testing.assert_allclose(first(layers.mean_pool(workers, given), 20), halved, atol=1e-6)
    means = layers.mean(workers, given)
    np.testing.assert_allclose(means[:, :20], x.mean((2, 3)), atol=1e-5)
    both = layers.add_relu(workers, given, given)
    np.testing.assert_array_equal(first(both, 20), np.maximum(x + x, 0))


def test_what_is_no_number_stays_none(workers):
    """Wherever torch's answer is none; a tile of Winograd's may spread it to its other outputs."""
    x = random(2, 16, 9, 9)
    x[0, 3, 4, 4], x[1, 0, 0, 0] = np.nan, np.inf
    weight, bias = random(16, 16, 3, 3, seed=1), random(16, seed=2)
    expected = functional.conv2d(*map(torch.from_numpy, (x, weight, bias)), padding=1).relu().numpy()
    layer, given = ConvLayer(workers, weight, bias, SAME, relu=True), last(x, 16)
    for transforms in (True, False):
        out = empty(layer.shape(given.shape))
        layer._run(given, None, out, transforms)
        assert np.isnan(first(out, 16))[np.isnan(expected)].all()
        assert not np.isfinite(first(out, 16))[~np.isfinite(expected)].any()
    largest = functional.max_pool2d(torch.from_numpy(x), 3, 2, 1).numpy()
    np.testing.assert_array_equal(first(layers.max_pool(workers, given), 16), largest)


def test_arrays_may_lie_anywhere(workers):
    layer = ConvLayer(workers, random(16, 16, 3, 3), random(16, seed=1), SAME)
    x = last(random(2, 16, 9, 9), 16)
    raw = np.empty(x.size + 1, np.float32)
    moved = raw[1:].reshape(x.shape)
    moved[:] = x
    out = np.empty(x.size + 1, np.float32)[1:].reshape(x.shape)
    np.testing.assert_array_equal(layer(moved, None, out), layer(x))


def test_nothing_is_written_outside(workers):
    """Before and behind the output are numbers that must stay; ConvLayer's reads are watched by the sanitizers."""
    for transforms in (True, False):
        layer = ConvLayer(workers, random(16, 16, 3, 3), random(16, seed=1), SAME)
        x = last(random(2, 16, 10, 11), 16)
        raw = np.full(x.size + 2048, 7, np.float32)
        layer._run(x, None, raw[1024:-1024].reshape(x.shape), transforms)
        assert (raw[:1024] == 7).all() and (raw[-1024:] == 7).all() and (raw[1024:-1024] != 7).all()


def test_what_does_not_fit_is_refused(workers):
    layer = ConvLayer(workers, random(16, 16, 3, 3), random(16, seed=1), SAME)
    x = last(random(2, 16, 9, 9), 16)
    for wrong in (x[0], x[..., :8], x.astype(np.float64), x[:, ::2], x[:0], x.transpose(0, 2, 1, 3)[:, :, ::-1]):
        with pytest.raises(ValueError, match="an input of|are needed"):
            layer(wrong)
    for out in (empty((2, 9, 9, 32)), np.empty((2, 9, 9, 16)), empty((2, 9, 18, 16))[:, :, ::2]):
        with pytest.raises(ValueError, match="are needed"):
            layer(x, None, out)
        with pytest.raises(ValueError, match="are needed"):
            layer(x, out)
    with pytest.raises(ValueError, match="an input of"):
        ConvLayer(workers, random(16, 16, 7, 7), random(16))(last(random(1, 16, 6, 6), 16))
    for weight, bias, how in (
        (random(16, 16, 3, 2), random(16), {}),
        (random(16, 16, 3, 3), random(15), {}),
        (random(16, 16, 9, 9), random(16), {}),
        (random(16, 16, 3, 3), random(16), {"stride": 0}),
        (random(16, 16, 3, 3), random(16), {"padding": -1}),
        (random(16, 8193, 1, 1), random(16), {}),
        (random(15, 16, 1, 1), random(15), {"groups": 3}),
    ):
        with pytest.raises(ValueError, match="no weights|kernels are|more than|groups of"):
            ConvLayer(workers, weight, bias, Moves(**how))
    with pytest.raises(ValueError, match="multiple of 16"):
        layers.max_pool(workers, x[..., :8])
    with pytest.raises(ValueError, match="are needed"):
        layers.add_relu(workers, x, x[:1])


def test_transformed_weights_are_taken_where_they_pay(workers):
    deep = ConvLayer(workers, random(512, 512, 3, 3), random(512), SAME)
    small = ConvLayer(workers, random(64, 64, 3, 3), random(64), SAME)
    found = [deep.transforms((1, 7, 7, 512)), deep.transforms((16, 7, 7, 512))]
    found += [small.transforms((1, 56, 56, 64)), small.transforms((1, 1, 1, 64))]
    assert found == ([False] * 4 if workers.level == "amx" else [False, True, True, False])
