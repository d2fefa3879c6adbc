"""The network without torch: every variant and option gives torch's logits and embeddings in every engine."""

import numpy as np
import pytest

from networks import NETWORKS, needs, saved
from resnetkit.checkpoint import Checkpoint
from resnetkit.errors import ModelError
from resnetkit.runtime.backends import open_backend
from resnetkit.runtime.choice import ENGINES
from resnetkit.runtime.graph import Conv, Linear, graph_of


@pytest.mark.parametrize(("name", "options", "size"), NETWORKS)
def test_every_network_in_every_engine(tmp_path, name, options, size):
    checkpoint = saved(tmp_path / "model", name, options, size)
    channels = len(checkpoint.meta.preprocess["mean"])
    batch = np.random.default_rng(0).integers(0, 256, (3, size, size, channels), np.uint8)
    expected = open_backend(checkpoint, "torch", "cpu").outputs(batch)
    for engine in ENGINES:
        needs(engine)
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
