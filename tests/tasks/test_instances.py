"""Objects with masks: where they lie, and their scores beside pycocotools and faster-coco-eval."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
import torch
from faster_coco_eval.core.coco import COCO as FasterCoco
from faster_coco_eval.core.faster_eval_api import COCOeval_faster
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchvision.models.detection.roi_heads import paste_masks_in_image

from resnetkit.ops.matching import Found, Objects
from resnetkit.ops.regions import encode, of_mask
from resnetkit.tasks import instances

SIDE = 130
NAMES = ("a", "b", "c")


def blob(rng: np.random.Generator, box: np.ndarray) -> np.ndarray:
    """An ellipse that fills about a box."""
    y, x = np.mgrid[:SIDE, :SIDE]
    (mx, my), (rx, ry) = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2 * rng.uniform(0.7, 1.1, 2)
    return ((x - mx) / rx) ** 2 + ((y - my) / ry) ** 2 < 1


def scenes(seed: int, n: int = 20) -> tuple[list[Found], list[Objects]]:
    rng = np.random.default_rng(seed)
    found, there = [], []
    for i in range(n):
        m = int(rng.integers(0, 7)) if i else 0
        corner = rng.uniform(0, 90, (m, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(4, 120, (m, 2))], 1)
        labels = rng.integers(0, 3, m)
        regions = tuple(of_mask(blob(rng, box)) for box in boxes)
        there.append(Objects(boxes, labels, rng.random(m) < 0.2, regions))
        near = boxes + rng.normal(0, 4, boxes.shape)
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        said = tuple(of_mask(blob(rng, box)) for box in near)
        texts = tuple(encode(region, SIDE, SIDE) for region in said)
        wrong = np.where(rng.random(m) < 0.8, labels, rng.integers(0, 3, m))
        found.append(Found(near, wrong, rng.random(m).round(1), None, said, texts))
    return found, there


def stats(found: list[Found], there: list[Objects], api: Any, evaluation: Any) -> np.ndarray:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = api()
        annotations = [
            {
                "image_id": i,
                "category_id": int(k),
                "bbox": [0, 0, 1, 1],
                "area": region.area,
                "iscrowd": int(crowd),
                "segmentation": {"size": [SIDE, SIDE], "counts": encode(region, SIDE, SIDE)},
            }
            for i, t in enumerate(there)
            for k, region, crowd in zip(t.labels, t.regions, t.crowds, strict=True)
        ]
        truth.dataset = {
            "info": {},
            "images": [{"id": i, "width": SIDE, "height": SIDE} for i in range(len(there))],
            "categories": [{"id": k, "name": str(k)} for k in range(3)],
            "annotations": [{**each, "id": number} for number, each in enumerate(annotations, 1)],
        }
        truth.createIndex()
        rows = [
            {
                "image_id": i,
                "category_id": int(k),
                "segmentation": {"size": [SIDE, SIDE], "counts": text},
                "score": float(score),
            }
            for i, f in enumerate(found)
            for k, text, score in zip(f.labels, f.texts, f.scores, strict=True)
        ]
        judged = evaluation(truth, truth.loadRes(rows), "segm")
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    return np.asarray(getattr(judged, "all_stats", judged.stats))[:12]


@pytest.mark.parametrize("seed", range(4))
def test_masks_are_scored_as_by_pycocotools_and_faster_coco_eval(seed: int) -> None:
    found, there = scenes(seed)
    theirs, faster = stats(found, there, COCO, COCOeval), stats(found, there, FasterCoco, COCOeval_faster)
    np.testing.assert_allclose(faster, theirs, atol=1e-12)
    pairs = [instances.judge(one, other, 3) for one, other in zip(found, there, strict=True)]
    metrics = instances.metrics([f for f, _ in pairs], [t for _, t in pairs], NAMES)
    names = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
    mine = [metrics[f"mask_{name}"].value for name in names] + [metrics["mask_AR"].value]
    want = np.where(theirs < 0, np.nan, theirs)  # where there is nothing to be found
    np.testing.assert_allclose(np.array(mine, float), [*want[:6], want[8]], atol=1e-12)
    assert metrics["box_AP50"].value is not None and metrics["mask_AP50"].low is not None


def test_masks_lie_where_torchvision_pastes_them() -> None:
    rng = np.random.default_rng(0)
    parts = np.array(Image.fromarray(rng.random((40 * 7, 7)).astype(np.float32)).resize((28, 40 * 28))).reshape(
        40, 28, 28
    )
    corner = rng.uniform(-20, 95, (40, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(25, 150, (40, 2))], 1).astype(np.float32)
    want = paste_masks_in_image(torch.tensor(parts)[:, None], torch.tensor(boxes), (100, 130))[:, 0].numpy() > 0.5
    got = np.stack([instances.pasted(p, b, (130, 100)).dense(100, 130) for p, b in zip(parts, boxes, strict=True)])
    differing = (got != want).sum((1, 2)) / np.maximum(1, want.sum((1, 2)))
    assert differing.max() < 0.02 and (differing == 0).mean() > 0.8


def test_answers_in_rows_and_pictures() -> None:
    found, _ = scenes(1)
    one = max(found, key=lambda each: len(each.labels))
    answer = instances.decode(one, NAMES, "x.jpg", (SIDE, SIDE), 3)
    assert len(answer) == len(answer.masks) == 3 and list(answer.scores) == sorted(answer.scores, reverse=True)
    rows = answer.full_rows()
    assert all(row["rle"]["size"] == [SIDE, SIDE] for row in rows) and "rle" not in answer.rows()[0]
    best = int(np.argsort(-one.scores, kind="stable")[0])
    np.testing.assert_array_equal(answer.mask(0), one.regions[best].dense(SIDE, SIDE))
    for side in (SIDE, 50):
        assert answer.drawn(Image.new("RGB", (side, side)), 0.0, NAMES).getbbox() is not None
    assert {"bbox", "segmentation"} <= answer.coco(1, {name: k for k, name in enumerate(NAMES)})[0].keys()
    empty = instances.decode(Found(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0)), NAMES, "x.jpg", (9, 9))
    assert empty.full_rows()[0]["rle"] is None and empty.rows()[0]["label"] == ""
