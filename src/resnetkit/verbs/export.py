"""export: a model to a folder that another library opens, proven there, in int8 if asked, and on demand to the Hub."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from resnetkit import run
from resnetkit.errors import DataError, UsageError
from resnetkit.runtime.export import Exported, Format, format_named, in_batches, write_export
from resnetkit.runtime.int8 import Gate, refuse_int8, write_int8
from resnetkit.runtime.model import Model, load
from resnetkit.runtime.scene_export import refuse_scene, write_scene_export
from resnetkit.runtime.scenes import SceneModel
from resnetkit.tasks.task import IMAGE
from resnetkit.verbs.console import bar, note
from resnetkit.verbs.evidence import calibration_of, evidence_of, scene_evidence
from resnetkit.weights import hub
from resnetkit.weights.download import offline

MAX_DROP = 0.005


def export(
    model: str | Path,
    format: str,
    *,
    data: str | Path | None = None,
    int8: bool = False,
    max_drop: float | None = None,
    out: str | Path | None = None,
    push: str = "",
    overwrite: bool = False,
    quiet: bool = False,
) -> Exported:
    """Write a model for another library; it is published only if it gives there the logits that it gives here.

    Args:
        model: a run folder or a model folder.
        format: "onnx", "openvino", "ncnn", "native", "torchscript", "safetensors", "torchvision" or "huggingface".
        data: images to compare both on; by default the validation images of the run, or else synthetic ones.
        int8: compute convolutions in int8, with ranges from training images; "onnx", "openvino" and "native"
            have it.
        max_drop: how far accuracy, 0..1, may fall in int8; 0.005 if left out.
        out: the folder to write; named after the format, beside the model, if left out.
        push: owner/name on the Hugging Face Hub, to upload the folder to; a new repository is private.
        overwrite: move an older folder aside.
        quiet: no notes and no progress on stderr.

    Returns:
        Where it lies, what opened it for the proof, and how it compares.

    Raises:
        UsageError: the format cannot hold this model, or the folder holds something already.
        DataError: there are no images for int8, or `data` cannot be read.
        IncompleteError: the logits differ, or int8 loses more; nothing was written.
        NetworkError: the network is forbidden, there is no token, or the upload failed.
        ModelError, ResourceError: see `errors`.
    """
    form = format_named(format)
    _refuse_int8(format, int8, max_drop)
    if push:
        hub.refuse_push(push, offline=offline())
    opened = load(model, backend="torch", device="cpu")
    source = opened.checkpoint.folder
    if isinstance(opened, SceneModel):
        done = _scene(opened, format, (Path(model), data, out), int8=int8, overwrite=overwrite, quiet=quiet)
        return _pushed(done, push, quiet)
    try:
        _refuse_kind(opened, form, int8)
    except UsageError as error:
        raise UsageError(error.what, path=source, fix=error.fix) from error
    folder = Path(out) if out is not None else beside(source, f"{format}-int8" if int8 else format)
    _refuse(folder, source, overwrite)
    if int8:
        most = MAX_DROP if max_drop is None else max_drop
        done = _int8(opened, format, folder, (Path(model), data, most), overwrite=overwrite, quiet=quiet)
    else:
        evidence = evidence_of(opened, Path(model), data, quiet)
        note(f"{source}: writing {folder}, then comparing logits", quiet)
        done = write_export(opened, format, folder, evidence, overwrite=overwrite)
    return _pushed(done, push, quiet)


def _pushed(done: Exported, push: str, quiet: bool) -> Exported:
    return replace(done, pushed=hub.push(done.folder, push, progress=not quiet)) if push else done


def _refuse_kind(model: Model, form: Format, int8: bool) -> None:
    form.refuse(model.checkpoint.meta)
    if int8 and model.task.modality is not IMAGE:
        raise UsageError("int8 is for models of images", fix="leave --int8 out")


def _refuse_int8(format: str, int8: bool, max_drop: float | None) -> None:
    if int8:
        refuse_int8(format)
    elif max_drop is not None:
        raise UsageError("a largest drop is that of int8", fix="add --int8, or leave --max-drop out")
    if max_drop is not None and not 0 <= max_drop <= 1:
        raise UsageError(f"max_drop = {max_drop}", fix="give a share between 0 and 1, as 0.005")


def _scene(
    model: SceneModel,
    format: str,
    how: tuple[Path, str | Path | None, str | Path | None],
    *,
    int8: bool,
    overwrite: bool,
    quiet: bool,
) -> Exported:
    """Boxes or masks, compared on the run's validation images or those given."""
    source, data, out = how
    refuse_scene(model, format)
    if int8:
        raise UsageError("boxes and masks are written in float32", path=source, fix="leave --int8 out")
    folder = Path(out) if out is not None else beside(model.checkpoint.folder, format)
    _refuse(folder, model.checkpoint.folder, overwrite)
    canvases, told = scene_evidence(model, source, data, quiet)
    note(f"{model.checkpoint.folder}: writing {folder}, then comparing what is found", quiet)
    return write_scene_export(model, format, folder, canvases, told, overwrite=overwrite)


def _int8(
    model: Model, format: str, folder: Path, how: tuple[Path, str | Path | None, float], *, overwrite: bool, quiet: bool
) -> Exported:
    """With images for the ranges and, others, for the gate."""
    from resnetkit.runtime.graph import graph_of
    from resnetkit.runtime.quantize import quantization_for

    source, data, most = how
    evidence = evidence_of(model, source, data, quiet, judged=True)
    if evidence is None or evidence.targets is None:
        what = "int8 takes images with known answers, and the run's validation images are not there"
        raise DataError(what, path=source, fix="--data DIR")
    calibration = calibration_of(model, source, data, quiet)
    if calibration is None:
        note("no training images: the ranges of activations are taken from the images of the gate", quiet)
        calibration = evidence.pixels
    with bar("ranges", len(calibration), quiet=quiet) as advance:
        quantization = quantization_for(graph_of(model.checkpoint), calibration, model.normalise, advance)
    with bar("answers in float32", len(evidence.pixels), quiet=quiet) as advance:
        gate = Gate(evidence, in_batches(model.backend, evidence.pixels, advance), most)
    note(f"{model.checkpoint.folder}: writing {folder} in int8, then comparing answers", quiet)
    return write_int8(model, format, folder, gate, quantization, overwrite=overwrite)


def beside(model: Path, format: str) -> Path:
    """Where an export goes: runs/photos/torchvision for runs/photos/model, models/mine-torchvision for models/mine."""
    if not model.name.strip("."):
        model = model.resolve()
    return model.with_name(format if model.name == "model" else f"{model.name}-{format}")


def _refuse(folder: Path, model: Path, overwrite: bool) -> None:
    """Refuse a folder before any work.

    Raises:
        UsageError: it holds something and is not to be overwritten, or it holds the model.
        ResourceError: it is a file.
    """
    run.refuse(folder, overwrite=overwrite, fix="--overwrite to move it aside, or another --out")
    if model.resolve().is_relative_to(folder.resolve()):
        raise UsageError("holds the model itself", path=folder, fix="choose another --out")
