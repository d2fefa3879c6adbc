"""Where did a network look? Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391) for every residual network.

The map of a class is the last stage's channels, each weighted by the spatial mean of the gradient of the class's logit,
summed and cut off at zero (eq. 1 and 2). Between the last stage and the logits there are only a pooling and a linear
layer, so the gradient runs through these alone: a map costs hardly more than a prediction, and equals CAM (Zhou et al.
2016, arXiv 1512.04150) but for a factor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from itertools import repeat
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from resnetkit.data.dataset import File
from resnetkit.data.image import Pixels, Preprocess, picture, seen
from resnetkit.errors import DataError
from resnetkit.nn.resnet import ResNet
from resnetkit.nn.sequence import WaveResNet
from resnetkit.runtime import pipeline
from resnetkit.runtime.backends import TorchBackend, torch_backend
from resnetkit.runtime.model import Model

Floats = NDArray[np.float32]
Residual = ResNet | WaveResNet
Wanted = tuple[File, int | None]  # a file, and the class to explain: None is the predicted one
Draws = Callable[[File, Floats, Any, int], Image.Image]

SIDE = 1024  # pixels of an overlay's longer side
AHEAD = 16  # overlays that are drawn at a time
STRONGEST = 0.7  # share of the colour in an overlay where the map is 1


@dataclass(frozen=True)
class Look:
    """What a network makes of one image.

    Attributes:
        logits: [K], not calibrated.
        embedding: the input of the last layer [D].
        index: of the class that the map is of.
        map: of its square input, 0..1 [h, w].
    """

    logits: Floats
    embedding: Floats
    index: int
    map: Floats


def grad_cam(network: Residual, batch: Tensor, classes: Tensor) -> Floats:
    """Where in each image the evidence for a class lies.

    Args:
        network: on any device; its modes, parameters and their gradients are left as they are.
        batch: images, spectra [N, C, H, W] or samples [N, 1, L] as the network takes them, on its device.
        classes: index of the class to explain for each of them [N].

    Returns:
        [N, h, w] with the resolution of the last stage (h is 1 of samples), each divided by its maximum: 0..1. Where
        nothing speaks for the class all is zero.
    """
    with _evaluating(network), torch.no_grad():
        return _maps(network, network.forward_features(batch), classes)


def _maps(network: Residual, features: Mapping[str, Tensor], classes: Tensor) -> Floats:
    """The maps [N, h, w] from the features of the stages."""
    name, last = list(features.items())[-1]
    with torch.enable_grad():
        leaf = last.detach().requires_grad_()
        _, logits = network.forward_head({**features, name: leaf})
        # images do not see each other in evaluation mode: the gradient of the sum holds that of each
        (gradient,) = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), leaf)
    weights = torch.flatten(gradient, 2).mean(2)
    maps = torch.einsum("nchw,nc->nhw", last if last.ndim == 4 else last[:, :, None], weights).relu()
    peaks = maps.amax((1, 2), keepdim=True)
    found: Floats = (maps / torch.where(peaks > 0, peaks, 1)).float().cpu().numpy()
    return found


@contextmanager
def _evaluating(network: Residual) -> Iterator[None]:
    """Evaluation mode; afterwards every module is in the mode that it was in."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def on_torch(model: Model) -> Model:
    """The model on torch, which can be looked into; it is opened anew where it runs on something else."""
    if isinstance(model.backend, TorchBackend):
        return model
    return replace(model, backend=torch_backend(model.checkpoint))


def network_of(model: Model) -> tuple[Residual, str]:
    """The torch network of a model and its device."""
    backend = on_torch(model).backend
    assert isinstance(backend, TorchBackend), "it is on torch"
    assert isinstance(backend.network, ResNet | WaveResNet), "the verbs ask texts in another way"
    return backend.network, backend.device


def looks(model: Model, wanted: Iterable[Wanted], batch_size: int = 32) -> Iterator[tuple[Wanted, Look | DataError]]:
    """What the network makes of each file in order, or why it cannot be read; bounded memory for any number."""
    network, device = network_of(model)

    def read(pair: Wanted) -> tuple[Pixels, int | None]:
        return model.read(pair[0]), pair[1]

    def infer(values: list[tuple[Pixels, int | None]]) -> list[Look]:
        batch = model.normalise(np.stack([pixels for pixels, _ in values]))
        return _looks(network, torch.from_numpy(batch).to(device), [index for _, index in values])

    return pipeline.in_blocks(wanted, read, infer, batch_size)


@torch.no_grad()
def _looks(network: Residual, batch: Tensor, wanted: Sequence[int | None]) -> list[Look]:
    features = network.forward_features(batch)
    embeddings, logits = (each.float().cpu().numpy() for each in network.forward_head(features))
    classes = [int(row.argmax()) if index is None else index for row, index in zip(logits, wanted, strict=True)]
    maps = _maps(network, features, torch.tensor(classes, device=batch.device))
    return [Look(*each) for each in zip(logits, embeddings, classes, maps, strict=True)]


def overlays(
    model: Model,
    files: Iterable[File],
    indices: Iterable[int | None] | None = None,
    side: int = 256,
    draws: Draws | None = None,
) -> Iterator[Image.Image | DataError]:
    """Each picture with its map over it, in order, or why it cannot be read.

    Args:
        model: is asked in batches, on its own device.
        files: any number of them.
        indices: of the class to explain in each; None is the predicted one, and None for all of them that of each.
        side: pixels of the longer side at most.
        draws: file, map, preprocess and side to a picture; `drawn`, of images, if left out.
    """

    def draw(answer: tuple[Wanted, Look | DataError]) -> Image.Image:
        (file, _), look = answer
        if isinstance(look, DataError):
            raise look
        return (draws or drawn)(file, look.map, model.preprocess, side)

    wanted = zip(files, repeat(None) if indices is None else indices, strict=False)
    return (image for _, image in pipeline.read_ahead(looks(model, wanted), draw, AHEAD))


def drawn(file: File, map: Floats, preprocess: Preprocess, side: int = SIDE) -> Image.Image:
    """A picture of at most side x side pixels, upright, with a map [h, w] of the network's input over it.

    Raises:
        DataError: the file cannot be read.
    """
    shown = picture(file, side)
    return overlay(shown, placed(map, shown.size, preprocess))


def placed(map: Floats, size: tuple[int, int], preprocess: Preprocess) -> Floats:
    """A map of the network's square input on the upright picture that the input was made of.

    Args:
        map: [h, w].
        size: width and height of the picture, at whatever scale.
        preprocess: how the input was made.

    Returns:
        [height, width], interpolated linearly; NaN where the network has seen nothing ("crop").
    """
    left, top, right, bottom = seen(size, preprocess)
    down = spread(map.shape[0], size[1], (top, bottom))
    across = spread(map.shape[1], size[0], (left, right))
    return np.asarray(down @ map @ across.T, np.float32)


def spread(cells: int, pixels: int, span: tuple[float, float]) -> Floats:
    """From cells that cover a span of pixels to the pixels [pixels, cells]: linear in between, NaN outside."""
    centres = np.arange(pixels) + 0.5
    start, end = span
    at = (centres - start) / (end - start) * cells - 0.5  # beyond the outermost centres np.interp keeps their values
    found = np.stack([np.interp(at, np.arange(cells), unit) for unit in np.eye(cells)], 1)
    found[(centres < start) | (centres > end)] = np.nan
    return found.astype(np.float32)


def overlay(shown: Image.Image, map: Floats) -> Image.Image:
    """A picture under the colours of a map of its size [height, width].

    The colour is matplotlib's inferno, whose lightness rises evenly, and covers the more the stronger the map is; what
    the network has not seen (NaN) is grey.
    """
    strength = np.rint(255 * np.nan_to_num(map, nan=0.0)).astype(np.uint8)
    grey = shown.convert("L").point([value // 2 + 64 for value in range(256)]).convert("RGB")
    ground = Image.composite(grey, shown.convert("RGB"), Image.fromarray(np.uint8(255) * np.isnan(map)))
    cover = Image.fromarray(strength).point([round(STRONGEST * value) for value in range(256)])
    return Image.composite(Image.fromarray(_colours()[strength]), ground, cover)


@cache
def _colours() -> Pixels:
    """Inferno [256, 3]."""
    import matplotlib

    return np.asarray(matplotlib.colormaps["inferno"](np.arange(256), bytes=True)[:, :3], np.uint8)
