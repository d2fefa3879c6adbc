"""Ranges are those of the activations; what bears int8 least is found."""

from dataclasses import replace

import numpy as np
import pytest

from networks import NETWORKS, saved
from resnetkit.ops.quantization import REDUCED, WHOLE
from resnetkit.runtime.graph import Conv, graph_of
from resnetkit.runtime.model import load
from resnetkit.runtime.quantize import _activations, largest_level, least_tolerant, quantization_for


@pytest.mark.parametrize(("name", "options", "size"), NETWORKS)
def test_activations_are_those_of_the_network(tmp_path, name, options, size):
    checkpoint = saved(tmp_path / "model", name, options, size)
    model = load(checkpoint.folder, backend="torch", device="cpu")
    batch = np.random.default_rng(0).integers(0, 256, (2, size, size, model.preprocess.channels), np.uint8)
    found = _activations(graph_of(checkpoint), model.normalise(batch))
    logits, embedding = model.backend.outputs(batch)
    np.testing.assert_allclose(found["logits"].numpy(), logits, atol=2e-5 * np.abs(logits).max())
    np.testing.assert_allclose(found["embedding"].numpy(), embedding, atol=2e-5 * np.abs(embedding).max())


@pytest.fixture
def model(tmp_path):
    return load(saved(tmp_path / "model", "resnet20", {}, 32).folder, backend="torch", device="cpu")


def test_ranges_are_those_of_all_images(model):
    pixels = np.random.default_rng(0).integers(0, 256, (11, 32, 32, 3), np.uint8)
    done = []
    graph = graph_of(model.checkpoint)
    found = quantization_for(graph, pixels, model.normalise, done.append)
    assert done == [8, 11] and {node.name for node in graph.nodes} <= found.ranges.keys()
    images = model.normalise(pixels).reshape(11, -1)
    np.testing.assert_allclose(found.ranges["image"], (images.min(), images.max()), rtol=1e-6)
    assert found.ranges["stem"][0] == 0 < found.ranges["stem"][1]


def test_the_least_tolerant_comes_first(model):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
    graph = graph_of(model.checkpoint)
    quantization = quantization_for(graph, pixels, model.normalise, lambda done: None)
    narrow = {name: (low / 50, high / 50) for name, (low, high) in quantization.ranges.items() if name == "layer2_0_1"}
    order = least_tolerant(
        graph, model.normalise(pixels), replace(quantization, ranges={**quantization.ranges, **narrow})
    )
    assert order[0] == "layer2_0_2"  # it takes what layer2_0_1 gives
    assert sorted(order) == sorted(node.name for node in graph.nodes if isinstance(node, Conv))


def test_processors_that_overflow_have_fewer_levels():
    assert largest_level(("avx2", "fma")) == REDUCED and largest_level(("avx2", "avx_vnni")) == WHOLE
    assert largest_level(None) == WHOLE  # not told: macOS and Windows
