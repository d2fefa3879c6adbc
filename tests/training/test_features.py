"""Features are computed once, are those of the network, and change nothing in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from resnetkit import models
from resnetkit import recipe as recipes
from resnetkit.nn.cut import cut
from resnetkit.runtime import choice
from resnetkit.training import features
from resnetkit.training.device import Setup
from resnetkit.training.loader import Loader
from resnetkit.training.maps import CHUNK, Maps
from resnetkit.training.objective import OBJECTIVES
from resnetkit.training.pixels import Pixels
from resnetkit.training.settle import settle

SETUP = Setup("cpu", "f32")


def loader(n: int = 20, **changes: object) -> Loader:
    squares = np.random.default_rng(0).integers(0, 256, (n, 37, 37, 3), np.uint8)
    recipe = settle(recipes.read("", {"train.batch_size": 8, "model.weights": "none", "image.size": 32, **changes}), 32)
    pixels = Pixels(lambda rows: lambda: squares[rows], np.full(n, 1.5), np.zeros(n, np.uint64))
    return Loader(pixels, np.arange(n) % 3, 3, recipe, OBJECTIVES["classify"])


def network() -> models.ResNet:
    torch.manual_seed(0)
    return models.build("resnet20", num_classes=3)


@pytest.mark.parametrize("kept", [True, False])
def test_stored_maps_give_the_logits_of_the_network(tmp_path: Path, kept: bool) -> None:
    net, source = network(), loader()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    trunk, tail = cut(net, "layer2")
    images, done = features.training_images(source), []
    folder = tmp_path / "f" if kept else None
    maps = features.extract(trunk.eval(), images, (20, 2), folder, SETUP, done.append)
    assert maps.views == 2 and done == [20, 40]
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items()), "buffers too"
    rows = np.array([3, 19, 0])
    with torch.no_grad():
        ours = tail.eval()(torch.from_numpy(maps.take(0, rows)))
        theirs = net.eval()(images(0, np.arange(20)))[rows]
    assert torch.allclose(ours, theirs, atol=2e-3 * float(theirs.abs().max()))
    assert not np.array_equal(maps.take(0, rows), maps.take(1, rows)), "the second view is augmented"
    embedded = features.embeddings(tail, maps, SETUP)
    logits = torch.from_numpy(embedded) @ net.fc.weight.T + net.fc.bias
    assert torch.allclose(logits[rows], ours, atol=1e-4)


def test_what_lies_there_is_not_computed_again_unless_it_is_cut_short(tmp_path: Path, monkeypatch) -> None:
    trunk = cut(network(), "layer3")[0].eval()
    source, n = loader(CHUNK + 4), CHUNK + 4
    first = features.extract(trunk, features.training_images(source), (n, 1), tmp_path, SETUP, lambda done: None)
    before = [np.array(first.chunk(0, number)) for number in range(2)]
    path = sorted(tmp_path.iterdir())[1]
    path.write_bytes(path.read_bytes()[:-10])
    asked: list[int] = []

    def images(view: int, rows: np.ndarray) -> torch.Tensor:
        asked.extend(rows.tolist())
        return features.training_images(source)(view, rows)

    again = features.extract(trunk, images, (n, 1), tmp_path, SETUP, lambda done: None)
    assert asked == list(range(CHUNK, n))
    assert all(np.array_equal(before[number], again.chunk(0, number)) for number in range(2))


def test_the_key_is_of_weights_images_and_how_they_are_made(monkeypatch) -> None:
    trunk, _ = cut(network(), "layer3")
    recipe = loader().recipe
    keys = {
        features.key_of(trunk, recipe, SETUP, b"a"),
        features.key_of(trunk, recipe, SETUP, b"b"),
        features.key_of(trunk, recipes.replace(recipe, {"image.size": 40}), SETUP, b"a"),
        features.key_of(trunk, recipes.replace(recipe, {"augment.color": 0.1}), SETUP, b"a"),
        features.key_of(trunk, recipes.replace(recipe, {"train.seed": 1}), SETUP, b"a"),
        features.key_of(cut(network(), "layer2")[0], recipe, SETUP, b"a"),
        features.key_of(cut(network(), "avgpool")[0], recipe, SETUP, b"a"),
        features.key_of(trunk, recipes.replace(recipe, {"model.variant": "plain20"}), SETUP, b"a"),
        features.key_of(trunk, recipes.replace(recipe, {"finetune.engine": "onnxruntime"}), SETUP, b"a"),
        features.key_of(trunk, recipes.replace(recipe, {"finetune.engine": "openvino"}), SETUP, b"a"),
    }
    assert len(keys) == 10 and features.key_of(trunk, recipe, SETUP, b"a") in keys
    with monkeypatch.context() as patch:
        patch.setattr(choice, "version_of", lambda name: "another")
        assert features.key_of(trunk, recipe, SETUP, b"a") not in keys
    trunk.conv1.weight.data += 1
    assert features.key_of(trunk, recipe, SETUP, b"a") not in keys


def test_the_first_view_is_what_evaluation_sees() -> None:
    """The centre square of a wide image, up to the detail that storing it as a square costs."""
    from PIL import Image

    from resnetkit.data import image
    from resnetkit.training.objective import store_preprocess

    recipe = settle(recipes.read("", {"model.weights": "none", "image.size": 64, "image.crop_ratio": 0.875}), 64)
    wide = Image.effect_mandelbrot((300, 200), (-2, -1.2, 1, 1.2), 60).convert("RGB")
    stored = image.pixels(wide, store_preprocess(recipe))[None].copy()
    preprocess = features.preprocess_of(recipe)
    expected = image.normalise(image.pixels(wide, preprocess)[None], preprocess)
    seen = OBJECTIVES["classify"].centre(torch.from_numpy(stored), np.array([1.5]), recipe).numpy()
    assert np.abs(seen - expected).mean() < 0.15 * expected.std()


def test_maps_that_another_thread_forgets_are_there_all_the_same(tmp_path: Path) -> None:
    class Emptied(dict):
        def __setitem__(self, key: object, value: object) -> None:
            """As if another thread had cleared it."""

    np.save(tmp_path / "maps.npy", np.arange(8, dtype=np.float16).reshape(2, 4, 1, 1))
    maps = Maps([[tmp_path / "maps.npy"]], 2, Emptied())
    assert maps.take(0, np.array([1]))[0, :, 0, 0].tolist() == [4, 5, 6, 7]
