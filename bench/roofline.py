"""How near the kernels come to what the processor can do: each convolution of a network under its roof.

    python bench/roofline.py --picture docs/roofline.svg
    python bench/roofline.py --level avx512

Two measured bounds: multiplications and additions in registers, of vectors or with AMX of matrices (operations a
second), and arrays far larger than any cache (bytes a second). A layer's roof is the lower of the two at its operations
for each byte. Operations are those that are made: of a convolution by Winograd's way the products at its points, which
are fewer than a direct convolution's, transforms are not counted; with AMX three products of halves for each of floats.
Bytes are inputs, outputs, what is added, and weights as they are kept, once each: what a cache of any size would leave.
One thread, its processor time.
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import resnetkit
from resnetkit.kernels import build, layers
from resnetkit.kernels.layers import ConvLayer, Moves, Shape, empty, points
from resnetkit.kernels.library import Workers
from resnetkit.runtime import native
from resnetkit.runtime.backends import preprocess_of
from resnetkit.runtime.graph import graph_of

SUMS = 16  # vectors that are added to: more than wait for each other, and all in registers
PEAK = f"""
#include "vector.h"
extern "C" float turns(long count, float factor) {{
    Vector sums[{SUMS}], one = Vector{{}} + factor;
    for (int j = 0; j < {SUMS}; j++) sums[j] = one * float(j);  // were they alike, one would be computed
    for (long i = 0; i < count; i++) UNROLL for (int j = 0; j < {SUMS}; j++) sums[j] = sums[j] * one + one;
    Vector all{{}};
    for (int j = 0; j < {SUMS}; j++) all += sums[j];
    return all[0];
}}
extern "C" double operations() {{ return 2.0 * {SUMS} * LANES; }}
"""
MATRICES = """
#include "amx.h"
extern "C" float turns(long count, float) {
    Taken registers;
    _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
    for (long i = 0; i < count; i++) {
        _tile_dpbf16ps(0, 4, 6); _tile_dpbf16ps(1, 4, 7); _tile_dpbf16ps(2, 5, 6); _tile_dpbf16ps(3, 5, 7);
    }
    return 0;
}
extern "C" double operations() { return 4 * 2.0 * PANEL * PANEL * STEP; }
"""
HALVES = 3  # products of halves for one of floats


@dataclass(frozen=True)
class Kind:
    """Convolutions that are alike: the shape of their inputs, what they are, and how they are computed."""

    given: Shape
    filters: int
    kernel: int
    stride: int
    residual: bool
    transforms: bool

    def __str__(self) -> str:
        side, channels = self.given[1], self.given[3]
        way = "Winograd" if self.transforms else "direct"  # with AMX as halves
        return f"{self.kernel}x{self.kernel}/{self.stride}, {channels} to {self.filters}, {side} px, {way}"


@dataclass(frozen=True)
class Measured:
    """Of one convolution: operations that are made and that a direct one makes, bytes, seconds."""

    operations: float
    direct: float
    bytes: float
    seconds: float


def seconds_of(work: Callable[[], object]) -> float:
    """The median of seven after one."""
    work()
    found = []
    for _ in range(7):
        before = time.process_time()
        work()
        found.append(time.process_time() - before)
    return statistics.median(found)


def peak(level: str) -> float:
    """Operations a second in registers."""
    flags = build.LEVELS[level.upper()]
    with tempfile.TemporaryDirectory() as temporary:
        source, library = Path(temporary) / "peak.cpp", Path(temporary) / "peak.so"
        source.write_text(MATRICES if level == "amx" else PEAK, encoding="ascii")
        command = [build.compiler(), *build.FLAGS, *flags, "-shared", "-fPIC", f"-I{build.SOURCES}", str(source)]
        subprocess.run([*command, "-fvisibility=default", "-o", str(library)], check=True)
        loaded = ctypes.CDLL(str(library))
        loaded.turns.argtypes, loaded.turns.restype = (ctypes.c_long, ctypes.c_float), ctypes.c_float
        loaded.operations.restype = ctypes.c_double
        count = 5_000_000
        return loaded.operations() * count / seconds_of(lambda: loaded.turns(count, 0.5))


def bandwidth(workers: Workers) -> float:
    """Bytes a second: two arrays are read, one is written."""
    x, other, out = (empty((4, 512, 512, 64)) for _ in range(3))
    for each in (x, other, out):
        each[:] = 1
    return 3 * x.nbytes / seconds_of(lambda: layers.add_relu(workers, x, other, out))


def kinds_of(variant: str, batch: int, level: str) -> Counter[Kind]:
    """The convolutions of a network at 224 px as the backend runs them, and how many there are of each."""
    found: Counter[Kind] = Counter()
    run = ConvLayer._run

    def noted(self: ConvLayer, x, residual, out, transforms, block=0):  # type: ignore[no-untyped-def]
        if self.pixels is None and x.shape[1] > 1:  # the stem takes bytes, and the head is a product
            kind = Kind(x.shape, self.filters, self.kernel, self.moves.stride, residual is not None, transforms)
            found[kind] += 1
        run(self, x, residual, out, transforms, block)

    with tempfile.TemporaryDirectory() as temporary:
        resnetkit.save(getattr(resnetkit, variant)(num_classes=1000).eval(), temporary)
        checkpoint = resnetkit.load(temporary, backend="torch", device="cpu").checkpoint
        network = native.open_network(graph_of(checkpoint), preprocess_of(checkpoint), level)
        ConvLayer._run = noted  # type: ignore[method-assign]
        network(np.zeros((batch, 224, 224, 3), np.uint8))
        ConvLayer._run = run  # type: ignore[method-assign]
    return found


def measured(kind: Kind, workers: Workers) -> Measured:
    """One of them, alone."""
    rng, (n, height, width, channels) = np.random.default_rng(0), kind.given
    weight = rng.standard_normal((kind.filters, channels, kind.kernel, kind.kernel), np.float32)
    moves = Moves(kind.stride, kind.kernel // 2)
    layer = ConvLayer(workers, weight, np.zeros(kind.filters, np.float32), moves, relu=True)
    x, out = empty(kind.given), empty(layer.shape(kind.given))
    x[:] = rng.standard_normal(x.shape, np.float32)
    residual = out.copy() if kind.residual else None
    direct = 2.0 * out.size * channels * kind.kernel**2
    made = 2.0 * n * points(height) * points(width) * channels * kind.filters if kind.transforms else direct
    made *= HALVES if workers.level == "amx" else 1
    held = (layer.transformed if kind.transforms else layer.packed).nbytes
    moved = x.nbytes + out.nbytes + held + (0 if residual is None else residual.nbytes)
    return Measured(made, direct, moved, seconds_of(lambda: layer._run(x, residual, out, kind.transforms)))


def draw(path: Path, rows: dict[Kind, Measured], most: float, moved: float) -> None:
    """Operations a second against operations for each byte, and the roof over them."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "resnetkit"
    figure, axis = pyplot.subplots(figsize=(6.4, 4.2), layout="constrained")
    across = np.geomspace(2, 2000, 200)
    axis.plot(across, np.minimum(most, across * moved) / 1e9, color="black", label="the processor's roof")
    for name, colour, way in (("Winograd", "tab:blue", True), ("direct", "tab:orange", False)):
        some = [row for kind, row in rows.items() if kind.transforms is way]
        if not some:
            continue
        x, y = [row.operations / row.bytes for row in some], [row.operations / row.seconds / 1e9 for row in some]
        axis.scatter(x, y, color=colour, label=f"{name}, products that are made")
        if any(row.operations != row.direct for row in some):
            equal = [row.direct / row.seconds / 1e9 for row in some]
            axis.scatter(x, equal, facecolors="none", edgecolors=colour, label="the direct ones that they stand for")
    axis.set(xscale="log", yscale="log", xlabel="operations for each byte", ylabel="GFLOP/s of a thread")
    axis.set(xlim=(4, 1200), ylim=(40, 1.5 * most / 1e9))
    for each, ticks in ((axis.xaxis, (5, 20, 100, 500)), (axis.yaxis, (50, 100, 200, 500, 1000, 2000, 4000))):
        each.set_ticks([tick for tick in ticks if tick < 1.5 * most / 1e9], minor=False)
        each.set_major_formatter("{x:.0f}")
        each.set_ticks([], minor=True)
    axis.legend(frameon=False, fontsize="small")
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Measure every kind of layer and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="resnet34")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--level", default="", help="fewer instructions than the processor has")
    parser.add_argument("--picture", type=Path, help="draw this file as well")
    options = parser.parse_args()
    workers = Workers(1, options.level)
    most, moved = peak(workers.level), bandwidth(workers)
    print(f"in registers {most / 1e9:.0f} GFLOP/s, memory {moved / 1e9:.1f} GB/s: one thread, {workers.level}")
    kinds = kinds_of(options.variant, options.batch, workers.level)
    rows = {kind: measured(kind, workers) for kind in kinds}
    for kind, row in rows.items():
        roof = min(most, row.operations / row.bytes * moved)
        told = f"{1e3 * row.seconds / options.batch:6.3f} ms an image, {row.bytes / 1e6:5.1f} MB"
        made, stood_for = (operations / row.seconds / 1e9 for operations in (row.operations, row.direct))
        rates = f"{made:4.0f} GFLOP/s (direct: {stood_for:4.0f})"
        print(f"{kinds[kind]:2} of {kind!s:42} {told} {rates} {row.operations / row.seconds / roof:.2f} of the roof")
    ideal = sum(kinds[kind] * max(row.operations / most, row.bytes / moved) for kind, row in rows.items())
    taken = sum(kinds[kind] * row.seconds for kind, row in rows.items())
    print(f"all: {1e3 * taken / options.batch:.1f} ms an image, {ideal / taken:.2f} of the roof")
    if options.picture:
        draw(options.picture, rows, most, moved)


if __name__ == "__main__":
    main()
