"""The model folder: weights, calibration, model.json, config.json (timm's form), README.md, manifest.json; no torch.

`read` checks every byte against the manifest and every value that a prediction depends on, so that what it returns can
be used without another look.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from resnetkit._version import __version__
from resnetkit.errors import ModelError, UsageError
from resnetkit.files import MANIFEST, new_folder, verify_manifest
from resnetkit.ops.calibration import Calibration, calibration_from

FORMAT = 1
WEIGHTS, META, TIMM_CONFIG, CARD = "model.safetensors", "model.json", "config.json", "README.md"
CALIBRATION = "calibration.safetensors"
FLOAT32, INT8 = "f32", "int8"
ONNX, XML, PARAM, BIN, NETWORK = "model.onnx", "model.xml", "model.param", "model.bin", "network.json"
# of an export, by its format
ENGINE_FILES = {"onnx": (ONNX,), "openvino": (XML, BIN), "ncnn": (PARAM, BIN), "native": (NETWORK, WEIGHTS)}
Tensors = Mapping[str, NDArray[Any]]
IMAGES = ("classify", "multilabel")  # the tasks of which timm's config.json can tell
CIFAR = ("resnet20", "resnet32", "resnet44", "resnet56", "resnet110")  # timm has no networks of these names
DEEP = ("resnet34d", "resnet50d")  # their stem has several convolutions
STEM = ("conv1.weight", "conv1.0.weight")  # the weight that an image meets first; the second in a deep stem
PIPELINES = {  # the Hub's names
    "classify": "image-classification",
    "detect": "object-detection",
    "segment": "image-segmentation",
    "instances": "image-segmentation",
    "sound": "audio-classification",
    "sound-multilabel": "audio-classification",
    "text": "text-classification",
    "text-multilabel": "text-classification",
}
RETRAIN = "train or save the model again"
COPY_AGAIN = "copy the folder again from its source"
MAX_HEADER = 8 << 20  # bytes of JSON before the tensors; ResNet-152 has 0.1 MB of it
MAX_JSON = 64 << 20  # bytes of model.json
MAX_TEXT = 4096  # characters of a name in model.json; a path has no more
# Whose folder it is that has such a file.
FOREIGN = {
    ".metadata": "a torch.distributed.checkpoint",
    "_CHECKPOINT_METADATA": "an Orbax checkpoint",
    "saved_model.pb": "a TensorFlow SavedModel",
    "checkpoint": "a TensorFlow checkpoint",
}


@dataclass(frozen=True)
class Meta:
    """What model.json says.

    Attributes:
        task: key of TASKS.
        variant: name of the network, "resnet34".
        options: what differs from the variant's defaults: in_channels, stem, shortcut, ...
        classes: names in the order of the logits.
        preprocess: values of the Preprocess that the network was trained with.
        weights: where the weights started from: "none", a published name, or a path.
        scores: metrics on held-out data as in metrics.json, or nothing.
        written_by: name and version of the writer.
    """

    task: str
    variant: str
    options: Mapping[str, Any]
    classes: tuple[str, ...]
    preprocess: Mapping[str, Any]
    weights: str = "none"
    scores: Mapping[str, Any] = field(default_factory=dict)
    written_by: str = f"resnetkit {__version__}"


@dataclass(frozen=True)
class Deployed:
    """That a model folder is an export which an engine runs: it holds that engine's files, not the network's tensors.

    Attributes:
        format: "onnx", "openvino", "ncnn" or "native".
        precision: "f32" or "int8".
    """

    format: str
    precision: str


@dataclass(frozen=True)
class Checkpoint:
    """A model folder in memory: where it lies, what it says, its tensors by name, and how far it may be believed."""

    folder: Path
    meta: Meta
    tensors: Tensors
    calibration: Calibration | None = None
    deployed: Deployed | None = None


def write(folder: Path, meta: Meta, tensors: Tensors, calibration: Calibration | None = None) -> Path:
    """Publish a model folder under its name in one rename.

    Raises:
        UsageError: the classes do not fit the head, or two have one name.
        ResourceError: the folder exists, or the disk refuses.
    """
    problem = _class_problem(meta, tensors)
    if problem:
        raise UsageError(problem, path=folder, fix="give one name for each logit")
    with new_folder(folder) as temporary:
        contiguous = {name: np.asarray(array, order="C") for name, array in tensors.items()}
        # serialised in memory, since save_file would make a file that only its owner can read
        (temporary / WEIGHTS).write_bytes(safetensors.numpy.save(contiguous, {"format": "pt"}))
        write_meta(temporary, meta, calibration)
        timm = timm_config(meta)
        if timm:
            _write_json(temporary / TIMM_CONFIG, timm)
        (temporary / CARD).write_text(card(meta), encoding="utf-8")
    return folder


def write_meta(
    folder: Path, meta: Meta, calibration: Calibration | None = None, deployed: Deployed | None = None
) -> None:
    """model.json and calibration.safetensors of a folder that is being written."""
    values = {"format": FORMAT, **asdict(meta)}
    if deployed:
        values["deployed"] = asdict(deployed)
    if calibration:
        values["calibration"], arrays = calibration.parts()
        (folder / CALIBRATION).write_bytes(safetensors.numpy.save(arrays))
    _write_json(folder / META, values)


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read(folder: Path) -> Checkpoint:
    """Read a model folder, or the model/ of a run folder.

    Raises:
        ModelError: it is not a model folder, a byte is changed, it is of a newer format, or a value is missing.
    """
    folder = folder / "model" if os.path.isfile(folder / "model" / META) else folder
    _refuse_others(folder)
    _refuse_large(folder)
    verified = verify_manifest(folder)
    meta, more = _read_meta(folder / META)
    deployed = _deployed(more.get("deployed"), folder / META)
    for name in ENGINE_FILES.get(deployed.format, ()) if deployed else ():
        if name not in verified:
            raise ModelError(
                "is not in manifest.json, so nobody knows if it is whole", path=folder / name, fix=COPY_AGAIN
            )
    tensors: Tensors = {}
    if deployed is None:
        tensors = read_tensors(folder / WEIGHTS)
        refuse_unsound(tensors, folder / WEIGHTS)
    problem = _class_problem(meta, tensors if deployed is None else None)
    if problem:
        raise ModelError(problem, path=folder / META, fix=RETRAIN)
    if more.get("calibration") is None:
        return Checkpoint(folder, meta, tensors, deployed=deployed)
    try:
        calibrated = calibration_from(more["calibration"], read_tensors(folder / CALIBRATION))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ModelError(f"calibration: {error}", path=folder / META, fix=RETRAIN) from error
    return Checkpoint(folder, meta, tensors, calibrated, deployed)


def _deployed(values: Any, path: Path) -> Deployed | None:
    if values is None:
        return None
    known = isinstance(values, dict) and values.get("precision") in (FLOAT32, INT8)
    if not known or not isinstance(values.get("format"), str) or len(values["format"]) > MAX_TEXT:
        raise ModelError("does not say what runs it", path=path, fix="export it again")
    return Deployed(values["format"], values["precision"])


def _refuse_others(folder: Path) -> None:
    """Refuse what is not a model folder, and say what it looks like."""
    fix = "give a run folder or a model folder"
    if os.path.isfile(folder):
        raise ModelError("is a file, not a model folder", path=folder, fix=fix + "; weights go to train --weights")
    if not os.path.isdir(folder):
        raise ModelError("there is no such model", path=folder, fix=fix)
    if (folder / META).is_file():
        return
    if (folder / "recipe.toml").is_file():
        raise ModelError("is a run without a model yet", path=folder, fix="finish it with train --resume")
    kind = next((f" but {kind}" for name, kind in FOREIGN.items() if (folder / name).exists()), "")
    raise ModelError(f"is not a resnetkit checkpoint{kind}: it holds no model.json", path=folder, fix=fix)


def _refuse_large(folder: Path) -> None:
    """Refuse by their sizes alone files that would fill the memory; the manifest's sums take a look at every byte."""
    for path in (folder / META, folder / MANIFEST):
        if path.is_file() and path.stat().st_size > MAX_JSON:
            raise ModelError(f"corrupt: has {path.stat().st_size:,} bytes", path=path, fix=COPY_AGAIN)
    for path in (folder / WEIGHTS, folder / CALIBRATION):
        if path.is_file():
            _header(path)


def _read_meta(path: Path) -> tuple[Meta, Mapping[str, Any]]:
    """Also all values, of which `calibration` and `deployed` may be some."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        found = values.pop("format")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError("cannot be read as a model.json", path=path, fix=RETRAIN) from error
    if not isinstance(found, int) or found > FORMAT:
        raise ModelError(f"is of format {found}, this version reads up to {FORMAT}", path=path, fix="update resnetkit")
    for key, kind in (("task", str), ("variant", str), ("options", dict), ("classes", list), ("preprocess", dict)):
        if not isinstance(values.get(key), kind) or (key != "options" and not values[key]):
            raise ModelError(f"does not say its {key}", path=path, fix=RETRAIN)
    for key in ("task", "variant", "weights", "written_by"):
        if key in values and (not isinstance(values[key], str) or len(values[key]) > MAX_TEXT):
            raise ModelError(f"says its {key} in no text of at most {MAX_TEXT:,} characters", path=path, fix=RETRAIN)
    known = {name: values[name] for name in Meta.__dataclass_fields__ if name in values}
    return Meta(**{**known, "classes": tuple(str(name) for name in values["classes"])}), values


def check_header(path: Path) -> None:
    """Look at the header of a safetensors file before anything is allocated for its tensors.

    Raises:
        ModelError: it is too large for a network, no JSON, or names a tensor twice, which readers take differently.
    """
    try:
        json.loads(_header(path), object_pairs_hook=_each_once)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"corrupt: its header cannot be read: {error}", path=path, fix=COPY_AGAIN) from error


def _header(path: Path) -> bytes:
    """The text of the header, if it is no larger than that of a network can be."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            text = file.read(length) if length <= MAX_HEADER else b""
    except OSError as error:
        raise ModelError(f"cannot be read: {error.strerror}", path=path, fix=COPY_AGAIN) from error
    if length > MAX_HEADER:
        raise ModelError(f"corrupt: claims a header of {length:,} bytes", path=path, fix=COPY_AGAIN)
    return text


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a name is there twice")
    return values


def read_tensors(path: Path) -> Tensors:
    """The tensors of a file by name; ModelError where it cannot be read."""
    check_header(path)
    try:
        tensors = safetensors.numpy.load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"corrupt: {error}", path=path, fix=COPY_AGAIN) from error
    except (TypeError, AttributeError) as error:  # what numpy has no type for, as bfloat16
        raise ModelError(f"cannot be read: {error}", path=path, fix="save it as float32 or float16") from error
    return tensors


def refuse_unsound(tensors: Tensors, path: str | Path, fix: str = RETRAIN) -> None:
    """Refuse weights that cannot give an answer.

    Args:
        tensors: names to arrays.
        path: where they are from, for the message.
        fix: the way out, for the message.

    Raises:
        ModelError: a value is NaN or infinite, a running variance is below zero, or all weights are zero.
    """
    for name, array in tensors.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ModelError(f"{name} holds NaN or infinite values", path=path, fix=fix)
        if name.endswith("running_var") and not (array >= 0).all():
            raise ModelError(f"{name} holds negative variances", path=path, fix=fix)
    if not any(array.any() for name, array in tensors.items() if name.endswith("weight")):
        raise ModelError("all weights are zero", path=path, fix=fix)


def _class_problem(meta: Meta, tensors: Tensors | None) -> str:
    """What is wrong with the classes, with a head that is known or (None) is not."""
    cosine = meta.variant.startswith("speaker")  # whose logits have no bias
    head = None if tensors is None else tensors.get("fc.bias")
    if tensors is not None and cosine and head is None and "fc.weight" in tensors:
        head = tensors["fc.weight"][:, 0]
    if tensors is not None and head is None and "head" not in meta.options:
        return "has no head: the tensor fc.bias is missing"
    if head is not None and (len(meta.classes),) != head.shape:
        return f"names {len(meta.classes)} classes for a head of {head.size}"
    if any(name.encode("utf-8", "ignore").decode() != name for name in meta.classes):
        return "names a class that is not valid Unicode"
    if any(len(name) > MAX_TEXT for name in meta.classes):
        return f"names a class of more than {MAX_TEXT:,} characters"
    name, count = Counter(meta.classes).most_common(1)[0] if meta.classes else ("", 0)
    return f"names the class {name!r} twice" if count > 1 else ""


def timm_config(meta: Meta) -> dict[str, Any] | None:
    """config.json as timm and the Hub read it.

    None where timm has no such network: plain and CIFAR ones, other stem, shortcut or pooling, dilation for strides.
    """
    if meta.variant.startswith("plain") or meta.variant in CIFAR or "head" in meta.options:
        return None
    if meta.task not in IMAGES:
        return None
    if {"stem", "shortcut", "pool", "width"} & meta.options.keys() or any(
        meta.options.get("replace_stride_with_dilation", ())
    ):
        return None
    values = meta.preprocess
    channels = len(values["mean"])
    return {
        "architecture": meta.variant,
        "num_classes": len(meta.classes),
        "num_features": 512 if meta.variant in ("resnet18", "resnet34", "resnet34d") else 2048,
        "label_names": list(meta.classes),
        "model_args": {"in_chans": channels},
        "pretrained_cfg": {
            "tag": "resnetkit",
            "num_classes": len(meta.classes),
            "input_size": [channels, values["size"], values["size"]],
            "fixed_input_size": False,
            "interpolation": values["interpolation"],
            "crop_pct": values["crop_ratio"] if values["resize"] == "crop" else 1.0,
            "crop_mode": {"crop": "center", "squash": "squash", "letterbox": "border"}[values["resize"]],
            "mean": list(values["mean"]),
            "std": list(values["std"]),
            "first_conv": "conv1.0" if meta.variant in DEEP else "conv1",
            "classifier": "fc",
            "label_names": list(meta.classes),
        },
    }


def told_of(meta: Meta) -> dict[str, Any]:
    """How an input is prepared, without a vocabulary of thousands of words."""
    return {name: value for name, value in meta.preprocess.items() if name != "vocabulary"}


def card(meta: Meta, library: str = "", usage: str = "") -> str:
    """The model card in Markdown, with the front matter that the Hub reads.

    Args:
        meta: what model.json says.
        library: that opens the folder; timm where it can, if left out.
        usage: how, in Markdown.
    """
    library = library or ("timm" if timm_config(meta) else "resnetkit")
    rows = [
        f"| {name} | {m['value']:.4f} | {m['low']:.4f} to {m['high']:.4f} | {m['n']:,} | {m['method']} |"
        for name, m in meta.scores.items()
        if m.get("value") is not None
    ]
    table = ["| metric | value | 95 % interval | n | method |", "|---|---|---|---|---|", *rows] if rows else []
    classes = ", ".join(f"`{name}`" for name in meta.classes[:50]) + (" ..." if len(meta.classes) > 50 else "")
    lines = [
        "---",
        f"library_name: {library}",
        f"pipeline_tag: {PIPELINES.get(meta.task, PIPELINES['classify'])}",
        "tags: [resnetkit, resnet]",
        "---",
        f"# {meta.variant}, {len(meta.classes)} classes",
        "",
        *([usage.rstrip(), ""] if usage else []),
        f"Classes: {classes}",
        "",
        f"Weights started from: {meta.weights}. Written by {meta.written_by}.",
        "",
        *(["Scores on held-out data:", "", *table, ""] if table else ["No scores were measured.", ""]),
        "Input: " + ", ".join(f"{name} {value}" for name, value in told_of(meta).items()) + ".",
        "",
        "Limits: the scores hold for data like those it was measured on. Training data can leak from weights: share",
        "the model as you would share its training data.",
    ]
    return "\n".join(lines) + "\n"
