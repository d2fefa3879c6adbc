"""Held-out samples: every label has its share of each split, as far as that can be."""

from pathlib import Path

import numpy as np
import pytest

from resnetkit.data.dataset import Dataset, assign_splits
from resnetkit.data.names import Names
from resnetkit.data.stratify import by_labels, held_out, linked, together

FREQUENCIES = (0.005, 0.02, 0.1, 0.4, 0.7)


def labelled(n, seed):
    return (np.random.default_rng(seed).random((n, len(FREQUENCIES))) < FREQUENCIES).astype(np.int8)


@pytest.mark.parametrize("seed", range(5))
def test_every_label_has_its_share(seed):
    has = labelled(400, seed)
    val, test = by_labels(has, np.arange(400), (0.15, 0.15), seed)
    assert len(np.intersect1d(val, test)) == 0 and len(np.unique(val)) == len(val)
    for part in (val, test):
        assert abs(len(part) - 60) <= 6
        for k, count in enumerate(has.sum(0)):
            assert abs(int(has[part, k].sum()) - held_out(int(count), 0.15)) <= 2
        assert abs(int((has[part].sum(1) == 0).sum()) - 0.15 * (has.sum(1) == 0).sum()) <= 3
    train = np.setdiff1d(np.arange(400), np.concatenate([val, test]))
    assert ((has[train].sum(0) > 0) | (has.sum(0) == 0)).all()
    again = by_labels(has, np.arange(400), (0.15, 0.15), seed)
    np.testing.assert_array_equal(np.concatenate(again), np.concatenate([val, test]))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 20])
@pytest.mark.parametrize("seed", range(20))
def test_no_label_is_lost_to_training(n, seed):
    has = labelled(n, seed)
    val, test = by_labels(has, np.arange(n), (0.3, 0.3), seed)
    train = np.setdiff1d(np.arange(n), np.concatenate([val, test]))
    assert len(train) and ((has[train].sum(0) > 0) | (has.sum(0) == 0)).all()


def test_nothing_is_held_out_where_nothing_is_asked_for():
    val, test = by_labels(labelled(50, 0), np.arange(50), (0.2, 0.0), 0)
    assert len(test) == 0 and 5 <= len(val) <= 15


def test_copies_stay_on_one_side():
    has = labelled(60, 1)
    first = np.arange(60)
    first[30:] = first[:30]
    names = Names(f"{i}.png" for i in range(60))
    dataset = Dataset(Path(), tuple("abcde"), names, np.concatenate([has[:30], has[:30]]), np.zeros(60, np.int8))
    cut = assign_splits(dataset, val=0.2, test=0.2, seed=0, first=first)
    np.testing.assert_array_equal(cut.splits[:30], cut.splits[30:])
    assert all(cut.num_samples(split) > 0 for split in ("train", "val", "test"))


def test_copies_and_groups_stay_together():
    first = np.array([0, 1, 2, 1, 4, 5])  # row 3 is a copy of row 1
    assert together(first, None) is first
    groups = np.array([7, 7, 3, 3, 9, 3])  # 0 and 1 by group, 1 and 3 as copies, 2, 3 and 5 by group
    assert together(first, groups).tolist() == [0, 0, 0, 0, 4, 0]
    assert together(np.arange(4), np.arange(4)).tolist() == [0, 1, 2, 3]
    assert together(np.zeros(0, np.intp), np.zeros(0, np.int64)).tolist() == []


def test_links_are_of_what_is_the_same_over_others():
    assert linked(6, np.array([[0, 3], [3, 5], [1, 2]])).tolist() == [0, 1, 1, 0, 4, 0]
    assert linked(3, np.zeros((0, 2), np.intp)).tolist() == [0, 1, 2]
