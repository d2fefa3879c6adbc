"""Networks of every kind that the family has, small enough for a test."""

import pytest
import torch

from resnetkit import models
from resnetkit.checkpoint import read
from resnetkit.data.image import Preprocess
from resnetkit.runtime import choice
from resnetkit.runtime.save import save

NETWORKS = [
    ("resnet18", {}, 64),
    ("resnet34", {"in_channels": 1}, 65),
    ("resnet50", {}, 64),
    ("resnet20", {}, 32),
    ("resnet34d", {}, 65),
    ("resnet50d", {}, 64),
    ("plain18", {}, 64),
    ("resnext50_32x4d", {}, 64),
    ("resnet50", {"replace_stride_with_dilation": (False, True, True)}, 64),
    ("resnet18", {"pool": "all", "stem": "small", "shortcut": "C", "in_channels": 6}, 33),
    ("resnet18", {"shortcut": "A"}, 65),
]


def stirred(name, options, most=1.5):
    """A network whose norms do something; `most` of a norm's weight."""
    torch.manual_seed(0)
    network = models.build(name, num_classes=7, **options)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, most)
            torch.nn.init.normal_(module.bias, 0, 0.1)
    return network.eval()


def saved(folder, name, options, size):
    network = stirred(name, options)
    channels = network.in_channels
    prepare = Preprocess(size=size, mean=(0.5,) * channels, std=(0.2,) * channels)
    return read(save(network, folder, preprocess=prepare))


def needs(engine):
    """Skip the test where an engine is not installed, or our kernels were not compiled."""
    if engine in choice.ENGINES and not choice.is_here(engine):
        pytest.skip(f"needs {engine}")
