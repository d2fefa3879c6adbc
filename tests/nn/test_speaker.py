import math

import torch

from resnetkit.nn.speaker import CosineHead, SpeakerResNet, StatisticsPooling, with_margin

SMALL = {"mels": 20, "layers": (1, 1, 1, 1), "width": 8, "embedding": 16}


def test_has_the_parameters_of_wespeaker():
    """6.63 M without its head, see the module's docstring."""
    network = SpeakerResNet(2)
    head = network.fc.weight.numel()
    assert round((sum(p.numel() for p in network.parameters()) - head) / 1e6, 2) == 6.63
    assert network.seg_1.in_features == 5120


def test_shapes():
    network = SpeakerResNet(5, **SMALL).eval()
    for frames in (1, 50, 97):
        embedding, logits = network.forward_head(network.forward_features(torch.randn(2, 1, 20, frames)))
        assert embedding.shape == (2, 16) and logits.shape == (2, 5)
        assert torch.isfinite(embedding).all() and logits.abs().max() <= 30.001


def test_statistics():
    x = torch.randn(2, 3, 4, 50)
    found = StatisticsPooling()(x)
    assert torch.allclose(found[:, :12], x.flatten(1, 2).mean(2), atol=1e-6)
    assert torch.allclose(found[:, 12:], x.flatten(1, 2).std(2, correction=0), atol=1e-5)
    constant = torch.ones(1, 1, 1, 9, requires_grad=True)
    StatisticsPooling()(constant).sum().backward()
    assert torch.isfinite(constant.grad).all(), "a root has no slope at zero"


def test_cosines():
    head = CosineHead(2, 2, scale=10)
    head.weight.data = torch.tensor([[2.0, 0], [3, 3]])
    assert torch.allclose(head(torch.tensor([[5.0, 0]])), torch.tensor([[10, 10 / math.sqrt(2)]]))


def test_margin_is_taken_from_the_target_alone():
    logits = torch.tensor([[30.0, 15, 0], [0, 15, 30]])
    found = with_margin(logits, torch.tensor([0, 1]), margin=0.2, scale=30)
    assert torch.equal(found, torch.tensor([[24.0, 15, 0], [0, 9, 30]]))


def test_learns_voices_apart():
    torch.manual_seed(0)
    targets = torch.arange(24) % 3
    spectra = torch.randn(24, 1, 20, 30)
    spectra[torch.arange(24), 0, 5 * targets] += 3
    network = SpeakerResNet(3, **SMALL)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(15):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(with_margin(network(spectra), targets), targets).backward()
        optimizer.step()
    embedding = torch.nn.functional.normalize(network.forward_head(network.forward_features(spectra))[0])
    cosines = embedding @ embedding.T
    same = targets[:, None] == targets
    assert cosines[same].mean() > cosines[~same].mean() + 0.3


def test_names_of_tensors_are_frozen():
    names = set(SpeakerResNet(2, **SMALL).state_dict())
    assert {"conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "seg_1.weight", "seg_1.bias", "fc.weight"} <= names
