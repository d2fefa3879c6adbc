"""export: a model to a folder that another library opens, proven there, and on demand to the Hub."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from resnetkit import run
from resnetkit.errors import UsageError
from resnetkit.runtime.export import Exported, format_named, write_export
from resnetkit.runtime.model import load
from resnetkit.verbs.console import note
from resnetkit.weights import hub
from resnetkit.weights.download import offline


def export(
    model: str | Path,
    format: str,
    *,
    out: str | Path | None = None,
    push: str = "",
    overwrite: bool = False,
    quiet: bool = False,
) -> Exported:
    """Write a model for another library; it is published only if it gives there the logits that it gives here.

    Args:
        model: a run folder or a model folder.
        format: "onnx", "openvino", "ncnn", "torchvision" or "huggingface".
        out: the folder to write; named after the format, beside the model, if left out.
        push: owner/name on the Hugging Face Hub, to upload the folder to; a new repository is private.
        overwrite: move an older folder aside.
        quiet: no notes and no progress on stderr.

    Returns:
        Where it lies, what opened it for the proof, and the largest difference found.

    Raises:
        UsageError: the format cannot hold this model, or the folder holds something already.
        IncompleteError: the logits differ; nothing was written.
        NetworkError: the network is forbidden, there is no token, or the upload failed.
        ModelError, ResourceError: see `errors`.
    """
    form = format_named(format)
    if push:
        hub.refuse_push(push, offline=offline())
    opened = load(model, backend="torch", device="cpu")
    source = opened.checkpoint.folder
    try:
        form.refuse(opened.checkpoint.meta)
    except UsageError as error:
        raise UsageError(error.what, path=source, fix=error.fix) from error
    folder = Path(out) if out is not None else beside(source, format)
    _refuse(folder, source, overwrite)
    note(f"{source}: writing {folder}, then comparing logits", quiet)
    done = write_export(opened, format, folder, overwrite=overwrite)
    return replace(done, pushed=hub.push(folder, push, progress=not quiet)) if push else done


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
