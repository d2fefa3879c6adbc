"""The backend native gives torch's answers with every set of instructions, in batches of any size, and keeps little."""

from dataclasses import replace

import numpy as np
import pytest

from networks import NETWORKS, saved
from resnetkit.data.image import normalise
from resnetkit.errors import ResourceError
from resnetkit.kernels.library import LEVELS, available, best_level
from resnetkit.runtime.backends import open_backend, preprocess_of
from resnetkit.runtime.graph import AddRelu, MaxPool, graph_of
from resnetkit.runtime.native import MOST, open_network

pytestmark = pytest.mark.skipif(not available(), reason="needs the compiled kernels: python -m resnetkit.kernels.build")


def pixels(count, size, channels, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, channels), np.uint8)


@pytest.mark.parametrize(("name", "options", "size"), NETWORKS)
def test_every_network_with_all_instructions_of_this_processor(tmp_path, name, options, size):
    checkpoint = saved(tmp_path / "model", name, options, size)
    prepare = preprocess_of(checkpoint)
    batch = pixels(3, size, prepare.channels)
    expected = open_backend(checkpoint, "torch", "cpu").outputs(batch)
    for level in LEVELS[: 1 + LEVELS.index(best_level())]:
        found = open_network(graph_of(checkpoint), prepare, level)(batch)
        for theirs, ours in zip(expected, found, strict=True):
            assert theirs.shape == ours.shape and ours.dtype == np.float32
            most = 3e-5 if level == "amx" else 1e-5  # floats as two halves
            assert np.abs(theirs - ours).max() <= most * np.abs(theirs).max(), level


def test_batches_of_any_size(tmp_path):
    checkpoint = saved(tmp_path / "model", "resnet18", {}, 33)
    run = open_network(graph_of(checkpoint), preprocess_of(checkpoint))
    batch = pixels(MOST + 6, 33, 3)
    logits, embeddings = run(batch)
    assert len(logits) == len(embeddings) == MOST + 6
    for count in (1, 2, 5, 16, 33):
        again, _ = run(batch[:count])
        assert np.abs(again - logits[:count]).max() <= 1e-5 * np.abs(logits).max()
    assert sum(array.nbytes for free in run.arrays.free.values() for array in free) < 2**25


@pytest.mark.parametrize("end", ["layer1", "layer3", "embedding"])
def test_the_first_part_of_a_network_on_normalised_images(tmp_path, end):
    checkpoint = saved(tmp_path / "model", "resnet34", {}, 64)
    prepare, batch = preprocess_of(checkpoint), pixels(2, 64, 3)
    (whole,) = open_network(graph_of(checkpoint, end), prepare)(batch)
    (found,) = open_network(graph_of(checkpoint, end))(normalise(batch, prepare))
    assert found.shape == whole.shape == {"layer1": (2, 64, 16, 16), "layer3": (2, 256, 4, 4)}.get(end, (2, 512))
    assert np.abs(found - whole).max() <= 1e-5 * np.abs(whole).max()


def test_what_is_given_stays(tmp_path):
    checkpoint = saved(tmp_path / "model", "resnet18", {}, 32)
    run = open_network(graph_of(checkpoint), preprocess_of(checkpoint))
    batch = pixels(2, 32, 3)
    before, first = batch.copy(), run(batch)
    kept = [array.copy() for array in first]
    run(pixels(2, 32, 3, seed=1))
    assert (batch == before).all() and all((a == b).all() for a, b in zip(first, kept, strict=True))


def test_sums_are_made_by_the_convolutions_before_them(tmp_path):
    checkpoint = saved(tmp_path / "model", "resnet18", {}, 32)
    graph = graph_of(checkpoint)
    run = open_network(graph, preprocess_of(checkpoint))
    assert len(run.steps) == len(graph.nodes) - sum(isinstance(node, AddRelu) for node in graph.nodes)


def test_batches_of_many_sizes_take_no_more_memory_than_the_largest(tmp_path):
    checkpoint = saved(tmp_path / "model", "resnet18", {}, 33)
    run = open_network(graph_of(checkpoint), preprocess_of(checkpoint))
    batch = pixels(8, 33, 3)

    def held():
        assert not run.arrays.whole
        return sum(array.nbytes for free in run.arrays.free.values() for array in free)

    run(batch)
    most = held()
    for count in (3, 8, 1, 5):
        run(batch[:count])
        assert held() == most


def test_spectra_of_sounds_are_refused(tmp_path):
    graph = graph_of(saved(tmp_path / "model", "resnet18", {}, 33))
    nodes = tuple(replace(node, frames=True) if isinstance(node, MaxPool) else node for node in graph.nodes)
    with pytest.raises(ResourceError, match="not spectra of sounds"):
        open_network(replace(graph, nodes=nodes))
