"""Model: what `load` returns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from resnetkit import checkpoint
from resnetkit.data.image import Pixels, Preprocess, preprocess_from
from resnetkit.errors import DataError, ModelError, UsageError
from resnetkit.runtime import pipeline
from resnetkit.runtime.backends import Backend, mirrored, open_backend
from resnetkit.tasks.classes import Prediction
from resnetkit.tasks.task import Task, task_named


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
    def preprocess(self) -> Preprocess:
        """From an image to the network's input."""
        return preprocess_from(self.checkpoint.meta.preprocess, self.checkpoint.folder)

    @cached_property
    def task(self) -> Task:
        """What is read and what is predicted."""
        return task_named(self.checkpoint.meta.task)

    def answers(
        self, sources: Iterable[Any], batch_size: int = 32
    ) -> Iterator[tuple[Any, NDArray[np.floating] | DataError]]:
        """Logits [K] of each source in order, or why it cannot be read; bounded memory for any number of sources."""
        modality = self.task.modality

        def read(source: Any) -> Pixels:
            return modality.preprocess(modality.read(source, self.preprocess), self.preprocess)

        def infer(batch: NDArray[Any]) -> NDArray[np.floating]:
            return self.backend(modality.normalise(batch, self.preprocess))

        return pipeline.run(sources, read, infer, batch_size)

    @overload
    def predict(self, inputs: Sequence[Any], top: int = ...) -> list[Prediction]: ...
    @overload
    def predict(self, inputs: Any, top: int = ...) -> Any: ...
    def predict(self, inputs: Any, top: int = 5) -> Any:
        """Predict one input or a list of them.

        Args:
            inputs: a path, a PIL image, a uint8 array [H, W] or [H, W, 3] in RGB order, or a list of these.
            top: number of classes in each answer.

        Returns:
            A Prediction, or for a list a list of them in the same order.

        Raises:
            DataError: an input cannot be read.
            UsageError: an input is of another kind.
        """
        if top < 1:
            raise UsageError(f"top = {top}", fix="give 1 or more")
        many = isinstance(inputs, list | tuple)
        found = []
        for source, answer in self.answers(inputs if many else [inputs]):
            if isinstance(answer, DataError):
                raise answer
            path = str(source) if isinstance(source, str | Path) else ""
            found.append(self.task.target.decode(answer, self.classes, path, top))
        return found if many else found[0]


def load(path: str | Path, *, backend: str = "auto", device: str = "auto", mirror: bool = False) -> Model:
    """Open a run folder or a model folder.

    Args:
        path: the folder.
        backend: "auto" or "torch".
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        mirror: answer with the mean over an image and its mirror image, in twice the time.

    Raises:
        ModelError: the folder is not a model, is damaged, or does not say how images are prepared.
        ResourceError: the device or torch is not there.
    """
    read = checkpoint.read(Path(path))
    try:
        task_named(read.meta.task)
    except UsageError as error:
        raise ModelError(error.what, path=read.folder, fix="update resnetkit") from error
    channels = preprocess_from(read.meta.preprocess, read.folder / checkpoint.META).channels
    stem = next((read.tensors[name] for name in checkpoint.STEM if name in read.tensors), None)
    if stem is not None and stem.ndim > 1 and stem.shape[1] != channels:
        what = f"preprocess gives {channels} channels, the network takes {stem.shape[1]}"
        raise ModelError(what, path=read.folder / checkpoint.META, fix=checkpoint.RETRAIN)
    opened = open_backend(read, backend, device)
    return Model(read, mirrored(opened) if mirror else opened)
