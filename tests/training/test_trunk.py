"""The frozen network through any engine gives torch's maps; which engine is measured, remembered and said."""

from __future__ import annotations

import copy
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from networks import needs
from resnetkit import models
from resnetkit import recipe as recipes
from resnetkit.errors import ResourceError
from resnetkit.nn.cut import cut
from resnetkit.nn.resnet import ResNet
from resnetkit.runtime import choice
from resnetkit.runtime.graph import Graph
from resnetkit.settings import Recipe
from resnetkit.training import trunk
from resnetkit.training.device import Setup
from resnetkit.training.settle import settle

SETUP = Setup("cpu", "f32")
CUTS = [
    ("resnet18", {}, "layer3"),
    ("resnet18", {"stem": "small"}, "layer3"),
    ("resnet18", {"stem": "small"}, "avgpool"),
    ("resnet50", {}, "avgpool"),
    ("resnet50", {"stem": "small"}, "layer3"),
    ("resnet18", {"pool": "all", "in_channels": 1}, "avgpool"),
    ("resnet20", {}, "layer2"),
]


def network(name: str = "resnet20", classes: int = 3, **options: object) -> ResNet:
    """Whose norms do something."""
    torch.manual_seed(0)
    net = models.build(name, num_classes=classes, **options)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    return net


def recipe(channels: int = 3, **changes: object) -> Recipe:
    given = {"model.weights": "none", "image.size": 32, "image.channels": channels, **changes}
    return recipes.replace(settle(recipes.read("", given), 32), {"finetune.head": True, "finetune.views": 0})


@pytest.mark.parametrize("engine", choice.ENGINES)
@pytest.mark.parametrize(("name", "options", "after"), CUTS)
def test_every_engine_gives_the_maps_of_torch(name: str, options: dict[str, object], after: str, engine: str) -> None:
    needs(engine)
    net = network(name, **options)
    wanted = recipe(net.in_channels, **{"finetune.engine": engine})
    images = torch.randn(5, net.in_channels, 32, 32).to(memory_format=torch.channels_last)
    run = trunk.open_trunk(net.to(memory_format=torch.channels_last), after, wanted, SETUP)
    with torch.inference_mode():
        expected = cut(net, after)[0].eval()(images)
        found = run(images)
    assert found.shape == expected.shape and found.dtype == torch.float32
    assert (found - expected).abs().max() <= 2e-5 * expected.abs().max()
    assert torch.equal(run(images), found), "bit for bit"


def test_torch_runs_it_on_gpus_and_in_several_processes() -> None:
    wanted = recipe(**{"finetune.engine": "ncnn"})
    assert trunk.engine_of(wanted, SETUP) == "ncnn"
    for setup in (Setup("cuda:0", "f32"), Setup("cpu", "f32", 0, 2, 2)):
        assert trunk.engine_of(wanted, setup) == "torch"
        assert trunk.made_by(wanted, setup) == f"torch {choice.version_of('torch')}"
    assert trunk.engine_of(recipe(), SETUP) == "torch"  # of a run that is older than the setting


def test_without_engines_or_with_few_images_it_is_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, many = recipe(), 10**9
    assert trunk.with_engine(network(), wanted, SETUP, many) == (chosen(wanted, "torch"), "")
    monkeypatch.setattr(choice, "installed", lambda: ("onnxruntime",))
    for setup, images in ((SETUP, 0), (SETUP, 3), (Setup("mps", "f32"), many), (Setup("cpu", "f32", 0, 2), many)):
        assert trunk.with_engine(network(), wanted, setup, images) == (chosen(wanted, "torch"), "")
    other = network()
    other.layer1 = torch.nn.Sequential(*other.layer1, copy.deepcopy(other.layer1[0]))
    assert trunk.with_engine(other, wanted, SETUP, many) == (chosen(wanted, "torch"), ""), "none of the family"


def test_a_network_with_other_norms_is_run_by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "installed", lambda: ("onnxruntime",))
    other = network(norm_layer=lambda channels: torch.nn.GroupNorm(4, channels))
    found, told = trunk.with_engine(other, recipe(), SETUP, 10**9)
    assert found.finetune.engine == "torch" and "onnxruntime left out" in told


def test_an_engine_that_is_named_is_taken_if_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    given = recipe(**{"finetune.engine": "ncnn"})
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    assert trunk.with_engine(network(), given, SETUP, 10**9) == (given, "")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ncnn" else name)
    assert trunk.with_engine(network(), given, Setup("mps", "f32"), 10**9) == (given, "")
    with pytest.raises(ResourceError, match="needs the package ncnn .*pip install"):
        trunk.with_engine(network(), given, SETUP, 10**9)


def chosen(wanted: Recipe, name: str) -> Recipe:
    return recipes.replace(wanted, {"finetune.engine": name})


def test_the_fastest_is_measured_once_and_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    wanted, net, home = recipe(), network(), tmp_path / "cache-home" / choice.MEMORY
    monkeypatch.setattr(choice, "installed", lambda: ("onnxruntime",))
    monkeypatch.setattr(choice, "_speeds", lambda running, *_: {name: float(len(name)) for name in running})
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    found, told = trunk.with_engine(net.train(), wanted, SETUP, 10**9, keep=False)
    assert found == chosen(wanted, "onnxruntime") and "made by onnxruntime (inputs/s: onnxruntime 11.0, torch" in told
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items()), "statistics too"
    assert not home.exists()
    trunk.with_engine(net, wanted, SETUP, 10**9)
    assert list(json.loads(home.read_text()).values()) == ["onnxruntime"]
    monkeypatch.setattr(choice, "compared", lambda *_: pytest.fail("it is remembered"))
    other = network(classes=5)
    other.load_state_dict({name: x for name, x in net.state_dict().items() if "fc" not in name}, strict=False)
    again, told = trunk.with_engine(other, wanted, SETUP, 10)
    assert again == found and "as measured before" in told, "whatever the head"


@pytest.mark.skipif(not choice.is_here("native"), reason="needs the compiled kernels")
def test_a_short_pass_is_worth_comparing_our_own_kernels_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(choice, "installed", lambda: ("native", "onnxruntime"))
    monkeypatch.setattr(choice, "_speeds", lambda running, *_: {name: float(len(name)) for name in running})
    for seconds, expected in ((1.0, "torch"), (3.0, "native"), (30.0, "onnxruntime")):
        monkeypatch.setattr(trunk, "seconds_of", lambda work, seconds=seconds: seconds)
        batch = max(2, min(trunk.BATCH, trunk.PIXELS // trunk.preprocess_of(recipe()).size ** 2))
        found, told = trunk.with_engine(network(), recipe(), SETUP, batch)
        assert found == chosen(recipe(), expected) and (expected in told or expected == "torch"), told
        assert (tmp_path / "cache-home" / choice.MEMORY).exists() == (seconds == 30), (
            "what was not tried is not decided"
        )


@pytest.mark.skipif(not choice.is_here("native"), reason="needs the compiled kernels")
def test_our_own_kernels_are_taken_where_they_are_clearly_ahead_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "installed", lambda: ("native", "onnxruntime"))
    monkeypatch.setattr(choice, "_speeds", lambda running, *_: {name: float(len(name)) for name in running})
    for seconds, expected in (([30.0, 19.0], "native"), ([30.0, 21.0], "onnxruntime")):
        measured = iter(seconds)
        monkeypatch.setattr(trunk, "seconds_of", lambda work, measured=measured: next(measured))
        batch = max(2, min(trunk.BATCH, trunk.PIXELS // trunk.preprocess_of(recipe()).size ** 2))
        assert trunk.with_engine(network(), recipe(), SETUP, batch)[0] == chosen(recipe(), expected)


def test_other_maps_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """In what is chosen, and in what a recipe names."""
    net = network()

    def wrong(graph: Graph, name: str):
        def run(batch: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                part = net.eval() if "logits" in graph.outputs else cut(net, "layer2")[0]
                return 1.01 * part(torch.from_numpy(batch)).numpy()

        return run

    monkeypatch.setattr(trunk, "open_engine", wrong)
    monkeypatch.setattr(choice, "installed", lambda: ("ncnn",))
    found, told = trunk.with_engine(net, recipe(), SETUP, 10**9)
    assert found.finetune.engine == "torch" and "ncnn left out: logits differ by 1.0e-02" in told
    with pytest.raises(ResourceError, match="differs from torch by 1.0e-02 .*finetune.engine=torch"):
        trunk.open_trunk(net, "layer2", recipe(**{"finetune.engine": "ncnn"}), SETUP)


def test_an_engine_for_which_there_is_no_time_is_not_opened() -> None:
    batch = np.ones((2, 3, 4, 4), np.float32)
    best, _, told = choice.compared(batch, lambda x: x[:, :, 0, 0], {"slow": lambda: pytest.fail("opened")}, -1.0)
    assert best == "torch" and "slow left out: no time to try it" in told


@pytest.mark.parametrize("engine", ["native", "onnxruntime"])
def test_the_final_network_is_scored_by_the_engine_of_its_features(
    engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless that gives other answers than torch, or no features were made."""
    if not choice.is_here(engine):
        pytest.skip(f"needs {engine}")
    wanted = recipe(**{"finetune.engine": engine})
    found = trunk._checkpoint(network(), wanted)
    assert trunk.open_whole(found, wanted, SETUP).name == engine
    for other in (recipes.replace(wanted, {"finetune.head": False}), chosen(wanted, "torch")):
        assert trunk.open_whole(found, other, SETUP).name == "torch"
    monkeypatch.setattr(choice, "disagreement", lambda *_: "other logits")
    assert trunk.open_whole(found, wanted, SETUP).name == "torch"
