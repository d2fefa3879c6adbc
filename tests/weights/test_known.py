"""Weights by name are torchvision's, weights by path are the user's."""

import pytest
import torch
from torchvision.models import ResNet34_Weights, ResNet50_Weights

from resnetkit.errors import ModelError, UsageError
from resnetkit.models import VARIANTS
from resnetkit.weights import known
from resnetkit.weights.known import known_weights, published


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_has_published_weights_with_a_hash(variant):
    weights = published(variant)
    assert weights
    for name, value in weights.items():
        assert name.startswith("IMAGENET1K_V")
        assert torch.hub.HASH_REGEX.search(value.url)


def test_names_are_those_of_torchvision():
    assert published("resnet34") == {"IMAGENET1K_V1": ResNet34_Weights.IMAGENET1K_V1}
    assert published("resnet50") == {weights.name: weights for weights in ResNet50_Weights}


def test_a_name_is_downloaded_from_its_address(monkeypatch):
    monkeypatch.setattr(known, "download", lambda url, progress: (url, progress))
    for name, value in published("resnet50").items():
        assert known_weights("resnet50", name, progress=False) == ((value.url, False), name)


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.bin", "w.safetensors", "IMAGENET1K_V1", "w"])
def test_a_path_is_read(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    torch.save({"a": torch.ones(2)}, tmp_path / name)
    for path in (name, tmp_path / name):
        state, source = known_weights("resnet34", path)
        assert torch.equal(state["a"], torch.ones(2))
        assert source == str(path)


def test_unknown_name_and_missing_file(tmp_path):
    with pytest.raises(UsageError, match=r"resnet34 has no weights 'IMAGENET1K_V2' \(one of IMAGENET1K_V1,") as usage:
        known_weights("resnet34", "IMAGENET1K_V2")
    with pytest.raises(ModelError, match="there is no such weights file") as model:
        known_weights("resnet34", tmp_path / "none.pth")
    assert (usage.value.exit_code, model.value.exit_code) == (2, 5)
