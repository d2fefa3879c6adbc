"""The pixels of objects, beside pycocotools'."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as theirs

from resnetkit.ops import regions, rle


def star(rng: np.random.Generator, size: tuple[int, int], corners: int) -> np.ndarray:
    """A polygon, which may cross itself and reach over the edge of its image."""
    middle, far = rng.uniform(0, size), rng.uniform(0.5, 0.7 * max(size))
    angles = np.sort(rng.uniform(0, 7, corners)) if corners % 2 else rng.uniform(0, 7, corners)
    points = middle + rng.uniform(0.2, 1, (corners, 1)) * far * np.stack([np.cos(angles), np.sin(angles)], 1)
    return points.round(rng.integers(0, 4))


@pytest.mark.parametrize("seed", range(60))
def test_polygons_are_those_of_pycocotools(seed: int) -> None:
    rng = np.random.default_rng(seed)
    width, height = (int(side) for side in rng.integers(1, 90, 2))
    polygons = [star(rng, (width, height), int(rng.integers(3, 12))) for _ in range(int(rng.integers(1, 4)))]
    want = theirs.merge(theirs.frPyObjects([p.ravel().tolist() for p in polygons], height, width))
    got = regions.of_polygons(polygons, width, height)
    np.testing.assert_array_equal(got.dense(height, width), rle.decode(want["counts"].decode(), height, width))
    assert got.area == theirs.area(want)
    assert regions.encode(got, height, width) == want["counts"].decode()


@pytest.mark.parametrize("seed", range(20))
def test_of_masks_and_back(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(1, 12, 2))
    mask = rng.random((height, width)) < rng.choice([0, 0.1, 0.6, 0.97, 1])
    region = regions.of_mask(mask)
    np.testing.assert_array_equal(region.dense(height, width), mask)
    assert regions.encode(region, height, width) == rle.encode(mask)


def test_what_two_have_in_common() -> None:
    rng = np.random.default_rng(0)
    masks = [np.kron(rng.random((5, 5)) < 0.3, np.ones((4, 4), bool)) for _ in range(9)] + [np.zeros((20, 20), bool)]
    found = regions.common(*[[regions.of_mask(mask) for mask in masks]] * 2)
    np.testing.assert_array_equal(found, [[(a & b).sum() for b in masks] for a in masks])
    assert regions.common([], [regions.of_mask(masks[0])]).shape == (0, 1)


def test_numbers_of_a_picture_are_the_regions_of_each() -> None:
    rng = np.random.default_rng(0)
    for shape in ((7, 5), (1, 9), (9, 1), (30, 40)):
        for high in (1, 2, 3, 70):
            picture = rng.integers(0, high, shape).astype(np.uint16)
            if shape == (30, 40):
                picture = np.kron(picture[::5, ::5], np.ones((5, 5), np.uint16))
            found = regions.of_numbers(picture)
            assert found.numbers.tolist() == [number for number in np.unique(picture).tolist() if number]
            for number, box, area, runs in zip(found.numbers, found.boxes, found.areas, found.runs, strict=True):
                region = regions.of_mask(picture == number)
                assert (region.box, region.area) == (tuple(box.tolist()), area)
                assert rle.packed(runs) == regions.encode(region, *shape)


@pytest.mark.parametrize("size", [(60, 40), (30, 20), (7, 33), (120, 80), (44, 64), (1, 1)])
def test_run_lengths_at_another_size_are_the_nearest_pixels(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    masks = [np.zeros((40, 60), bool) for _ in range(12)]
    for mask in masks[2:]:
        x, y = rng.integers(0, 58), rng.integers(0, 38)
        mask[y : y + rng.integers(1, 40), x : x + rng.integers(1, 60)] = True
        mask &= rng.random(mask.shape) < 0.9
    masks[1][:] = True
    for mask in masks:
        want = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
        region = regions.of_runs(rle.runs(mask), (60, 40), size)
        np.testing.assert_array_equal(region.dense(*size[::-1]), want)
        tight = regions.of_mask(want)
        assert (region.box, region.area) == (tight.box, tight.area)
