"""Which backend is the fastest for a model on this machine, measured once and remembered."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import math
import os
import platform
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from resnetkit.checkpoint import Checkpoint
from resnetkit.errors import ResourceError
from resnetkit.files import cache_home, write
from resnetkit.kernels.library import available
from resnetkit.ops.metrics import relative_difference
from resnetkit.runtime.machine import CPUINFO, processor, text_of
from resnetkit.runtime.pipeline import num_threads
from resnetkit.tasks.task import task_named

log = logging.getLogger("resnetkit")
NO_GRAPH = ("wave34",)  # of sounds, and in one dimension: none of the nodes of `graph`
ENGINES = ("native", "onnxruntime", "openvino", "ncnn")  # what opens soonest comes first
MEMORY = "backends.json"
MOST = 1e-3  # largest difference of two logits over the largest logit, from torch's
SECONDS = 2.0  # of all measuring
BATCH = 8
ROUNDS = 5
Run = Callable[[NDArray[Any]], NDArray[np.float32]]
R = TypeVar("R", bound=Run)


def installed() -> tuple[str, ...]:
    """The engines that are here; nothing is imported."""
    return tuple(name for name in ENGINES if is_here(name))


def is_here(name: str) -> bool:
    """Whether an engine's package is installed, or for `native` our kernels were compiled; torch always is."""
    if name == "native":
        return available()
    return name == "torch" or bool(importlib.util.find_spec(name) and importlib.util.find_spec("onnx"))


def may_have_gpu(device: str) -> bool:
    """Whether torch has to be asked if there is a GPU, told without it."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    nvidia = any(os.path.exists(path) for path in ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")) and not hidden
    return device == "auto" and (nvidia or platform.system() != "Linux")


def key_of(checkpoint: Checkpoint, names: tuple[str, ...]) -> str:
    """What a choice depends on: the network with its weights, its input, the machine, the threads, and the versions."""
    meta = checkpoint.meta
    digest = hashlib.blake2b(digest_size=12)
    for name, array in sorted(checkpoint.tensors.items()):
        digest.update(name.encode() + np.ascontiguousarray(array).view(np.uint8).data)
    versions = [(name, version_of(name)) for name in ("resnetkit", "torch", "onnx", *names)]
    machine = (platform.machine(), processor(text_of(CPUINFO)), num_threads())
    parts = (meta.variant, dict(meta.options), dict(meta.preprocess), machine, versions)
    digest.update(json.dumps(parts, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def version_of(name: str) -> str:
    """Of a package; "" where it comes under another name, as onnxruntime-gpu does."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def remembered(key: str) -> str | None:
    """The choice of an earlier process, if it is one that can be had."""
    home = cache_home()
    try:
        found = json.loads((home / MEMORY).read_text(encoding="utf-8")).get(key) if home else None
    except (OSError, ValueError, AttributeError):
        return None
    return found if found in ("torch", *installed()) else None


def remember(key: str, name: str) -> None:
    """For later processes; a cache that cannot be written to is no error."""
    home = cache_home()
    if home is None:
        return
    try:
        known: Any = json.loads((home / MEMORY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    try:
        os.makedirs(home, exist_ok=True)
        write(home / MEMORY, json.dumps({**(known if isinstance(known, dict) else {}), key: name}, indent=2) + "\n")
    except (OSError, ResourceError):
        return


def fastest(checkpoint: Checkpoint, reference: R, openers: Mapping[str, Callable[[], R]]) -> tuple[str, R]:
    """The fastest of torch and the engines that give its answers, with its name; what was measured is said.

    Args:
        checkpoint: the model.
        reference: torch.
        openers: each engine's name to what opens it.
    """
    meta = checkpoint.meta
    prepare = task_named(meta.task).modality.prepared(meta.preprocess, checkpoint.folder)
    least, most = np.iinfo(prepare.dtype).min, np.iinfo(prepare.dtype).max
    batch = np.random.default_rng(0).integers(least, most + 1, (BATCH, *prepare.shape), prepare.dtype)
    best, run, told = compared(batch, reference, openers)
    log.warning("%s: runs on %s (%s)", checkpoint.folder, best, told)
    return best, run


def compared(
    batch: NDArray[Any], reference: R, openers: Mapping[str, Callable[[], R]], most: float = math.inf
) -> tuple[str, R, str]:
    """The fastest on a batch of torch and the engines that give its answers: its name, itself, and what was measured.

    Args:
        batch: what all of them take.
        reference: torch.
        openers: each engine's name to what opens it.
        most: seconds after which no further engine is opened.
    """
    expected, started = reference(batch), time.monotonic()
    running = {"torch": reference}
    refused: dict[str, str] = {}
    for name, opener in openers.items():
        try:
            late = time.monotonic() - started > most
            run = reference if late else opener()
            problem = "no time to try it" if late else disagreement(expected, run(batch))
        except Exception as error:  # an engine that fails, in whatever way, is left out
            problem = " ".join(str(error).split())[:100]
        if problem:
            refused[name] = problem
        else:
            running[name] = run
    speeds = _speeds(running, batch, min(SECONDS, max(0.0, started + most - time.monotonic())))
    best = max(speeds, key=speeds.__getitem__)
    told = ", ".join(f"{name} {speed:.1f}" for name, speed in sorted(speeds.items(), key=lambda item: -item[1]))
    left_out = "".join(f"; {name} left out: {why}" for name, why in refused.items())
    return best, running[best], f"inputs/s: {told}{left_out}"


def disagreement(expected: NDArray[np.floating], found: NDArray[np.floating]) -> str:
    """Why answers are not those of torch, or ""."""
    if found.shape != expected.shape or not np.isfinite(found).all():
        return "its answers have another shape, or are no numbers"
    difference = relative_difference(expected, found)
    if difference > MOST:
        return f"logits differ by {difference:.1e} of the largest"
    return "" if np.array_equal(found.argmax(1), expected.argmax(1)) else "another top-1"


def _speeds(running: Mapping[str, Run], batch: NDArray[Any], most: float) -> dict[str, float]:
    """Images a second of each: the median of interleaved rounds, as many as `most` seconds allow but one at least."""
    seconds: dict[str, list[float]] = {name: [] for name in running}
    deadline = time.monotonic() + most
    for _ in range(ROUNDS):
        for name, run in running.items():
            started = time.monotonic()
            run(batch)
            seconds[name].append(time.monotonic() - started)
        if time.monotonic() > deadline:
            break
    return {name: len(batch) / float(np.median(each)) for name, each in seconds.items()}
