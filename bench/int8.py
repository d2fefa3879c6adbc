"""Our own kernels in int8 against OpenVINO and ONNX Runtime in int8, and against themselves in float32, on a CPU.

    python bench/int8.py --variant resnet34 --batch 16
    python bench/int8.py --variant resnet34 --batch 1 --level avx2

From pixels to logits, model only, of a network with fresh weights; every contestant is a process of its own, in turns.
Ratios are medians over the rounds. RESNETKIT_THREADS says the threads of all. --level has our kernels use fewer
instructions than the processor has; the others use what they like.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

FORMS = ("native", "openvino", "onnx")
WHOLE = "native float32"


def folders(model: Path, into: Path, pixels: Any) -> None:
    """A model written in int8 in every format, with the ranges of some images."""
    from resnetkit.runtime.export import FORMATS
    from resnetkit.runtime.graph import graph_of
    from resnetkit.runtime.int8 import fitting
    from resnetkit.runtime.model import load
    from resnetkit.runtime.quantize import quantization_for

    opened: Any = load(model, backend="torch", device="cpu")
    ranges = quantization_for(graph_of(opened.checkpoint), pixels, opened.normalise, lambda done: None)
    for form in FORMS:
        (into / form).mkdir()
        write = FORMATS[form].write_int8
        assert write is not None
        write(opened.checkpoint, into / form, fitting(form, ranges))


def opened_one(name: str, model: Path, into: Path, level: str) -> Any:
    """A contestant, which takes pixels."""
    from resnetkit.checkpoint import Deployed, read
    from resnetkit.runtime.backends import preprocess_of
    from resnetkit.runtime.deployed import open_deployed
    from resnetkit.runtime.graph import graph_of
    from resnetkit.runtime.native import open_network
    from resnetkit.runtime.native_file import read_network
    from resnetkit.runtime.native_int8 import open_quantized

    checkpoint = read(model)
    written = replace(checkpoint, folder=into / name, deployed=Deployed(name, "int8"))
    if name == WHOLE:
        return open_network(graph_of(checkpoint), preprocess_of(checkpoint), level)
    if name == "native":
        return open_quantized(read_network(into / name), preprocess_of(checkpoint), level)
    return open_deployed(written)


def seconds_of(work: Any, most: float) -> float:
    """The median of at least three after one, as many as `most` seconds allow."""
    work()
    found: list[float] = []
    while len(found) < 3 or sum(found) < most:
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return statistics.median(found)


def one(options: argparse.Namespace) -> None:
    """Seconds of a batch by one contestant."""
    import numpy as np

    shape = (options.batch, options.size, options.size, 3)
    batch = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    run = opened_one(options.one, options.folder / "model", options.folder, options.level)
    print(json.dumps(seconds_of(partial(run, batch), 2)))


def speed(options: argparse.Namespace) -> None:
    """Images/s of every contestant."""
    import numpy as np

    import resnetkit
    from resnetkit.data.image import Preprocess

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        network = getattr(resnetkit, options.variant)(num_classes=1000).eval()
        resnetkit.save(network, folder / "model", preprocess=Preprocess(size=options.size))
        some = np.random.default_rng(1).integers(0, 256, (8, options.size, options.size, 3), np.uint8)
        folders(folder / "model", folder, some)
        names = (*FORMS, WHOLE)
        rates: dict[str, list[float]] = {name: [] for name in names}
        same = ["--folder", temporary, "--batch", str(options.batch), "--size", str(options.size)]
        for _ in range(options.rounds):
            for name in names:
                command = [sys.executable, __file__, *same, "--level", options.level, "--one", name]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=dict(os.environ))
                rates[name].append(options.batch / json.loads(done.stdout.splitlines()[-1]))
    print(f"{options.variant}, {options.size} px, batch {options.batch}, {options.level or 'best instructions'}")
    for name, each in rates.items():
        ratio = statistics.median(ours / theirs for ours, theirs in zip(rates["native"], each, strict=True))
        spread = f"({min(each):.1f} to {max(each):.1f})"
        print(f"{name:16} {statistics.median(each):8.1f} images/s {spread:20} native int8: {ratio:.2f} times")


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="resnet34")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--level", default="")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    (one if options.one else speed)(options)


if __name__ == "__main__":
    main()
