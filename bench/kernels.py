"""Our own kernels against torch, ONNX Runtime, OpenVINO and ncnn on a CPU: networks, single layers, training steps.

    python bench/kernels.py network --variant resnet34 --batch 16
    python bench/kernels.py network --variant resnet34 --batch 16 --level avx2
    python bench/kernels.py layers --batch 16
    python bench/kernels.py step --size 224 --batch 16
    python bench/kernels.py step --size 224 --batch 16 --kept

network: from pixels to logits, model only, float32; every contestant is a process of its own, in turns. torch is its
better memory format. Ratios are medians over the rounds to the fastest peer of each round.
layers: the 3x3 convolutions of stride 1 of a ResNet-34, ours and oneDNN's in torch (channels_last) in turns within one
process; GFLOP/s are those of a direct convolution. --level has our kernels use fewer instructions than the processor
has, and ONEDNN_MAX_CPU_ISA=AVX2 in the environment does so for torch.
step: a training step of ResNet-34, forward to updated weights, torch against our kernels, processes in turns.
--cpu: one thread each, and the processor time it takes instead of the time on the wall, where others use the machine.
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
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

CLOCKS = {False: time.perf_counter, True: time.process_time}
PEERS = ("torch", "onnxruntime", "openvino", "ncnn")
# (channels, side) of ResNet-34's 3x3 convolutions of stride 1 at 224 px, and how many there are of each
LAYERS = {(64, 56): 6, (128, 28): 7, (256, 14): 11, (512, 7): 5}


def seconds_of(work: Callable[[], object], most: float) -> float:
    """Seconds of some work: the median of at least three after one, as many as `most` seconds allow."""
    clock = CLOCKS["--cpu" in sys.argv]
    work()
    found: list[float] = []
    while len(found) < 3 or sum(found) < most:
        before = clock()
        work()
        found.append(clock() - before)
    return statistics.median(found)


def make_model(folder: Path, variant: str, size: int) -> None:
    """A model folder with fresh weights, whose speed is that of any other."""
    import resnetkit
    from resnetkit.data.image import Preprocess

    network = getattr(resnetkit, variant)(num_classes=1000).eval()
    resnetkit.save(network, folder, preprocess=Preprocess(size=size))


def torch_network(folder: Path, batch: Any) -> float:
    """Seconds of torch in its better memory format, from normalised images."""
    import torch

    from resnetkit.checkpoint import read
    from resnetkit.runtime.backends import open_network

    network, _ = open_network(read(folder), "cpu")
    images = torch.from_numpy(batch).permute(0, 3, 1, 2).float().div(255).contiguous()
    found = []
    with torch.inference_mode():
        for layout in (torch.contiguous_format, torch.channels_last):
            one, x = network.to(memory_format=layout), images.to(memory_format=layout)
            found.append(seconds_of(partial(one, x), 2))
    return min(found)


def network_seconds(name: str, folder: Path, count: int, level: str) -> float:
    """Seconds of a batch by one contestant."""
    import numpy as np

    from resnetkit.checkpoint import read
    from resnetkit.runtime.backends import open_engine, preprocess_of
    from resnetkit.runtime.graph import graph_of
    from resnetkit.runtime.native import open_network

    checkpoint = read(folder)
    preprocess = preprocess_of(checkpoint)
    shape = (count, preprocess.size, preprocess.size, preprocess.channels)
    batch = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    if name == "torch":
        return torch_network(folder, batch)
    graph = graph_of(checkpoint)
    run = open_network(graph, preprocess, level) if name == "native" else open_engine(graph, name, preprocess)
    return seconds_of(partial(run, batch), 2)


def networks(options: argparse.Namespace) -> None:
    """Images/s of every contestant."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        make_model(folder, options.variant, options.size)
        names = ("native", *(options.peers or PEERS))
        commands = {name: ["--one", name, "--folder", str(folder)] for name in names}
        found = in_turns(options, commands)
    rates = {name: [options.batch / seconds for seconds in each] for name, each in found.items()}
    print(f"{options.variant}, {options.size} px, batch {options.batch}, {options.level or 'best instructions'}")
    table(rates)


def in_turns(options: argparse.Namespace, commands: dict[str, list[str]]) -> dict[str, list[float]]:
    """What processes print, in turns."""
    same = ["--size", options.size, "--batch", options.batch, "--level", options.level, "--variant", options.variant]
    found: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(options.rounds):
        for name, flags in commands.items():
            command = [sys.executable, __file__, options.what, *map(str, same), *flags]
            alone = {"OMP_NUM_THREADS": "1", "RESNETKIT_THREADS": "1"} if options.cpu else {}
            command += [flag for flag, wanted in (("--cpu", options.cpu), ("--kept", options.kept)) if wanted]
            environment = {**os.environ, **alone}
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
    return found


def table(rates: dict[str, list[float]]) -> None:
    """Medians, spreads, and the ratio of the first to each of the others, and to the fastest of them."""
    mine, *peers = rates
    for name, each in rates.items():
        ratios = [a / b for a, b in zip(rates[mine], each, strict=True)]
        spread = f"({min(each):.1f} to {max(each):.1f})"
        print(
            f"{name:14} {statistics.median(each):8.1f} images/s {spread:20} ours: {statistics.median(ratios):.2f} times"
        )
    best = [max(rates[name][i] for name in peers) for i in range(len(rates[mine]))]
    ratio = statistics.median(a / b for a, b in zip(rates[mine], best, strict=True))
    print(f"{ratio:.2f} times the fastest peer of each round")


def layers(options: argparse.Namespace) -> None:
    """Every kind of layer, ours and torch's."""
    import numpy as np
    import torch
    from torch.nn import functional

    from resnetkit.kernels.layers import ConvLayer, Moves, empty
    from resnetkit.kernels.library import Workers

    torch.set_num_threads(1 if options.cpu else 2)
    workers = Workers(torch.get_num_threads(), options.level)
    total = [0.0, 0.0]
    for (channels, side), count in LAYERS.items():
        rng = np.random.default_rng(0)
        x = empty((options.batch, side, side, channels))
        x[:] = rng.standard_normal(x.shape, np.float32)
        weight = rng.standard_normal((channels, channels, 3, 3), np.float32)
        layer = ConvLayer(workers, weight, np.zeros(channels, np.float32), Moves(padding=1), relu=True)
        out = empty(layer.shape(x.shape))
        theirs = torch.from_numpy(x.transpose(0, 3, 1, 2))  # channels_last
        filters = torch.from_numpy(weight).to(memory_format=torch.channels_last)
        with torch.inference_mode():
            direct = partial(functional.conv2d, theirs, filters, padding=1)
            rounds = [
                [seconds_of(work, 0.2) for work in (direct, partial(layer, x, None, out))]
                for _ in range(options.rounds)
            ]
        torch_, ours = (statistics.median(each) for each in zip(*rounds, strict=True))
        work = 18e-9 * options.batch * side**2 * channels**2
        total = [total[0] + count * torch_, total[1] + count * ours]
        rates = f"{work / torch_:6.0f} and {work / ours:6.0f} GFLOP/s, {torch_ / ours:.2f} times"
        print(f"{channels:4} channels, {side:2} px: {rates}")
    ms = [1e3 * seconds / options.batch for seconds in total]
    print(f"all 29: {ms[0]:.2f} and {ms[1]:.2f} ms an image, {ms[0] / ms[1]:.2f}")


def step_seconds(name: str, size: int, count: int, kept: bool) -> float:
    """Seconds of a training step; `kept`: with BatchNorm's statistics kept, as in fine-tuning."""
    import torch

    import resnetkit
    from resnetkit.runtime.pipeline import num_threads
    from resnetkit.training.kernels import own_kernels
    from resnetkit.training.optim import in_memory_order
    from resnetkit.verbs.memory import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(num_threads())
    torch.manual_seed(0)
    layout = torch.contiguous_format if name == "torch" else torch.channels_last
    network = resnetkit.resnet34(num_classes=10).to(memory_format=layout).train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.train(not kept)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, nesterov=True, fused=True)
    images = torch.randn(count, 3, size, size).to(memory_format=layout)
    targets = torch.arange(count) % 10

    def step() -> None:
        loss = torch.nn.functional.cross_entropy(network(images), targets)
        optimizer.zero_grad()
        loss.backward()
        with in_memory_order(optimizer) if name == "native" else nullcontext():  # as our loop has it
            optimizer.step()

    with own_kernels(network, name == "native"):
        return seconds_of(step, 4)


def steps(options: argparse.Namespace) -> None:
    """Training steps in turns."""
    names = {"native": "native", "torch": "torch", "torch channels_last": "channels_last"}
    found = in_turns(options, {told: ["--one", name] for told, name in names.items()})
    kept = ", statistics kept" if options.kept else ""
    print(f"a training step of ResNet-34, {options.size} px, batch {options.batch}{kept}")
    table({name: [options.batch / seconds for seconds in each] for name, each in found.items()})


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("network", "layers", "step"))
    parser.add_argument("--variant", default="resnet34")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--level", default="")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", nargs="*")
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--kept", action="store_true", help="steps with BatchNorm's statistics kept, as in fine-tuning")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one and options.what == "network":
        print(json.dumps(network_seconds(options.one, options.folder, options.batch, options.level)))
    elif options.one:
        print(json.dumps(step_seconds(options.one, options.size, options.batch, options.kept)))
    else:
        {"network": networks, "layers": layers, "step": steps}[options.what](options)


if __name__ == "__main__":
    main()
