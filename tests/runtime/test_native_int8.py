"""Networks in int8 by our own kernels are near float32, and the same with every set of instructions."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from networks import NETWORKS, saved
from resnetkit.checkpoint import Checkpoint, Deployed
from resnetkit.errors import ModelError
from resnetkit.kernels.library import LEVELS, available, best_level
from resnetkit.ops.quantization import Quantization
from resnetkit.runtime.backends import open_backend, preprocess_of
from resnetkit.runtime.deployed import open_deployed
from resnetkit.runtime.graph import Conv, MaxPool, graph_of
from resnetkit.runtime.model import load
from resnetkit.runtime.native import works_of
from resnetkit.runtime.native_file import read_network, write_network
from resnetkit.runtime.native_int8 import ROUNDED, open_quantized, quantized
from resnetkit.runtime.quantize import quantization_for

pytestmark = pytest.mark.skipif(not available(), reason="needs the compiled kernels: python -m resnetkit.kernels.build")
# of `networks`, those that differ for levels; what other instructions give is tested for each layer
DIFFERENT = [each for each in NETWORKS if each[0] in ("resnet50d", "resnext50_32x4d") or "shortcut" in each[1]]


def pixels(count, size, channels, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, channels), np.uint8)


def measured(checkpoint):
    model = load(checkpoint.folder, backend="torch", device="cpu")
    prepare = preprocess_of(checkpoint)
    some = pixels(8, prepare.size, prepare.channels)
    return quantization_for(graph_of(checkpoint), some, model.normalise, lambda done: None)


@pytest.mark.parametrize(("name", "options", "size"), DIFFERENT)
def test_every_network_with_the_fewest_and_the_most_instructions(tmp_path, name, options, size):
    checkpoint = saved(tmp_path / "model", name, options, size)
    prepare, graph = preprocess_of(checkpoint), graph_of(checkpoint)
    batch = pixels(3, size, prepare.channels)
    expected = open_backend(checkpoint, "torch", "cpu").outputs(batch)
    network = quantized(graph, measured(checkpoint), prepare)
    answers = [open_quantized(network, prepare, level)(batch) for level in (LEVELS[0], best_level())]
    for theirs, *ours in zip(expected, *answers, strict=True):
        most = np.abs(theirs).max()
        for one in ours:
            assert theirs.shape == one.shape and one.dtype == np.float32
            assert 1e-5 < np.abs(theirs - one).max() / most < 0.15
        assert np.abs(ours[0] - ours[1]).max() <= 0.1 * most  # the fewest round weights once more


def test_maps_are_levels_from_the_stem_to_the_pooled_features(tmp_path):
    checkpoint = saved(tmp_path / "model", "resnet18", {}, 33)
    graph, quantization = graph_of(checkpoint), measured(checkpoint)
    run = open_quantized(quantized(graph, quantization, preprocess_of(checkpoint)), preprocess_of(checkpoint))
    names = [step.name for step in run.steps]
    assert names[-3:] == ["layer4_1", "embedding", "logits"]
    assert all(name.endswith(ROUNDED) for name in names[:-3]) and len(names) == len(works_of(graph))
    kept = replace(quantization, kept=frozenset({"stem", "layer1_0_2"}))
    run = open_quantized(quantized(graph, kept, preprocess_of(checkpoint)), preprocess_of(checkpoint))
    whole = [step.name for step in run.steps if not step.name.endswith(ROUNDED)]
    assert whole == ["stem", "pool", "layer1_0_1", "layer1_0", "layer4_1", "embedding", "logits"]


def test_what_stays_float32_takes_no_levels(tmp_path):
    """Ranges that are far too narrow change nothing, where all that takes these activations is float32."""
    checkpoint = saved(tmp_path / "model", "resnet18", {}, 64)
    graph, prepare, quantization = graph_of(checkpoint), preprocess_of(checkpoint), measured(checkpoint)
    kept = frozenset(node.name for node in graph.nodes if isinstance(node, Conv))
    network = quantized(graph, Quantization(dict.fromkeys(quantization.ranges, (0.0, 1e-3)), kept=kept), prepare)
    batch = pixels(2, 64, 3)
    expected = open_backend(checkpoint, "torch", "cpu")(batch)
    assert np.abs(open_quantized(network, prepare)(batch)[0] - expected).max() <= 3e-5 * np.abs(expected).max()


@pytest.mark.parametrize("level", LEVELS)
def test_batches_of_any_size(tmp_path, level):
    """An image has the same answer whatever is beside it, also where levels are rounded once more."""
    if LEVELS.index(level) > LEVELS.index(best_level()):
        pytest.skip(f"needs a processor with {level}")
    checkpoint = saved(tmp_path / "model", "resnet18", {}, 33)
    prepare = preprocess_of(checkpoint)
    run = open_quantized(quantized(graph_of(checkpoint), measured(checkpoint), prepare), prepare, level)
    batch = pixels(70, 33, 3)
    logits, _ = run(batch)
    for count in (1, 2, 5, 16, 33):
        assert np.abs(run(batch[:count])[0] - logits[:count]).max() <= 1e-5 * np.abs(logits).max()


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("once")
    checkpoint = saved(folder / "model", "resnet20", {}, 32)
    (folder / "out").mkdir()
    write_network(quantized(graph_of(checkpoint), measured(checkpoint), preprocess_of(checkpoint)), folder / "out")
    return checkpoint


@pytest.fixture
def written(once, tmp_path):
    shutil.copytree(once.folder.parent, tmp_path, dirs_exist_ok=True)
    return Checkpoint(tmp_path / "out", once.meta, {}, None, Deployed("native", "int8"))


def test_what_was_written_is_read(written, tmp_path):
    network = read_network(written.folder)
    assert len(network.scales) == sum(isinstance(node, Conv) for node in network.graph.nodes)
    size = sum(path.stat().st_size for path in written.folder.iterdir())
    assert size < (tmp_path / "model" / "model.safetensors").stat().st_size / 2.5
    batch = pixels(3, 32, 3)
    expected = open_quantized(network, preprocess_of(written))(batch)[0]
    np.testing.assert_array_equal(open_deployed(written)(batch), expected)


DAMAGES = {
    "no kind": lambda told: told["nodes"][3].update(kind="Cnv"),
    "no such field": lambda told: told["nodes"][3].update(speed=1),
    "a stride": lambda told: told["nodes"][3].update(stride=0),
    "a text": lambda told: told["nodes"][3].update(padding="1"),
    "a huge padding": lambda told: told["nodes"][3].update(padding=2**40),
    "groups": lambda told: told["nodes"][3].update(groups=3),
    "a source behind": lambda told: told["nodes"][3].update(source="logits"),
    "twice": lambda told: told["nodes"].append(told["nodes"][3]),
    "no range": lambda told: told["ranges"].pop("stem"),
    "an endless range": lambda told: told["ranges"].update(stem=[0, float("inf")]),
    "a range that is none": lambda told: told["ranges"].update(stem=[0, float("nan")]),
    "outputs": lambda told: told.update(outputs=["stem", "logits"]),
    "a size": lambda told: told.update(size=33),
    "other channels": lambda told: told["nodes"][-3].update(other="stem"),
    "no list": lambda told: told.update(nodes=3),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_files_that_say_something_else_are_refused(written, damage):
    path = written.folder / "network.json"
    told = json.loads(path.read_text())
    DAMAGES[damage](told)
    path.write_text(json.dumps(told))
    with pytest.raises(ModelError, match="native cannot run it as model.json says"):
        open_deployed(written)


def test_pools_keep_the_levels_of_what_they_take(tmp_path):
    checkpoint = saved(tmp_path / "model", "resnet18", {}, 64)
    graph, prepare, quantization = graph_of(checkpoint), preprocess_of(checkpoint), measured(checkpoint)
    assert any(isinstance(node, MaxPool) for node in graph.nodes)
    other = replace(quantization, ranges={**quantization.ranges, "pool": (0.0, 1e3)})
    batch = pixels(2, 64, 3)
    one, two = (open_quantized(quantized(graph, each, prepare), prepare)(batch)[0] for each in (quantization, other))
    np.testing.assert_array_equal(one, two)
