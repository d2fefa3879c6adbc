"""What a network hears of a recording as a picture: its log-mel spectrum, low bands below, and a map over it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnetkit.data import audio
from resnetkit.data.audio import AudioPreprocess
from resnetkit.data.dataset import File
from resnetkit.trust.explain import SIDE, overlay, spread


def heard(file: File, map: NDArray[np.float32], preprocess: AudioPreprocess, side: int = SIDE) -> Image.Image:
    """The spectrum of what a network is given of a recording, which of a long one is its middle, under a map of it.

    Args:
        file: the recording.
        map: of the network's input, 0..1 [h, w], the first row that of the lowest bands; of samples one row.
        preprocess: how that input is made.
        side: width of the picture, pixels; it is half as high.

    Raises:
        DataError: the file cannot be read.
    """
    seen = replace(preprocess, form="mel")
    clip = audio.clip(audio.read(file, preprocess), preprocess)
    levels = audio.log_mel(clip[None], seen)[0, 0, ::-1]
    span = max(float(np.ptp(levels)), 1e-6)
    grey = np.rint((levels - levels.min()) / span * 255).astype(np.uint8)
    shown = Image.fromarray(grey).resize((side, side // 2), Image.Resampling.BILINEAR)
    down, across = (
        spread(cells, pixels, (0, pixels)) for cells, pixels in zip(map.shape, shown.size[::-1], strict=True)
    )
    return overlay(shown, np.asarray(down @ map[::-1] @ across.T, np.float32))
