"""The target of masks: answers and metrics."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from sklearn.metrics import f1_score, jaccard_score

from data.scenes import write_image
from resnetkit.data import masks as data
from resnetkit.tasks import masks

CLASSES = ("sky", "road", "car", "cow")
RNG = np.random.default_rng(0)
TARGETS = RNG.integers(0, 3, (9, 12, 17)).astype(np.uint8)
SAID = np.where(RNG.random(TARGETS.shape) < 0.7, TARGETS, RNG.integers(0, 4, TARGETS.shape)).astype(np.uint8)
IGNORED = np.where(RNG.random(TARGETS.shape) < 0.1, 255, TARGETS).astype(np.uint8)
MATRICES = np.stack([masks.confusion(s, t, 4) for s, t in zip(SAID, IGNORED, strict=True)])


def test_metrics_are_scikit_learns() -> None:
    got = masks.metrics(MATRICES, CLASSES)
    kept = IGNORED != 255
    iou = jaccard_score(IGNORED[kept], SAID[kept], labels=[0, 1, 2], average=None)
    dice = f1_score(IGNORED[kept], SAID[kept], labels=[0, 1, 2], average=None)
    assert got["mIoU"].value == pytest.approx(iou.mean())
    assert got["dice"].value == pytest.approx(dice.mean())
    assert got["pixel_accuracy"].value == pytest.approx((IGNORED == SAID)[kept].mean())
    for k in range(3):
        assert got[f"IoU/{CLASSES[k]}"].value == pytest.approx(iou[k])
        assert got[f"dice/{CLASSES[k]}"].value == pytest.approx(dice[k])
    assert masks.headline(MATRICES) == got[masks.HEADLINE].value
    for metric in (m for m in got.values() if m.value is not None):
        assert metric.n == 9 and metric.low is not None and metric.high is not None
        assert metric.low < metric.value < metric.high  # type: ignore[operator]


def test_a_class_that_is_not_there_is_null() -> None:
    """Though it was said."""
    assert MATRICES[:, :, 3].sum() > 0
    got = masks.metrics(MATRICES, CLASSES)
    assert got["IoU/cow"].as_dict() == {
        "value": None,
        "n": 9,
        "low": None,
        "high": None,
        "method": "no pixels of this class",
    }
    nothing = masks.metrics(np.zeros((2, 4, 4), int), CLASSES)
    assert {each.value for each in nothing.values()} == {None}
    assert masks.headline(np.zeros((2, 4, 4), int)) is None
    assert masks.metrics(np.zeros((0, 4, 4), int), CLASSES)["mIoU"].method == "no samples"


def test_the_worst_image() -> None:
    matrices = np.stack([masks.confusion(t, t, 4) for t in TARGETS])
    matrices[4] = masks.confusion(2 - TARGETS[4], TARGETS[4], 4)
    assert int(masks.accuracies(matrices).argmin()) == 4
    assert masks.accuracies(matrices).max() == 1


def test_rows() -> None:
    indices = np.zeros((10, 20), np.uint8)
    indices[:, :15] = 2
    indices[0, 0] = 1
    size = {"path": "a.jpg", "width": 20, "height": 10}
    assert masks.Mask("a.jpg", CLASSES, indices).rows() == [
        {**size, "label": "car", "share": 0.745},
        {**size, "label": "sky", "share": 0.25},
        {**size, "label": "road", "share": 0.005},
    ]


def test_a_png_is_read_as_it_was_written(tmp_path: Path) -> None:
    answer = masks.Mask("a.jpg", CLASSES, TARGETS[0])
    write_image(tmp_path / "images" / "a.png", (17, 12))
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "a.png").write_bytes(answer.png())
    np.testing.assert_array_equal(data.scan(tmp_path).mask(0), TARGETS[0])
    shown = np.asarray(Image.open(io.BytesIO(answer.png())).convert("RGB"))
    assert len(np.unique(shown.reshape(-1, 3), axis=0)) == 3


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # of pycocotools under numpy 2
def test_coco_is_read_by_pycocotools() -> None:
    results = masks.Mask("a.jpg", CLASSES, TARGETS[0]).coco(5, {name: 10 * k for k, name in enumerate(CLASSES)})
    assert [each["category_id"] for each in results] == [0, 10, 20]
    for k, each in enumerate(results):
        np.testing.assert_array_equal(coco_mask.decode(each["segmentation"]), TARGETS[0] == k)
