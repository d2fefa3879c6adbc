"""The CIFAR networks of section 4.2, their plain twins, and the published weights on real images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from resnetkit import api, models
from resnetkit.data.image import Preprocess
from resnetkit.errors import ModelError
from resnetkit.kernels.library import available
from resnetkit.nn.blocks import PlainBlock
from resnetkit.nn.cifar import cifar_layers, cifar_resnet

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# the paper's table 6, in millions
PARAMETERS = {20: 0.27, 32: 0.46, 44: 0.66, 56: 0.85, 110: 1.7}
real = pytest.mark.skipif(not (SHARED / "cifar10-weights").exists(), reason="the CIFAR-10 weights are not here")


@pytest.mark.parametrize("depth", PARAMETERS)
def test_depth_and_parameters_are_those_of_the_paper(depth: int) -> None:
    with torch.device("meta"):
        network = cifar_resnet(depth)
        plain = cifar_resnet(depth, block=PlainBlock)
    layers = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    count = sum(p.numel() for p in network.parameters())
    assert len(layers) == depth and round(count / 1e6, 2 if depth < 100 else 1) == PARAMETERS[depth]
    assert {n: t.shape for n, t in plain.state_dict().items()} == {n: t.shape for n, t in network.state_dict().items()}


@pytest.mark.parametrize("depth", [2, 7, 18, 21])
def test_other_depths_are_refused(depth: int) -> None:
    with pytest.raises(ValueError, match="6n"):
        cifar_layers(depth)


def test_features_halve_and_double() -> None:
    features = models.resnet20().forward_features(torch.zeros(2, 3, 32, 32))
    assert {name: tuple(tensor.shape[1:]) for name, tensor in features.items()} == {
        "C2": (16, 32, 32),
        "C3": (32, 16, 16),
        "C4": (64, 8, 8),
    }


@pytest.mark.parametrize("depth", [18, 20])
def test_plain_networks_are_residual_ones_without_the_addition(depth: int) -> None:
    """With residual branches of zero a residual network passes its input on, and a plain one passes nothing."""
    x = torch.rand(2, 3, 32, 32)
    for kind in ("resnet", "plain"):
        network = models.build(f"{kind}{depth}", zero_init_residual=True).eval()
        features = list(network.forward_features(x).values())[-1]
        assert bool(features.any()) == (kind == "resnet")
    trained = models.build(f"plain{depth}")
    trained(x).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained.parameters())


@real
@pytest.mark.parametrize(
    ("variant", "file", "accuracy", "lossless", "backend"),
    [
        ("resnet20", "resnet20-12fca82f.th", 0.8103, 0.999, "torch"),
        ("resnet56", "resnet56-4bfd9763.th", 0.8320, 1.0, "native" if available() else "torch"),
    ],
)
def test_published_weights_score_as_published(tmp_path, caplog, variant, file, accuracy, lossless, backend) -> None:
    """On 10,000 JPEG test images, and 1 and 0 errors of 1,000 lossless ones: see the README beside the data."""
    network = getattr(models, variant)(weights=SHARED / "cifar10-weights" / file)
    assert "renamed from those of pytorch_resnet_cifar10" in caplog.text
    folder = api.save(network, tmp_path / "m", classes=CLASSES, preprocess=Preprocess(size=32, crop_ratio=1.0))
    for name, expected in (("lossless-first1000.zip", lossless), ("test.zip", accuracy)):
        scores = api.evaluate(folder, SHARED / "cifar10" / name, backend=backend, quiet=True)
        assert scores.metrics["accuracy"].value == expected
    assert not (folder / "config.json").exists(), "timm has no such network"


@real
def test_weights_of_another_depth_are_refused() -> None:
    with pytest.raises(ModelError, match="another architecture"):
        models.resnet32(weights=SHARED / "cifar10-weights" / "resnet20-12fca82f.th")


def test_train_and_predict(tmp_path, run_cli, photos) -> None:
    """auto: 32 px, the small stem, shortcut A, no weights."""
    code, _, err = run_cli("train", photos, "--model", "resnet20", "--epochs", "1", "--batch-size", "8", "--out", "r")
    assert code == 0, err
    recipe = (tmp_path / "r" / "recipe.toml").read_text()
    assert all(line in recipe for line in ('stem = "small"', 'shortcut = "A"', 'weights = "none"', "size = 32"))
    assert run_cli("predict", "r", photos / "red" / "0.png")[0] == 0
    code, _, err = run_cli("train", photos, "--model", "plain20", "--epochs", "1", "--batch-size", "8", "--out", "p")
    assert code == 0, err
