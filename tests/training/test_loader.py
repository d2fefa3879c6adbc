"""Batches as a pure function of (seed, step, process)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from resnetkit import recipe as recipes
from resnetkit.errors import UsageError
from resnetkit.training.loader import Loader, num_batches, rows_of, share_of, share_of_work, size_at
from resnetkit.training.objective import OBJECTIVES
from resnetkit.training.pixels import Pixels
from resnetkit.training.settle import settle


def loader(n: int = 21, rank: int = 0, world: int = 1, **changes: object) -> Loader:
    squares = np.random.default_rng(0).integers(0, 256, (n, 37, 37, 3), np.uint8)
    recipe = settle(recipes.read("", {"train.batch_size": 8, "model.weights": "none", "image.size": 32, **changes}), 32)
    pixels = Pixels(lambda rows: lambda: squares[rows], np.ones(n), np.zeros(n, np.uint64))
    return Loader(pixels, np.arange(n) % 3, 3, recipe, OBJECTIVES["classify"], rank, world)


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [2, 8, 32])
def test_every_sample_once_an_epoch_and_never_one_alone(world: int, batch_size: int) -> None:
    """C15, C16: a last batch of one, and a data set smaller than the batch."""
    for n in range(2 * world, 70):
        steps = num_batches(n, batch_size, world)
        parts = [rows_of(step, n, batch_size, 0, world) for step in range(steps)]
        assert sorted(np.concatenate(parts)) == list(range(n))
        shards = [rows[share_of(len(rows), rank, world)] for rows in parts for rank in range(world)]
        assert sorted(np.concatenate(shards)) == list(range(n)) and min(map(len, shards)) >= 2
        assert max(map(len, parts)) <= max(batch_size, 4 * world - 1)


def test_epochs_differ_and_seeds_differ() -> None:
    first, second = rows_of(0, 100, 100, 0), rows_of(1, 100, 100, 0)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, rows_of(0, 100, 100, 1))


@pytest.mark.parametrize(
    "changes", [{}, {"augment.mixup": 0.2, "augment.erasing": 0.5, "augment.trivial_augment": True}]
)
def test_a_batch_depends_on_its_step_alone(changes) -> None:
    straight = list(loader(**changes).batches(0, 7))
    ahead = list(loader(**changes).batches(4, 7, hands=3))
    for one, other in zip(straight[4:], ahead, strict=True):
        assert one.step == other.step and np.array_equal(one.rows, other.rows)
        assert torch.equal(one.images, other.images) and torch.equal(one.targets, other.targets)


@pytest.mark.parametrize("changes", [{}, {"augment.erasing": 0.5, "augment.trivial_augment": True}])
def test_processes_share_a_step(changes) -> None:
    """What each process gets is its part of what one process would get, pixel by pixel."""
    for step in range(3):
        alone = loader(n=24, **changes).batch(step)
        shards = [loader(n=24, rank=rank, world=3, **changes).batch(step) for rank in range(3)]
        assert {shard.total for shard in shards} == {len(alone.rows)}
        assert np.array_equal(np.concatenate([shard.rows for shard in shards]), alone.rows)
        assert torch.equal(torch.cat([shard.images for shard in shards]), alone.images)


@pytest.mark.parametrize(("first", "last"), [(128, 224), (48, 64), (32, 32), (40, 224), (30, 31)])
def test_sizes_grow_and_the_last_third_is_seen_at_the_last_size(first: int, last: int) -> None:
    sizes = [size_at(step / 300, first, last) for step in range(300)]
    assert sizes[0] == first and sizes == sorted(sizes) and set(sizes[200:]) == {last}
    assert all((size - first) % 16 == 0 for size in sizes if size != last)


def test_images_are_as_large_as_their_step_says_and_cost_less() -> None:
    small = {"image.start_size": 16, "train.epochs": 6}
    sides = [batch.images.shape[-1] for batch in loader(**small).batches(0, 18)]
    assert sides == [size_at(step / 18, 16, 32) for step in range(18)] and (sides[0], sides[-1]) == (16, 32)
    share = share_of_work(loader(**small).recipe)
    assert share == pytest.approx(np.square(sides).mean() / 32**2, abs=0.02) and share < 0.8
    assert share_of_work(loader().recipe) == 1
    for wrong in (48, 7):
        with pytest.raises(UsageError, match=f"image.start_size = {wrong} .*8 to the 32 of image.size"):
            loader(**{"image.start_size": wrong})


def test_no_epochs_are_seen_at_the_last_size() -> None:
    assert loader(**{"image.start_size": 16, "train.epochs": 0, "model.weights": "x"}).batch(0).images.shape[-1] == 32
