"""Growing: the same function, more blocks, and all of them learn."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from resnetkit import models
from resnetkit.errors import UsageError

PAIRS = [
    ("resnet18", "resnet34"),
    ("resnet50", "resnet101"),
    ("resnet101", "resnet152"),
    ("resnet20", "resnet56"),
    ("resnet56", "resnet110"),
]
D = {"stem": "deep", "shortcut": "D"}


def trained(variant: str, **options) -> models.ResNet:
    """A network whose statistics, weights and biases are not those of the start."""
    torch.manual_seed(0)
    network = models.build(variant, num_classes=5, **options)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 0.5, 0.3)
            nn.init.normal_(module.bias, 0, 0.3)
    with torch.no_grad():
        network(torch.randn(4, 3, 64, 64))
    return network


@pytest.mark.parametrize(("small", "large"), PAIRS)
def test_the_logits_are_equal_bit_for_bit(small: str, large: str) -> None:
    before = trained(small)
    after = models.grow(before, large)
    assert [tuple(p.shape) for p in after.parameters()] == [
        tuple(p.shape) for p in models.build(large, num_classes=5).parameters()
    ]
    assert list(after.state_dict()) == list(models.build(large, num_classes=5).state_dict())
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(before.eval()(x), after.eval()(x))


def test_a_network_of_kind_d_grows_too() -> None:
    before = trained("resnet18", **D)
    after = models.grow(before, "resnet34d")
    assert list(after.state_dict()) == list(models.build("resnet34d").state_dict())
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(before.eval()(x), after.eval()(x))


def test_the_original_stays_and_new_blocks_learn() -> None:
    before = trained("resnet18", zero_init_residual=True)
    state = {name: tensor.clone() for name, tensor in before.state_dict().items()}
    after = models.grow(before, "resnet34")
    optimizer = torch.optim.SGD(after.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(after(torch.randn(4, 3, 64, 64)), torch.tensor([0, 1, 2, 3])).backward()
        optimizer.step()
    assert after.layer3[5].bn2.weight.any() and after.layer3[5].conv1.weight.grad.any(), "the last new block moves"
    assert all(torch.equal(tensor, state[name]) for name, tensor in before.state_dict().items())


@pytest.mark.parametrize(
    ("make", "to", "message"),
    [
        (lambda: models.build("resnet34"), "resnet18", "cannot grow to"),
        (lambda: models.build("resnet18"), "resnet50", "of BasicBlock cannot grow into resnet50"),
        (lambda: models.build("resnet18"), "resnet20", "cannot grow into resnet20"),
        (lambda: models.build("resnext50_32x4d"), "resnet101", "of another width cannot grow into resnet101"),
        (lambda: models.build("resnet18", shortcut="C"), "resnet34", "identity shortcuts"),
        (lambda: models.build("plain18"), "plain34", "identity shortcuts"),
        (lambda: models.build("resnet18", norm_layer=lambda n: nn.GroupNorm(8, n)), "resnet34", "BatchNorm can grow"),
        (lambda: models.build("resnet18"), "resnet35", "there is no model"),
    ],
)
def test_what_cannot_grow(make, to: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        models.grow(make(), to)
