"""The folders that run without torch: ONNX, OpenVINO, ncnn and native, with a picture whose answer is known."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnetkit.checkpoint import (
    BIN,
    CARD,
    FLOAT32,
    INT8,
    ONNX,
    PARAM,
    XML,
    Checkpoint,
    Deployed,
    Meta,
    card,
    write_meta,
)
from resnetkit.data.image import from_array, normalise, pixels
from resnetkit.errors import UsageError
from resnetkit.ops.quantization import Quantization
from resnetkit.runtime import choice, engines
from resnetkit.runtime.backends import Backend, open_backend, prepared_of, preprocess_of
from resnetkit.runtime.choice import NO_GRAPH
from resnetkit.runtime.deployed import open_deployed
from resnetkit.runtime.graph import graph_of
from resnetkit.runtime.libraries import Infer, public, write_json, write_names
from resnetkit.runtime.native_file import write_network
from resnetkit.runtime.native_int8 import quantized
from resnetkit.runtime.ncnn import ncnn_files
from resnetkit.runtime.onnx import Ends, onnx_model
from resnetkit.runtime.probes import probes
from resnetkit.runtime.sequences import sequence_model
from resnetkit.runtime.usage import other_usage, usage
from resnetkit.tasks.task import IMAGE, LABELS, TEXT, task_named

GOLDEN = "golden"  # .png, .json, .u8 and .f32
ELSEWHERE = """
In a page or in node, with onnxruntime-web; `pixels` is a Uint8Array of the bytes of all channels, row by row:

```javascript
const session = await ort.InferenceSession.create("model.onnx");
const input = new ort.Tensor("uint8", pixels, [1, {size}, {size}, {channels}]);
const {{ scores }} = await session.run({{ pixels: input }});
```
"""
IN_CPP = """
In C++, with OpenVINO, which reads this file as it is; `golden.u8` holds such pixels:

```cpp
#include <algorithm>
#include <fstream>
#include <iostream>
#include <openvino/openvino.hpp>

int main() {{
    ov::Core core;
    auto model = core.compile_model("{file}", "CPU", ov::hint::inference_precision(ov::element::f32));
    auto request = model.create_infer_request();
    ov::Tensor pixels(ov::element::u8, {{1, {size}, {size}, {channels}}});
    std::ifstream file("golden.u8", std::ios::binary);
    file.read(static_cast<char*>(pixels.data()), pixels.get_byte_size());
    request.set_tensor("pixels", pixels);
    request.infer();
    auto scores = request.get_tensor("scores");
    const float* first = scores.data<float>();
    const float* best = std::max_element(first, first + scores.get_size());
    std::cout << best - first << " " << *best << std::endl;  // place in classes.json, and its score
}}
```
"""
HOW_IT_IS_CHECKED = """
`{picture}` is a picture whose answer is known: `golden.json` has its logits and the SHA-256 of its input, and
`golden.f32` that input (float32, little-endian, [{channels}, {size}, {size}], normalised); `golden.u8` is the same
before it is normalised (uint8, [{size}, {size}, {channels}]). What prepares images elsewhere is right if it gives these
numbers.{rounding}
"""
ROUNDING = (
    " This model computes in int8, which every engine rounds a little otherwise: its logits move with the engine."
)
KNOWN_ANSWER = """
`golden.bin` holds an input whose answer is known, samples (int16) or tokens (uint16), little-endian: `golden.json` has
its logits and SHA-256.
"""
IMPORT_ONNX = """
import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # it reports home otherwise
import onnxruntime
"""
IMPORT_OPENVINO = """
import sys

sys.modules["openvino_telemetry"] = None  # it reports home otherwise
import openvino
"""
RUN_ONNX = """\
session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
logits, scores = session.run(["logits", "scores"], {"pixels": pixels[None]})"""
RUN_OPENVINO = """\
model = openvino.compile_model("model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
logits = model({"pixels": pixels[None]})["logits"]"""
RUN_NATIVE = """\
logits = resnetkit.load(".").backend(pixels[None])"""
NEEDS_KERNELS = """
`network.json` says the layers and `model.safetensors` holds their weights. resnetkit runs them without torch, by its
own kernels: `python -m resnetkit.kernels.build` compiles them where they are not there.
"""
RUN_NCNN = """\
net = ncnn.Net()
net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False  # as it was proven
net.load_param("model.param")
net.load_model("model.bin")
extractor = net.create_extractor()
extractor.input("image", ncnn.Mat(floats))
logits = np.array(extractor.extract("logits")[1])[None]"""


def refuse_none(meta: Meta) -> None:
    """ONNX and OpenVINO hold every network, of whatever it is."""


def refuse_sounds(meta: Meta) -> None:
    """Some formats hold networks of images only.

    Raises:
        UsageError: it is of something else.
    """
    if task_named(meta.task).modality is not IMAGE:
        raise UsageError("this format holds models of images only", fix="--format onnx or openvino")


def write_onnx(checkpoint: Checkpoint, folder: Path, quantization: Quantization | None = None) -> None:
    """model.onnx: `pixels` uint8 [batch, size, size, C] to calibrated `scores`, `logits` and `embedding`."""
    (folder / ONNX).write_bytes(_onnx(checkpoint, quantization))
    if not _sees(checkpoint):
        text = other_usage(checkpoint, IMPORT_ONNX, RUN_ONNX)
    else:
        text = usage(checkpoint, IMPORT_ONNX, RUN_ONNX) + _told(checkpoint, ELSEWHERE + IN_CPP, ONNX)
    _write_rest(checkpoint, folder, Deployed("onnx", INT8 if quantization else FLOAT32), text)


def write_openvino(checkpoint: Checkpoint, folder: Path, quantization: Quantization | None = None) -> None:
    """model.xml and model.bin, with the inputs and outputs of the ONNX model.

    Raises:
        ResourceError: OpenVINO is not installed.
    """
    library = engines.import_openvino()
    content = _onnx(checkpoint, quantization)
    library.save_model(engines.openvino_core().read_model(content), folder / XML, compress_to_fp16=False)
    if not _sees(checkpoint):
        text = other_usage(checkpoint, IMPORT_OPENVINO, RUN_OPENVINO)
    else:
        text = usage(checkpoint, IMPORT_OPENVINO, RUN_OPENVINO) + _told(checkpoint, IN_CPP, XML)
    _write_rest(checkpoint, folder, Deployed("openvino", INT8 if quantization else FLOAT32), text)


def write_ncnn(checkpoint: Checkpoint, folder: Path) -> None:
    """model.param and model.bin: normalised `image` [C, size, size] to `logits` and `embedding_2of2`."""
    text, weights = ncnn_files(graph_of(checkpoint))
    (folder / PARAM).write_text(text, encoding="ascii")
    (folder / BIN).write_bytes(weights)
    _write_rest(checkpoint, folder, Deployed("ncnn", FLOAT32), usage(checkpoint, "import ncnn", RUN_NCNN))


def write_native(checkpoint: Checkpoint, folder: Path, quantization: Quantization | None = None) -> None:
    """network.json and model.safetensors, for our own kernels; int8 has all its levels there on every processor."""
    write_network(quantized(graph_of(checkpoint), quantization, preprocess_of(checkpoint)), folder)
    text = usage(checkpoint, "import resnetkit", RUN_NATIVE) + NEEDS_KERNELS
    _write_rest(checkpoint, folder, Deployed("native", INT8 if quantization else FLOAT32), text)


def _onnx(checkpoint: Checkpoint, quantization: Quantization | None) -> bytes:
    """The content of an ONNX file, checked against the standard."""
    from onnx import checker

    temperature = checkpoint.calibration.temperature if checkpoint.calibration else 1.0
    task, prepare = task_named(checkpoint.meta.task), prepared_of(checkpoint)
    if task.modality is TEXT or checkpoint.meta.variant in NO_GRAPH:
        model = sequence_model(checkpoint, prepare, temperature, task.target is LABELS)
    else:
        model = onnx_model(graph_of(checkpoint), Ends(prepare, temperature, task.target is LABELS), quantization)
    content: bytes = model.SerializeToString()
    checker.check_model(content)
    return content


def _told(checkpoint: Checkpoint, text: str, file: str) -> str:
    """A text with the model's numbers in it."""
    prepare = preprocess_of(checkpoint)
    return text.format(size=prepare.size, channels=prepare.channels, file=file)


def _write_rest(checkpoint: Checkpoint, folder: Path, deployed: Deployed, text: str) -> None:
    """model.json with the calibration, classes.json, preprocess.json, the golden picture, and README.md."""
    meta = public(checkpoint.meta)
    write_meta(folder, meta, checkpoint.calibration, deployed)
    write_names(checkpoint, folder)
    exact, library = deployed.precision == FLOAT32, "resnetkit" if deployed.format == "native" else deployed.format
    written = Checkpoint(folder, meta, {}, checkpoint.calibration, deployed)
    _write_golden(
        checkpoint, folder, open_backend(checkpoint if exact else written, "torch" if exact else "auto", "cpu")
    )
    if not _sees(checkpoint):
        (folder / CARD).write_text(card(meta, library, text + KNOWN_ANSWER), encoding="utf-8")
        return
    picture = f"{GOLDEN}.png" if len(meta.preprocess["mean"]) in (1, 3) else f"{GOLDEN}.npy"
    how = HOW_IT_IS_CHECKED.replace("{rounding}", "" if exact else ROUNDING).replace("{picture}", picture)
    told = _told(checkpoint, how, "")
    (folder / CARD).write_text(card(meta, library, text + told), encoding="utf-8")


def golden_picture(channels: int) -> NDArray[np.uint8]:
    """Coloured stripes that are neither square nor of one brightness [90, 120, C], always the same."""
    y, x = np.mgrid[:90, :120]
    planes = [(127.5 + 127.5 * np.sin((c + 1) * x / 23 + y / (7 + c))).astype(np.uint8) for c in range(channels)]
    return np.stack(planes, 2)


def _sees(checkpoint: Checkpoint) -> bool:
    return task_named(checkpoint.meta.task).modality is IMAGE


def _write_golden(checkpoint: Checkpoint, folder: Path, backend: Backend) -> None:
    if not _sees(checkpoint):
        one = probes(prepared_of(checkpoint), 1)
        content = one.astype(one.dtype.newbyteorder("<")).tobytes()
        (folder / f"{GOLDEN}.bin").write_bytes(content)
        told = [float(value) for value in backend(one)[0]]
        write_json(folder / f"{GOLDEN}.json", {"input_sha256": hashlib.sha256(content).hexdigest(), "logits": told})
        return
    prepare = preprocess_of(checkpoint)
    picture = golden_picture(prepare.channels)
    if prepare.channels in (1, 3):
        Image.fromarray(picture if prepare.channels == 3 else picture[:, :, 0]).save(folder / f"{GOLDEN}.png")
    else:
        np.save(folder / f"{GOLDEN}.npy", picture)
    square = pixels(from_array(picture, prepare), prepare)[None]
    content = normalise(square, prepare).astype("<f4").tobytes()
    (folder / f"{GOLDEN}.u8").write_bytes(square.tobytes())
    (folder / f"{GOLDEN}.f32").write_bytes(content)
    logits = backend(square)[0]
    answer = {"input_sha256": hashlib.sha256(content).hexdigest(), "logits": [float(value) for value in logits]}
    write_json(folder / f"{GOLDEN}.json", answer)


def opened(folder: Path, meta: Meta, form: str) -> tuple[Infer, str]:
    """What was written, in its own runtime, with the name and version of that.

    Raises:
        ResourceError: it is not installed.
    """
    backend = open_deployed(Checkpoint(folder, meta, {}, None, Deployed(form, FLOAT32)))
    package = "resnetkit" if backend.name == "native" else backend.name
    return backend, f"{package} {choice.version_of(package)}"
