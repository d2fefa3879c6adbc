"""The table of published weights is torchvision's, and the other places hold the same weights."""

import math
import urllib.parse

import pytest
import timm
import torch
import torchvision
from torchvision.models import ResNet34_Weights, ResNet50_Weights, get_model_weights

from resnetkit.models import PUBLISHED
from resnetkit.weights.published import OLDER, published, sha256_prefix

EVERY = [(variant, name) for variant in PUBLISHED for name in published(variant)]


@pytest.mark.parametrize(("variant", "name"), EVERY)
def test_every_value_is_that_of_torchvision(variant, name):
    ours, theirs = published(variant)[name], get_model_weights(variant)[name]
    transforms = theirs.transforms()
    assert (ours.variant, ours.name, ours.url) == (variant, name, theirs.url)
    assert ours.num_params == theirs.meta["num_params"] and ours.classes == tuple(theirs.meta["categories"])
    assert abs(ours.num_bytes / 2**20 - theirs.meta["_file_size"]) < 0.001
    assert ours.num_bytes > 2 * ours.num_params, "of some only half precision was published"
    scores = theirs.meta["_metrics"]["ImageNet-1K"]
    assert ours.accuracy == {"accuracy": scores["acc@1"] / 100, "top5": scores["acc@5"] / 100}
    assert [ours.preprocess.size] == transforms.crop_size
    assert math.isclose(ours.preprocess.size / ours.preprocess.crop_ratio, transforms.resize_size[0])
    assert ours.preprocess.interpolation == transforms.interpolation.value
    assert (list(ours.preprocess.mean), list(ours.preprocess.std)) == (transforms.mean, transforms.std)


def test_names_are_those_of_torchvision():
    assert list(published("resnet34")) == [weights.name for weights in ResNet34_Weights]
    assert list(published("resnet50")) == [weights.name for weights in ResNet50_Weights]
    assert published("resnet20") == {} == published("resnet")


@pytest.mark.parametrize(("variant", "name"), EVERY)
def test_files_carry_their_hash(variant, name):
    weights = published(variant)[name]
    assert weights.files[0] == weights.url.rpartition("/")[2]
    assert all(len(sha256_prefix(file)) == 8 and file.startswith(f"{variant}-") for file in weights.files)
    assert torch.hub.HASH_REGEX.search(weights.file)[1] == sha256_prefix(weights.file)


@pytest.mark.parametrize(("variant", "name"), EVERY)
def test_the_repository_on_the_hub_has_these_weights(variant, name):
    """By timm's own table: its repository is made from the file at this address."""
    weights = published(variant)[name]
    entry = timm.get_pretrained_cfg(weights.hub_repository.removeprefix("timm/"))
    assert (entry.url, entry.hf_hub_id) == (weights.url, weights.hub_repository)
    assert (entry.mean, entry.std) == (weights.preprocess.mean, weights.preprocess.std)


def test_older_files_are_of_the_first_weights_only():
    current = {published(variant)["IMAGENET1K_V1"].file: variant for variant in PUBLISHED}
    assert OLDER.keys() <= current.keys()
    assert published("resnet34")["IMAGENET1K_V1"].files == ("resnet34-b627a593.pth", "resnet34-333f7ec4.pth")
    assert all(older.startswith(f"{current[file]}-") for file, older in OLDER.items())
    assert all(urllib.parse.urlsplit(published(v)[n].url).hostname == "download.pytorch.org" for v, n in EVERY)
    assert torchvision.models.get_weight("ResNet34_Weights.IMAGENET1K_V1").url.endswith("b627a593.pth")
