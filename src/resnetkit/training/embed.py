"""The embedding of every image of a data set, in a stream: decoded while the network runs, never all in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from resnetkit.data.dataset import File
from resnetkit.errors import DataError
from resnetkit.nn.cut import AVGPOOL
from resnetkit.nn.resnet import ResNet
from resnetkit.runtime import pipeline
from resnetkit.settings import Recipe
from resnetkit.tasks.task import Modality
from resnetkit.training.device import Setup
from resnetkit.training.objective import preprocess_of
from resnetkit.training.trunk import open_trunk


def embed(
    network: ResNet,
    files: Sequence[File],
    how: tuple[Recipe, Modality, Setup],
    progress: Callable[[int], None],
) -> NDArray[np.float32]:
    """Pooled features [n, D], as evaluation sees the images; NaN where one cannot be read.

    Args:
        network: is put into evaluation mode.
        files: of the images.
        how: the settled recipe, which says what runs the network, what is read, and the device.
        progress: called with the number of images done.
    """
    recipe, modality, setup = how
    preprocess, trunk = preprocess_of(recipe), open_trunk(network.to(setup.device), AVGPOOL, recipe, setup)
    found = np.full((len(files), network.fc.in_features), np.nan, np.float32)

    def read(file: File) -> NDArray[Any]:
        return modality.preprocess(modality.read(file, preprocess), preprocess)

    @torch.inference_mode()
    def infer(batch: NDArray[Any]) -> NDArray[np.floating]:
        images = torch.from_numpy(modality.normalise(batch, preprocess)).to(setup.device)
        features: NDArray[np.floating] = trunk(images).flatten(1).float().cpu().numpy()
        return features

    for row, (_, answer) in enumerate(pipeline.run(files, read, infer)):
        if not isinstance(answer, DataError):
            found[row] = answer
        progress(row + 1)
    return found
