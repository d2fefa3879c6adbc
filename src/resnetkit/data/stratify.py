"""Which samples are held out, class by class, or label by label where a sample has several."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.intp]


def held_out(n: int, share: float) -> int:
    """How many of a class's n samples a split takes: the share, one at least from three samples on, never all."""
    if share == 0 or n < 3:
        return 0
    return min(max(1, round(n * share)), (n - 1) // 2)


def together(first: Rows, groups: NDArray[np.integer] | None) -> Rows:
    """For each sample the first one of those that must stay on one side of the splits [n].

    Args:
        first: for each sample the first one with the same bytes [n].
        groups: that each sample belongs to [n], or None.
    """
    if groups is None:
        return first
    rows = np.arange(len(first))
    numbers, leaders = np.unique(groups, return_index=True)
    same = np.concatenate([first, leaders[np.searchsorted(numbers, groups)]])
    return linked(len(first), np.stack([np.tile(rows, 2), same], 1))


def linked(count: int, pairs: Rows) -> Rows:
    """For each of `count` rows the first one that pairs [m, 2] link it to, directly or over others [count]."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    part = connected_components(links, directed=False)[1]
    return np.asarray(np.unique(part, return_index=True)[1][part], np.intp)


def by_class(targets: NDArray[np.integer], rows: Rows, shares: tuple[float, float], seed: int) -> tuple[Rows, Rows]:
    """The rows for val and for test.

    Args:
        targets: class index of each sample [n].
        rows: of the samples that may be held out.
        shares: of val and of test, 0..1.
        seed: of the choice.
    """
    val: list[Rows] = [np.zeros(0, np.intp)]
    test = val.copy()
    for target in np.unique(targets[rows]):
        order = np.random.default_rng([seed, int(target)]).permutation(rows[targets[rows] == target])
        num_val, num_test = (held_out(len(order), share) for share in shares)
        test.append(order[:num_test])
        val.append(order[num_test : num_test + num_val])
    return np.concatenate(val), np.concatenate(test)


def by_labels(present: NDArray[np.integer], rows: Rows, shares: tuple[float, float], seed: int) -> tuple[Rows, Rows]:
    """As `by_class`, for labels [n, K], so that each split has its share of every label as far as that can be.

    Iterative stratification (Sechidis et al. 2011, ECML): the rarest label first, each of its samples to the split that
    lacks most of it. No label is left without a sample to train on.
    """
    order = np.random.default_rng(seed).permutation(rows)
    has = present[order].astype(bool)
    has = np.concatenate([has, ~has.any(1, keepdims=True)], 1)  # "none" is a label like another
    counts = has.sum(0)
    held = np.array([[held_out(int(n), share) for n in counts] for share in shares])
    wanted = np.concatenate([[counts - held.sum(0)], held]).astype(float)  # of train, val, test [3, K + 1]
    room = np.array([0.0, *(held_out(len(order), share) for share in shares)])
    room[0] = len(order) - room.sum()
    split = np.full(len(order), -1)
    left = counts.copy()
    while (split < 0).any():
        label = int(np.where(left > 0, left, len(order) + 1).argmin())
        for row in np.flatnonzero(has[:, label] & (split < 0)).tolist():
            best = int(np.lexsort((-room, -wanted[:, label]))[0])
            split[row] = best
            wanted[best, has[row]] -= 1
            room[best] -= 1
            left -= has[row]
    lost = [np.flatnonzero(has[:, k])[0] for k in np.flatnonzero(counts) if not (has[:, k] & (split == 0)).any()]
    split[lost] = 0
    return order[split == 1], order[split == 2]
