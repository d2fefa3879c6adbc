"""Two models on the same samples: the verdict, the differences and what flipped."""

from __future__ import annotations

import numpy as np
import pytest

from resnetkit.tasks.evaluate import Scores, score
from resnetkit.tasks.task import TASKS
from resnetkit.trust.compare import compare

CLASSES = ("ant", "bee", "cat")


def scores(targets: np.ndarray, right: np.ndarray) -> Scores:
    said = np.where(right, targets, (targets + 1) % 3)
    paths = [f"{CLASSES[target]}/{i}.png" for i, target in enumerate(targets)]
    return score(TASKS["classify"], "test", CLASSES, paths, targets, list(3.0 * np.eye(3)[said]))


def right(*counts: int) -> tuple[np.ndarray, np.ndarray]:
    """Whether A and B are right, for so many samples of both, A alone, B alone and neither."""
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


@pytest.mark.parametrize(
    ("counts", "verdict"),
    [
        ((60, 4, 20, 16), "B is better"),
        ((60, 20, 4, 16), "A is better"),
        ((60, 8, 12, 20), "cannot tell with n = 100; about "),
        ((90, 5, 5, 0), "cannot tell with n = 100: both have equally many right"),
        ((10, 0, 0, 0), "cannot tell with n = 10: both have equally many right"),
    ],
)
def test_verdicts(counts: tuple[int, ...], verdict: str) -> None:
    a, b = right(*counts)
    targets = np.arange(len(a)) % 3
    found = compare(scores(targets, a), scores(targets, b))
    assert found.verdict.startswith(verdict) and (found.only_a, found.only_b) == counts[1:3]
    difference = found.differences["accuracy"]
    assert difference.value == pytest.approx((counts[2] - counts[1]) / len(a))
    assert difference.low <= difference.value <= difference.high
    assert "better" not in found.verdict or difference.low * difference.high > 0
    assert len(list(found.rows())) == counts[1] + counts[2]
    loss = found.differences["log_loss"]
    assert loss.value == pytest.approx(-3 * difference.value) and found.differences["macro_f1"].n == len(a)


def test_pairing_sees_what_two_intervals_apart_do_not() -> None:
    """Both are right on nearly the same samples, so few that differ are enough."""
    a, b = right(700, 2, 14, 284)
    targets = np.arange(1000) % 3
    one, other = scores(targets, a), scores(targets, b)
    apart = one.metrics["accuracy"].high > other.metrics["accuracy"].low
    assert apart and compare(one, other).verdict == "B is better"


def test_what_changed() -> None:
    targets = np.array([0, 0, 1, 2])
    a, b = np.array([True, False, True, False]), np.array([False, True, True, False])
    found = compare(scores(targets, a), scores(targets, b))
    assert [(row["path"], row["label_a"], row["label_b"], row["change"]) for row in found.rows()] == [
        ("ant/0.png", "ant", "bee", "worse"),
        ("ant/1.png", "bee", "ant", "better"),
    ]
    assert found.of_classes()["ant"] == {"n": 2, "a": 1, "b": 1}
    assert found.as_dict()["images_needed"] is None


def test_several_labels() -> None:
    logits = [np.array([1.0, -1.0, 1.0]), np.array([-1.0, -1.0, 1.0])]
    targets = np.array([[1, 0, 1], [0, 1, 1]])
    one = score(TASKS["multilabel"], "test", CLASSES, ("x", "y"), targets, logits)
    other = score(TASKS["multilabel"], "test", CLASSES, ("x", "y"), targets, [-each for each in logits])
    found = compare(one, other)
    assert (found.only_a, found.only_b) == (1, 0) and set(found.differences) == {"accuracy", "log_loss"}
    assert found.of_classes()["cat"]["n"] == 2


def test_groups_are_witnesses() -> None:
    a, b = right(60, 4, 20, 16)
    targets, n = np.arange(100) % 3, 100
    one, other = scores(targets, a), scores(targets, b)
    alone = compare(one, other, np.arange(n))
    assert (
        alone.groups == n
        and alone.verdict == "B is better"
        and alone.p == pytest.approx(compare(one, other).p, abs=0.005)
    )
    assert alone.as_dict()["groups"] == n and compare(one, other).as_dict()["groups"] is None
    alike = compare(one, other, np.arange(n) // 20)  # all that B alone has right are of two groups
    assert alike.verdict.startswith("cannot tell") and alike.p > 0.2 and alike.needed > alone.needed
    for name, metric in alike.differences.items():
        assert metric.value == pytest.approx(alone.differences[name].value) and "5 groups" in metric.method
    width = {
        each.groups: np.ptp([each.differences["accuracy"].low, each.differences["accuracy"].high])
        for each in (alone, alike)
    }
    assert width[5] > width[n]
