import numpy as np

from resnetkit.training.texts import delete_spans, drop_tokens

TEXTS = np.tile(np.array([5, 6, 7, 8, 9, 0, 0], np.uint16), (500, 1))


def rng(seed=0):
    return np.random.default_rng(seed)


def test_drop_tokens():
    found = drop_tokens(TEXTS, 0.2, rng(), unknown=1)
    assert found.dtype == np.uint16 and not found[:, 5:].any()
    assert 0.17 < (found[:, :5] == 1).mean() < 0.23
    assert ((found == TEXTS) | (found == 1)).all()
    assert np.array_equal(found, drop_tokens(TEXTS, 0.2, rng(), unknown=1))
    assert np.array_equal(drop_tokens(TEXTS, 0, rng()), TEXTS)


def test_a_text_keeps_a_token():
    found = drop_tokens(TEXTS, 1.0, rng())
    assert (found[:, 0] == 5).all() and not found[:, 1:].any()
    assert (delete_spans(TEXTS, 1.0, rng()) > 0).any(1).all()
    assert (delete_spans(TEXTS[:, :1], 1.0, rng()) == 5).all()


def test_delete_spans():
    found = delete_spans(TEXTS, 0.6, rng())
    kinds = {tuple(row.tolist()) for row in found}
    assert (5, 6, 7, 8, 9, 0, 0) in kinds and (5, 8, 9, 0, 0, 0, 0) in kinds and (7, 8, 9, 0, 0, 0, 0) in kinds
    assert (5, 6, 7, 0, 0, 0, 0) in kinds and min(sum(t > 0 for t in kind) for kind in kinds) == 3
    assert all(list(kind[: sum(t > 0 for t in kind)]) == sorted(t for t in kind if t) for kind in kinds)
    assert np.array_equal(found, delete_spans(TEXTS, 0.6, rng()))


def test_delete_spans_of_nothing():
    empty = np.zeros((3, 4), np.uint16)
    assert np.array_equal(delete_spans(empty, 0.5, rng()), empty)
    full = np.tile(np.arange(1, 5, dtype=np.uint16), (50, 1))
    assert np.array_equal(delete_spans(full, 0, rng()), full)
