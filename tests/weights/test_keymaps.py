"""Tensor names of other libraries become ours."""

import pytest
import torch

from resnetkit import models
from resnetkit.errors import ModelError
from resnetkit.weights.fit import fit
from resnetkit.weights.keymaps import renamed


def hugging_face(name):
    """Our name as transformers' ResNetForImageClassification has it."""
    if name.startswith(("conv1.", "bn1.")):
        return name.replace("conv1.", "resnet.embedder.embedder.convolution.").replace(
            "bn1.", "resnet.embedder.embedder.normalization."
        )
    if name.startswith("fc."):
        return name.replace("fc.", "classifier.1.")
    stage, block, part, *rest = name.split(".")
    prefix = f"resnet.encoder.stages.{int(stage[5:]) - 1}.layers.{block}"
    if part == "downsample":
        kind = ("convolution", "normalization")[int(rest[0])]
        return f"{prefix}.shortcut.{kind}.{rest[1]}"
    kind = "convolution" if part.startswith("conv") else "normalization"
    return f"{prefix}.layer.{int(part[-1]) - 1}.{kind}.{rest[0]}"


NAMES = {
    "Hugging Face": hugging_face,
    "mmpretrain": lambda name: name.replace("fc.", "head.fc.") if name.startswith("fc.") else f"backbone.{name}",
    "segmentation-models": lambda name: f"encoder.{name}",
    "a wrapper": lambda name: f"model.{name}",
    "pytorch_resnet_cifar10": lambda name: name.replace("fc.", "linear.") if name.startswith("fc.") else name,
}


@pytest.mark.parametrize("variant", ["resnet18", "resnet50"])
@pytest.mark.parametrize("library", NAMES)
def test_every_tensor_finds_its_place(variant, library, caplog):
    network = models.build(variant, num_classes=3)
    state = {name: torch.randn_like(t) if t.is_floating_point() else t for name, t in network.state_dict().items()}
    state |= {name: tensor.abs() for name, tensor in state.items() if name.endswith("running_var")}
    theirs = {NAMES[library](name): tensor for name, tensor in state.items()}
    assert renamed(theirs)[1] == library
    message = fit(network, theirs, "theirs")
    assert f"renamed from those of {library}" in message
    assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in state.items())


def test_our_own_names_stay():
    state = models.build("resnet18").state_dict()
    assert renamed(state) == (state, "")


def test_a_name_that_no_rule_knows_is_told():
    network = models.build("resnet18", num_classes=3)
    state = {hugging_face(name): tensor for name, tensor in network.state_dict().items()}
    with pytest.raises(ModelError, match=r"resnet.pooler.extra is not in the network"):
        fit(network, {**state, "resnet.pooler.extra": torch.ones(1)}, "theirs")


@pytest.mark.parametrize(
    ("variant", "depths", "kind"), [("resnet18", [2, 2, 2, 2], "basic"), ("resnet50", [3, 4, 6, 3], "bottleneck")]
)
def test_the_real_library_gives_the_same_logits(variant, depths, kind):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    sizes = [64, 128, 256, 512] if kind == "basic" else [256, 512, 1024, 2048]
    config = transformers.ResNetConfig(depths=depths, hidden_sizes=sizes, layer_type=kind, num_labels=3)
    torch.manual_seed(0)
    theirs = transformers.ResNetForImageClassification(config).eval()
    ours = models.build(variant, num_classes=3).eval()
    fit(ours, theirs.state_dict(), "theirs")
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x).logits, atol=1e-5, rtol=1e-5)
