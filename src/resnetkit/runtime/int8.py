"""A model written with its convolutions in int8: published only if it loses hardly any accuracy."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnetkit.checkpoint import INT8
from resnetkit.errors import IncompleteError, UsageError
from resnetkit.files import new_folder, set_aside
from resnetkit.ops.intervals import Metric
from resnetkit.ops.metrics import relative_difference
from resnetkit.ops.paired import share_lost
from resnetkit.ops.quantization import WHOLE, Quantization
from resnetkit.runtime.backends import open_backend
from resnetkit.runtime.export import (
    PROOF,
    Evidence,
    Exported,
    Format,
    Proof,
    agreement,
    bytes_of,
    format_named,
    in_batches,
    latency,
    size_of,
)
from resnetkit.runtime.graph import graph_of
from resnetkit.runtime.libraries import Infer, write_json
from resnetkit.runtime.model import Model
from resnetkit.runtime.quantize import least_tolerant

log = logging.getLogger("resnetkit")
ENGINES = {"onnx": "onnxruntime", "openvino": "openvino", "native": "native"}
JUDGED = 32  # images that tell which convolutions bear int8 the least
KEPT = (1, 2, 4, 8, 16)  # of them stay float32, one number after the other
TIMED, ROUNDS = 8, 5  # images at once, and calls of each, to compare speeds
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Gate:
    """What decides whether int8 is accepted.

    Attributes:
        evidence: images with their truth.
        logits: the model's own, in float32 [N, K].
        most: largest drop of the share of right images that is accepted, 0..1.
    """

    evidence: Evidence
    logits: Floats
    most: float

    def lost(self, model: Model, logits: Floats) -> Metric:
        """How much smaller the share of right images becomes."""
        before, after = (self._right(model, each) for each in (self.logits, logits))
        return share_lost(int((before & ~after).sum()), int((after & ~before).sum()), len(before))

    def _right(self, model: Model, logits: Floats) -> NDArray[np.bool_]:
        targets = self.evidence.targets
        assert targets is not None
        same = model.task.target.judge(logits, targets).said == targets
        return np.asarray(same if same.ndim == 1 else same.all(1))


def refuse_int8(name: str) -> None:
    """Refuse a format that has no int8.

    Raises:
        UsageError: it has none, or there is no such format.
    """
    if format_named(name).write_int8 is None:
        raise UsageError(f"{name} has no int8 here", fix=f"--format {' or '.join(ENGINES)}")


def fitting(name: str, quantization: Quantization) -> Quantization:
    """As a format takes it: weights for our own kernels, whose sums overflow on no processor, have all their levels."""
    return replace(quantization, most=WHOLE) if name == "native" else quantization


def write_int8(
    model: Model, name: str, folder: Path, gate: Gate, quantization: Quantization, *, overwrite: bool = False
) -> Exported:
    """Write a model in int8 and publish it by one rename, if it loses no more accuracy than the gate accepts.

    Where it does, the convolutions that bear int8 the least go back to float32: 1, 2, 4, 8, then 16 of them.

    Args:
        model: run by the torch backend on the CPU.
        name: of a format that has int8.
        folder: to be made.
        gate: images, and the largest drop.
        quantization: the ranges of activations.
        overwrite: rename an older one aside, once the new one is accepted.

    Raises:
        IncompleteError: it loses more accuracy, however many go back; then nothing is published.
        ResourceError: the folder exists, or the disk refuses.
    """
    form, quantization = format_named(name), fitting(name, quantization)
    with new_folder(folder, needed=bytes_of(model)) as temporary:
        for tried in _candidates(model, gate, quantization):
            infer, opened_in = _written(model, form, temporary, tried)
            logits = in_batches(infer, gate.evidence.pixels)
            lost = gate.lost(model, logits)
            if lost.value is not None and lost.value <= gate.most:
                break
        else:
            drop = lost.value or 0.0
            what = f"in int8 accuracy falls by {100 * drop:.1f} points, with {len(tried.kept)} convolutions in float32"
            fix = f"--max-drop {math.ceil(1000 * drop) / 1000} accepts it; or keep float32"
            raise IncompleteError(f"{what}; nothing was written", path=model.checkpoint.folder, fix=fix)
        told = _told(model, infer, ENGINES[name], (gate, lost, tried))
        done = Exported(folder, name, opened_in, _proof(model, gate, logits, infer), size_of(temporary), INT8, told)
        write_json(temporary / PROOF, {**done.as_dict(), "folder": folder.name})
        if overwrite:
            set_aside(folder)
    return done


def _written(model: Model, form: Format, folder: Path, quantization: Quantization) -> tuple[Infer, str]:
    assert form.write_int8 is not None
    for path in folder.iterdir():  # an engine may have mapped them into memory: they must not change under it
        path.unlink()
    form.write_int8(model.checkpoint, folder, quantization)
    return form.open(folder, model.checkpoint.meta)


def _candidates(model: Model, gate: Gate, quantization: Quantization) -> Iterator[Quantization]:
    """All convolutions in int8, then with more and more of them in float32; at most half."""
    yield quantization
    log.warning("int8 loses too much: looking for the convolutions that bear it least")
    graph = graph_of(model.checkpoint)
    order = least_tolerant(graph, model.normalise(gate.evidence.pixels[:JUDGED]), quantization)
    for count in KEPT:
        if 2 * count <= len(order):
            yield replace(quantization, kept=frozenset(order[:count]))


def _proof(model: Model, gate: Gate, logits: Floats, infer: Infer) -> Proof:
    same, difference = agreement(model, gate.logits, logits), relative_difference(gate.logits, logits)
    return Proof(gate.evidence.source, difference, same, latency(infer, gate.evidence.pixels[:1]))


def _told(model: Model, infer: Infer, engine: str, found: tuple[Gate, Metric, Quantization]) -> dict[str, Any]:
    """What int8 cost and brought, for proof.json."""
    gate, lost, quantization = found
    whole = open_backend(model.checkpoint, engine, "cpu")
    batch = np.resize(gate.evidence.pixels, (TIMED, *gate.evidence.pixels.shape[1:]))
    seconds: dict[str, list[float]] = {"f32": [], "int8": []}
    whole(batch), infer(batch)
    for _ in range(ROUNDS):
        for name, run in (("f32", whole), ("int8", infer)):
            started = time.perf_counter()
            run(batch)
            seconds[name].append(time.perf_counter() - started)
    speeds = {name: TIMED / float(np.median(each)) for name, each in seconds.items()}
    kept = sorted(quantization.kept)
    return {"lost": lost.as_dict(), "images_per_second": speeds, "float32": kept, "weight_levels": quantization.most}
