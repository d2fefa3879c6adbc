"""demo: ResNet-34 learns the handwritten digits that scikit-learn ships, on the same path as any user's folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from resnetkit.files import new_folder
from resnetkit.run import Run
from resnetkit.tasks.classes import Prediction
from resnetkit.verbs.console import note
from resnetkit.verbs.predict import predict
from resnetkit.verbs.train import train

TEST_IMAGES = 360


def demo(
    folder: str | Path = "digits",
    *,
    out: str | Path = "runs/digits",
    overwrite: bool = False,
    seed: int | None = None,
    device: str | None = None,
    settings: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> tuple[Run, list[Prediction]]:
    """Write the digits as an image folder with a fixed split, train on it, score it, and label three test images.

    Args:
        folder: where the images go; used as it is if it is there.
        out: the run folder.
        overwrite: move an older run aside.
        seed: short for train.seed.
        device: short for train.device.
        settings: any setting by its dotted key.
        quiet: no notes and no progress on stderr.
    """
    folder = Path(folder)
    if not folder.exists():
        write_digits(folder)
        note(f"wrote 1,797 handwritten digits of scikit-learn to {folder}/", quiet)
    run = train(
        folder,
        recipe="digits",
        out=out,
        overwrite=overwrite,
        seed=seed,
        device=device,
        settings=settings,
        quiet=quiet,
    )
    examples = [next((folder / "test" / str(digit)).glob("*.png")) for digit in (3, 5, 8)]
    answers = predict(run.folder, examples, top=2)
    return run, [answer for answer in answers if isinstance(answer, Prediction)]


def write_digits(folder: Path) -> None:
    """The 1,797 digits of 8 x 8 pixels as PNG files: 1,437 in train/, 360 in test/, stratified, always the same."""
    digits = load_digits()
    rows = np.arange(len(digits.target))
    _, test = train_test_split(rows, test_size=TEST_IMAGES, random_state=0, stratify=digits.target)
    held_out = set(test.tolist())
    with new_folder(folder, manifest=False) as temporary:
        for row in rows:
            split = "test" if row in held_out else "train"
            path = temporary / split / str(digits.target[row]) / f"{row:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.rint(digits.images[row] * (255 / 16)).astype(np.uint8)).save(path)
