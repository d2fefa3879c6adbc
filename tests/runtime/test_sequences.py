"""Networks of texts, samples and voices without torch: the same logits and embeddings, whatever is tied."""

import numpy as np
import pytest
import torch

from networks import needs
from resnetkit import models
from resnetkit.checkpoint import Meta, read, write
from resnetkit.data.audio import AudioPreprocess
from resnetkit.data.tokens import BYTES, TextPreprocess
from resnetkit.errors import ResourceError
from resnetkit.runtime.backends import open_backend
from resnetkit.runtime.deployed import open_deployed
from resnetkit.runtime.export import BATCH_SIZES, write_export
from resnetkit.runtime.model import load
from resnetkit.runtime.probes import probes
from resnetkit.runtime.save import options_of

TEXT = {"num_tokens": BYTES}
SHORT = AudioPreprocess(rate=8_000, seconds=0.3, mels=24)
CASES = [
    ("words", TEXT, TextPreprocess(length=40)),
    ("vdcnn9", {**TEXT, "hidden": 0}, TextPreprocess(length=128)),
    ("vdcnn9", {**TEXT, "shortcut": "A", "k": 3, "hidden": 16}, TextPreprocess(length=100)),
    ("vdcnn17", {**TEXT, "shortcut": "B", "hidden": 0}, TextPreprocess(length=33)),  # 5 places for 8 values
    ("wave34", {"width": 8}, AudioPreprocess(rate=8_000, seconds=0.3, form="wave")),
    ("wave34", {"width": 8, "shortcut": "B"}, AudioPreprocess(rate=8_000, seconds=1.01, form="wave")),
    ("speaker34", {"mels": 24, "width": 8}, SHORT),
    (
        "speaker34",
        {"mels": 20, "width": 8, "embedding": 32},
        AudioPreprocess(rate=8_000, seconds=0.4, mels=20, centre=1.0),
    ),
]


def saved(folder, variant, options, prepare):
    """A network whose norms do something, as a model folder."""
    torch.manual_seed(0)
    network = models.assembled(variant, {"num_classes": 5, **options})
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.1)
    task = "text" if isinstance(prepare, TextPreprocess) else "sound"
    meta = Meta(task, variant, options_of(network), tuple("abcde"), prepare.as_dict())
    tensors = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    return write(folder, meta, tensors)


@pytest.mark.parametrize("form", ["onnx", "openvino"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[1].get('shortcut', '')}")
def test_exports_give_the_same_answers(case, form, tmp_path):
    needs("onnxruntime")
    needs("openvino")
    folder = saved(tmp_path / "model", *case)
    model = load(folder, backend="torch", device="cpu")
    done = write_export(model, form, tmp_path / "out")
    assert done.difference < 1e-4
    engine = open_deployed(read(tmp_path / "out"))
    batch = probes(model.preprocess, max(BATCH_SIZES))
    for size in BATCH_SIZES:
        for ours, theirs in zip(model.backend.outputs(batch[:size]), engine.outputs(batch[:size]), strict=True):
            assert ours.shape == theirs.shape and np.abs(ours - theirs).max() <= 1e-4 * np.abs(ours).max()


@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_kmax_of_ties(form, tmp_path):
    """Texts of one letter: nearly all values of a channel are equal."""
    needs("onnxruntime")
    needs("openvino")
    folder = saved(tmp_path / "model", "vdcnn9", {**TEXT, "hidden": 0}, TextPreprocess(length=256))
    model = load(folder, backend="torch", device="cpu")
    write_export(model, form, tmp_path / "out")
    engine = open_deployed(read(tmp_path / "out"))
    batch = np.zeros((7, 256), np.uint16)
    for row, count in enumerate((1, 3, 20, 100, 200, 256, 9)):
        batch[row, :count] = 60 + row % 2
    for ours, theirs in zip(model.backend.outputs(batch), engine.outputs(batch), strict=True):
        assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(ours).max()


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_voices_in_engines(engine, tmp_path):
    needs(engine)
    checkpoint = read(saved(tmp_path / "model", "speaker34", {"mels": 24, "width": 8}, SHORT))
    batch = probes(SHORT, 3)
    torchs, theirs = (open_backend(checkpoint, name, "cpu").outputs(batch) for name in ("torch", engine))
    for ours, found in zip(torchs, theirs, strict=True):
        assert np.abs(ours - found).max() <= 1e-4 * np.abs(ours).max()


@pytest.mark.parametrize("engine", ["ncnn", "native"])
def test_voices_that_an_engine_has_no_layers_for(engine, tmp_path):
    needs(engine)
    checkpoint = read(saved(tmp_path / "model", "speaker34", {"mels": 24, "width": 8}, SHORT))
    with pytest.raises(ResourceError, match="another --backend|sounds"):
        open_backend(checkpoint, engine, "cpu")


def test_another_order_of_ties_is_not_written(tmp_path, monkeypatch):
    """The proof is one: with the k smallest nothing is published."""
    from resnetkit.errors import IncompleteError
    from resnetkit.runtime import sequences

    needs("onnxruntime")
    model = load(saved(tmp_path / "model", "vdcnn9", TEXT, TextPreprocess(length=128)), backend="torch", device="cpu")
    monkeypatch.setattr(
        sequences._Writer,
        "kmax",
        lambda self, x, k, length: self._node(
            "Slice",
            [x, *(self.tensor(f"cut{i}", np.array([value], np.int64)) for i, value in enumerate((0, k, 2)))],
            "kmax",
        ),
    )
    with pytest.raises(IncompleteError):
        write_export(model, "onnx", tmp_path / "out")
    assert not (tmp_path / "out").exists()
