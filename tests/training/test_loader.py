"""Batches as a pure function of (seed, step, process)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from resnetkit import recipe as recipes
from resnetkit.data.dataset import scan
from resnetkit.data.image import EXTENSIONS, Preprocess
from resnetkit.errors import DataError
from resnetkit.training.loader import Loader, Pixels, num_batches, open_pixels, rows_of
from resnetkit.training.objective import OBJECTIVES
from resnetkit.training.plan import settle


def loader(n: int = 21, rank: int = 0, world: int = 1, **changes: object) -> Loader:
    squares = np.random.default_rng(0).integers(0, 256, (n, 37, 37, 3), np.uint8)
    recipe = settle(recipes.read("", {"train.batch_size": 8, "model.weights": "none", "image.size": 32, **changes}), 32)
    pixels = Pixels(squares.__getitem__, np.ones(n))
    return Loader(pixels, np.arange(n) % 3, 3, recipe, OBJECTIVES["classify"], rank, world)


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [2, 8, 32])
def test_every_sample_once_an_epoch_and_never_one_alone(world: int, batch_size: int) -> None:
    """C15, C16: a last batch of one, and a data set smaller than the batch."""
    for n in range(2 * world, 70):
        steps = num_batches(n, batch_size, world)
        parts = [rows_of(step, n, batch_size, 0, world) for step in range(steps)]
        assert sorted(np.concatenate(parts)) == list(range(n))
        assert min(len(shard) for rows in parts for shard in np.array_split(rows, world)) >= 2
        assert max(map(len, parts)) <= max(batch_size, 4 * world - 1)


def test_epochs_differ_and_seeds_differ() -> None:
    first, second = rows_of(0, 100, 100, 0), rows_of(1, 100, 100, 0)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, rows_of(0, 100, 100, 1))


@pytest.mark.parametrize(
    "changes", [{}, {"augment.mixup": 0.2, "augment.erasing": 0.5, "augment.trivial_augment": True}]
)
def test_a_batch_depends_on_its_step_alone(changes) -> None:
    straight = list(loader(**changes).batches(0, 7, ahead=False))
    ahead = list(loader(**changes).batches(4, 7, ahead=True))
    for one, other in zip(straight[4:], ahead, strict=True):
        assert one.step == other.step and np.array_equal(one.rows, other.rows)
        assert torch.equal(one.images, other.images) and torch.equal(one.targets, other.targets)


def test_processes_share_a_step() -> None:
    alone = rows_of(1, 21, 8, 0)
    shards = [loader(rank=rank, world=2).batch(1) for rank in (0, 1)]
    assert {shard.total for shard in shards} == {len(rows_of(1, 21, 8, 0, 2))}
    assert sum(len(shard.rows) for shard in shards) == shards[0].total
    assert not set(shards[0].rows) & set(shards[1].rows) and len(alone)


def test_decoding_now_and_decoding_anew_give_the_same_pixels(photos: Path) -> None:
    paths = scan(photos, EXTENSIONS).paths
    done: list[int] = []
    kept = open_pixels(paths, Preprocess(size=24, resize="squash"), 1.0, done.append)
    anew = open_pixels(paths, Preprocess(size=24, resize="squash"), 0.0, lambda n: None)
    rows = np.array([3, 0, 35])
    assert np.array_equal(kept.store(rows), anew.store(rows)) and done[-1] == len(paths)


def test_unreadable_images_are_all_named(photos: Path) -> None:
    """A13-A16 in training: named before the first step."""
    for name in ("red/0.png", "blue/3.png"):
        (photos / name).write_bytes(b"")
    with pytest.raises(DataError, match=r"2 of 36 images cannot be read: .*blue/3.png: .*empty.*red/0.png"):
        open_pixels(scan(photos, EXTENSIONS).paths, Preprocess(size=24), 1.0, lambda n: None)
