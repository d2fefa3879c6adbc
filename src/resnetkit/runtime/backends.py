"""What runs the network of a model folder: a batch of what its task's preprocess gives, to logits [N, K]."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from resnetkit.checkpoint import Checkpoint
from resnetkit.data.audio import AudioPreprocess
from resnetkit.data.image import Preprocess, preprocess_from
from resnetkit.errors import ModelError, ResourceError, UsageError
from resnetkit.runtime import choice
from resnetkit.runtime.deployed import open_deployed
from resnetkit.runtime.pipeline import num_threads
from resnetkit.tasks.task import task_named

if TYPE_CHECKING:
    from resnetkit.models import Network
    from resnetkit.runtime.engines import Engine
    from resnetkit.runtime.graph import Graph

BACKENDS = ("auto", "torch", *choice.ENGINES)
Floats = NDArray[np.float32]


class Backend(Protocol):
    """Runs a network; normalising is part of it, so that engines may do it faster."""

    @property
    def name(self) -> str:
        """One of BACKENDS, what `auto` stands for."""
        ...

    def __call__(self, batch: NDArray[Any]) -> Floats:
        """Logits [N, K] of a batch of pixels [N, size, size, C], clips [N, samples] or tokens [N, length]."""
        ...

    def outputs(self, batch: NDArray[Any]) -> tuple[Floats, Floats]:
        """Logits [N, K], and the embeddings [N, D] that they are linear in."""
        ...


def open_backend(checkpoint: Checkpoint, backend: str = "auto", device: str = "auto") -> Backend:
    """The backend of this name for a model; auto is the fastest that is installed and gives torch's answers.

    On another device than the CPU, auto is torch.

    Raises:
        UsageError: there is no such backend, or it does not run on this device.
        ModelError: the tensors do not fit the network that model.json names.
        ResourceError: torch, or the backend's package, is not installed, or the device is not there.
    """
    if backend not in BACKENDS:
        raise UsageError(f"there is no backend {backend!r}", fix=f"one of {', '.join(BACKENDS)}")
    if checkpoint.deployed is not None:
        _refuse_device(f"an export for {checkpoint.deployed.format}", device, "leave --device out")
        return open_deployed(checkpoint, backend)
    if backend == "auto" and has_graph(checkpoint):
        return _fastest(checkpoint, device)
    if backend in ("auto", "torch"):
        return torch_backend(checkpoint, device)
    _refuse_device(backend, device, "--backend torch, or --device cpu")
    return _engine(checkpoint, backend)


def has_graph(checkpoint: Checkpoint) -> bool:
    """Whether engines can run a network: one of images, or of the spectra of sounds."""
    noun = task_named(checkpoint.meta.task).modality.noun
    return noun == "images" or (noun == "sounds" and checkpoint.meta.variant not in choice.NO_GRAPH)


def _refuse_device(what: str, device: str, fix: str) -> None:
    if device not in ("auto", "cpu"):
        raise UsageError(f"{what} runs on the CPU, not on {device}", fix=fix)


def _engine(checkpoint: Checkpoint, name: str) -> Backend:
    from resnetkit.runtime.graph import graph_of

    return open_engine(graph_of(checkpoint), name, prepared_of(checkpoint))


def prepared_of(checkpoint: Checkpoint) -> Any:
    """How the inputs of a model are prepared, whatever they are.

    Raises:
        ModelError: model.json does not say it.
    """
    return task_named(checkpoint.meta.task).modality.prepared(checkpoint.meta.preprocess, checkpoint.folder)


def preprocess_of(checkpoint: Checkpoint) -> Preprocess:
    """How the images of a model of images are prepared.

    Raises:
        ModelError: model.json does not say it.
    """
    return preprocess_from(checkpoint.meta.preprocess, checkpoint.folder)


def open_engine(graph: Graph, name: str, preprocess: Preprocess | AudioPreprocess | None = None) -> Engine:
    """An engine of choice.ENGINES for a network, or for the first part of one.

    Args:
        graph: the network.
        name: of the engine.
        preprocess: how it normalises pixels; None: it takes normalised images.

    Raises:
        ResourceError: the engine's package is not installed, or our kernels were not compiled.
    """
    from resnetkit.runtime import engines

    openers = {"onnxruntime": engines.onnxruntime, "openvino": engines.openvino, "ncnn": engines.ncnn}
    if name == "native":
        from resnetkit.runtime.native import open_network

        if preprocess is not None and not isinstance(preprocess, Preprocess):
            raise ResourceError("our kernels take images, not sounds", fix="another --backend")
        return engines.Engine(name, open_network(graph, preprocess))
    return openers[name](graph, preprocess)


def _fastest(checkpoint: Checkpoint, device: str) -> Backend:
    """Opens no torch where an earlier process has chosen another backend, and there is no GPU to look for."""
    names = choice.installed() if device in ("auto", "cpu") else ()
    key = choice.key_of(checkpoint, names) if names else ""
    known = choice.remembered(key) if names else "torch"
    if known not in (None, "torch") and not choice.may_have_gpu(device):
        with suppress(Exception):  # what cannot be opened any more is measured anew
            return _engine(checkpoint, str(known))
    reference = torch_backend(checkpoint, device)
    if known == "torch" or reference.device != "cpu":
        return reference
    openers: dict[str, Callable[[], Backend]] = {name: partial(_engine, checkpoint, name) for name in names}
    best, backend = choice.fastest(checkpoint, cast(Backend, reference), openers)
    choice.remember(key, best)
    return backend


def open_network(checkpoint: Checkpoint, device: str = "auto") -> tuple[Network, str]:
    """The torch network of a model folder in evaluation mode, and the device that it is on.

    Raises:
        ModelError: the tensors do not fit the network that model.json names, or it is an export, which has none.
        ResourceError: torch is not installed, or the device is not there.
    """
    if checkpoint.deployed is not None:
        what, fix = f"is an export for {checkpoint.deployed.format}, without weights for torch", "give the run it is of"
        raise ModelError(what, path=checkpoint.folder, fix=fix)
    try:
        import torch

        from resnetkit import models
        from resnetkit.weights.fit import refuse_differences
    except (ImportError, OSError, MemoryError) as error:  # OSError: a library that cannot be loaded
        fix = "pip install torch torchvision"
        raise ResourceError(f"the torch backend needs torch: {error}", fix=fix) from error
    refuse_old_torch(torch.__version__)
    meta = checkpoint.meta
    where = torch_device(device)
    torch.set_num_threads(num_threads())
    state = {name: torch.from_numpy(array) for name, array in checkpoint.tensors.items()}
    try:
        if "num_classes" in meta.options:
            raise ValueError("says twice how many classes there are")
        network = models.assembled(meta.variant, {"num_classes": len(meta.classes), **meta.options})
    except (ValueError, TypeError, RuntimeError, AttributeError) as error:  # options are whatever the file says
        raise ModelError(str(error), path=checkpoint.folder, fix="update resnetkit") from error
    refuse_differences(network.state_dict(), state, str(checkpoint.folder))
    network.load_state_dict(state)
    return network.eval().to(where), where


def torch_backend(checkpoint: Checkpoint, device: str = "auto") -> TorchBackend:
    """The torch backend of a model folder; raises what `open_network` does."""
    meta = checkpoint.meta
    modality, preprocess = task_named(meta.task).modality, prepared_of(checkpoint)
    return TorchBackend(*open_network(checkpoint, device), lambda batch: modality.normalise(batch, preprocess))


@dataclass(frozen=True)
class TorchBackend:
    """A torch network, in evaluation mode, on its device, with what makes its input."""

    network: Network
    device: str
    normalise: Callable[[NDArray[Any]], NDArray[Any]]
    name: str = "torch"

    def __call__(self, batch: NDArray[Any]) -> Floats:
        """Logits [N, K] of a batch [N, size, size, C]."""
        return self.outputs(batch)[0]

    def outputs(self, batch: NDArray[Any]) -> tuple[Floats, Floats]:
        """Logits [N, K] and embeddings [N, D]."""
        import torch

        with torch.inference_mode():
            features = self.network.forward_features(torch.from_numpy(self.normalise(batch)).to(self.device))
            embeddings, logits = self.network.forward_head(features)
        return logits.float().cpu().numpy(), embeddings.float().cpu().numpy()


@dataclass(frozen=True)
class _Mirrored:
    """The mean over images and their mirror images, as a Backend."""

    backend: Backend

    @property
    def name(self) -> str:
        """Of the backend that has the images and their mirror images."""
        return self.backend.name

    def __call__(self, batch: NDArray[Any]) -> Floats:
        """Logits [N, K] of a batch [N, size, size, C]."""
        return self.outputs(batch)[0]

    def outputs(self, batch: NDArray[Any]) -> tuple[Floats, Floats]:
        """Logits [N, K] and embeddings [N, D]."""
        turned = np.ascontiguousarray(batch[:, :, ::-1])
        pairs = zip(self.backend.outputs(batch), self.backend.outputs(turned), strict=True)
        logits, embeddings = (np.float32(0.5) * (one + other) for one, other in pairs)
        return logits, embeddings


def mirrored(backend: Backend) -> Backend:
    """A backend whose answers are the mean over the images and their mirror images: twice the work."""
    return _Mirrored(backend)


def refuse_old_torch(version: str) -> None:
    """Refuse a torch that is older than what resnetkit was made for (its weights_only loader was unsafe before 2.10).

    Raises:
        ResourceError: it is.
    """
    numbers = [int(part) for part in re.findall(r"\d+", version)[:2]]
    if numbers < [2, 10]:
        raise ResourceError(f"torch {version} is too old", fix="pip install 'torch>=2.10' 'torchvision>=0.25'")


def torch_device(name: str) -> str:
    """The device to use: auto takes a GPU where there is one.

    Raises:
        ResourceError: the device asked for is not there.
    """
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    kind = name.partition(":")[0]
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    try:
        index = torch.device(name).index or 0
    except RuntimeError:
        index = -1
    if not 0 <= index < there.get(kind, 0):
        raise ResourceError(f"there is no device {name!r}", fix="--device auto, cpu, cuda, cuda:1 or mps")
    return name
