"""Boxes, masks and objects: what their scores take."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conftest import write_scenes
from resnetkit.data import boxes, masks
from resnetkit.tasks.scenes import SCENES, seconds_to_score


@pytest.mark.parametrize("key", SCENES)
def test_the_time_of_scores_is_told_beforehand(key: str, tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "data")
    if key == "segment":
        dataset = masks.scan(root / "masks")
    else:
        dataset = boxes.scan(root / ("boxes" if key == "detect" else "instances"), outlines=key == "instances")
    assert 0 < seconds_to_score(SCENES[key], dataset) < 60
    alone = replace(dataset, splits=np.zeros_like(dataset.splits))
    assert seconds_to_score(SCENES[key], alone) == 0, "no split is scored"
