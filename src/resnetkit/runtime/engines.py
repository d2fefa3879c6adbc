"""What runs a network without torch: ONNX Runtime, OpenVINO and ncnn, each an optional package; see `graph`."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnetkit.data import audio
from resnetkit.data.audio import AudioPreprocess
from resnetkit.data.image import Preprocess, normalise
from resnetkit.errors import ResourceError
from resnetkit.runtime.graph import INPUT, Graph
from resnetkit.runtime.ncnn import blobs_of, ncnn_files
from resnetkit.runtime.onnx import Ends, input_of, onnx_model
from resnetkit.runtime.pipeline import num_threads
from resnetkit.runtime.sheet import PIXELS

Floats = NDArray[np.float32]
Prepare = Preprocess | AudioPreprocess
BLOBS = ("logits", "embedding_2of2")  # of a whole network
SILENCE, REPORTER = "ORT_DISABLE_TELEMETRY", "openvino_telemetry"
PIP = 'pip install "resnetkit[runtime]"'


@dataclass(frozen=True)
class Engine:
    """A compiled graph; that of a whole network is a Backend.

    Attributes:
        name: of the backend.
        run: a batch of pixels [N, size, size, C], or of normalised images [N, C, H, W] where it was opened for them, to
            the outputs of the graph.
    """

    name: str
    run: Callable[[NDArray[Any]], tuple[Floats, ...]]

    def __call__(self, batch: NDArray[Any]) -> Floats:
        """The first output, of a whole network logits [N, K], of a batch."""
        return self.run(batch)[0]

    def outputs(self, batch: NDArray[Any]) -> tuple[Floats, Floats]:
        """Logits [N, K] and embeddings [N, D] of a whole network."""
        logits, embeddings = self.run(batch)
        return logits, embeddings


def import_onnxruntime() -> Any:
    """The package onnxruntime, which reports home unless a variable forbids it when it is imported (its Privacy.md).

    Raises:
        ResourceError: it is not installed.
    """
    before = os.environ.get(SILENCE)
    os.environ[SILENCE] = "1"
    try:
        import onnxruntime as library
    except ImportError as error:
        raise ResourceError("the backend onnxruntime needs its package", fix=PIP) from error
    finally:  # the environment is the caller's
        if before is None:
            del os.environ[SILENCE]
        else:
            os.environ[SILENCE] = before
    return library


def onnxruntime(graph: Graph, preprocess: Prepare | None = None) -> Engine:
    """ONNX Runtime on the CPU.

    Raises:
        ResourceError: it is not installed.
    """
    return onnxruntime_from(_content(graph, preprocess), input_of(preprocess), graph.outputs)


def _content(graph: Graph, preprocess: Prepare | None) -> bytes:
    """Of an ONNX file that takes pixels, or normalised images where nothing says how to normalise."""
    content: bytes = onnx_model(graph, None if preprocess is None else Ends(preprocess)).SerializeToString()
    return content


def onnxruntime_from(model: bytes | Path, given: str = PIXELS, outputs: tuple[str, ...] = Graph.outputs) -> Engine:
    """ONNX Runtime on the CPU, from the content or the path of an ONNX model with the names of its input and outputs.

    Raises:
        ResourceError: it is not installed.
    """
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = num_threads()
    options.log_severity_level = 3
    content = model if isinstance(model, bytes) else str(model)
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def run(batch: NDArray[Any]) -> tuple[Floats, ...]:
        return tuple(session.run(list(outputs), {given: batch}))

    return Engine("onnxruntime", run)


def import_openvino() -> Any:
    """The package openvino, which reports home when it is imported, unless its reporter cannot be found.

    Raises:
        ResourceError: it is not installed.
    """
    known = sys.modules.get(REPORTER)
    sys.modules[REPORTER] = None  # type: ignore[assignment]  # to an import, this is "not installed"
    try:
        import openvino as library
    except ImportError as error:
        raise ResourceError("the backend openvino needs its package", fix=PIP) from error
    finally:
        if known is None:
            del sys.modules[REPORTER]
        else:
            sys.modules[REPORTER] = known
    return library


def openvino_core() -> Any:
    """The one Core of this process.

    Each that compiles a model for a CPU with AMX gives the main thread another stack for signals, and when it is gone
    the one from before; where several go in another order than they came, a signal finds no stack and ends the process.

    Raises:
        ResourceError: OpenVINO is not installed.
    """
    return _core_of(import_openvino())


@cache
def _core_of(library: Any) -> Any:
    return library.Core()


def openvino(graph: Graph, preprocess: Prepare | None = None) -> Engine:
    """OpenVINO on the CPU, in float32.

    Raises:
        ResourceError: it is not installed.
    """
    return openvino_from(_content(graph, preprocess), input_of(preprocess), graph.outputs)


def openvino_from(model: bytes | Path, given: str = PIXELS, outputs: tuple[str, ...] = Graph.outputs) -> Engine:
    """OpenVINO on the CPU, from the content or the path of a model; what is float32 in it stays so.

    Args:
        model: the content or the path.
        given: name of its input.
        outputs: names of what it gives.

    Raises:
        ResourceError: it is not installed.
    """
    core = openvino_core()
    hints = {"INFERENCE_NUM_THREADS": num_threads(), "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    compiled = core.compile_model(core.read_model(model), "CPU", hints)
    request, alone = compiled.create_infer_request(), threading.Lock()

    def run(batch: NDArray[Any]) -> tuple[Floats, ...]:
        with alone:  # the answers lie in the request until they are copied
            found = request.infer({given: batch}, share_inputs=True)
            return tuple(found[name].copy() for name in outputs)

    return Engine("openvino", run)


def ncnn(graph: Graph, preprocess: Prepare | None = None) -> Engine:
    """The engine of ncnn on the CPU, in float32 with Winograd convolutions, an image a thread.

    Raises:
        ResourceError: it is not installed.
    """
    text, weights = ncnn_files(graph)
    descriptor, path = tempfile.mkstemp(suffix=".bin")  # its Python package reads weights from a file only
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(weights)
        return ncnn_from(text, path, preprocess, blobs_of(graph))
    finally:
        os.unlink(path)


def ncnn_from(text: str, weights: str | Path, preprocess: Prepare | None, blobs: tuple[str, ...] = BLOBS) -> Engine:
    """The engine of ncnn from the text of a .param and the path of a .bin, with the names of what it is to give.

    Raises:
        ResourceError: it is not installed.
        ValueError: it cannot read them.
    """
    library = _ncnn()
    net = library.Net()
    net.opt.num_threads = 1
    net.opt.use_vulkan_compute = False
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_storage = False
    # it would go on with what it has not read, and crash
    if net.load_param_mem(text) or net.load_model(str(weights)):
        raise ValueError("its layers or weights cannot be read")
    pool = ThreadPoolExecutor(num_threads())

    def one(image: Floats) -> tuple[Floats, ...]:
        extractor = net.create_extractor()
        extractor.input(INPUT, library.Mat(image))
        return tuple(np.array(extractor.extract(name)[1]) for name in blobs)

    def run(batch: NDArray[Any]) -> tuple[Floats, ...]:
        images = batch if preprocess is None else _normalised(batch, preprocess)
        return tuple(map(np.stack, zip(*pool.map(one, images), strict=True)))

    return Engine("ncnn", run)


def _normalised(batch: NDArray[Any], preprocess: Prepare) -> Floats:
    if isinstance(preprocess, AudioPreprocess):
        return audio.normalise(batch, preprocess)
    return normalise(batch, preprocess)


def _ncnn() -> Any:
    try:
        import ncnn as library
    except ImportError as error:
        raise ResourceError("the backend ncnn needs its package", fix=PIP) from error
    return library
