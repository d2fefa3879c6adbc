"""Augmentation: reproducible from one generator, inside its bounds, and off when it is off."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from resnetkit.settings import Augment
from resnetkit.training import augment as augmentation

OFF = {"min_scale": 1.0, "max_aspect": 1.0, "flip": False, "color": 0.0}
ALL = {"rotate": 20.0, "trivial_augment": True}


def stored(n: int = 6, side: int = 40, channels: int = 3) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (n, side, side, channels), np.uint8))


def run(settings: Augment, seed: int = 0, size: int = 32, channels: int = 3) -> torch.Tensor:
    pixels = stored(channels=channels)
    aspects = np.linspace(0.5, 2, len(pixels))
    return augmentation.augment(pixels, aspects, size, settings, augmentation.draws(seed, 0, len(aspects)))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("settings", [{}, ALL])
def test_same_generator_same_batch(settings, channels) -> None:
    first, again, other = (run(Augment(**settings), seed, channels=channels) for seed in (0, 0, 1))
    assert first.shape == (6, channels, 32, 32) and first.dtype == torch.float32
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.min() >= 0 and first.max() <= 1


def test_off_is_the_image_itself() -> None:
    pixels = stored()
    same = augmentation.augment(pixels, np.ones(6), 40, Augment(**OFF), augmentation.draws(0, 0, 6))
    assert torch.allclose(same, pixels.permute(0, 3, 1, 2) / 255, atol=1e-5)


def test_flip_mirrors() -> None:
    pixels = stored(200, 8)
    images = pixels.permute(0, 3, 1, 2) / 255
    flipped = augmentation.augment(
        pixels, np.ones(200), 8, Augment(**OFF | {"flip": True}), augmentation.draws(0, 0, 200)
    )
    kept = (flipped - images).abs().amax((1, 2, 3)) < 1e-4
    mirrored = (flipped - images.flip(3)).abs().amax((1, 2, 3)) < 1e-4
    assert (kept | mirrored).all() and 70 < kept.sum() < 130


def test_crops_are_inside_and_of_the_size_asked_for() -> None:
    settings = Augment(min_scale=0.3, max_aspect=1.5)
    aspects = np.random.default_rng(1).uniform(0.4, 2.5, 4000)
    x, y, width, height = augmentation.crop_boxes(aspects, settings, augmentation.draws(0, 0, 4000)).T
    assert (np.abs(x) + width <= 1 + 1e-9).all() and (np.abs(y) + height <= 1 + 1e-9).all()
    area, ratio = width * height, width * aspects / height
    free = (width < 1) & (height < 1)
    assert area[free].min() >= 0.3 - 1e-9 and area.max() <= 1
    assert ratio[free].min() >= 1 / 1.5 - 1e-9 and ratio[free].max() <= 1.5 + 1e-9


def test_both_ways_to_crop_show_the_same() -> None:
    """With and without rotation, of a smooth picture; mirrored ones too."""
    y, x = np.mgrid[0:60, 0:60] / 60
    pixels = torch.from_numpy(np.stack([255 * x, 255 * y, 127 * (x + y)], -1).astype(np.uint8)[None].repeat(50, 0))
    boxes = augmentation.crop_boxes(np.linspace(0.5, 2, 50), Augment(min_scale=0.2), augmentation.draws(0, 0, 50))
    mirror = np.arange(50) % 2 == 0
    straight = augmentation.crops(pixels, boxes, mirror, 40)
    turned = augmentation.turned_crops(pixels, boxes, mirror, np.zeros(50), 40)
    assert straight.shape == turned.shape == (50, 3, 40, 40)
    # to whole pixels of the store: two of its 60 at most, of 4.25 grey levels each
    assert (straight - turned).abs().max() < 2 * 4.25 + 2 and (straight - turned).abs().mean() < 3


def test_grey_is_that_of_torchvision() -> None:
    from torchvision.transforms.v2 import functional as V

    images = torch.rand(4, 3, 16, 16)
    assert torch.equal(augmentation._grey(images), V.rgb_to_grayscale(images))


def test_erasing_blanks_a_rectangle_of_the_share_asked_for() -> None:
    images = torch.ones(500, 3, 32, 32)
    erased = augmentation.erase(images, 0.5, augmentation.draws(0, 0, 500))
    share = 1 - erased.mean((1, 2, 3))
    assert 180 < (share > 0).sum() < 320 and share.max() <= 0.36
    assert torch.equal(augmentation.erase(images, 0.0, augmentation.draws(0, 0, 500)), images)


def test_a_part_of_a_step_is_changed_as_in_the_whole_step() -> None:
    """So the number of processes changes no pixel (mixing aside, which stays within a process)."""
    settings, pixels, aspects = Augment(**ALL), stored(), np.linspace(0.5, 2, 6)
    whole = augmentation.augment(pixels, aspects, 32, settings, augmentation.draws(0, 3, 6))
    erased = augmentation.erase(whole, 0.5, augmentation.draws(0, 4, 6))
    for part in (slice(0, 2), slice(2, 6)):
        draws = augmentation.draws(0, 3, 6, part)
        assert torch.equal(augmentation.augment(pixels[part], aspects[part], 32, settings, draws), whole[part])
        assert torch.equal(augmentation.erase(whole[part], 0.5, augmentation.draws(0, 4, 6, part)), erased[part])


@pytest.mark.parametrize("settings", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
def test_mixing_keeps_targets_a_distribution_in_step_with_the_pixels(settings) -> None:
    one_hot = torch.eye(8)
    images = torch.arange(8.0)[:, None, None, None].expand(8, 1, 32, 32)
    for seed in range(5):
        mixed, targets = augmentation.mix(images, one_hot, Augment(**settings), augmentation.draws(seed, 0, 8))
        assert torch.allclose(targets.sum(1), torch.ones(8))
        # image i holds the number i everywhere, so its mean is the expectation of its targets
        assert torch.allclose(mixed.mean((1, 2, 3)), targets @ torch.arange(8.0), atol=1e-4)
