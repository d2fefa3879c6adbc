"""Opening what `deploy` wrote: an exported folder runs by its own engine, without torch."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from resnetkit.checkpoint import BIN, ONNX, PARAM, XML, Checkpoint
from resnetkit.data.image import preprocess_from
from resnetkit.errors import ModelError, ResourceError, UsageError
from resnetkit.runtime import engines
from resnetkit.runtime.engines import Engine
from resnetkit.runtime.onnx import input_of
from resnetkit.tasks.task import task_named

# Format to the engines that run it, the preferred one first.
ENGINES = {
    "onnx": ("onnxruntime", "openvino"),
    "openvino": ("openvino",),
    "ncnn": ("ncnn",),
    "native": ("native",),
}


def open_deployed(checkpoint: Checkpoint, backend: str = "auto") -> Engine:
    """An engine that runs an exported folder; auto is the first of its format that is installed.

    Raises:
        UsageError: the format does not run on this backend.
        ModelError: the format is unknown, or its files cannot be read or are not what model.json says.
        ResourceError: the engine is not installed.
    """
    assert checkpoint.deployed is not None
    form, folder = checkpoint.deployed.format, checkpoint.folder
    if form not in ENGINES:
        raise ModelError(f"is an export of the format {form!r}", path=folder, fix="update resnetkit")
    names = ENGINES[form]
    if backend not in ("auto", *names):
        what = f"is an export for {form}, which runs on {' or '.join(names)}, not on {backend}"
        raise UsageError(what, path=folder, fix="give the run that it was exported from")
    there = (name for name in names if importlib.util.find_spec(name))
    chosen = next(there, names[0]) if backend == "auto" else backend
    given = input_of(_prepared(checkpoint))
    openers: dict[str, Callable[[], Engine]] = {
        "onnxruntime": lambda: engines.onnxruntime_from(folder / ONNX, given),
        "openvino": lambda: engines.openvino_from(folder / (ONNX if form == "onnx" else XML), given),
        "ncnn": lambda: _ncnn(checkpoint),
        "native": lambda: _native(checkpoint),
    }
    try:
        engine = openers[chosen]()
        _refuse_misfit(checkpoint, engine)
    except ResourceError:
        raise
    except Exception as error:  # engines raise whatever their readers do
        what = f"{chosen} cannot run it as model.json says: {' '.join(str(error).split())[:200]}"
        raise ModelError(what, path=folder, fix="export it again") from error
    return engine


def _refuse_misfit(checkpoint: Checkpoint, engine: Engine) -> None:
    """Refuse a network that takes other images than model.json says, or has other classes: it is asked."""
    prepare = _prepared(checkpoint)
    logits = engine(np.zeros((1, *prepare.shape), prepare.dtype))
    if logits.shape != (1, len(checkpoint.meta.classes)):
        raise ValueError(f"names {len(checkpoint.meta.classes)} classes for logits of the shape {logits.shape}")


def _prepared(checkpoint: Checkpoint) -> Any:
    return task_named(checkpoint.meta.task).modality.prepared(checkpoint.meta.preprocess, checkpoint.folder)


def _ncnn(checkpoint: Checkpoint) -> Engine:
    folder, prepare = checkpoint.folder, preprocess_from(checkpoint.meta.preprocess, checkpoint.folder)
    text = (folder / PARAM).read_text(encoding="ascii")
    given = re.search(r"^Input .*\b0=(\d+) 1=(\d+) 2=(\d+)$", text, re.MULTILINE)
    # ncnn takes images of any size without a word
    if given is None or [int(number) for number in given.groups()] != [prepare.size, prepare.size, prepare.channels]:
        raise ValueError(f"its input is not of {prepare.channels} x {prepare.size} x {prepare.size}")
    return engines.ncnn_from(text, folder / BIN, prepare)


def _native(checkpoint: Checkpoint) -> Engine:
    from resnetkit.runtime.native_file import read_network
    from resnetkit.runtime.native_int8 import open_quantized

    network = read_network(checkpoint.folder)
    prepare = preprocess_from(checkpoint.meta.preprocess, checkpoint.folder)
    if (network.graph.channels, network.graph.size) != (prepare.channels, prepare.size):
        raise ValueError(f"its input is not of {prepare.channels} x {prepare.size} x {prepare.size}")
    return Engine("native", open_quantized(network, prepare))
