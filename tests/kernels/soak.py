"""The kernels compiled with the sanitizers of the C++ compiler, on shapes at random: `make soak`.

    python tests/kernels/soak.py --seconds 60
    python tests/kernels/soak.py --seconds 60 --sanitizer thread

Whatever they find ends the process with a report. Arrays are exactly as large as the shapes say, each in memory of its
own, so that a read or a write next to them is seen; answers are compared with numpy's.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnetkit.kernels import build, library
from resnetkit.kernels.layers import ConvLayer, Floats, Moves, empty, max_pool, mean, mean_pool
from resnetkit.kernels.levels import After, LevelConv, max_levels
from resnetkit.kernels.library import GROUP, LEVELS, Convolution, Norm, Strides, Workers

FLAGS = ("-g", "-O1", "-fno-omit-frame-pointer")


def exactly(shape: tuple[int, ...]) -> Floats:
    """An array in memory of its own from malloc, which the sanitizer watches; numpy keeps some for itself."""
    return raw(4 * int(np.prod(shape))).view(np.float32).reshape(shape)


def raw(count: int) -> NDArray[np.uint8]:
    """So many bytes, likewise."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = (ctypes.c_size_t,)
    return np.ctypeslib.as_array((ctypes.c_uint8 * count).from_address(libc.malloc(count)))


def free(*arrays: NDArray[Any]) -> None:
    """What `exactly` took."""
    libc = ctypes.CDLL(None)
    libc.free.argtypes = (ctypes.c_void_p,)
    for array in arrays:
        libc.free(array.ctypes.data)


def convolved(x: Floats, weight: Floats, stride: int, padding: int) -> Floats:
    """A convolution by numpy in float64: [n, h, w, c] with [k, c, t, t]."""
    taps = weight.shape[2]
    wide = np.pad(x.astype(np.float64), ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(wide, (taps, taps), (1, 2))[:, ::stride, ::stride]
    return np.einsum("nyxcij,kcij->nyxk", windows, weight, optimize=True)


def check_layer(workers: Workers, rng: np.random.Generator) -> None:
    """A convolution of a shape at random, with both kernels where both can."""
    taps = int(rng.choice([1, 3, 3, 3, 7]))
    stride, padding, n = int(rng.choice([1, 1, 2])), taps // 2, int(rng.integers(1, 34))
    channels, filters = (GROUP * int(number) for number in rng.integers(1, 6, 2))
    most = max(taps, min(65, int((2e6 / n / channels) ** 0.5)))
    height, width = (int(side) for side in rng.integers(1, most + 1, 2))
    x, weight = exactly((n, height, width, channels)), rng.standard_normal((filters, channels, taps, taps), np.float32)
    x[:] = rng.standard_normal(x.shape, np.float32)
    layer = ConvLayer(workers, weight, np.zeros(filters, np.float32), Moves(stride, padding))
    out, expected = exactly(layer.shape(x.shape)), convolved(x, weight, stride, padding)
    for transforms in {False, layer.may_transform}:
        out[:] = np.nan
        layer._run(x, None, out, transforms, int(rng.choice([0, 0, 1, 5, -1, -9])))
        assert np.abs(out - expected).max() <= 3e-5 * np.abs(expected).max(), (x.shape, weight.shape, stride)
    free(x, out)


def check_gradient(workers: Workers, rng: np.random.Generator) -> None:
    """The gradients of inputs and weights, against those of the sum of products with the outputs."""
    n, height, width = (int(number) for number in rng.integers(1, 20, 3))
    channels, filters = (GROUP * int(number) for number in rng.choice([1, 2, 3, 9], 2))
    taps, stride = (int(rng.choice([1, 3, 5])), int(rng.choice([1, 2]))) if workers.level == "amx" else (3, 1)
    weight = exactly((filters, channels, taps, taps))
    x, found, back = exactly((n, height, width, channels)), exactly(weight.shape), exactly((n, height, width, channels))
    y = exactly((n, (height - 1) // stride + 1, (width - 1) // stride + 1, filters))
    for each in (x, y, weight):
        each[:] = rng.standard_normal(each.shape, np.float32)
    conv = Convolution(n, height, width, channels, filters, taps, stride, taps // 2, 1, 1)
    conv.x, conv.y, conv.block = x.ctypes.data, y.ctypes.data, int(rng.choice([0, 0, 3, -3]))
    placed = Strides(taps**2 * channels, taps**2, 1)
    workers.call("weight_gradient", conv, found.ctypes.data, placed)
    workers.call("input_gradient", conv, weight.ctypes.data, placed, back.ctypes.data)
    border = ((0, 0), (taps // 2, taps // 2), (taps // 2, taps // 2), (0, 0))
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, border), (taps, taps), (1, 2))[:, ::stride, ::stride]
    expected = np.einsum("nyxcij,nyxk->kcij", windows.astype(np.float64), y, optimize=True)
    assert np.abs(found - expected).max() <= 3e-5 * np.abs(expected).max(), (x.shape, y.shape, taps)
    # the product of the gradient with any inputs is that of the outputs with what these inputs give
    product = (y * convolved(x, weight, stride, taps // 2)).sum()
    most = np.abs(y).sum() * np.abs(weight).max()
    assert abs((back.astype(np.float64) * x).sum() - product) <= 1e-5 * most, (x.shape, y.shape, taps)
    free(x, y, weight, found, back)


def check_levels(workers: Workers, rng: np.random.Generator) -> None:
    """A convolution of levels of a shape at random, pixels among them, with its sums as they are; a pool."""
    taps, stride, n = int(rng.choice([1, 3, 3, 7])), int(rng.choice([1, 1, 2])), int(rng.integers(1, 34))
    exact = bool(rng.integers(2))
    channels, filters = int(rng.integers(1, 5)) if exact else GROUP * int(rng.integers(1, 9)), GROUP
    most = max(taps, min(65, int((1e6 / n / channels) ** 0.5)))
    height, width = (int(side) for side in rng.integers(1, most + 1, 2))
    x = raw(n * height * width * channels).reshape(n, height, width, channels)
    x[:] = rng.integers(0, 256, x.shape)
    weight = rng.integers(-127, 128, (filters, channels, taps, taps), np.int8)
    after = After(np.ones(filters, np.float32), np.zeros(filters, np.float32), floats=True)
    layer = LevelConv(workers, weight, np.zeros(channels, np.uint8), after, Moves(stride, taps // 2), exact=exact)
    out = exactly(layer.shape(x.shape))
    layer._run(x, None, out, False)
    expected = convolved(x, weight, stride, taps // 2)
    assert np.array_equal(out, expected.astype(np.float32)), (x.shape, weight.shape)
    if layer.may_transform:
        layer._run(x, None, out, True)
        assert np.abs(out - expected).max() <= 1e-2 * np.abs(expected).max(), (x.shape, weight.shape)
    if not exact:
        half = raw(n * ((height + 1) // 2) * ((width + 1) // 2) * channels)
        max_levels(workers, x, half.reshape(n, (height + 1) // 2, (width + 1) // 2, channels))
        free(half)
    free(x, out)


def check_pools(workers: Workers, rng: np.random.Generator) -> None:
    """Pools of shapes at random; that they are right is tested elsewhere."""
    n, height, width = (int(number) for number in rng.integers(1, 34, 3))
    channels = GROUP * int(rng.integers(1, 5))
    x, half = exactly((n, height, width, channels)), exactly((n, (height + 1) // 2, (width + 1) // 2, channels))
    x[:], means = 1, exactly((n, channels))
    for pool in (max_pool, mean_pool):
        assert (pool(workers, x, half) == 1).all()
    assert np.abs(mean(workers, x, means) - 1).max() < 1e-5
    free(x, half, means)


def check_norm(workers: Workers, rng: np.random.Generator) -> None:
    """A batch normalisation with sum and ReLU forward, and what comes back of ones; ReLU alone likewise."""
    places, channels = int(rng.integers(1, 3000)), GROUP * int(rng.integers(1, 5))
    x, residual, y, gradient, to_x, to_residual = arrays = [exactly((places, channels)) for _ in range(6)]
    weight, bias, mean_, variance, to_weight, to_bias = vectors = [exactly((channels,)) for _ in range(6)]
    for each in (x, residual, weight, bias):
        each[:] = rng.standard_normal(each.shape, np.float32)
    gradient[:] = 1
    norm = Norm(places, channels, int(rng.integers(2)), x.ctypes.data, residual.ctypes.data, weight.ctypes.data)
    norm.bias, norm.y, norm.mean, norm.variance = (each.ctypes.data for each in (bias, y, mean_, variance))
    norm.gradient, norm.to_x, norm.to_residual = (each.ctypes.data for each in (gradient, to_x, to_residual))
    norm.to_weight, norm.to_bias, norm.epsilon = to_weight.ctypes.data, to_bias.ctypes.data, 1e-5
    workers.call("norm_forward", norm)
    spread = (x - x.mean(0, np.float64)) / np.sqrt(x.var(0, dtype=np.float64) + 1e-5)
    expected = spread * weight + bias + residual
    expected = np.maximum(expected, 0) if norm.relu else expected
    assert np.abs(y - expected).max() <= 1e-4 * np.abs(expected).max() + 1e-5, (places, channels)
    workers.call("norm_backward", norm)
    assert np.array_equal(to_residual, (y > 0) if norm.relu else gradient)
    workers.call("relu_backward", norm)
    assert np.abs(to_bias - to_residual.sum(0)).max() <= 1e-3 * places
    free(*arrays, *vectors)


def soak(folder: Path, seconds: float) -> None:
    """Run checks for some time on the library in a folder."""
    library.HERE = folder
    levels = LEVELS[: 1 + LEVELS.index(library.best_level())]
    pools = [Workers(threads, level) for level in levels for threads in (1, 3)]
    plain = [pool for pool in pools if pool.byte_number != pool.number]  # with VNNI, which other processors have not
    pools += [Workers(pool.threads, pool.level) for pool in plain]
    for pool in pools[len(pools) - len(plain) :]:
        pool.byte_number = pool.number
    rng, count, started = np.random.default_rng(), 0, time.monotonic()
    while time.monotonic() - started < seconds:
        for check in (check_layer, check_gradient, check_levels, check_pools, check_norm):
            check(pools[count % len(pools)], rng)
        count += 1
    assert empty((1,)).shape == (1,)
    print(f"{count} rounds of five shapes, {', '.join(levels)}: nothing found")


def main() -> None:
    """Compile with a sanitizer and run this file again with it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--sanitizer", choices=("address", "thread"), default="address")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder:
        soak(options.folder, options.seconds)
        return
    with tempfile.TemporaryDirectory() as folder:
        kinds = "address,undefined" if options.sanitizer == "address" else "thread"
        cxx = build.compiler()
        build.build(Path(folder), (*FLAGS, f"-fsanitize={kinds}", "-fno-sanitize-recover=all"), cxx)
        name = {"address": "libasan.so", "thread": "libtsan.so"}[options.sanitizer]
        runtime = subprocess.run([cxx, f"-print-file-name={name}"], capture_output=True, text=True, check=True)
        settings = {"LD_PRELOAD": runtime.stdout.strip(), "ASAN_OPTIONS": "detect_leaks=0", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, __file__, "--folder", folder, "--seconds", str(options.seconds)]
        sys.exit(subprocess.run(command, env={**os.environ, **settings}).returncode)


if __name__ == "__main__":
    main()
