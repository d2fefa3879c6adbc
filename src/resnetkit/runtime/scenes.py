"""SceneModel: what `load` returns where boxes or masks are found. No torch is imported until the network is opened."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from resnetkit import checkpoint
from resnetkit.checkpoint import ONNX
from resnetkit.data.annotated import LYING, header_of
from resnetkit.data.archive import Member
from resnetkit.data.image import Pixels, Preprocess, preprocess_from, whole
from resnetkit.errors import DataError, ModelError, ResourceError, UsageError
from resnetkit.ops.matching import Found
from resnetkit.ops.windows import middle, sliding
from resnetkit.runtime import engines, pipeline
from resnetkit.runtime.backends import torch_device
from resnetkit.runtime.sheet import PIXELS
from resnetkit.tasks.boxes import Boxes
from resnetkit.tasks.masks import Mask
from resnetkit.tasks.scenes import SCENES, SceneTask

BATCH = 8  # canvases inferred at once
SAID = ("boxes", "labels", "scores")
OUTPUTS = {"detect": SAID, "instances": (*SAID, "masks"), "segment": ("logits",)}  # of an ONNX file
Size = tuple[int, int]
Infer = Callable[[Pixels], list[Any]]  # canvases [N, H, W, C] to what the network says of each


@dataclass(frozen=True)
class Read:
    """An image on its canvas [H, W, C], or as windows see it, and its own width and height."""

    canvas: Pixels
    size: Size


@dataclass(frozen=True)
class SceneModel:
    """A trained model that finds boxes or masks, with its preprocessing and class names.

    Attributes:
        checkpoint: the model folder it was read from.
        infer: runs the network.
    """

    checkpoint: checkpoint.Checkpoint
    infer: Infer

    @property
    def runs_on(self) -> str:
        """What runs the network, as a backend is called."""
        return "torch" if self.checkpoint.deployed is None else "onnxruntime"

    @property
    def classes(self) -> tuple[str, ...]:
        """Names."""
        return self.checkpoint.meta.classes

    @cached_property
    def preprocess(self) -> Preprocess:
        """From an image to the network's canvas."""
        return preprocess_from(self.checkpoint.meta.preprocess, self.checkpoint.folder)

    @cached_property
    def task(self) -> SceneTask:
        """What is read and what is predicted."""
        return SCENES[self.checkpoint.meta.task]

    def canvas(self, source: Any) -> Pixels:
        """A path, PIL image or array as the network sees it [H, W, C]: of a larger one than its window the middle.

        Raises:
            DataError: it cannot be read.
            UsageError: it is of another kind.
        """
        upright = self.task.modality.read(source, self.preprocess)
        return self.task.modality.preprocess(upright, self.preprocess)

    def answers(self, sources: Iterable[Any]) -> Iterator[tuple[Any, tuple[Any, Size] | DataError]]:
        """What is found in each source in order and its size, or why it cannot be read; in bounded memory."""

        def infer(block: list[Read]) -> Iterator[tuple[Any, Size]]:
            sizes = [each.size for each in block]
            return zip(found_in(block, self.infer, self.task, self.preprocess), sizes, strict=True)

        at_once = 1 if self.preprocess.resize == "window" else BATCH
        return pipeline.in_blocks(sources, partial(read, self.task, self.preprocess), infer, at_once)

    def answered(self, files: Sequence[Any]) -> Iterator[Boxes | Mask | DataError]:
        """The answers alone."""
        return (answer for _, answer in self.predictions(files))

    def predictions(
        self, sources: Iterable[Any], top: int = 100, coverage: float | None = None
    ) -> Iterator[tuple[Any, Boxes | Mask | DataError]]:
        """The answer for each source in order, or why it cannot be read.

        Args:
            sources: paths, PIL images or arrays.
            top: most boxes in each answer.
            coverage: None: boxes and masks are not calibrated.

        Raises:
            UsageError: `top` is under 1, or a coverage is asked for.
        """
        if top < 1:
            raise UsageError(f"top = {top}", fix="give 1 or more")
        if coverage is not None:
            raise UsageError("boxes and masks are not calibrated, so no coverage can be promised", fix="leave it out")
        for source, answer in self.answers(sources):
            path = str(source) if isinstance(source, str | Path) else ""
            decode = self.task.target.decode
            yield (
                source,
                answer if isinstance(answer, DataError) else decode(answer[0], self.classes, path, answer[1], top),
            )

    @overload
    def predict(self, inputs: Sequence[Any], top: int = ...) -> list[Boxes | Mask]: ...
    @overload
    def predict(self, inputs: Any, top: int = ...) -> Any: ...
    def predict(self, inputs: Any, top: int = 100) -> Any:
        """Predict one input or a list of them.

        Args:
            inputs: a path, a PIL image, a uint8 array [H, W] or [H, W, 3] in RGB order, or a list of these.
            top: most boxes in each answer.

        Returns:
            Boxes or a Mask, or for a list a list of them in the same order.

        Raises:
            DataError: an input cannot be read.
            UsageError: an input is of another kind.
        """
        return pipeline.one_or_many(inputs, lambda sources: self.predictions(sources, top))


def read(task: SceneTask, preprocess: Preprocess, source: Any) -> Read:
    """A path, PIL image or array on its canvas, or as windows see it.

    Raises:
        DataError: it cannot be read.
        UsageError: it is of another kind.
    """
    upright = task.modality.read(source, preprocess)
    seen = whole if preprocess.resize == "window" else task.modality.preprocess
    return Read(seen(upright, preprocess), _full_size(source, upright))


def found_in(block: Sequence[Read], infer: Infer, task: SceneTask, preprocess: Preprocess) -> Iterator[Any]:
    """What is found in images, in their own pixels: at once, or of each in windows that slide over it."""
    if preprocess.resize == "window":
        for each in block:
            yield middle(sliding(infer, each.canvas, preprocess.canvas), each.size[::-1])
        return
    said = infer(np.stack([each.canvas for each in block]))
    yield from (task.target.placed(one, each.size, preprocess) for one, each in zip(said, block, strict=True))


def _full_size(source: Any, upright: Any) -> Size:
    """Width and height of the upright image; a JPEG was decoded at a scale that suffices, and its header knows."""
    if isinstance(source, str | Path | bytes | Member):
        header = header_of(Path(source) if isinstance(source, str) else source)
        if header is not None:
            (width, height), orientation = header
            return (height, width) if orientation in LYING else (width, height)
    return int(upright.width), int(upright.height)


def open_scene(read: checkpoint.Checkpoint, device: str = "auto") -> SceneModel:
    """A model folder of boxes or masks, opened by torch, or an export, opened by ONNX Runtime.

    Raises:
        ModelError: the tensors do not fit the network that model.json names, or its file cannot be run.
        ResourceError: torch or ONNX Runtime is not installed, or the device is not there.
    """
    if read.deployed is not None:
        return SceneModel(read, infer_of_file(read.folder / ONNX, read.meta.task))
    network, where = open_network(read, device)
    return SceneModel(read, infer_of(network, where, read))


def open_network(read: checkpoint.Checkpoint, device: str = "auto") -> tuple[Any, str]:
    """The torch network of a model folder in evaluation mode, and its device; errors as `open_scene`."""
    if read.deployed is not None:
        raise ModelError("is an export, without weights for torch", path=read.folder, fix="give the run it is of")
    try:
        import torch
    except (ImportError, OSError, MemoryError) as error:
        fix = "pip install torch torchvision"
        raise ResourceError(f"the torch backend needs torch: {error}", fix=fix) from error
    from resnetkit import models
    from resnetkit.weights.fit import refuse_differences

    meta, where = read.meta, torch_device(device)
    torch.set_num_threads(pipeline.num_threads())
    options: Any = dict(meta.options)  # whatever the file says
    head = {name: options.pop(name) for name in ("width", "freeze_norms") if name in options}
    try:
        if "head" not in options:
            raise ValueError("does not say what finds boxes or masks")
        named = str(options.pop("head"))
        backbone = models.build(meta.variant, num_classes=2, **options)
        network = models.with_head(backbone, named, len(meta.classes), head)
    except (KeyError, ValueError, TypeError, RuntimeError, AttributeError, UsageError) as error:
        raise ModelError(str(error), path=read.folder, fix="update resnetkit") from error
    state = {name: torch.from_numpy(array) for name, array in read.tensors.items()}
    refuse_differences(network.state_dict(), state, str(read.folder))
    network.load_state_dict(state)
    return network.eval().to(where), where


def infer_of(network: Any, device: str, read: checkpoint.Checkpoint) -> Infer:
    """How a torch network answers canvases."""
    import torch

    from resnetkit.nn.finder import Finder

    finder = Finder(network).eval()
    task = SCENES[read.meta.task]
    preprocess = preprocess_from(read.meta.preprocess, read.folder)

    def infer(canvases: Pixels) -> list[Any]:
        with torch.inference_mode():
            images = torch.from_numpy(task.modality.normalise(canvases, preprocess)).to(device)
            return said(finder(images))

    return infer


def infer_of_file(path: Path, task: str) -> Infer:
    """How an ONNX file of `scene_export` answers canvases, one after the other where it finds boxes."""
    outputs = OUTPUTS[task]
    try:
        run = engines.onnxruntime_from(path, PIXELS, outputs).run
    except ResourceError:
        raise
    except Exception as error:  # ONNX Runtime raises whatever its reader does
        what = f"cannot be run: {' '.join(str(error).split())[:200]}"
        raise ModelError(what, path=path, fix="export it again") from error

    def infer(canvases: Pixels) -> list[Any]:
        if len(outputs) == 1:
            return list(run(canvases)[0])
        each = (run(canvas[None]) for canvas in canvases)
        return [Found(one[0], one[1].astype(np.int64), one[2], one[3] if len(one) > 3 else None) for one in each]

    return infer


def said(output: Any) -> list[Any]:
    """What a `Finder` gives, as arrays: `Found` of each image, or its logits [K, H, W]."""
    if isinstance(output, list):
        return [_found(each) for each in output]
    return list(_array(output))


def _found(each: Any) -> Found:
    boxes, labels, scores = (_array(each[name]) for name in SAID)
    return Found(boxes, labels, scores, _array(each["masks"]) if "masks" in each else None)


def _array(tensor: Any) -> NDArray[Any]:
    values = tensor.detach()
    return np.asarray((values.float() if values.is_floating_point() else values).cpu().numpy())
