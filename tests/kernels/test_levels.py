"""Convolutions of levels give the very integers that numpy gives, with every set of instructions of this processor."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from resnetkit.kernels.layers import Moves, empty, padded
from resnetkit.kernels.levels import After, LevelConv, max_levels, to_floats, to_levels
from resnetkit.kernels.library import LEVELS, Workers, available, best_level

pytestmark = pytest.mark.skipif(not available(), reason="needs the compiled kernels: python -m resnetkit.kernels.build")
PLAIN = "avx512 without VNNI"


@pytest.fixture(params=[*LEVELS, PLAIN])
def workers(request):
    level = "avx512" if request.param == PLAIN else request.param
    if LEVELS.index(level) > LEVELS.index(best_level()):
        pytest.skip(f"needs a processor with {level}")
    found = Workers(2, level)
    if request.param == PLAIN:
        found.byte_number = found.number
    return found


def levels(rng, *shape):
    return rng.integers(0, 256, shape, np.uint8)


def last(x, channels):
    """[N, C, H, W] to [N, H, W, channels], with any levels in what is added."""
    found = empty((len(x), *x.shape[2:], channels), x.dtype)
    found[:] = 77
    found[..., : x.shape[1]] = x.transpose(0, 2, 3, 1)
    return found


def expected_of(x, weight, border, after, moves, beside=None):
    """In integers, then in floats of 32 bits one operation after the other, as the kernels do."""
    p, h, w = moves.padding, *x.shape[2:]
    wide = np.broadcast_to(border[None, :, None, None], (len(x), x.shape[1], h + 2 * p, w + 2 * p)).astype(np.float64)
    wide[:, :, p : p + h, p : p + w] = x
    how = {"stride": moves.stride, "dilation": moves.dilation}
    sums = functional.conv2d(torch.from_numpy(wide), torch.from_numpy(weight.astype(np.float64)), **how).numpy()
    found = sums.astype(np.int32).astype(np.float32) * after.factor[:, None, None] + after.bias[:, None, None]
    if beside is not None:
        found = found + beside.astype(np.float32) * np.float32(after.share)
    if after.floats:
        return np.maximum(found, 0) if after.relu else found
    return np.rint(found.clip(np.float32(after.least), 255)).astype(np.uint8)


def compare(workers, shape, filters, kernel, *, seed=0, beside=False, floats=False, exact=False, **how):
    rng = np.random.default_rng(seed)
    x, weight = levels(rng, *shape), rng.integers(-127, 128, (filters, shape[1], kernel, kernel), np.int8)
    spread = 2e4 * np.sqrt(shape[1] * kernel**2)
    factor = (60 * rng.uniform(0.5, 2, filters) / spread).astype(np.float32)
    bias = rng.uniform(0, 200, filters).astype(np.float32)
    after = After(factor, bias, 0.37, float(rng.choice([0, 31])), bool(rng.integers(2)), floats)
    border = levels(rng, shape[1])
    layer = LevelConv(workers, weight, border, after, Moves(**how), exact=exact)
    given = x.transpose(0, 2, 3, 1).copy() if exact else last(x, layer.channels)
    shape = layer.shape(given.shape)
    more = levels(rng, len(x), filters, *shape[1:3]) if beside else None
    found = empty(shape, np.float32 if floats else np.uint8)
    layer._run(given, None if more is None else last(more, layer.filters), found, False)
    expected = expected_of(x, weight, border, after, layer.moves, more)
    np.testing.assert_array_equal(found[..., :filters].transpose(0, 3, 1, 2), expected)
    return found


def test_shapes_at_random(workers):
    rng = np.random.default_rng(0)
    for seed in range(50):
        kernel, n = int(rng.choice([1, 3, 3, 5, 7])), int(rng.choice([1, 2, 3, 33]))
        channels, filters = (int(number) for number in rng.integers(1, 150, 2))
        most = max(kernel, min(65, int((3e5 / n / channels) ** 0.5)))
        shape = (n, channels, *(int(side) for side in rng.integers(1, most + 1, 2)))
        how = {"stride": int(rng.choice([1, 1, 2])), "padding": kernel // 2, "beside": bool(rng.integers(2))}
        compare(workers, shape, filters, kernel, seed=seed, floats=bool(rng.integers(2)), **how)


@pytest.mark.parametrize(("channels", "filters", "side"), [(64, 64, 56), (256, 256, 14), (512, 512, 7), (64, 256, 9)])
def test_shapes_of_networks(workers, channels, filters, side):
    for kernel, stride, n in ((3, 1, 1), (1, 1, 3), (1, 2, 2)):
        compare(workers, (n, channels, side, side), filters, kernel, stride=stride, padding=kernel // 2, beside=True)


@pytest.mark.parametrize(("kernel", "stride"), [(7, 2), (3, 1), (3, 2), (1, 1)])
def test_pixels(workers, kernel, stride):
    for channels in (1, 3, 4):
        compare(workers, (3, channels, 33, 31), 20, kernel, exact=True, stride=stride, padding=kernel // 2)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 14, 28])
def test_tiles_with_products_of_16_bits(workers, size):
    """Weights are rounded once more: outputs are those of the direct convolution, or few of them one level apart."""
    rng = np.random.default_rng(size)
    for shape, filters in (((3, size, size, 16), 32), ((2, size, 65 - size, 144), 16)):
        weight = rng.integers(-127, 128, (filters, shape[3], 3, 3), np.int8)
        factor = np.full(filters, 3e-2 / 127 / np.sqrt(shape[3]), np.float32)
        after = After(factor, np.full(filters, 99, np.float32), 0.3)
        layer = LevelConv(workers, weight, np.zeros(shape[3], np.uint8), after, Moves(padding=1))
        assert layer.may_transform and not (workers.multiplies_bytes and layer.transforms(shape))
        x, found = levels(rng, *shape), [np.zeros((*shape[:3], filters), np.uint8) for _ in range(2)]
        beside = levels(rng, *found[0].shape)
        for transforms in (False, True):
            layer._run(x, beside, found[transforms], transforms)
        assert np.abs(found[0].astype(int) - found[1]).max() <= 1 and (found[0] != found[1]).mean() < 0.1


def test_the_largest_sums_of_16_bits_fit(workers):
    """Levels as a tile of points makes the most of them, with the weights of one sign."""
    x = np.zeros((1, 6, 6, 64), np.uint8)
    x[:, ::2] = x[:, :, ::2] = 255
    for value in (127, -127):
        weight = np.full((16, 64, 3, 3), value, np.int8)
        after = After(np.ones(16, np.float32), np.zeros(16, np.float32), floats=True)
        layer = LevelConv(workers, weight, np.zeros(64, np.uint8), after, Moves(padding=1))
        found = [np.zeros((1, 6, 6, 16), np.float32) for _ in range(2)]
        for transforms in (False, True):
            layer._run(x, None, found[transforms], transforms)
        assert np.abs(found[0] - found[1]).max() < 2e-3 * np.abs(found[0]).max()


def test_dilation(workers):
    for channels in (16, 80):
        compare(workers, (2, channels, 15, 12), 32, 3, dilation=2, padding=2)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (7, 8), (56, 5)])
def test_pools_and_conversions(workers, height, width):
    rng = np.random.default_rng(0)
    x = levels(rng, 3, 20, height, width)
    given = last(x, padded(20))
    largest = functional.max_pool2d(torch.from_numpy(x).float(), 3, 2, 1).numpy()
    np.testing.assert_array_equal(max_levels(workers, given)[..., :20].transpose(0, 3, 1, 2), largest)
    floats = to_floats(workers, given, 0.25, 3)
    np.testing.assert_array_equal(floats, (given.astype(np.float32) - 3) * np.float32(0.25))
    np.testing.assert_array_equal(to_levels(workers, floats, 0.25, 3), given)
    np.testing.assert_array_equal(
        to_levels(workers, 3 * floats - 40, 0.5, 9), np.rint((3 * floats - 40) / 0.5 + 9).clip(0, 255)
    )


def test_nothing_is_written_outside(workers):
    rng = np.random.default_rng(0)
    x = last(levels(rng, 2, 16, 10, 11), 16)
    weight, ones = rng.integers(-9, 9, (16, 16, 3, 3), np.int8), np.ones(16, np.float32)
    raw = np.full(x.size + 2048, 7, np.uint8)
    layer = LevelConv(workers, weight, levels(rng, 16), After(0 * ones, 9 * ones), Moves(padding=1))
    layer(x, None, raw[1024:-1024].reshape(x.shape))
    assert (raw[:1024] == 7).all() and (raw[-1024:] == 7).all() and (raw[1024:-1024] == 9).all()


def test_what_does_not_fit_is_refused():
    workers, ones = Workers(1), np.ones(16, np.float32)
    after, border, weight = After(ones, ones), np.zeros(16, np.uint8), np.ones((16, 16, 3, 3), np.int8)
    layer = LevelConv(workers, weight, border, after, Moves(padding=1))
    x = np.zeros((2, 9, 9, 16), np.uint8)
    for wrong in (x[0], x[..., :8], x.astype(np.float32), x[:, ::2], x[:0], x.transpose(0, 2, 1, 3)[:, :, ::-1]):
        with pytest.raises(ValueError, match="an input of|are needed"):
            layer(wrong)
    for out in (np.zeros((2, 9, 9, 32), np.uint8), x.astype(np.float32), np.zeros((2, 9, 18, 16), np.uint8)[:, :, ::2]):
        with pytest.raises(ValueError, match="are needed"):
            layer(x, None, out)
        with pytest.raises(ValueError, match="are needed"):
            layer(x, out)
    for given, around, then, moves in (
        (weight.astype(np.float32), border, after, Moves()),
        (weight[:, :, :2], border, after, Moves()),
        (weight, border[:8], after, Moves()),
        (weight, border, After(ones[:8], ones), Moves()),
        (weight, border, After(ones, np.nan * ones), Moves()),
        (weight, border, After(ones, ones, share=np.inf), Moves()),
        (weight, border, After(ones, ones, least=0.5), Moves()),
        (weight, border, After(1e6 * ones, ones), Moves()),
        (weight, border, after, Moves(stride=0)),
        (weight, border, after, Moves(groups=2)),
        (np.ones((16, 8192, 3, 3), np.int8), np.zeros(8192, np.uint8), after, Moves()),
    ):
        with pytest.raises(ValueError, match="no weights|are needed|256 levels|kernels are|one group|more than"):
            LevelConv(workers, given, around, then, moves)
    with pytest.raises(ValueError, match="multiple of 16"):
        max_levels(workers, x[..., :8])
    with pytest.raises(ValueError, match="are needed"):
        to_levels(workers, x, 1.0, 0)
