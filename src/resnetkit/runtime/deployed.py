"""Opening what `deploy` wrote: an exported folder runs by its own engine, without torch."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

from resnetkit.checkpoint import Checkpoint
from resnetkit.data.image import preprocess_from
from resnetkit.errors import ModelError, ResourceError, UsageError
from resnetkit.runtime import engines
from resnetkit.runtime.engines import Engine

ONNX, XML, PARAM, BIN = "model.onnx", "model.xml", "model.param", "model.bin"
# Format to the engines that run it, the preferred one first.
ENGINES = {"onnx": ("onnxruntime", "openvino"), "openvino": ("openvino",), "ncnn": ("ncnn",)}


def open_deployed(checkpoint: Checkpoint, backend: str = "auto") -> Engine:
    """An engine that runs an exported folder; auto is the first of its format that is installed.

    Raises:
        UsageError: the format does not run on this backend.
        ModelError: the format is unknown, or the file cannot be read.
        ResourceError: the engine is not installed.
    """
    assert checkpoint.deployed is not None
    form, folder = checkpoint.deployed.format, checkpoint.folder
    if form not in ENGINES:
        raise ModelError(f"is an export of the format {form!r}", path=folder, fix="update resnetkit")
    names = ENGINES[form]
    if backend not in ("auto", *names):
        what = f"is an {form} export, which runs on {' or '.join(names)}, not on {backend}"
        raise UsageError(what, path=folder, fix="--backend auto, or give the run that it was exported from")
    there = (name for name in names if importlib.util.find_spec(name))
    chosen = next(there, names[0]) if backend == "auto" else backend
    openers: dict[str, Callable[[], Engine]] = {
        "onnxruntime": lambda: engines.onnxruntime_from(folder / ONNX),
        "openvino": lambda: engines.openvino_from(folder / (ONNX if form == "onnx" else XML)),
        "ncnn": lambda: _ncnn(checkpoint),
    }
    try:
        return openers[chosen]()
    except ResourceError:
        raise
    except Exception as error:  # engines raise whatever their readers do
        what = f"{chosen} cannot read it: {' '.join(str(error).split())[:200]}"
        raise ModelError(what, path=folder, fix="export it again") from error


def _ncnn(checkpoint: Checkpoint) -> Engine:
    folder: Path = checkpoint.folder
    text = (folder / PARAM).read_text(encoding="ascii")
    return engines.ncnn_from(text, folder / BIN, preprocess_from(checkpoint.meta.preprocess, folder))
