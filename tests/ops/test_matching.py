"""Average precision, beside pycocotools and faster-coco-eval."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from faster_coco_eval.core.coco import COCO as FasterCoco
from faster_coco_eval.core.faster_eval_api import COCOeval_faster
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from resnetkit.ops import matching
from resnetkit.ops.boxes import areas, to_xywh
from resnetkit.ops.matching import ANY_SIZE, SIZES, Found, Objects

K = 3


def some_boxes(rng: np.random.Generator, n: int) -> np.ndarray:
    corner = rng.uniform(0, 200, (n, 2))
    return np.concatenate([corner, corner + rng.uniform(1, 130, (n, 2))], 1)


def scenes(seed: int = 0, n: int = 25) -> tuple[list[Found], list[Objects]]:
    """Noisy answers, with ties in their scores, crowds, wrong classes, and images without anything."""
    rng = np.random.default_rng(seed)
    found, there = [], []
    for i in range(n):
        m = int(rng.integers(0, 12)) if i else 0
        boxes, labels = some_boxes(rng, m), rng.integers(0, K, m)
        kept = rng.random(m) < 0.8
        near = boxes[kept] + rng.normal(0, 5, (int(kept.sum()), 4))
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 0.5)
        said = np.where(rng.random(len(near)) < 0.9, labels[kept], rng.integers(0, K, len(near)))
        extra = some_boxes(rng, int(rng.integers(0, 5)) if i > 1 else 0)
        all_ = np.concatenate([near, extra])
        every = np.concatenate([said, rng.integers(0, K, len(extra))])
        found.append(Found(all_, every, rng.random(len(all_)).round(1)))
        there.append(Objects(boxes, labels, rng.random(m) < 0.15))
    return found, there


def peers(found: list[Found], there: list[Objects], api: Any, evaluation: Any) -> Any:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = api()
        truth.dataset = {
            "info": {},
            "images": [{"id": i, "width": 400, "height": 400} for i in range(len(there))],
            "categories": [{"id": k, "name": str(k)} for k in range(K)],
            "annotations": [
                {"image_id": i, "category_id": int(k), "bbox": box, "area": area, "iscrowd": int(crowd)}
                for i, t in enumerate(there)
                for k, box, area, crowd in zip(
                    t.labels, to_xywh(t.boxes).tolist(), areas(t.boxes).tolist(), t.crowds, strict=True
                )
            ],
        }
        for number, each in enumerate(truth.dataset["annotations"], 1):
            each["id"] = number
        truth.createIndex()
        said = truth.loadRes(
            [
                {"image_id": i, "category_id": int(k), "bbox": box, "score": float(s)}
                for i, f in enumerate(found)
                for k, box, s in zip(f.labels, to_xywh(f.boxes).tolist(), f.scores, strict=True)
            ]
        )
        judged = evaluation(truth, said, "bbox")
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    return judged


def ours(found: list[Found], there: list[Objects], size: tuple[float, float] = ANY_SIZE) -> tuple[Any, Any]:
    """Average precision and recall [K, T]."""
    once = np.ones((1, len(found)))
    each = [matching.average_precision(matching.matches(found, there, k, size), once) for k in range(K)]
    return np.stack([p[0] for p, _ in each]), np.stack([r[0] for _, r in each])


@pytest.mark.parametrize("seed", range(5))
def test_as_pycocotools_and_faster_coco_eval(seed: int) -> None:
    found, there = scenes(seed)
    stats = peers(found, there, COCO, COCOeval).stats
    faster = np.asarray(peers(found, there, FasterCoco, COCOeval_faster).all_stats)[:12]
    np.testing.assert_allclose(faster, stats, atol=1e-12)
    precision, recall = ours(found, there)
    mine = [precision.mean(), precision[:, 0].mean(), precision[:, 5].mean()]
    mine += [ours(found, there, size)[0].mean() for size in SIZES.values()] + [recall.mean()]
    np.testing.assert_allclose(mine, [*stats[:6], stats[8]], atol=1e-12)


def test_a_weight_is_a_copy() -> None:
    """An image that counts twice is as two of it, whatever order ties come in."""
    found, there = scenes(3)
    found = [Found(f.boxes, f.labels, np.random.default_rng(i).random(len(f.scores))) for i, f in enumerate(found)]
    weights = np.random.default_rng(0).integers(0, 3, len(found))
    matched = matching.matches(found, there, 0)
    got = matching.average_precision(matched, np.stack([np.ones(len(found)), weights]))[0][1]
    rows = np.repeat(np.arange(len(found)), weights)
    copies = matching.matches([found[i] for i in rows], [there[i] for i in rows], 0)
    want = matching.average_precision(copies, np.ones((1, len(rows))))[0][0]
    np.testing.assert_allclose(got, want, atol=0.02)
    assert abs(got - matching.average_precision(matched, np.ones((1, len(found))))[0][0]).max() > 0.005


def test_nothing_there_and_nothing_found() -> None:
    box, none = np.array([[0.0, 0, 9, 9]]), np.zeros((0, 4))
    one = np.zeros(1, int)
    there = Objects(box, one, np.zeros(1, bool))
    empty = Found(none, one[:0], np.zeros(0))
    precision, recall = matching.average_precision(matching.matches([empty], [there], 0), np.ones((1, 1)))
    assert (precision == 0).all() and (recall == 0).all()
    precision, _ = matching.average_precision(matching.matches([empty], [there], 1), np.ones((1, 1)))
    assert np.isnan(precision).all()
    found = Found(box, one, np.ones(1))
    precision, recall = matching.average_precision(matching.matches([found], [there], 0), np.ones((1, 1)))
    np.testing.assert_allclose([precision, recall], 1)


def test_a_pixel_and_ten_thousand_boxes() -> None:
    pixel = np.array([[3.0, 3, 4, 4]])
    there = Objects(pixel, np.zeros(1, int), np.zeros(1, bool))
    many = np.tile(pixel, (10_000, 1))
    found = Found(many, np.zeros(10_000, int), np.linspace(1, 0, 10_000))
    matched = matching.matches([found], [there], 0)
    assert matched.hits.shape == (10, 100)
    assert matched.hits[0].sum() == 1


def test_curve() -> None:
    boxes = np.array([[0.0, 0, 9, 9], [20, 20, 29, 29], [50, 50, 60, 60]])
    there = Objects(boxes[:2], np.zeros(2, int), np.zeros(2, bool))
    found = Found(boxes[[0, 2, 1]], np.zeros(3, int), np.array([0.9, 0.8, 0.7]))
    scores, precision, recall = matching.curve(matching.matches([found], [there], 0))
    assert scores.tolist() == [0.9, 0.8, 0.7]
    assert precision.tolist() == [1, 1 / 2, 2 / 3]
    assert recall.tolist() == [0.5, 0.5, 1]


def test_confusion() -> None:
    boxes = np.array([[0.0, 0, 9, 9], [20, 20, 29, 29], [50, 50, 60, 60], [70, 70, 90, 90], [0, 0, 8, 9]])
    there = Objects(boxes[:4], np.array([0, 1, 1, 0]), np.array([False, False, False, True]))
    found = Found(boxes[[0, 1, 3, 4]], np.array([0, 0, 1, 1]), np.array([0.9, 0.8, 0.7, 0.6]))
    matrix = matching.confusion(found, there, 2, 0.5)
    assert matrix.tolist() == [[1, 0, 0], [1, 0, 1], [0, 1, 0]]
    assert matching.confusion(found, there, 2, 0.95).tolist() == [[0, 0, 1], [0, 0, 2], [0, 0, 0]]


def test_a_crowd_takes_only_what_no_object_has() -> None:
    """All of a box lies in the crowd, and only nine tenths of it in the object."""
    there = Objects(np.array([[0.0, 0, 10, 11], [0, 0, 100, 100]]), np.array([0, 0]), np.array([False, True]))
    found = Found(np.array([[0.0, 0, 10, 10], [40, 40, 50, 50]]), np.array([0, 0]), np.array([0.9, 0.8]))
    assert matching.confusion(found, there, 1, 0.5).tolist() == [[1, 0], [0, 0]]
