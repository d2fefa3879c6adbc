"""Tensor names of other libraries become ours."""

import pytest
import torch
import torchvision

from resnetkit import models
from resnetkit.errors import ModelError
from resnetkit.weights.fit import fit
from resnetkit.weights.keymaps import hugging_face_name, renamed


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


def fastai(name):
    """Our name as a learner of fastai has it, whose body is a Sequential; its head is another one."""
    part, _, rest = name.partition(".")
    numbers = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
    return f"1.8.{rest}" if part == "fc" else f"0.{numbers[part]}.{rest}"


NAMES = {
    "Hugging Face": hugging_face,
    "mmpretrain": lambda name: name.replace("fc.", "head.fc.") if name.startswith("fc.") else f"backbone.{name}",
    "segmentation-models": lambda name: f"encoder.{name}",
    "fastai": lambda name: fastai(name),
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
    loaded = {name: tensor for name, tensor in state.items() if library != "fastai" or not name.startswith("fc.")}
    assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in loaded.items())
    assert ("head none -> 3 re-initialised" in message) == (library == "fastai")


@pytest.mark.parametrize(
    "name", ["fasterrcnn_resnet50_fpn", "retinanet_resnet50_fpn", "fcn_resnet50", "deeplabv3_resnet50"]
)
def test_backbones_of_torchvision_load_without_a_head(name):
    """Detection with its frozen BatchNorm, segmentation with its dilated stages: the same tensors."""
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(name, weights=None, weights_backbone=None)
    network = models.build("resnet50", num_classes=3)
    message = fit(network, theirs.state_dict(), "theirs")
    kind = "detection" if "fpn" in name else "segmentation"
    assert f"renamed from those of torchvision's {kind}; head none -> 3 re-initialised" in message
    body = theirs.backbone.body if kind == "detection" else theirs.backbone
    assert all(torch.equal(network.state_dict()[n], tensor) for n, tensor in body.state_dict().items())


def test_our_own_names_stay():
    state = models.build("resnet18").state_dict()
    assert renamed(state) == (state, "")


def test_a_name_that_no_rule_knows_is_told():
    network = models.build("resnet18", num_classes=3)
    state = {hugging_face(name): tensor for name, tensor in network.state_dict().items()}
    with pytest.raises(ModelError, match=r"resnet.pooler.extra is not in the network"):
        fit(network, {**state, "resnet.pooler.extra": torch.ones(1)}, "theirs")


@pytest.mark.parametrize("variant", ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"])
def test_there_and_back(variant):
    with torch.device("meta"):
        state = models.build(variant).state_dict()
    theirs = {hugging_face_name(name): tensor for name, tensor in state.items()}
    assert list(theirs) == [hugging_face(name) for name in state]
    back, library = renamed(theirs)
    assert library == "Hugging Face" and list(back) == list(state)


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
    assert set(map(hugging_face_name, ours.state_dict())) == set(theirs.state_dict())
    fit(ours, theirs.state_dict(), "theirs")
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x).logits, atol=1e-5, rtol=1e-5)
