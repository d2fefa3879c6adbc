"""Linear heads: what scikit-learn fits, as a last layer, for any number of classes and images."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_info, threadpool_limits

from resnetkit.training.heads import STRENGTHS, best_strength, choose, fitted, logistic


def clusters(counts: list[int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    targets = np.repeat(np.arange(len(counts)), counts)
    centres = np.random.default_rng(99).normal(0, 3, (len(counts), 8))
    features = centres[targets] + rng.normal(0, 1, (len(targets), 8))
    return (features * [1, 5, 1, 1, 1, 1, 1, 0]).astype(np.float32), targets  # one large, one that never changes


@pytest.mark.parametrize("counts", [[9, 9], [30, 1], [5, 5, 5], [1, 1], [40, 3, 0, 20]])
@pytest.mark.parametrize("balanced", [False, True])
def test_heads_tell_clusters_apart(counts: list[int], balanced: bool) -> None:
    """Two classes, one image of a class, none of it: the logits are of all classes, and finite."""
    features, targets = clusters(counts)
    held, truth = clusters([10 if count else 0 for count in counts], seed=1)
    heads = fitted(features, targets, len(counts), balanced)
    assert [head.name.partition(",")[0] for head in heads] == ["ridge", "logistic"]
    for head in (*heads, choose(heads, held, truth)):
        logits = head(held)
        assert logits.shape == (len(held), len(counts)) and np.isfinite(logits).all()
        if min(count for count in counts if count) > 1:  # of one image nobody knows how they spread
            assert (logits.argmax(1) == truth).mean() > 0.9
        for absent in np.flatnonzero(np.array(counts) == 0):
            assert (logits[:, absent] < logits.min(1) + 1e-6).all()


def test_images_of_all_classes_choose_the_regularisation(monkeypatch) -> None:
    """They come class by class, and of many only some are taken."""
    from resnetkit.training import heads

    seen: list[set[int]] = []
    loss = heads.cross_entropy
    monkeypatch.setattr(heads, "MOST_ROWS", 60)
    monkeypatch.setattr(heads, "cross_entropy", lambda logits, y: seen.append(set(y.tolist())) or loss(logits, y))
    features, targets = clusters([60, 60, 60])
    fitted(features, targets, 3, False)
    assert seen and all(classes == {0, 1, 2} for classes in seen)


def test_where_nothing_can_be_held_out_the_regularisation_is_the_strongest() -> None:
    features, targets = clusters([1, 1])
    assert best_strength(features, targets, None) == STRENGTHS[0]


def test_weaker_regularisation_than_the_first_that_is_worse_is_not_tried(monkeypatch) -> None:
    from resnetkit.training import heads

    losses = dict(zip(STRENGTHS, (3.0, 2.0, 2.5, 1.0, 1.0), strict=True))
    tried: list[float] = []
    monkeypatch.setattr(heads, "_held_out", lambda x, y, c, weights: tried.append(c) or iter([losses[c]]))
    assert best_strength(*clusters([9, 9]), None) == STRENGTHS[1]
    assert tried == [*STRENGTHS[:3]]


def test_features_that_are_nearly_always_zero_get_no_long_weights() -> None:
    """Divided by their own deviation they would: the gradients of a network behind such a head explode."""
    features, targets = clusters([30, 30, 30])
    rare = np.zeros((len(features), 4), np.float32)
    rare[[0, 40, 80, 20], range(4)] = 1e-3
    for head in fitted(np.concatenate([features, rare], 1), targets, 3, False):
        assert np.abs(head.weight[:, -4:]).max() < np.abs(head.weight[:, :-4]).max()


def test_they_are_scikit_learns_own() -> None:
    from sklearn.linear_model import LogisticRegression

    features, targets = clusters([20, 20, 20])
    scaled = (features - features.mean(0)) / np.sqrt(features.var(0).mean())
    logistic = fitted(features, targets, 3, False)[1]
    c = float(logistic.name.rpartition("= ")[2])
    theirs = LogisticRegression(C=c, max_iter=1000).fit(scaled, targets)
    expected = theirs.decision_function(scaled)
    mine = logistic(features)
    assert np.allclose(mine - mine.mean(1, keepdims=True), expected - expected.mean(1, keepdims=True), atol=0.02)


def test_the_choice_is_scaled_to_probabilities() -> None:
    features, targets = clusters([20, 20, 20])
    held, truth = clusters([50, 50, 50], seed=1)
    head = fitted(features, targets, 3, False)[0]
    from resnetkit.ops.metrics import cross_entropy

    assert cross_entropy(choose([head], held, truth)(held), truth).mean() < cross_entropy(head(held), truth).mean()
    assert choose([head], held[:0], truth[:0]) is head


def test_logistic_regression_takes_one_thread_of_blas(monkeypatch) -> None:
    seen, plain = [], LogisticRegression.fit

    def fit(self, *args):
        seen.extend(each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas")
        return plain(self, *args)

    monkeypatch.setattr(LogisticRegression, "fit", fit)
    x, y = np.random.default_rng(0).standard_normal((20, 3)), np.arange(20) % 2
    with threadpool_limits(2, user_api="blas"):
        logistic(x, y, 1.0, None)
    assert set(seen) == {1}
