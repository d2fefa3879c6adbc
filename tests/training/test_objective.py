"""Several labels an image: what is learnt from them."""

import numpy as np
import pytest
import torch

from resnetkit import recipe as recipes
from resnetkit.ops.metrics import binary_cross_entropy
from resnetkit.training.augment import draws
from resnetkit.training.objective import OBJECTIVES, positive_weights

LABELS = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 1], [0, 0, 1]], np.int8)
OBJECTIVE = OBJECTIVES["multilabel"]


def augmented(channels=3, **changes):
    settings = {"image.size": 16, "image.crop_ratio": 1.0, "image.channels": channels, "optim.label_smoothing": 0.0}
    recipe = recipes.read("", settings | {key.replace("__", "."): value for key, value in changes.items()})
    pixels = np.random.default_rng(0).integers(0, 256, (4, 19, 19, channels)).astype(np.uint8)
    stored, targets = OBJECTIVE.collate(pixels, LABELS, 3)
    rng = draws(0, 0, 4)
    return OBJECTIVE.blend(*OBJECTIVE.augment(stored, targets, np.ones(4), recipe, rng), recipe, rng)


def test_targets():
    images, targets = augmented()
    assert images.shape == (4, 3, 16, 16) and targets.dtype == torch.float32
    np.testing.assert_array_equal(targets, LABELS)
    np.testing.assert_allclose(augmented(optim__label_smoothing=0.1)[1], LABELS * 0.9 + 0.05, rtol=1e-6)


@pytest.mark.parametrize("how", ["augment__mixup", "augment__cutmix"])
def test_targets_are_mixed_as_the_images_are(how):
    _, targets = augmented(**{how: 1.0})
    assert ((targets >= 0) & (targets <= 1)).all()
    assert targets.sum() == pytest.approx(LABELS.sum(), abs=1e-5), "each image gives as much as it takes"
    assert not torch.equal(targets, targets.round())


def test_loss_is_the_sum_over_labels():
    logits = torch.tensor(np.random.default_rng(1).normal(size=(4, 3)), dtype=torch.float32)
    loss = OBJECTIVE.loss(torch.nn.Identity(), logits, torch.tensor(LABELS).float(), None)
    assert loss.item() == pytest.approx(binary_cross_entropy(logits.numpy(), LABELS).mean(), rel=1e-6)


def test_balanced_weights():
    np.testing.assert_allclose(positive_weights(LABELS, 3), [3, 3, 1 / 3])
    np.testing.assert_array_equal(positive_weights(np.array([[0, 1], [0, 1]]), 2), [1, 1])
    logits, weights = torch.zeros(4, 3, requires_grad=True), positive_weights(LABELS, 3)
    OBJECTIVE.loss(torch.nn.Identity(), logits, torch.tensor(LABELS).float(), weights).backward()
    np.testing.assert_allclose(logits.grad.sum(0), 0, atol=1e-6)  # at even odds positives pull as hard as negatives


@pytest.mark.parametrize("more", [{}, {"augment__trivial_augment": True}, {"augment__rotate": 20.0}])
@pytest.mark.parametrize("channels", [1, 2, 6, 16])
def test_any_number_of_channels(channels, more):
    images, _ = augmented(channels, **more)
    assert images.shape == (4, channels, 16, 16) and torch.isfinite(images).all()


def test_colours_of_six_channels_stay_as_they_are():
    assert torch.equal(augmented(6, augment__color=0.5)[0], augmented(6, augment__color=0.0)[0])
    assert not torch.equal(augmented(3, augment__color=0.5)[0], augmented(3, augment__color=0.0)[0])
