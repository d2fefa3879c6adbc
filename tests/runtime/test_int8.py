"""int8 is published if it loses hardly any accuracy, with fewer convolutions in it where that helps, or not at all."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from networks import needs, saved
from resnetkit.errors import IncompleteError, UsageError
from resnetkit.runtime.export import FORMATS, Evidence
from resnetkit.runtime.graph import graph_of
from resnetkit.runtime.int8 import ENGINES, Gate, refuse_int8, write_int8
from resnetkit.runtime.model import load
from resnetkit.runtime.quantize import quantization_for


@pytest.fixture(params=list(ENGINES))
def form(request):
    needs(ENGINES[request.param])
    return request.param


@pytest.fixture
def model(tmp_path):
    return load(saved(tmp_path / "model", "resnet18", {}, 64).folder, backend="torch", device="cpu")


@pytest.fixture
def gate(model):
    """Images whose truth is what the model says of them."""
    rng = np.random.default_rng(0)
    pixels = (rng.integers(0, 200, (60, 1, 1, 3)) + rng.integers(0, 56, (60, 64, 64, 3))).astype(np.uint8)
    logits = model.backend(pixels)
    return Gate(Evidence("sixty", pixels, logits.argmax(1)), logits, most=0.05)


@pytest.fixture
def quantization(model, gate):
    return quantization_for(graph_of(model.checkpoint), gate.evidence.pixels, model.normalise, lambda done: None)


def test_it_is_smaller_and_nearly_the_same(form, model, gate, quantization, tmp_path):
    done = write_int8(model, form, tmp_path / "out", gate, quantization)
    assert done.precision == "int8" and done.proof.source == "sixty" and done.proof.agreement.value >= 0.9
    assert 1e-4 < done.difference < 0.2
    assert done.size < sum(array.nbytes for array in model.checkpoint.tensors.values()) / 3
    told = json.loads((tmp_path / "out" / "proof.json").read_text())["int8"]
    assert told["lost"]["n"] == 60 and told["lost"]["low"] <= told["lost"]["value"] <= told["lost"]["high"]
    assert told["float32"] == [] and min(told["images_per_second"].values()) > 0
    opened = load(tmp_path / "out")
    assert opened.checkpoint.deployed.precision == "int8"
    golden = json.loads((tmp_path / "out" / "golden.json").read_text())["logits"]
    square = np.frombuffer((tmp_path / "out" / "golden.u8").read_bytes(), np.uint8).reshape(1, 64, 64, 3).copy()
    np.testing.assert_allclose(opened.backend(square)[0], golden, atol=1e-3 * np.abs(golden).max())
    assert "int8, which every engine rounds" in (tmp_path / "out" / "README.md").read_text()


def test_what_bears_it_least_goes_back_to_float32(form, model, gate, quantization, tmp_path):
    """One activation's range is far too narrow: with the convolution that takes it in float32 all is well."""
    name = "layer2_0_1"
    ranges = {**quantization.ranges, name: (0.0, quantization.ranges[name][1] / 1000)}
    done = write_int8(model, form, tmp_path / "out", gate, replace(quantization, ranges=ranges))
    assert "layer2_0_2" in done.int8["float32"]


def test_what_loses_more_is_not_written(form, model, gate, quantization, tmp_path, caplog):
    ranges = {name: (low / 1000, high / 1000) for name, (low, high) in quantization.ranges.items()}
    truth = np.arange(60) % 7  # so that one answer to all images is none
    gate = replace(gate, evidence=replace(gate.evidence, targets=truth), logits=np.eye(7, dtype=np.float32)[truth])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    with pytest.raises(
        IncompleteError, match=r"in int8 accuracy falls by .* with 8 convolutions .* nothing was written"
    ) as caught:
        write_int8(model, form, tmp_path / "out", gate, replace(quantization, ranges=ranges), overwrite=True)
    assert caught.value.exit_code == 4 and "looking for the convolutions that bear it least" in caplog.text
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["old"]
    assert {path.name for path in tmp_path.iterdir()} == {"model", "out"}
    (told,) = re.findall(r"--max-drop ([\d.]+) accepts it", str(caught.value))
    gentle = replace(gate, most=float(told))
    assert write_int8(model, form, tmp_path / "gentle", gentle, replace(quantization, ranges=ranges)).folder.exists()


def test_formats_without_int8():
    for name in ("ncnn", "torchvision", "huggingface"):
        with pytest.raises(UsageError, match=f"{name} has no int8 here .--format onnx or openvino or native"):
            refuse_int8(name)
    assert set(ENGINES) == {name for name, form in FORMATS.items() if form.write_int8}
