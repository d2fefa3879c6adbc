"""Maps of what a network looks at: equal to a peer's, in their place on the picture, and of the weights."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr
from torch import nn

from resnetkit import models
from resnetkit.data.image import Preprocess, picture, pixels, seen
from resnetkit.errors import DataError
from resnetkit.nn.resnet import ResNet
from resnetkit.runtime.backends import mirrored
from resnetkit.runtime.model import Model, load
from resnetkit.runtime.save import save
from resnetkit.trust.explain import drawn, grad_cam, looks, network_of, overlay, overlays, placed

RESIZES = ("crop", "squash", "letterbox")


def built(variant: str, **options: object) -> ResNet:
    """A network with statistics and a head that are not those of the start."""
    torch.manual_seed(1)
    network = models.build(variant, num_classes=5, **options)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.running_mean, std=0.2)
    return network.eval()


def batch_for(network: ResNet, size: int, n: int = 5) -> torch.Tensor:
    return torch.randn(n, network.in_channels, size, size, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(("variant", "size"), [("resnet18", 96), ("resnet50", 96), ("resnet20", 32), ("resnet34d", 80)])
def test_equal_to_pytorch_grad_cam(variant: str, size: int) -> None:
    """Before its upscaling, and before it takes the minimum off, which the paper does not: to 1e-6 in float64."""
    peer = pytest.importorskip("pytorch_grad_cam")
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    network = built(variant).double()
    batch, classes = batch_for(network, size).double(), torch.arange(5)

    class Raw(peer.GradCAM):
        def get_cam_image(self, *args: object) -> np.ndarray:
            self.raw = super().get_cam_image(*args)
            return self.raw

    with Raw(network, [list(network.stages.values())[-1]]) as other:
        other(batch, [targets.ClassifierOutputTarget(int(index)) for index in classes])
        theirs = np.maximum(other.raw, 0)
    peaks = theirs.max((1, 2), keepdims=True)
    ours = grad_cam(network, batch, classes)
    assert ours.dtype == np.float32 and (peaks > 0).sum() >= 2
    np.testing.assert_allclose(ours, theirs / np.where(peaks > 0, peaks, 1), atol=1e-6)
    single = grad_cam(network.float(), batch.float(), classes)
    np.testing.assert_allclose(single, ours, atol=1e-4)


def reference(network: ResNet, batch: torch.Tensor, classes: torch.Tensor) -> Iterator[np.ndarray]:
    """Image by image, with the graph of the whole network."""
    for image, index in zip(batch, classes, strict=True):
        features = network.forward_features(image[None])
        last = list(features.values())[-1]
        gradient = torch.autograd.grad(network.forward_head(features)[1][0, index], last)[0][0]
        found = sum(gradient[k].mean() * last[0, k] for k in range(len(gradient))).clamp(min=0)
        yield (found / found.max() if found.max() > 0 else found).detach().numpy()


@pytest.mark.parametrize(
    "options", [{"pool": "all"}, {"in_channels": 1}, {"in_channels": 6, "pool": "all", "stem": "deep", "shortcut": "D"}]
)
def test_equal_to_the_gradient_through_the_whole_network(options: dict[str, object]) -> None:
    network = built("resnet18", width=16, **options).double()
    batch, classes = batch_for(network, 96).double(), torch.tensor([4, 0, 3, 3, 1])
    found = grad_cam(network, batch, classes)
    np.testing.assert_allclose(found, np.stack(list(reference(network, batch, classes))), atol=1e-6)
    assert found.shape == (5, 3, 3) and found.any()


@pytest.mark.parametrize("variant", models.VARIANTS)
def test_every_variant(variant: str) -> None:
    network = built(variant, width=16)
    stages = len(network.stages)
    found = grad_cam(network, batch_for(network, 64, 2), torch.tensor([1, 2]))
    assert found.shape == ((2, 2, 2) if stages == 4 else (2, 16, 16))
    assert np.isfinite(found).all() and found.min() >= 0
    assert all(peak == 0 or peak == pytest.approx(1) for peak in found.max((1, 2)))


def test_a_network_is_left_as_it_was_found() -> None:
    network = built("resnet20").train()
    network.layer2.eval()  # as frozen stages are, in training
    network.conv1.requires_grad_(False)
    network.fc.weight.grad = torch.ones_like(network.fc.weight)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    modes = [module.training for module in network.modules()]
    asked = [parameter.requires_grad for parameter in network.parameters()]
    grad_cam(network, batch_for(network, 32), torch.zeros(5, dtype=torch.long))
    assert [module.training for module in network.modules()] == modes and torch.is_grad_enabled()
    assert [parameter.requires_grad for parameter in network.parameters()] == asked
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert [name for name, each in network.named_parameters() if each.grad is not None] == ["fc.weight"]
    assert (network.fc.weight.grad == 1).all()
    with torch.no_grad():  # nor does it need to be asked in any mode
        grad_cam(network, batch_for(network, 32), torch.zeros(5, dtype=torch.long))


def test_nothing_speaks_for_a_class() -> None:
    network = built("resnet20")
    nn.init.constant_(network.fc.weight, -1.0)
    assert not grad_cam(network, batch_for(network, 32), torch.arange(5)).any()


def planted(corner: tuple[int, int], colour: int, rng: np.random.Generator) -> np.ndarray:
    """Noise [3, 32, 32] with a square of one of two colours in a corner."""
    image = rng.normal(0, 0.2, (3, 32, 32)).astype(np.float32)
    y, x = (16 * each + rng.integers(0, 8) for each in corner)
    image[:, y : y + 8, x : x + 8] = np.array(((2, -2, 0), (-2, 2, 0))[colour])[:, None, None]
    return image


@pytest.fixture(scope="module")
def learnt() -> tuple[ResNet, torch.Tensor, torch.Tensor, list[tuple[int, int]]]:
    """A network that tells the colours of the squares apart, with images, their classes and their corners."""
    rng = np.random.default_rng(0)
    corners = list(itertools.product((0, 1), (0, 1))) * 10
    classes = torch.tensor(rng.integers(0, 2, 40))
    images = torch.from_numpy(np.stack([planted(*each, rng) for each in zip(corners, classes.tolist(), strict=True)]))
    torch.manual_seed(0)
    network = models.build("resnet20", num_classes=2, width=8)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), classes).backward()
        optimizer.step()
    network.eval()
    assert (network(images).argmax(1) == classes).float().mean() > 0.95
    return network, images, classes, corners


def test_what_was_learnt_is_found(learnt: tuple) -> None:
    """The strongest place lies in the corner that holds the square (the pointing game, arXiv 1608.00507)."""
    network, images, classes, corners = learnt
    maps = grad_cam(network, images, classes)
    at = [np.unravel_index(each.argmax(), each.shape) for each in maps]
    hits = [(y // 4, x // 4) == corner for (y, x), corner in zip(at, corners, strict=True)]
    assert np.mean(hits) >= 0.9


def alike(old: np.ndarray, new: np.ndarray) -> float:
    """Mean rank correlation of maps; one that has become blank is like none."""
    ranks = [spearmanr(a.ravel(), b.ravel()).statistic if b.any() else 0 for a, b in zip(old, new, strict=True)]
    return float(np.mean(ranks))


def test_maps_are_of_the_weights(learnt: tuple) -> None:
    """Cascading randomisation (arXiv 1810.03292): from the last layer on, maps are no longer what they were.

    A single draw of weights may happen to look at the same places, so it is the mean over four.
    """
    network, images, classes, _ = learnt
    old = grad_cam(network, images, classes)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    falls = []
    for seed in range(4):
        network.load_state_dict(state)
        assert alike(old, grad_cam(network, images, classes)) == pytest.approx(1)
        torch.manual_seed(seed)
        falls.append([])
        for part in (network.fc, network.layer3, network.layer2, network.layer1):
            for parameter in (each for each in part.parameters() if each.ndim > 1):
                nn.init.kaiming_normal_(parameter)
            falls[-1].append(alike(old, grad_cam(network, images, classes)))
    network.load_state_dict(state)
    assert np.abs(np.mean(falls, 0)).max() < 0.5


def detector(channels: int = 3) -> ResNet:
    """A network made by hand: the more of an image is brighter than half, the more it is of class 1."""
    network = models.build("resnet20", num_classes=2, in_channels=channels, zero_init_residual=True).eval()
    with torch.no_grad():
        network.conv1.weight.zero_()
        network.conv1.weight[:, :, 1, 1] = 1 / channels
        network.bn1.bias.fill_(-0.5)
        network.fc.weight[:] = torch.tensor([[-1.0], [1.0]])
        network.fc.bias.zero_()
    return network


def spot(size: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
    """Dark, with a white box."""
    image = Image.new("RGB", size, (20, 20, 20))
    image.paste((255, 255, 255), box)
    return image


def model_of(folder: Path, resize: str, channels: int = 3) -> Model:
    mean = (0.0,) * channels
    preprocess = Preprocess(size=64, resize=resize, crop_ratio=0.9, mean=mean, std=(1.0,) * channels)
    return load(save(detector(channels), folder, classes=["dark", "bright"], preprocess=preprocess), device="cpu")


def mass(map: np.ndarray, box: tuple[int, int, int, int], slack: int) -> float:
    """Share of a map's mass in a box and so many pixels around it."""
    left, top, right, bottom = box
    inside = map[max(0, top - slack) : bottom + slack, max(0, left - slack) : right + slack]
    return float(np.nansum(inside) / np.nansum(map))


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize(("size", "box"), [((240, 160), (60, 20, 90, 50)), ((160, 240), (100, 160, 140, 200))])
def test_a_spot_is_found_where_it_is(tmp_path: Path, resize: str, size: tuple[int, int], box: tuple) -> None:
    """Of the model that is made by hand, on the picture as its owner knows it; a cell of the map is 12 px or so."""
    spot(size, box).save(tmp_path / "spot.png")
    model = model_of(tmp_path / "model", resize)
    ((_, look),) = looks(model, [(tmp_path / "spot.png", 1)])
    found = placed(look.map, size, model.preprocess)
    assert found.shape == size[::-1] and mass(found, box, 14) > 0.97 and np.nanmax(found) > 0.8
    assert np.isnan(found).any() == (resize == "crop") and look.index == 1


@pytest.mark.parametrize("resize", RESIZES)
def test_a_spot_on_a_turned_photo(tmp_path: Path, resize: str) -> None:
    """Stored lying on its side, with the EXIF orientation that says so; larger than the overlay."""
    box = (1200, 200, 1600, 600)
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = spot((2000, 1500), box)
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "spot.jpg", exif=exif)
    model = model_of(tmp_path / "model", resize)
    ((_, look),) = looks(model, [(tmp_path / "spot.jpg", 1)])
    shown = picture(tmp_path / "spot.jpg", 500)
    found = placed(look.map, shown.size, model.preprocess)
    assert shown.size == (500, 375) and mass(found, tuple(each // 4 for each in box), 40) > 0.97
    image = np.asarray(drawn(tmp_path / "spot.jpg", look.map, model.preprocess, 500), int)
    assert image.shape == (375, 500, 3)
    red, _, blue = image[100, 350]  # in the spot, white so far
    assert red > 200 and blue < 200 and np.ptp(image[300, 60:100].reshape(-1, 3), axis=1).max() < 30


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("size", [(97, 60), (60, 97), (64, 64), (301, 40)])
def test_placed_is_the_way_back(resize: str, size: tuple[int, int]) -> None:
    """The network's own input, taken as a map, comes to lie on the picture that it was made of."""
    preprocess = Preprocess(size=128, resize=resize, mean=(0.5,), std=(1.0,))
    x, y = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]))
    ramp = Image.fromarray(np.rint(255 * (0.7 * x + 0.3 * y)).astype(np.uint8))
    found = placed(pixels(ramp, preprocess)[:, :, 0] / np.float32(255), size, preprocess)
    left, top, right, bottom = seen(size, preprocess)
    inside = np.zeros(size[::-1], bool)
    inside[max(0, round(top)) : round(bottom), max(0, round(left)) : round(right)] = True
    assert (np.isnan(found) != inside).all()
    difference = np.abs(found - np.asarray(ramp) / 255)
    edge = 3  # there the bars of "letterbox" shine in
    assert np.nanmax(difference[edge:-edge, edge:-edge]) < 0.03


@pytest.mark.parametrize(("h", "w"), [(1, 1), (1, 4), (7, 7)])
def test_even_maps_stay_even(h: int, w: int) -> None:
    found = placed(np.full((h, w), 0.25, np.float32), (31, 19), Preprocess(size=32, resize="squash"))
    np.testing.assert_allclose(found, 0.25, rtol=1e-6)


def test_an_overlay_leaves_alone_what_says_nothing() -> None:
    shown = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 9, 3), np.uint8))
    map = np.zeros((8, 9), np.float32)
    assert np.array_equal(overlay(shown, map), shown)
    map[0], map[1], map[2] = 1.0, 0.5, np.nan
    found = np.asarray(overlay(shown, map), int)
    assert np.array_equal(found[3:], np.asarray(shown)[3:])
    assert found[0, :, :2].mean() > found[1, :, :2].mean()  # yellow over purple
    assert (found[2] == found[2, :, :1]).all()


@pytest.mark.parametrize("channels", [1, 6])
def test_other_channels(tmp_path: Path, channels: int) -> None:
    model = model_of(tmp_path / "model", "squash", channels)
    array = np.full((64, 64, channels), 10, np.uint8)
    array[40:56, 8:24] = 255
    np.save(tmp_path / "spot.npy", array)
    (image,) = overlays(model, [tmp_path / "spot.npy"], [1], side=64)
    assert isinstance(image, Image.Image) and image.size == (64, 64)
    ((_, look),) = looks(model, [(tmp_path / "spot.npy", 1)])
    assert mass(placed(look.map, (64, 64), model.preprocess), (8, 40, 24, 56), 6) > 0.97


def test_overlays_in_order_with_what_cannot_be_read(tmp_path: Path) -> None:
    """More than a batch, the predicted class or a given one, and at most so large."""
    model = model_of(tmp_path / "model", "letterbox")
    files = []
    for i in range(37):
        files.append(tmp_path / f"{i}.png")
        spot((60 + i, 40), (5, 5, 20, 20)).save(files[-1])
    files[33].write_bytes(b"no picture")
    found = list(overlays(model, files, [None, 0, 1] * 12 + [1], side=50))
    assert [i for i, each in enumerate(found) if isinstance(each, DataError)] == [33]
    assert all(max(each.size) == 50 for each in found if isinstance(each, Image.Image))
    assert len(list(overlays(model, files[:2]))) == 2
    dark, bright = (np.asarray(each, int) for each in overlays(model, [files[0]] * 2, [0, 1], side=50))
    assert np.ptp(bright, axis=2).max() > 100 > np.ptp(dark, axis=2).max()  # nothing speaks for "dark"


def test_logits_and_embeddings_are_those_of_the_model(tmp_path: Path) -> None:
    model = model_of(tmp_path / "model", "squash")
    file = tmp_path / "a.png"
    spot((50, 50), (5, 5, 20, 20)).save(file)
    ((_, look),) = looks(model, [(file, None)])
    ((_, answer),) = model.answers([file])
    ((_, embedding),) = model.embeddings([file])
    assert np.array_equal(look.logits, answer) and look.index == answer.argmax()
    assert np.array_equal(embedding, look.embedding) and embedding.shape == (64,)
    other = Model(model.checkpoint, mirrored(model.backend))
    assert network_of(model)[0] is model.backend.network and network_of(other)[0] is not model.backend.network


@pytest.mark.parametrize("resize", RESIZES)
def test_a_square_is_seen_whole(resize: str) -> None:
    assert seen((70, 70), Preprocess(size=32, resize=resize, crop_ratio=1.0)) == (0, 0, 70, 70)
