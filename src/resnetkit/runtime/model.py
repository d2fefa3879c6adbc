"""Model: what `load` returns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from resnetkit import checkpoint
from resnetkit.data.sources import Line
from resnetkit.data.tokens import TextPreprocess
from resnetkit.errors import DataError, ModelError, UsageError
from resnetkit.ops.calibration import samples_for
from resnetkit.runtime import pipeline
from resnetkit.runtime.backends import Backend, mirrored, open_backend
from resnetkit.runtime.scenes import SceneModel, open_scene
from resnetkit.tasks.classes import Prediction
from resnetkit.tasks.scenes import SCENES
from resnetkit.tasks.task import IMAGE, SOUND, TEXT, Task, task_named

FEW = 8
AT_ONCE = 64  # windows that the network sees at a time; blocks of inputs are smaller
COVERAGE = 0.95  # at which an answer whose set is not of one class is called uncertain


@dataclass(frozen=True)
class Model:
    """A trained model with its preprocessing and class names.

    Attributes:
        checkpoint: the model folder it was read from.
        backend: runs the network.
    """

    checkpoint: checkpoint.Checkpoint
    backend: Backend

    @property
    def classes(self) -> tuple[str, ...]:
        """Names in the order of the logits."""
        return self.checkpoint.meta.classes

    @cached_property
    def preprocess(self) -> Any:
        """From an input to the network's: a Preprocess, an AudioPreprocess or a TextPreprocess."""
        return self.task.modality.prepared(self.checkpoint.meta.preprocess, self.checkpoint.folder)

    @cached_property
    def task(self) -> Task:
        """What is read and what is predicted."""
        return task_named(self.checkpoint.meta.task)

    @property
    def temperature(self) -> float:
        """What logits are divided by, so that scores are probabilities."""
        return self.checkpoint.calibration.temperature if self.checkpoint.calibration else 1.0

    def answers(
        self, sources: Iterable[Any], batch_size: int = 32
    ) -> Iterator[tuple[Any, NDArray[np.floating] | DataError]]:
        """Calibrated logits [K] of each source in order, or why it cannot be read; in bounded memory."""

        def infer(windows: list[NDArray[Any]]) -> NDArray[np.floating]:
            return np.asarray(self._pooled(windows)[0] / self.temperature, np.float32)

        return pipeline.in_blocks(sources, self.windows, infer, self._block(batch_size))

    def predictions(
        self, sources: Iterable[Any], top: int = 5, coverage: float | None = None
    ) -> Iterator[tuple[Any, Prediction | DataError]]:
        """The answer for each source in order, or why it cannot be read; bounded memory for any number of sources.

        Args:
            sources: paths, PIL images or arrays; texts.
            top: number of classes in each answer.
            coverage: give the set of classes that holds the true one with this probability, 0..1, too.

        Raises:
            UsageError: `top` is under 1, or the model was calibrated on too few images for this coverage, or on none.
        """
        if top < 1:
            raise UsageError(f"top = {top}", fix="give 1 or more")
        if coverage is not None:
            _refuse_coverage(coverage, self.checkpoint)

        def infer(windows: list[NDArray[Any]]) -> list[Prediction]:
            logits, embeddings = self._pooled(windows)
            return self._decoded(np.asarray(logits / self.temperature, np.float32), embeddings, top, coverage)

        for source, answer in pipeline.in_blocks(sources, self.windows, infer, self._block()):
            path = self._path(source)
            yield source, answer if isinstance(answer, DataError) else replace(answer, path=path)

    def outputs(self, sources: Iterable[Any]) -> Iterator[tuple[Any, NDArray[np.float32] | DataError]]:
        """Logits, not calibrated, and embedding side by side [K + D] of each source in order, or why it fails."""

        def infer(windows: list[NDArray[Any]]) -> NDArray[np.float32]:
            return np.concatenate(self._pooled(windows), 1)

        return pipeline.in_blocks(sources, self.windows, infer, self._block())

    def embeddings(
        self, sources: Iterable[Any], batch_size: int = 32
    ) -> Iterator[tuple[Any, NDArray[np.float32] | DataError]]:
        """The input of the last layer [D] for each source in order, or why it cannot be read; in bounded memory."""
        return pipeline.in_blocks(
            sources, self.windows, lambda windows: self._pooled(windows)[1], self._block(batch_size)
        )

    def _block(self, size: int = 32) -> int:
        """Inputs that are read at a time: fewer of sounds, of which each may have many windows."""
        return min(size, FEW) if self.task.modality is SOUND else size

    def _path(self, source: Any) -> str:
        """What an input is called in its answer: a string given to a model of texts is a text."""
        named = (Path, Line) if self.task.modality is TEXT else (str, Path, Line)
        return str(source) if isinstance(source, named) else ""

    def _pooled(self, windows: list[NDArray[Any]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean logits [N, K] and embeddings [N, D] over the windows [W, ...] of each input."""
        counts = [len(each) for each in windows]
        together = np.concatenate(windows)
        parts = [self.backend.outputs(together[i : i + AT_ONCE]) for i in range(0, len(together), AT_ONCE)]
        logits, embeddings = (np.concatenate(each) for each in zip(*parts, strict=True))
        if len(together) == len(windows):
            return logits, embeddings
        starts = np.cumsum([0, *counts[:-1]])
        number = np.array(counts, np.float32)[:, None]
        sums = (np.add.reduceat(each, starts).astype(np.float32) for each in (logits, embeddings))
        mean_logits, mean_embeddings = (np.asarray(each / number, np.float32) for each in sums)
        return mean_logits, mean_embeddings

    def windows(self, source: Any) -> NDArray[Any]:
        """What `read` takes, as all arrays that are answered for it [W, ...]: more than one of a long recording.

        Raises:
            DataError, UsageError: as `read`.
        """
        return self.task.modality.parts(self.task.modality.read(source, self.preprocess), self.preprocess)

    def read(self, source: Any) -> NDArray[Any]:
        """A path, PIL image or array as uint8 [size, size, C]; a sound as int16 [samples], a text as uint16 [length].

        Raises:
            DataError: it cannot be read.
            UsageError: it is of another kind.
        """
        return self.task.modality.preprocess(self.task.modality.read(source, self.preprocess), self.preprocess)

    def normalise(self, batch: NDArray[Any]) -> NDArray[Any]:
        """What `read` gives, stacked [N, size, size, C], as the network's input [N, C, size, size]."""
        return self.task.modality.normalise(batch, self.preprocess)

    def _decoded(
        self, logits: NDArray[np.float32], embeddings: NDArray[np.float32], top: int, coverage: float | None
    ) -> list[Prediction]:
        found = [self.task.target.decode(row, self.classes, "", top) for row in logits]
        known = self.checkpoint.calibration
        if known is None:
            return found
        if len(known.scores) >= samples_for(coverage or COVERAGE):
            inside = known.possible(logits, coverage or COVERAGE)
            names = [tuple(self.classes[k] for k in np.flatnonzero(row)) for row in inside]
            found = [
                replace(one, possible=name if coverage else None, uncertain=len(name) != 1)
                for one, name in zip(found, names, strict=True)
            ]
        if known.knows_novelty:
            novelty = known.novelty(logits, embeddings)
            judged = zip(found, novelty.tolist(), known.is_novel(novelty).tolist(), strict=True)
            found = [replace(one, novelty=strange, novel=novel) for one, strange, novel in judged]
        return found

    @overload
    def predict(self, inputs: Sequence[Any], top: int = ..., coverage: float | None = ...) -> list[Prediction]: ...
    @overload
    def predict(self, inputs: Any, top: int = ..., coverage: float | None = ...) -> Any: ...
    def predict(self, inputs: Any, top: int = 5, coverage: float | None = None) -> Any:
        """Predict one input or a list of them.

        Args:
            inputs: a path, a PIL image, a uint8 array [H, W] or [H, W, 3] in RGB order, or a list of these; for a model
                of sounds a path or samples [n] at its rate; for one of texts a string, which is the text, or a Path.
            top: number of classes in each answer.
            coverage: as for `predictions`.

        Returns:
            A Prediction, or for a list a list of them in the same order.

        Raises:
            DataError: an input cannot be read.
            UsageError: an input is of another kind, or as for `predictions`.
        """
        return pipeline.one_or_many(inputs, lambda sources: self.predictions(sources, top, coverage))


def _refuse_coverage(coverage: float, opened: checkpoint.Checkpoint) -> None:
    """Refuse a coverage that nobody can promise."""
    if not 0 < coverage < 1:
        raise UsageError(f"a coverage of {coverage}", fix="give one between 0 and 1, as 0.95")
    known = opened.calibration
    if known is None:
        fix = "train with validation images: they calibrate the model"
        raise UsageError("is not calibrated, so no coverage can be promised", path=opened.folder, fix=fix)
    if not len(known.scores):
        what = "no coverage can be promised for several labels an image, or for mirrored answers"
        raise UsageError(what, path=opened.folder, fix="leave --coverage or --mirror out")
    needed = samples_for(coverage)
    if len(known.scores) < needed:
        what = f"a coverage of {coverage:g} takes {needed:,} validation images, and it has {len(known.scores):,}"
        raise UsageError(what, path=opened.folder, fix="ask for less, or train with a larger data.val")


def _misfit(read: checkpoint.Checkpoint, preprocess: Any) -> str:
    """What of the network is not what its inputs are prepared for, or ""."""
    if isinstance(preprocess, TextPreprocess):
        known = read.tensors.get("embedding.weight")
        if known is None or len(known) == preprocess.num_tokens or known.ndim != 2:
            return ""
        return f"preprocess gives {preprocess.num_tokens:,} different tokens, the network knows {len(known):,}"
    stem = next((read.tensors[name] for name in checkpoint.STEM if name in read.tensors), None)
    if stem is None or stem.ndim < 2 or stem.shape[1] == preprocess.channels:
        return ""
    return f"preprocess gives {preprocess.channels} channels, the network takes {stem.shape[1]}"


def load(path: str | Path, *, backend: str = "auto", device: str = "auto", mirror: bool = False) -> Model | SceneModel:
    """Open a run folder or a model folder, of whichever task.

    Args and errors are those of `load_classifier`; boxes and masks are found by torch, and not mirrored.
    """
    read = checkpoint.read(Path(path))
    if read.meta.task not in SCENES:
        return _classifier(read, backend, device, mirror)
    runs_on = "torch" if read.deployed is None else "onnxruntime"
    if backend not in ("auto", runs_on) or mirror or (read.deployed and device not in ("auto", "cpu")):
        asked = "mirror" if mirror else f"backend={backend!r}" if backend not in ("auto", runs_on) else f"{device!r}"
        raise UsageError(f"{asked} is not for boxes and masks of {runs_on}", path=read.folder, fix="leave it out")
    return open_scene(read, device)


def load_classifier(path: str | Path, *, backend: str = "auto", device: str = "auto", mirror: bool = False) -> Model:
    """Open a run folder or a model folder that gives scores to classes.

    Args:
        path: the folder.
        backend: "auto" (the fastest), "torch", "onnxruntime", "openvino", "ncnn" or "native".
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        mirror: answer with the mean over an image and its mirror image, in twice the time.

    Raises:
        ModelError: the folder is not a model, is damaged, or does not say how images are prepared.
        UsageError: it finds boxes or masks.
        ResourceError: the device or torch is not there.
    """
    read = checkpoint.read(Path(path))
    if read.meta.task in SCENES:
        what = "finds boxes or masks, and this is for classes of images"
        raise UsageError(what, path=read.folder, fix="train, eval and predict are for it")
    return _classifier(read, backend, device, mirror)


def _classifier(read: checkpoint.Checkpoint, backend: str, device: str, mirror: bool) -> Model:
    try:
        modality = task_named(read.meta.task).modality
    except UsageError as error:
        raise ModelError(error.what, path=read.folder, fix="update resnetkit") from error
    problem = _misfit(read, modality.prepared(read.meta.preprocess, read.folder / checkpoint.META))
    if problem:
        raise ModelError(problem, path=read.folder / checkpoint.META, fix=checkpoint.RETRAIN)
    if mirror and modality is not IMAGE:
        raise UsageError(f"{modality.noun} have no mirror image", path=read.folder, fix="leave --mirror out")
    opened = open_backend(read, backend, device)
    if not mirror:
        return Model(read, opened)
    known = read.calibration
    return Model(replace(read, calibration=known.temperature_only() if known else None), mirrored(opened))
