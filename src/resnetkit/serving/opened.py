"""A model as a worker has it open: measured, warm, and what clients are told of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnetkit import checkpoint
from resnetkit.errors import ModelError, ResnetkitError
from resnetkit.files import MANIFEST, sha256
from resnetkit.runtime.backends import Backend, TorchBackend, torch_backend
from resnetkit.runtime.model import Model, load
from resnetkit.runtime.scenes import SceneModel
from resnetkit.serving.forms import FORM, MEDIA, OCTETS
from resnetkit.serving.limits import Limits
from resnetkit.serving.log import log
from resnetkit.serving.refusal import busy
from resnetkit.serving.telling import columns_of
from resnetkit.serving.tensors import FILE, PIXELS
from resnetkit.tasks.task import IMAGE, TEXT

PATIENCE = 5  # seconds until it is worth asking again for what torch is needed for
PAYS = 0.9  # of the time that images take one by one: what a batch has to be under


@dataclass(frozen=True)
class Opening:
    """What a worker opens, as in `load`, under which name, and the limits it keeps to.

    `together` is how many requests it answers at once; None: it measures what pays.
    """

    name: str
    path: str
    backend: str
    device: str
    mirror: bool
    limits: Limits
    together: int | None = None


@dataclass(frozen=True)
class _InTurn:
    """A Backend that answers one caller at a time: several would only take the processor from each other."""

    backend: Backend
    alone: threading.Lock

    @property
    def name(self) -> str:
        """Of what answers."""
        return self.backend.name

    def __call__(self, batch: Any) -> NDArray[np.float32]:
        """Logits [N, K] of a batch."""
        return self.outputs(batch)[0]

    def outputs(self, batch: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Logits [N, K] and embeddings [N, D]."""
        with self.alone:
            return self.backend.outputs(batch)


class Explainer:
    """The model in torch, which can be looked into.

    Where another backend answers, it is opened in the background when it is first asked for: that takes seconds.
    """

    def __init__(self, own: Model | SceneModel, device: str) -> None:
        self._own, self._device = own, device
        self._model = own if isinstance(own, Model) and isinstance(own.backend, TorchBackend) else None
        self._opening: threading.Thread | None = None

    def model(self) -> Model:
        """The model.

        Raises:
            Refused: it is being opened.
        """
        if self._model is None:
            if self._opening is None or not self._opening.is_alive():
                self._opening = threading.Thread(target=self._open, daemon=True)
                self._opening.start()
            raise busy("overlay: torch is being opened for it", PATIENCE)
        return self._model

    def _open(self) -> None:
        assert isinstance(self._own, Model), "boxes and masks are drawn, not explained"
        try:
            self._model = replace(self._own, backend=torch_backend(self._own.checkpoint, self._device))
        except ResnetkitError as error:
            log("overlay", {"error": error.what}, "error")


@dataclass(frozen=True)
class Opened:
    """A model that answers several threads.

    Attributes:
        model: whose backend answers one thread at a time.
        own: the same with the backend itself.
        opening: how it was opened.
        alone: held while anything is inferred.
        explainer: the model in torch.
    """

    model: Model | SceneModel
    own: Model | SceneModel
    opening: Opening
    alone: threading.Lock
    explainer: Explainer

    @property
    def draws(self) -> bool:
        """Whether its answers are boxes or masks, which are drawn over their images."""
        return isinstance(self.own, SceneModel)

    @property
    def backend(self) -> str:
        """What runs the network."""
        return self.own.runs_on if isinstance(self.own, SceneModel) else self.own.backend.name

    @property
    def explains(self) -> bool:
        """Whether it can be looked into: an export cannot, and so far only images can."""
        return self.draws or self.own.checkpoint.deployed is None and self.own.task.modality is IMAGE

    def warm(self) -> list[Any]:
        """A real inference: what it answers to a made input.

        Raises:
            ModelError: what it answers is not finite.
        """
        answers = self._made(1)
        if any(not np.isfinite(getattr(each, "scores", 0.0)).all() for each in answers):
            raise ModelError("gives answers that are not finite", path=self.opening.path, fix="train it again")
        return answers

    def _made(self, number: int) -> list[Any]:
        """Answers to so many made inputs at once."""
        prepare, modality = self.own.preprocess, self.own.task.modality
        if isinstance(self.model, SceneModel):
            canvas = np.full((number, *self.model.preprocess.canvas, self.model.preprocess.channels), 127, np.uint8)
            return self.model.predict(list(canvas))
        made: Sequence[Any] = ["an example"] * number
        if modality is not TEXT:
            most = np.iinfo(prepare.dtype).max  # of images bytes, of sounds samples above zero
            made = list(np.random.default_rng(0).integers(0, most + 1, (number, *prepare.shape), prepare.dtype))
        answers: list[Any] = self.model.predict(list(made), top=len(self.model.classes))
        return answers

    def batch(self) -> int:
        """How many requests to answer together: the limit where that is faster than one by one, or 1."""
        most = self.opening.limits.batch
        if self.opening.together is not None or most == 1:
            return self.opening.together or 1
        alone, together = (min(self._seconds(number) for _ in range(3)) for number in (1, most))
        return most if together < PAYS * most * alone else 1

    def _seconds(self, number: int) -> float:
        started = time.perf_counter()
        self._made(number)
        return time.perf_counter() - started

    def _inputs(self) -> list[dict[str, Any]]:
        """As the Open Inference Protocol describes them, of which a request has one."""
        found: list[dict[str, Any]] = [{"name": FILE, "datatype": "BYTES", "shape": [-1]}]
        if self.own.task.modality is IMAGE:
            shape = [-1, -1, -1, self.own.preprocess.channels]
            found.append({"name": PIXELS, "datatype": "UINT8", "shape": shape})
        return found

    def described(self, answers: Sequence[Any]) -> dict[str, Any]:
        """What clients are told of it: nothing of where it lies."""
        told = self.own.checkpoint
        meta = replace(told.meta, weights=Path(told.meta.weights).name)
        return {
            "name": self.opening.name,
            "task": meta.task,
            "variant": meta.variant,
            "classes": list(meta.classes),
            "preprocess": checkpoint.told_of(meta),
            "scores": dict(meta.scores),
            "calibrated": told.calibration is not None,
            "accepts": [MEDIA[self.own.task.modality.noun], OCTETS, FORM],
            "overlay": self.explains,
            "backend": self.backend,
            "mirror": self.opening.mirror,
            "sha256": sha256(told.folder / MANIFEST) if (told.folder / MANIFEST).is_file() else "",
            "written_by": meta.written_by,
            "inputs": self._inputs(),
            "outputs": [column.described for column in columns_of(answers, meta.classes)],
            "card": checkpoint.card(meta),
        }


def _in_turn(model: SceneModel, alone: threading.Lock) -> SceneModel:
    """A model that answers one caller at a time."""

    def infer(canvases: Any) -> list[Any]:
        with alone:
            return model.infer(canvases)

    return replace(model, infer=infer)


def open_model(opening: Opening) -> Opened:
    """Open a model for several threads; raises what `load` does."""
    own = load(opening.path, backend=opening.backend, device=opening.device, mirror=opening.mirror)
    alone = threading.Lock()
    if isinstance(own, SceneModel):
        return Opened(_in_turn(own, alone), own, opening, alone, Explainer(own, "cpu"))
    explainer = Explainer(own, opening.device if opening.backend == "torch" else "cpu")
    return Opened(replace(own, backend=_InTurn(own.backend, alone)), own, opening, alone, explainer)
