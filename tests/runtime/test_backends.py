"""A backend runs what the folder says, or says why it cannot; prediction as such needs no torch."""

import json
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from networks import needs
from resnetkit import models
from resnetkit.checkpoint import read
from resnetkit.data.image import Preprocess
from resnetkit.errors import ModelError, ResourceError, UsageError
from resnetkit.files import MANIFEST, _write_manifest
from resnetkit.runtime import choice
from resnetkit.runtime.backends import BACKENDS, open_backend, torch_device
from resnetkit.runtime.model import load
from resnetkit.runtime.save import save


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    network = models.resnet18(num_classes=2)
    return save(network, tmp_path / "model", classes=["ant", "bee"], preprocess=Preprocess(size=32))


def edit(folder, **changes):
    values = json.loads((folder / "model.json").read_text()) | changes
    (folder / "model.json").write_text(json.dumps(values))
    (folder / MANIFEST).unlink()
    _write_manifest(folder)


@pytest.mark.parametrize("backend", BACKENDS)
def test_contract(folder, backend):
    needs(backend)
    infer = open_backend(read(folder), backend, "cpu")
    batch = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    logits = infer(batch)
    assert logits.shape == (3, 2) and logits.dtype == np.float32 and np.isfinite(logits).all()
    np.testing.assert_array_equal(infer(batch), logits)
    np.testing.assert_allclose(np.concatenate([infer(one[None]) for one in batch]), logits, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_threads_get_their_own_answers(folder, backend):
    needs(backend)
    run = open_backend(read(folder), backend, "cpu")
    batches = [np.full((1, 32, 32, 3), value, np.uint8) for value in range(0, 256, 36)]
    alone = [run(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(10):
            for expected, found in zip(alone, pool.map(run, batches), strict=True):
                np.testing.assert_allclose(found, expected, atol=1e-5)


def test_mirrored_answers_are_the_same_for_an_image_and_its_mirror_image(folder):
    plain, mirrored = load(folder, device="cpu"), load(folder, device="cpu", mirror=True)
    batch = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    other = np.ascontiguousarray(batch[:, :, ::-1])
    np.testing.assert_allclose(mirrored.backend(batch), mirrored.backend(other), atol=1e-6)
    np.testing.assert_allclose(mirrored.backend(batch), (plain.backend(batch) + plain.backend(other)) / 2, atol=1e-6)
    assert not np.allclose(plain.backend(batch), plain.backend(other), atol=1e-4)


def test_an_unknown_backend(folder):
    with pytest.raises(UsageError, match="there is no backend 'tensorflow' .one of auto, torch"):
        load(folder, backend="tensorflow")


def test_engines_run_on_the_cpu_and_name_their_package(folder, monkeypatch):
    with pytest.raises(UsageError, match="ncnn runs on the CPU, not on cuda"):
        load(folder, backend="ncnn", device="cuda")
    for name in set(choice.ENGINES) - {"native"}:
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ResourceError, match=r'needs its package .pip install "resnetkit\[runtime\]"'):
            load(folder, backend=name)


@pytest.mark.parametrize("device", ["tpu", "cuda:99", "cpu:x", "cuda:-1", "", "gpu"])
def test_a_device_that_is_not_there(folder, device):
    with pytest.raises(ResourceError) as caught:
        load(folder, device=device)
    assert f"there is no device {device!r}" in str(caught.value) and caught.value.exit_code == 6


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(folder, run_cli, tmp_path):
    code, out, err = run_cli("predict", folder, tmp_path, "--device", "cuda")
    assert (code, out) == (6, "") and "there is no device 'cuda'" in err and err.count("\n") == 1
    assert torch_device("auto") in ("cpu", "mps")


@pytest.mark.parametrize("changes", [{"variant": "resnet34"}, {"options": {"shortcut": "A"}}, {"variant": "resnet50"}])
def test_another_architecture(folder, changes, run_cli, tmp_path):
    edit(folder, **changes)
    with pytest.raises(ModelError) as caught:
        load(folder)
    line = str(caught.value)
    assert "are weights of another architecture" in line and str(folder) in line and caught.value.exit_code == 5
    differences = line.count(" is missing") + line.count("is not in the network") + line.count(", not (")
    assert differences == 10 and " more" in line
    code, out, err = run_cli("predict", folder, tmp_path)
    assert (code, out) == (5, "") and err.count("\n") == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"variant": "vit"},
        {"options": {"unknown": 1}},
        {"options": {"num_classes": 2}},
        {"options": {"stem": "huge"}},
        {"options": {"in_channels": "three"}},
        {"options": {"in_channels": -3}},
        {"options": {"norm_layer": "BatchNorm2d"}},
        {"options": {"replace_stride_with_dilation": 5}},
        {"options": {"in_channels": 4}},
    ],
    ids=str,
)
def test_options_that_make_no_network(folder, changes):
    edit(folder, **changes)
    with pytest.raises(ModelError) as caught:
        load(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_half_precision_weights_are_read_as_float(folder, tmp_path):
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    half = {name: array.astype(np.float16) if array.dtype.kind == "f" else array for name, array in tensors.items()}
    batch = np.full((1, 32, 32, 3), 200, np.uint8)
    expected = load(folder, device="cpu").backend(batch)
    save_file(half, folder / "model.safetensors")
    edit(folder)
    np.testing.assert_allclose(load(folder, device="cpu").backend(batch), expected, atol=0.05)


WITHOUT_TORCH = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision"):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
import numpy as np
import resnetkit.cli
from resnetkit import checkpoint, recipe, run
from resnetkit.data import dataset, image
from resnetkit.ops import intervals, metrics
from resnetkit.runtime import backends, model, pipeline
from resnetkit.tasks import classes, evaluate, task
from resnetkit.errors import ResourceError
from PIL import Image

class MeanColour:
    def __call__(self, batch):
        return np.stack([batch[..., 0].mean((1, 2)), batch[..., 2].mean((1, 2))], 1)

    def outputs(self, batch):
        return self(batch), self(batch)

folder = sys.argv[1]
opened = model.Model(checkpoint.read(model.Path(folder)), MeanColour())
answers = opened.predict([Image.new("RGB", (40, 50), colour) for colour in ("red", "blue")])
print([answer.label for answer in answers])
try:
    model.load(folder)
except ResourceError as error:
    print(error.exit_code, error)
print([name for name in sys.modules if name.partition(".")[0] == "torch"])
"""


def test_prediction_without_torch(folder):
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(WITHOUT_TORCH), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "['ant', 'bee']",
        "6 the torch backend needs torch: torch is blocked (pip install torch torchvision)",
        "[]",
    ]
