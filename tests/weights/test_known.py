"""Weights by name are torchvision's, weights by hf:// the Hub's, weights by path the user's."""

import hashlib
from dataclasses import replace

import pytest
import torch

from resnetkit.errors import ModelError, NetworkError, UsageError
from resnetkit.models import build, resnet18
from resnetkit.weights import known
from resnetkit.weights.known import known_weights
from resnetkit.weights.published import published
from weights.conftest import DIGEST


def test_a_name_is_downloaded_from_its_address(site, tmp_path, monkeypatch):
    monkeypatch.setenv("RESNETKIT_OFFLINE", "0")
    torch.save({"a": torch.arange(5.0)}, tmp_path / "w")
    content = (tmp_path / "w").read_bytes()
    url = f"{site.address}/net-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    ours = replace(published("resnet50")["IMAGENET1K_V2"], url=url)
    monkeypatch.setattr(known, "published", lambda variant: {"IMAGENET1K_V2": ours})
    site.answer = lambda request: request.send(content)
    state, source = known_weights("resnet50", "IMAGENET1K_V2", progress=False)
    assert source == "IMAGENET1K_V2" and torch.equal(state["a"], torch.arange(5.0))
    with pytest.raises(NetworkError, match="could not be downloaded"):
        wrong = replace(ours, url=f"{site.address}/net-{DIGEST[:8]}.pth")
        monkeypatch.setattr(known, "published", lambda variant: {"IMAGENET1K_V2": wrong})
        known_weights("resnet50", "IMAGENET1K_V2", progress=False)


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.bin", "w.safetensors", "IMAGENET1K_V1", "w"])
def test_a_path_is_read(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    torch.save({"a": torch.ones(2)}, tmp_path / name)
    for path in (name, tmp_path / name):
        state, source = known_weights("resnet34", path)
        assert torch.equal(state["a"], torch.ones(2))
        assert source == str(path)


def test_the_older_files_of_torchvision_load(tmp_path):
    """As resnet34-333f7ec4.pth is: the older serialisation, without batch counters."""
    state = {n: t for n, t in build("resnet18").state_dict().items() if not n.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "resnet18-5c106cde.pth", _use_new_zipfile_serialization=False)
    network = resnet18(weights=tmp_path / "resnet18-5c106cde.pth")
    assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("name", ["IMAGENET1K_V2", "x" * 5000, "a\0b", "", "https://example.org/w"])
def test_unknown_names(name):
    with pytest.raises(UsageError, match=r"resnet34 has no weights .* \(one of IMAGENET1K_V1, or a") as caught:
        known_weights("resnet34", name)
    assert caught.value.exit_code == 2 and "\n" not in str(caught.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(ModelError, match="there is no such weights file") as caught:
        known_weights("resnet34", tmp_path / "none.pth")
    assert caught.value.exit_code == 5


def test_a_variant_without_published_weights():
    with pytest.raises(UsageError, match=r"resnet20 has no weights 'IMAGENET1K_V1' \(one of or a") as caught:
        known_weights("resnet20", "IMAGENET1K_V1")
    assert caught.value.exit_code == 2
