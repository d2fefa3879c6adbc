"""A network that is saved and loaded computes the same."""

import json

import numpy as np
import pytest
import timm
import torch
from torch import nn

from resnetkit import models
from resnetkit.checkpoint import read
from resnetkit.data.image import Preprocess
from resnetkit.errors import ResourceError, UsageError
from resnetkit.runtime.backends import open_network
from resnetkit.runtime.model import load
from resnetkit.runtime.save import options_of, save, variant_of

NETWORKS = {
    "plain": ("resnet18", {}),
    "small stem": ("resnet18", {"stem": "small"}),
    "shortcut A": ("resnet18", {"shortcut": "A"}),
    "shortcut C": ("resnet18", {"shortcut": "C"}),
    "grey": ("resnet18", {"in_channels": 1}),
    "zero init, stochastic depth": ("resnet18", {"zero_init_residual": True, "stochastic_depth": 0.5}),
    "deep stem": ("resnet18", {"stem": "deep"}),
    "shortcut D": ("resnet18", {"shortcut": "D"}),
    "D": ("resnet34d", {}),
    "D, grey": ("resnet34d", {"in_channels": 1}),
    "D, small stem": ("resnet34d", {"stem": "small"}),
    "dilated": ("resnet50", {"replace_stride_with_dilation": [False, True, True]}),
    "dilated in one stage": ("resnet50", {"replace_stride_with_dilation": [False, False, True]}),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_round_trip(name, tmp_path):
    torch.manual_seed(0)
    variant, options = NETWORKS[name]
    network = models.build(variant, num_classes=4, **options).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.8, 1.2)
    batch = torch.randn(2, options.get("in_channels", 3), 32, 32)
    with torch.inference_mode():
        expected = network(batch)
    found = read(save(network, tmp_path / "model", weights="x"))
    assert found.meta.variant == variant and found.meta.classes == ("0", "1", "2", "3") and found.meta.weights == "x"
    again = open_network(found, "cpu")[0](batch).detach().numpy()
    assert again.tobytes() == expected.numpy().tobytes()
    assert len(found.meta.preprocess["mean"]) == batch.shape[1]


@pytest.mark.parametrize("variant", models.VARIANTS)
def test_every_variant_is_recognised(variant):
    with torch.device("meta"):
        network = models.build(variant, num_classes=2)
    assert variant_of(network) == variant and options_of(network) == {"in_channels": 3}


def test_resnet34_with_both_options_is_resnet34d():
    with torch.device("meta"):
        network = models.build("resnet34", num_classes=2, stem="deep", shortcut="D")
    assert variant_of(network) == "resnet34d" and options_of(network) == {"in_channels": 3}


@pytest.mark.parametrize("variant", ["resnet18", "resnet50", "resnet20"])
def test_a_folder_with_features_of_all_stages(variant, tmp_path):
    """It opens again as what it was; timm, which has no such network, is promised nothing."""
    network = models.build(variant, num_classes=4, pool="all").eval()
    folder = save(network, tmp_path / "model", preprocess=Preprocess(size=32))
    batch, opened = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8), load(folder, device="cpu")
    with torch.no_grad():
        expected = network(torch.from_numpy(opened.normalise(batch))).numpy()
    np.testing.assert_array_equal(opened.backend(batch), expected)
    assert not (folder / "config.json").exists() and "timm" not in (folder / "README.md").read_text()


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("variant", ["resnet34d", "resnet50d"])
def test_timm_loads_a_folder_of_kind_d(variant, channels, tmp_path):
    torch.manual_seed(0)
    network = models.build(variant, num_classes=4, in_channels=channels).eval()
    folder = save(network, tmp_path / "model")
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    batch = torch.randn(2, channels, 64, 64)
    with torch.inference_mode():
        assert torch.equal(theirs(batch), network(batch))
    assert theirs.pretrained_cfg["first_conv"] == "conv1.0" and theirs.pretrained_cfg["architecture"] == variant
    assert json.loads((folder / "config.json").read_text())["num_features"] == theirs.num_features
    grey = timm.create_model(f"local-dir:{folder}", pretrained=True, in_chans=1)  # needs to know the first convolution
    assert torch.allclose(grey.conv1[0].weight, network.conv1[0].weight.sum(1, keepdim=True))


@pytest.mark.parametrize("dilation", [[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)], ids=str)
def test_dilation_is_recognised(dilation):
    dilation = [bool(each) for each in dilation]
    with torch.device("meta"):
        network = models.build("resnet50", num_classes=2, replace_stride_with_dilation=dilation)
    assert options_of(network).get("replace_stride_with_dilation", [False] * 3) == dilation


@pytest.fixture(scope="module")
def network():
    return models.resnet18(num_classes=3)


def test_classes_and_preprocess_travel(network, tmp_path):
    preprocess = Preprocess(size=48, resize="squash", background=3)
    folder = save(network, str(tmp_path / "m"), classes=["c", "a", "<b>"], preprocess=preprocess)
    values = json.loads((folder / "model.json").read_text())
    assert values["classes"] == ["c", "a", "<b>"]
    assert values["preprocess"] == json.loads(json.dumps(preprocess.as_dict()))


def test_several_labels(network, tmp_path):
    folder = save(network, tmp_path / "m", task="multilabel")
    answer = load(folder).predict(np.zeros((32, 32, 3), np.uint8))
    assert read(folder).meta.task == "multilabel" and answer.present is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ["a", "b"]}, "names 2 classes for a head of 3"),
        ({"classes": []}, "names 0 classes for a head of 3"),
        ({"classes": ["a", "b", "a"]}, "names the class 'a' twice"),
        ({"preprocess": Preprocess(mean=(0.5,), std=(0.5,))}, "takes 3 channels, its preprocess 1"),
        ({"task": "detekt"}, "there is no task 'detekt'"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(network, tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        save(network, tmp_path / "m", **options)
    assert not (tmp_path / "m").exists()


def test_networks_that_could_not_be_loaded_again_are_refused(tmp_path):
    with torch.device("meta"):
        odd = models.build("resnet18", num_classes=2)
        odd.layer3.append(nn.Identity())
        grouped = models.build("resnet18", num_classes=2, norm_layer=lambda channels: nn.GroupNorm(2, channels))
    with pytest.raises(UsageError, match="none of the family"):
        save(odd, tmp_path / "m")
    with pytest.raises(UsageError, match="with GroupNorm cannot be saved"):
        save(grouped, tmp_path / "m")


def test_an_existing_folder_is_kept(network, tmp_path):
    save(network, tmp_path / "m")
    with pytest.raises(ResourceError):
        save(network, tmp_path / "m", classes=["a", "b", "c"])
    assert read(tmp_path / "m").meta.classes == ("0", "1", "2")
