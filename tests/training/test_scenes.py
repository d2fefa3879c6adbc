"""Scenes: what augmentation moves, and the losses; that they are learnt is shown in tests/verbs/test_scenes.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from resnetkit.training import scenes
from resnetkit.training.augment import draws
from resnetkit.training.scenes import Changes, Scene

CANVAS = (96, 96)
NO_BOXES = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)


def shapes(seed: int, masked: bool, size: int = 96) -> Scene:
    """One to three squares and discs in two colours, on grey; a mask has 0 for the ground."""
    rng = np.random.default_rng(seed)
    image = rng.normal(128, 6, (size, size, 3))
    y, x = np.mgrid[:size, :size]
    mask, found, labels = np.zeros((size, size), np.uint8), [], []
    for slot in rng.permutation(4)[: rng.integers(1, 4)]:  # one a quarter: none hides another
        half = int(rng.integers(9, 18))
        cy, cx = (size // 4 + size // 2 * np.array(divmod(slot, 2)) + rng.integers(-4, 5, 2)).tolist()
        label = int(rng.integers(0, 2))
        inside = (np.abs(x - cx) < half) & (np.abs(y - cy) < half)
        if label:
            inside = (x - cx) ** 2 + (y - cy) ** 2 < half**2
        image[inside] = (220, 60, 40) if label else (40, 80, 220)
        mask[inside] = label + 1
        found.append([cx - half + 1, cy - half + 1, cx + half, cy + half])
        labels.append(label)
    pixels = torch.from_numpy(image.clip(0, 255).astype(np.uint8)).permute(2, 0, 1).contiguous()
    if masked:
        return Scene(pixels, *NO_BOXES, torch.from_numpy(mask))
    return Scene(pixels, torch.tensor(found, dtype=torch.float32), torch.tensor(labels))


def marked(height: int, width: int, box: list[int], masked: bool = True) -> Scene:
    """White in a box, black elsewhere; the mask marks the same."""
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    x1, y1, x2, y2 = box
    image[:, y1:y2, x1:x2] = 255
    mask = (image[0] > 0).to(torch.uint8)
    return Scene(image, torch.tensor([box], dtype=torch.float32), torch.tensor([0]), mask if masked else None)


@pytest.mark.parametrize("size", [(120, 160), (160, 120), (90, 400), (64, 64)])
@pytest.mark.parametrize("seed", range(4))
def test_boxes_and_masks_move_with_their_image(size: tuple[int, int], seed: int) -> None:
    box = [size[1] // 3, size[0] // 3, size[1] // 2, size[0] // 2]
    scene = marked(*size, box)
    changes = Changes(0.5, 2.0, flip_vertical=0.5, color=0.0, min_visible=0.0)
    images, (seen,) = scenes.augmented([scene], (96, 128), changes, draws(0, seed, 1))
    assert images.shape == (1, 3, 96, 128) and seen.mask is not None and seen.mask.shape == (96, 128)
    white = seen.mask == 1
    y, x = torch.nonzero(white, as_tuple=True)
    assert len(seen.boxes) == 1
    edges = torch.tensor([x.min(), y.min(), x.max() + 1, y.max() + 1]).float()
    torch.testing.assert_close(seen.boxes[0], edges, atol=1.5, rtol=0)
    inner = F.avg_pool2d(white[None, None].float(), 5, 1, 2)[0, 0] == 1  # away from the edge, which is smoothed
    assert (images[0, 0][inner] > 0.9).all()
    outside = F.max_pool2d((seen.mask != 0)[None, None].float(), 5, 1, 2)[0, 0] == 0
    assert (images[0, 0][outside] < 0.1).all()


def test_bars_are_grey_and_ignored() -> None:
    scene = marked(50, 100, [10, 10, 20, 20])
    seen = scenes.shown(scene, scenes.whole((50, 100), (100, 100)), (100, 100))
    assert seen.mask is not None
    assert (seen.mask[:25] == 255).all() and (seen.mask[75:] == 255).all() and (seen.mask[25:75] != 255).all()
    assert seen.image[:, 0, 0].tolist() == [124, 116, 104]
    assert seen.boxes.tolist() == [[10, 35, 20, 45]]


def test_a_view_leads_back() -> None:
    view = scenes.whole((50, 100), (200, 300))
    seen = scenes.shown(marked(50, 100, [10, 10, 20, 20]), view, (200, 300))
    back = seen.boxes / view.scale + torch.tensor([view.left, view.top] * 2)
    torch.testing.assert_close(back, torch.tensor([[10.0, 10, 20, 20]]), atol=0.2, rtol=0)


def test_a_crop_keeps_an_object() -> None:
    scene = marked(400, 400, [180, 180, 210, 210], masked=False)
    changes = Changes(3.0, 3.0, min_visible=0.5)
    seen = [scenes.augmented([scene], CANVAS, changes, draws(0, step, 1))[1][0] for step in range(60)]
    kept = sum(len(each.boxes) for each in seen)
    assert kept > 45  # a quarter of the places shows its middle: 15 of 60, or 57 with ten tries


def test_what_is_hardly_seen_is_no_object() -> None:
    scene = marked(100, 100, [40, 40, 60, 60], masked=False)
    view = scenes.View(1.0, 56.0, 0.0)  # a fifth of the box is right of the edge
    assert len(scenes.shown(scene, view, (100, 40), min_visible=0.3).boxes) == 0
    assert scenes.shown(scene, view, (100, 40), min_visible=0.1).boxes.tolist() == [[0, 40, 4, 60]]


def test_empty_images_and_pixels() -> None:
    empty = Scene(torch.zeros(3, 1, 1, dtype=torch.uint8), *NO_BOXES)
    pixel = marked(60, 60, [30, 30, 31, 31], masked=False)
    for step in range(20):
        images, seen = scenes.augmented([empty, pixel], CANVAS, Changes(), draws(0, step, 2))
        assert images.shape == (2, 3, 96, 96)
        targets = scenes.box_targets(seen)
        assert targets[0]["boxes"].shape == (0, 4)
        found = targets[1]["boxes"]
        assert ((found[:, 2:] - found[:, :2]) > 0).all()


def test_a_batch_follows_from_seed_and_step() -> None:
    many = [shapes(seed, False) for seed in range(4)]
    one, again, other = (scenes.augmented(many, CANVAS, Changes(), draws(0, step, 4)) for step in (3, 3, 4))
    assert torch.equal(one[0], again[0]) and not torch.equal(one[0], other[0])
    assert all(torch.equal(a.boxes, b.boxes) for a, b in zip(one[1], again[1], strict=True))
    parts = [scenes.augmented(many[p], CANVAS, Changes(), draws(0, 3, 4, p)) for p in (slice(0, 2), slice(2, 4))]
    assert torch.equal(torch.cat([images for images, _ in parts]), one[0])  # two processes see the same


def test_dice() -> None:
    truth = torch.tensor([[[0, 1], [1, 255]]])
    right = F.one_hot(truth.clamp(max=1), 3).movedim(3, 1).float() * 100
    assert scenes.dice_loss(right, truth).item() == pytest.approx(0, abs=1e-5)
    wrong = right[:, [1, 0, 2]]
    assert scenes.dice_loss(wrong, truth).item() == pytest.approx(1, abs=1e-5)
    half = torch.zeros(1, 3, 2, 2)  # a third each: 2 * 1/3 / (1 + 1) and 2 * 2/3 / (1 + 2)
    assert scenes.dice_loss(half, truth).item() == pytest.approx(1 - (1 / 3 + 4 / 9) / 2, abs=1e-5)


def test_ignored_pixels_are_not_learnt_from() -> None:
    truth = torch.randint(0, 3, (2, 8, 8))
    logits = torch.randn(2, 3, 8, 8)
    ignored = truth.clone()
    ignored[:, :3] = 255
    moved = logits.clone()
    moved[:, :, :3] += torch.randn(2, 3, 3, 8) * 9
    for dice in (0.0, 0.5, 1.0):
        one, other = (scenes.mask_loss({"out": x}, ignored, None, dice) for x in (logits, moved))
        torch.testing.assert_close(one, other)
    nothing = scenes.mask_loss({"out": logits, "aux": logits}, torch.full((2, 8, 8), 255), None, 0.5)
    assert nothing == 0


def test_the_second_head_counts_less() -> None:
    truth, logits = torch.randint(0, 3, (2, 8, 8)), torch.randn(2, 3, 8, 8)
    one = scenes.mask_loss({"out": logits}, truth, None, 0.5)
    both = scenes.mask_loss({"out": logits, "aux": logits}, truth, None, 0.5)
    torch.testing.assert_close(both, 1.4 * one)


def test_pixel_weights() -> None:
    counts = np.array([900, 100, 0])
    even = scenes.pixel_weights(counts, 1.0)
    torch.testing.assert_close(even * torch.tensor([0.9, 0.1, 0]), torch.tensor([0.5, 0.5, 0.0]))
    assert scenes.pixel_weights(counts, 0.0).tolist() == [1, 1, 0]
    between = scenes.pixel_weights(counts)
    assert between[1] / between[0] == pytest.approx(3)
