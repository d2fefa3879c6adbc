"""The folders that torch opens: TorchScript, and the tensors as they are for a network of this package.

TorchScript is deprecated by torch, which still writes and reads it; programs in C++ and on phones have it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from resnetkit.checkpoint import CARD, WEIGHTS, Checkpoint, Meta, card, write_meta
from resnetkit.data.image import Pixels
from resnetkit.runtime.backends import open_network, preprocess_of, torch_backend
from resnetkit.runtime.libraries import Infer, public, write_names, write_weights
from resnetkit.runtime.usage import usage

SCRIPT = "model.pt"
RUN_SCRIPT = """\
network = torch.jit.load("model.pt")
with torch.inference_mode():
    scores, logits, embedding = network(torch.from_numpy(pixels[None].copy()))
logits = logits.numpy()"""
RUN_TENSORS = """\
network = resnetkit.models.build("{variant}", num_classes={num_classes}{options})
network.load_state_dict(load_file("model.safetensors"))
network.eval()
with torch.inference_mode():
    logits = network(torch.from_numpy(floats)[None]).numpy()"""


def write_torchscript(checkpoint: Checkpoint, folder: Path) -> None:
    """model.pt: `pixels` uint8 [batch, size, size, C] to calibrated scores, logits and embedding."""
    import torch

    size, channels = int(checkpoint.meta.preprocess["size"]), len(checkpoint.meta.preprocess["mean"])
    example = torch.zeros(2, size, size, channels, dtype=torch.uint8)
    with _no_warnings(), torch.inference_mode():
        script = torch.jit.trace(_module(checkpoint), example)  # type: ignore[no-untyped-call]
        script.save(str(folder / SCRIPT))
    _write_rest(checkpoint, folder, "torchscript", usage(checkpoint, "import torch", RUN_SCRIPT))


def write_safetensors(checkpoint: Checkpoint, folder: Path) -> None:
    """model.safetensors with torchvision's names, of any network of the family; the folder is a model folder too."""
    meta = checkpoint.meta
    options = "".join(f", {name}={value!r}" for name, value in meta.options.items())
    run = RUN_TENSORS.format(variant=meta.variant, num_classes=len(meta.classes), options=options)
    write_weights(folder, checkpoint.tensors)
    write_meta(folder, public(meta), checkpoint.calibration)
    imports = "import resnetkit.models\nimport torch\nfrom safetensors.torch import load_file"
    _write_rest(checkpoint, folder, "resnetkit", usage(checkpoint, imports, run))


def _write_rest(checkpoint: Checkpoint, folder: Path, library: str, text: str) -> None:
    write_names(checkpoint, folder)
    (folder / CARD).write_text(card(public(checkpoint.meta), library, text), encoding="utf-8")


def open_torchscript(folder: Path, meta: Meta) -> tuple[Infer, str]:
    """What was written, by torch."""
    import torch

    with _no_warnings():
        network = torch.jit.load(str(folder / SCRIPT), map_location="cpu")  # type: ignore[no-untyped-call]

    def infer(batch: Pixels) -> NDArray[np.float32]:
        with torch.inference_mode():
            logits: NDArray[np.float32] = network(torch.from_numpy(batch))[1].numpy()
        return logits

    return infer, f"torch {torch.__version__}"


def open_safetensors(folder: Path, meta: Meta) -> tuple[Infer, str]:
    """What was written, in a network of this package."""
    import torch

    tensors = safetensors.numpy.load_file(folder / WEIGHTS)
    return torch_backend(Checkpoint(folder, meta, tensors), "cpu"), f"torch {torch.__version__}"


def _module(checkpoint: Checkpoint) -> Any:
    """The network from pixels to calibrated scores, logits and embedding, as a torch module."""
    import torch

    network, _ = open_network(checkpoint, "cpu")
    prepare = preprocess_of(checkpoint)
    temperature = checkpoint.calibration.temperature if checkpoint.calibration else 1.0

    mean, scale = 255 * torch.tensor(prepare.mean), 1 / (255 * torch.tensor(prepare.std))
    several = checkpoint.meta.task == "multilabel"

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            images = ((pixels.float() - mean) * scale).permute(0, 3, 1, 2)
            embedding, logits = self.network.forward_head(self.network.forward_features(images))
            calibrated = logits / temperature
            return calibrated.sigmoid() if several else calibrated.softmax(1), logits, embedding

    return Whole().eval()


@contextmanager
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # that TorchScript is deprecated: docs/export.md says it
        yield
