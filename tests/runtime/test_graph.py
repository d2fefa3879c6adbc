"""The network without torch: every variant and option gives torch's logits and embeddings in every engine."""

import numpy as np
import pytest
import torch

from resnetkit import models
from resnetkit.checkpoint import Checkpoint, read
from resnetkit.data.image import Preprocess
from resnetkit.errors import ModelError
from resnetkit.runtime.backends import open_backend
from resnetkit.runtime.graph import Conv, Linear, graph_of
from resnetkit.runtime.save import save

ENGINES = ("onnxruntime", "openvino", "ncnn")
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


def stirred(name, options):
    """A network whose norms do something."""
    torch.manual_seed(0)
    network = models.build(name, num_classes=7, **options)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.1)
    return network.eval()


def saved(folder, name, options, size):
    network = stirred(name, options)
    channels = network.in_channels
    prepare = Preprocess(size=size, mean=(0.5,) * channels, std=(0.2,) * channels)
    return read(save(network, folder, preprocess=prepare))


@pytest.mark.parametrize(("name", "options", "size"), NETWORKS)
def test_every_network_in_every_engine(tmp_path, name, options, size):
    checkpoint = saved(tmp_path / "model", name, options, size)
    channels = len(checkpoint.meta.preprocess["mean"])
    batch = np.random.default_rng(0).standard_normal((3, channels, size, size), dtype=np.float32)
    expected = open_backend(checkpoint, "torch", "cpu").outputs(batch)
    for engine in ENGINES:
        pytest.importorskip(engine, reason=f"needs {engine}")
        found = open_backend(checkpoint, engine, "cpu").outputs(batch)
        for theirs, ours in zip(expected, found, strict=True):
            assert theirs.shape == ours.shape and ours.dtype == np.float32
            assert np.abs(theirs - ours).max() <= 2e-5 * np.abs(theirs).max(), engine


def test_batchnorm_is_folded(tmp_path):
    graph = graph_of(saved(tmp_path / "model", "resnet34", {}, 64))
    convolutions = [node for node in graph.nodes if isinstance(node, Conv)]
    assert len(convolutions) == 36 and sum(isinstance(node, Linear) for node in graph.nodes) == 1
    assert all(node.weight.dtype == np.float32 and node.bias.any() for node in convolutions)
    names = [node.name for node in graph.nodes]
    assert len(set(names)) == len(names) and (graph.channels, graph.size) == (3, 64)


def test_a_graph_may_end_before_the_head(tmp_path):
    checkpoint = saved(tmp_path / "model", "resnet50", {}, 64)
    for end, output, count in (("layer1", "layer1_2", 11), ("layer3", "layer3_5", 43), ("embedding", "embedding", 53)):
        graph = graph_of(checkpoint, end)
        assert graph.outputs == (output,) and graph.nodes[-1].name == output
        assert sum(isinstance(node, Conv) for node in graph.nodes) == count
    headless = {name: array for name, array in checkpoint.tensors.items() if not name.startswith("fc.")}
    graph_of(Checkpoint(checkpoint.folder, checkpoint.meta, headless), "embedding")


@pytest.mark.parametrize("lost", ["bn1.running_var", "layer2.0.bn2.weight", "layer1.0.conv2.weight", "fc.weight"])
def test_tensors_that_are_missing_are_named(tmp_path, lost):
    whole = saved(tmp_path / "model", "resnet18", {}, 32)
    tensors = {name: array for name, array in whole.tensors.items() if name != lost}
    with pytest.raises(ModelError, match=lost.replace(".", r"\.")):
        graph_of(Checkpoint(whole.folder, whole.meta, tensors))
