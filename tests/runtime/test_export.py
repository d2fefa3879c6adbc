"""What is exported computes in its own library what it computes here, or is not written."""

import hashlib
import json
import re
import shutil
import socket
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from conftest import picture
from resnetkit import models
from resnetkit.checkpoint import Meta
from resnetkit.data.image import Preprocess, from_array, normalise, pixels
from resnetkit.errors import IncompleteError, ResourceError, UsageError
from resnetkit.files import verify_manifest
from resnetkit.ops.metrics import relative_difference, softmax
from resnetkit.runtime import export, libraries
from resnetkit.runtime.backends import torch_backend
from resnetkit.runtime.export import FORMATS, write_export
from resnetkit.runtime.model import load
from resnetkit.runtime.save import save
from resnetkit.tasks.task import TASKS
from resnetkit.trust.calibrate import calibrate

PREPARE = {"size": 32, "resize": "squash"}
CLASSES = ["ant", "bee", 'c "at"\n', "犬"]
# What each format takes; resnet34 and the deepest ones are resnet18 and resnet50 with more of the same.
TAKEN = {
    "torchvision": {
        "resnet18": ("resnet18", {}),
        "resnet50": ("resnet50", {}),
        "resnext50_32x4d": ("resnext50_32x4d", {}),
        "dilated": ("resnet50", {"replace_stride_with_dilation": [False, True, True]}),
    },
    "huggingface": {
        "resnet18": ("resnet18", {}),
        "resnet34": ("resnet34", {}),
        "resnet50": ("resnet50", {}),
        "grey": ("resnet18", {"in_channels": 1}),
    },
}
ENGINES = {
    "onnx": "onnxruntime",
    "openvino": "openvino",
    "ncnn": "ncnn",
    "native": "resnetkit",
}  # test_graph.py has the other networks
TAKEN |= {
    name: {
        "resnet18": ("resnet18", {}),
        "resnet50": ("resnet50", {}),
        "resnet20": ("resnet20", {}),
        "all, six channels": ("resnet18", {"pool": "all", "in_channels": 6}),
    }
    for name in (*ENGINES, "torchscript", "safetensors")
}
TAKEN["native"] = {"resnet20": ("resnet20", {})}  # test_native.py and test_native_int8.py have the other networks
REFUSED = {
    ("torchvision", "resnet20", ()): "torchvision has no resnet20",
    ("torchvision", "plain18", ()): "torchvision has no plain18",
    ("torchvision", "resnet18", (("stem", "small"),)): "has no stem 'small', .* model.stem=imagenet",
    ("torchvision", "resnet18", (("shortcut", "A"),)): "has no shortcut 'A', .* model.shortcut=B",
    ("torchvision", "resnet18", (("shortcut", "C"),)): "has no shortcut 'C'",
    ("torchvision", "resnet18", (("in_channels", 1),)): "take 3 channels, .* --format huggingface",
    ("torchvision", "resnet18", (("pool", "all"),)): "has no pool 'all', .* model.pool=last",
    ("huggingface", "resnet20", ()): "transformers has no resnet20",
    ("huggingface", "plain34", ()): "transformers has no plain34",
    ("huggingface", "resnext50_32x4d", ()): "has no resnext50_32x4d .*--format torchvision",
    ("huggingface", "wide_resnet50_2", ()): "has no wide_resnet50_2 .*--format torchvision",
    ("huggingface", "resnet50", (("replace_stride_with_dilation", (False, False, True)),)): "no dilated stages",
    ("huggingface", "resnet18", (("stem", "small"),)): "has no stem 'small'",
    ("huggingface", "resnet18", (("in_channels", 6),)): "take 1 or 3 channels, not 6",
    ("huggingface", "resnet18", (("shortcut", "C"),)): "has no shortcut 'C'",
}


def saved(folder, variant="resnet18", **options):
    """A model folder with statistics as training leaves them."""
    torch.manual_seed(0)
    network = models.build(variant, num_classes=4, **options)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.8, 1.2)
    channels = options.get("in_channels", 3)
    prepare = Preprocess(
        **PREPARE, mean=(0.4, 0.5, 0.6, 0.5, 0.5, 0.5)[:channels], std=(0.2, 0.3, 0.25, 0.2, 0.2, 0.2)[:channels]
    )
    return save(network, folder, classes=CLASSES, preprocess=prepare)


def opened(folder):
    return load(folder, backend="torch", device="cpu")


@pytest.fixture
def model(tmp_path):
    return opened(saved(tmp_path / "model"))


@pytest.fixture
def sealed(monkeypatch):
    """No socket is opened."""

    def refuse(*_):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize(("form", "case"), [(form, case) for form in TAKEN for case in TAKEN[form]])
def test_the_library_gives_our_logits(form, case, tmp_path, sealed):
    variant, options = TAKEN[form][case]
    ours = opened(saved(tmp_path / "model", variant, **options))
    FORMATS[form].refuse(ours.checkpoint.meta)
    done = write_export(ours, form, tmp_path / "out")
    libraries_of = {"torchvision": "torchvision", "huggingface": "transformers", **ENGINES}
    library = libraries_of.get(form, "torch")
    version = sys.modules[library].__version__.partition("-")[0]
    assert done.folder == tmp_path / "out" and done.opened_in == f"{library} {version}"
    near = 5 if form == "native" else 1  # on AMX its floats are two halves
    assert 0 <= done.difference < 2e-5 * near
    files = {
        "torchvision": {"classes.json", "preprocess.json"},
        "huggingface": {"config.json", "preprocessor_config.json"},
        "onnx": {"model.onnx"},
        "openvino": {"model.xml", "model.bin"},
        "ncnn": {"model.param", "model.bin"},
        "native": {"network.json", "model.safetensors"},
        "torchscript": {"model.pt", "classes.json", "preprocess.json"},
        "safetensors": {"model.json", "classes.json", "preprocess.json"},
    }
    names = {"README.md", "proof.json", *files[form]}
    if form in ENGINES:
        picture_file = "golden.npy" if ours.preprocess.channels > 3 else "golden.png"
        names |= {"model.json", "classes.json", "preprocess.json"}
        names |= {"golden.json", "golden.f32", "golden.u8", picture_file}
    elif form != "torchscript":
        names.add("model.safetensors")
    assert set(verify_manifest(done.folder)) == names
    assert {path.name for path in tmp_path.iterdir()} == {"model", "out"}
    backend, _ = FORMATS[form].open(done.folder, ours.checkpoint.meta)
    size = ours.preprocess.size
    some = np.random.default_rng(5).integers(0, 256, (3, size, size, ours.preprocess.channels), np.uint8)
    np.testing.assert_allclose(backend(some), ours.backend(some), rtol=1e-4 * near, atol=1e-5 * near)


@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_what_a_format_cannot_hold_is_refused(case):
    form, variant, options = case
    channels = dict(options).get("in_channels", 3)
    prepare = Preprocess(mean=(0.5,) * channels, std=(0.2,) * channels)
    meta = Meta("classify", variant, dict(options), tuple(CLASSES), prepare.as_dict())
    with pytest.raises(UsageError, match=REFUSED[case]) as caught:
        FORMATS[form].refuse(meta)
    assert caught.value.fix and "\n" not in str(caught.value)


def test_several_labels_are_said(model, tmp_path):
    several = replace(model.checkpoint, meta=replace(model.checkpoint.meta, task="multilabel"))
    for name, form in FORMATS.items():
        (tmp_path / name).mkdir()
        form.write(several, tmp_path / name)
        usage = (tmp_path / name / "README.md").read_text()
        assert "(logits[0] >= 0).nonzero()" in usage and "argmax" not in usage
        assert name in ("torchvision", "huggingface") or ".nonzero()[0]" in usage
    config = json.loads((tmp_path / "huggingface" / "config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"


def test_an_option_that_no_library_has_is_refused(model):
    meta = replace(model.checkpoint.meta, options={"width": 32})
    for form in (FORMATS["torchvision"], FORMATS["huggingface"]):
        with pytest.raises(UsageError, match="has no width"):
            form.refuse(meta)


@pytest.mark.parametrize("form", FORMATS)
def test_what_gives_other_logits_is_not_written(form, model, tmp_path, monkeypatch):
    write = FORMATS[form].write

    def damaged(checkpoint, folder):
        tensors = dict(checkpoint.tensors)
        tensors["layer4.1.bn2.weight"] = 1.5 * tensors["layer4.1.bn2.weight"]
        write(replace(checkpoint, tensors=tensors), folder)

    monkeypatch.setitem(export.FORMATS, form, replace(FORMATS[form], write=damaged))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    with pytest.raises(IncompleteError, match="other logits: a difference of .* nothing was written") as caught:
        write_export(model, form, tmp_path / "out", overwrite=True)
    assert caught.value.exit_code == 4
    assert {path.name for path in tmp_path.iterdir()} == {"model", "out"}
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["old"]


def test_another_top_1_is_told(model):
    def close(batch):
        logits = np.zeros((len(batch), 4), np.float32)
        logits[:, 0] = 1
        return logits

    def swapped(batch):
        return close(batch)[:, ::-1]

    with pytest.raises(IncompleteError, match="another top-1"):
        export.prove(replace(model, backend=close), swapped, "x")
    assert export.prove(replace(model, backend=close), close, "x").difference == 0


def test_relative_difference():
    ours = np.array([[1.0, -4.0]], np.float32)
    assert relative_difference(ours, ours + np.float32(0.5)) == 0.125
    assert relative_difference(ours, np.array([[np.nan, 0]], np.float32)) == float("inf")
    assert relative_difference(ours, ours[:, :1]) == float("inf")
    assert relative_difference(0 * ours, 0 * ours) == 0


def test_an_existing_folder_is_kept_or_moved_aside(model, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    with pytest.raises(ResourceError):
        write_export(model, "torchvision", tmp_path / "out")
    assert (tmp_path / "out" / "old").exists()
    write_export(model, "torchvision", tmp_path / "out", overwrite=True)
    assert (tmp_path / "out.1" / "old").exists() and (tmp_path / "out" / "classes.json").exists()


def test_without_transformers_it_is_read_back_and_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    grey = opened(saved(tmp_path / "model", in_channels=1))
    done = write_export(grey, "huggingface", tmp_path / "out")
    assert done.opened_in == "resnetkit's own key map, as transformers is not installed" and done.difference < 1e-6


def test_half_precision_is_written_as_what_we_compute_with(model, tmp_path):
    half = {n: a.astype(np.float16) if a.dtype == np.float32 else a for n, a in model.checkpoint.tensors.items()}
    save_as = replace(model.checkpoint, tensors=half)
    libraries.write_huggingface(save_as, tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    assert {tensor.dtype for tensor in state.values()} == {torch.float32, torch.int64}


def test_config_of_hugging_face():
    transformers = pytest.importorskip("transformers")
    for variant in libraries.DEPTHS:
        meta = Meta("classify", variant, {}, tuple(CLASSES), Preprocess().as_dict())
        config = transformers.ResNetConfig(**libraries.resnet_config(meta))
        with torch.device("meta"):
            theirs = transformers.ResNetForImageClassification(config).state_dict()
            ours = models.build(variant, num_classes=4).state_dict()
        assert sorted(tuple(t.shape) for t in theirs.values()) == sorted(tuple(t.shape) for t in ours.values())
    assert config.id2label == dict(enumerate(CLASSES)) and config.label2id["犬"] == 3


PREPROCESS = {
    "crop": Preprocess(size=64),
    "crop, bicubic, small": Preprocess(size=32, interpolation="bicubic"),
    "crop of a large one": Preprocess(size=400, crop_ratio=1.0),
    "squash": Preprocess(size=48, resize="squash", interpolation="bicubic"),
    "letterbox": Preprocess(size=48, resize="letterbox"),
    "grey": Preprocess(size=48, mean=(0.4,), std=(0.3,)),
}


@pytest.mark.parametrize("name", PREPROCESS)
@pytest.mark.parametrize("size", [(120, 120), (160, 120), (120, 200)], ids=str)
def test_their_image_processor_does_what_our_preprocess_does(name, size, tmp_path):
    """To a pixel's rounding: they resize and crop in whole pixels, and pad before they resize."""
    transformers = pytest.importorskip("transformers")
    prepare = PREPROCESS[name]
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(libraries.image_processor(prepare)))
    (tmp_path / "config.json").write_text('{"model_type": "resnet"}')
    image = picture((230, 140, 40), 3, 40).resize(size, Image.Resampling.BICUBIC)
    image = image.convert("L") if prepare.channels == 1 else image
    ours = normalise(pixels(image, prepare)[None], prepare)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    theirs = processor(image, return_tensors="np")["pixel_values"]
    assert theirs.shape == ours.shape
    grey_levels = np.abs(theirs - ours) * 255 * np.array(prepare.std)[:, None, None]
    assert grey_levels.mean() < (1 if prepare.resize == "squash" else 4)


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
@pytest.mark.parametrize("resize", ["crop", "squash", "letterbox"])
@pytest.mark.parametrize("form", FORMATS)
def test_the_readme_loads_it(form, resize, tmp_path, monkeypatch, capsys):
    folder = saved(tmp_path / "model")
    ours = opened(folder)
    changed = replace(ours.checkpoint.meta, preprocess=Preprocess(size=64, resize=resize).as_dict())
    checkpoint = replace(ours.checkpoint, meta=changed)
    ours = replace(ours, checkpoint=checkpoint, backend=torch_backend(checkpoint, "cpu"))
    done = write_export(ours, form, tmp_path / "out")
    picture((60, 80, 200), 1, 120).save(done.folder / "photo.jpg", quality=95)
    monkeypatch.chdir(done.folder)
    text = (done.folder / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    spoken: dict = {}
    exec(compile(code, "README.md", "exec"), spoken)
    logits = next(iter(ours.answers(["photo.jpg"])))[1]
    found = spoken["logits"] if isinstance(spoken["logits"], np.ndarray) else spoken["logits"].detach().numpy()
    np.testing.assert_allclose(found[0], logits, atol=0.1 * np.abs(logits).max())
    assert capsys.readouterr().out.strip() == CLASSES[int(logits.argmax())].strip()
    if form not in ("huggingface", "torchvision") or (form == "torchvision" and resize != "crop"):
        np.testing.assert_allclose(np.asarray(found)[0], logits, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
@pytest.mark.parametrize("form", [*ENGINES, "torchscript", "safetensors"])
def test_the_readme_loads_bands(form, tmp_path, monkeypatch, capsys):
    """A photo has no six of them."""
    ours = opened(saved(tmp_path / "model", in_channels=6))
    folder = write_export(ours, form, tmp_path / "out").folder
    square = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 6), np.uint8)
    np.save(folder / "bands.npy", square[0])
    monkeypatch.chdir(folder)
    text = (folder / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    spoken: dict = {}
    exec(compile(code, "README.md", "exec"), spoken)
    np.testing.assert_allclose(np.asarray(spoken["logits"]), ours.backend(square), rtol=1e-3, atol=1e-5)
    assert "golden.png" not in text


def test_the_card_says_what_the_hub_reads_and_no_folder_of_this_machine(model, tmp_path):
    meta = replace(model.checkpoint.meta, weights="/home/someone/secret/start.pth")
    libraries.write_huggingface(replace(model.checkpoint, meta=meta), tmp_path)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert text.startswith("---\nlibrary_name: transformers\npipeline_tag: image-classification\ntags: [")
    assert "started from: start.pth." in text and "someone" not in text


def test_torchvision_is_the_one_that_made_the_names(model, tmp_path):
    done = write_export(model, "torchvision", tmp_path / "out")
    network = torchvision.models.resnet18(num_classes=4)
    assert network.load_state_dict(load_file(done.folder / "model.safetensors")).missing_keys == []
    assert json.loads((done.folder / "classes.json").read_text(encoding="utf-8")) == CLASSES
    assert Preprocess(**json.loads((done.folder / "preprocess.json").read_text())) == model.preprocess


@pytest.mark.parametrize("form", ENGINES)
def test_the_golden_picture_has_the_answer_that_is_told(form, model, tmp_path):
    folder = write_export(model, form, tmp_path / "out").folder
    told = json.loads((folder / "golden.json").read_text())
    content = (folder / "golden.f32").read_bytes()
    assert hashlib.sha256(content).hexdigest() == told["input_sha256"]
    batch = np.frombuffer(content, "<f4").reshape(1, 3, 32, 32).copy()
    picture_read = from_array(np.asarray(Image.open(folder / "golden.png")), model.preprocess)
    square = np.frombuffer((folder / "golden.u8").read_bytes(), np.uint8).reshape(1, 32, 32, 3).copy()
    np.testing.assert_array_equal(pixels(picture_read, model.preprocess)[None], square)
    np.testing.assert_array_equal(normalise(square, model.preprocess), batch)
    np.testing.assert_allclose(model.backend(square)[0], told["logits"], rtol=1e-5, atol=1e-6)
    infer, _ = FORMATS[form].open(folder, model.checkpoint.meta)
    np.testing.assert_allclose(infer(square)[0], told["logits"], rtol=1e-4, atol=1e-5)


def test_an_onnx_model_gives_calibrated_scores_for_any_batch(model, tmp_path):
    ort = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    rng = np.random.default_rng(0)
    known = calibrate(
        TASKS["classify"].target, (3 * np.eye(4)[np.arange(40) % 4], rng.random((40, 8))), np.arange(40) % 3
    )
    sure = replace(model, checkpoint=replace(model.checkpoint, calibration=known))
    folder = write_export(sure, "onnx", tmp_path / "out").folder
    assert known.temperature != 1 and sorted(path.name for path in folder.glob("model*")) == [
        "model.json",
        "model.onnx",
    ]
    session = ort.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    for n in (1, 5):
        some = rng.integers(0, 256, (n, 32, 32, 3), np.uint8)
        scores, logits, embedding = session.run(["scores", "logits", "embedding"], {"pixels": some})
        np.testing.assert_allclose(scores, softmax(logits / known.temperature), rtol=1e-4, atol=1e-6)
        expected = model.backend.outputs(some)
        np.testing.assert_allclose(logits, expected[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(embedding, expected[1], rtol=1e-4, atol=1e-5)


def test_several_labels_have_a_score_each(model, tmp_path):
    ort = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    several = replace(model.checkpoint, meta=replace(model.checkpoint.meta, task="multilabel"))
    some = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    expected = 1 / (1 + np.exp(-model.backend(some)))
    onnx = write_export(replace(model, checkpoint=several), "onnx", tmp_path / "onnx").folder
    session = ort.InferenceSession(str(onnx / "model.onnx"), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(["scores"], {"pixels": some})[0], expected, rtol=1e-4, atol=1e-6)
    script = write_export(replace(model, checkpoint=several), "torchscript", tmp_path / "script").folder
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        scores = torch.jit.load(str(script / "model.pt"))(torch.from_numpy(some))[0]
    np.testing.assert_allclose(scores.detach().numpy(), expected, rtol=1e-4, atol=1e-6)


def test_agreement_on_several_labels_is_on_each_of_them(model):
    ours, theirs = np.array([[2.0, 1.0], [2.0, -1.0]]), np.array([[2.0, 1.5], [2.0, 0.5]])
    assert export.agreement(model, ours, theirs).value == 1
    meta = replace(model.checkpoint.meta, task="multilabel")
    several = replace(model, checkpoint=replace(model.checkpoint, meta=meta))
    assert export.agreement(several, ours, theirs).value == 0.5


def test_safetensors_is_a_model_folder(model, tmp_path):
    again = load(write_export(model, "safetensors", tmp_path / "out").folder, backend="torch", device="cpu")
    some = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    np.testing.assert_array_equal(again.backend(some), model.backend(some))
    assert again.classes == model.classes and again.preprocess == model.preprocess


def test_onnx_in_node(model, tmp_path):
    """The example of the README, with onnxruntime-web."""
    node, modules = shutil.which("node"), Path(sys.prefix) / "npm" / "node_modules"
    if not node or not (modules / "onnxruntime-web").is_dir():
        pytest.skip("needs node and onnxruntime-web: npm install --no-save --prefix .venv/npm onnxruntime-web")
    folder = write_export(model, "onnx", tmp_path / "out").folder
    (example,) = re.findall(r"```javascript\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    some = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
    (folder / "pixels.bin").write_bytes(some.tobytes())
    (folder / "run.mjs").write_text(
        f"import {{ createRequire }} from 'module'; import fs from 'fs';\n"
        f"const ort = createRequire('{modules}/')('onnxruntime-web');\n"
        "ort.env.wasm.numThreads = 1;\n"
        "const pixels = new Uint8Array(fs.readFileSync('pixels.bin'));\n"
        + example.replace('"model.onnx"', "new Uint8Array(fs.readFileSync('model.onnx'))")
        + "console.log(JSON.stringify(Array.from(scores.data)));\n"
    )
    done = subprocess.run([node, "run.mjs"], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    expected = softmax(model.backend(some))[0]
    np.testing.assert_allclose(json.loads(done.stdout.splitlines()[-1]), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_in_cpp(form, model, tmp_path):
    """The example of the README, compiled against the headers that come with the Python package."""
    openvino, compiler = pytest.importorskip("openvino", reason="needs openvino"), shutil.which("g++")
    home = Path(openvino.__file__).parent
    libraries_found = sorted((home / "libs").glob("libopenvino.so*"))
    if not compiler or not libraries_found or not (home / "include" / "openvino" / "openvino.hpp").is_file():
        pytest.skip("needs g++ and OpenVINO's headers")
    folder = write_export(model, form, tmp_path / "out").folder
    (example,) = re.findall(r"```cpp\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (folder / "classify.cpp").write_text(example)
    command = [compiler, "-std=c++17", "classify.cpp", "-o", "classify", f"-I{home / 'include'}"]
    command += [str(libraries_found[0]), f"-Wl,-rpath,{home / 'libs'}"]
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stderr[-2000:]
    done = subprocess.run([folder / "classify"], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    place, score = done.stdout.split()
    expected = softmax(np.array([json.loads((folder / "golden.json").read_text())["logits"]], np.float32))[0]
    assert int(place) == expected.argmax()
    np.testing.assert_allclose(float(score), expected.max(), rtol=1e-3)


def test_images_that_are_given_are_compared(model, tmp_path):
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    some = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8)
    done = write_export(model, "onnx", tmp_path / "out", export.Evidence("forty", some))
    assert (done.proof.source, done.proof.agreement.n, done.proof.agreement.value) == ("forty", 40, 1.0)
    assert done.proof.latency > 0 and done.size > sum(a.nbytes for a in model.checkpoint.tensors.values()) / 2
    told = json.loads((done.folder / "proof.json").read_text())
    assert told["folder"] == "out" and told["proof"]["agreement"]["n"] == 40 and told["precision"] == "f32"
    logits = model.backend(some)

    def wrong(batch):
        return model.backend(batch) + np.float32(0.01 * np.abs(logits).max() * (len(batch) > 7))

    with pytest.raises(IncompleteError, match="gives other logits: a difference of 1.0e-02"):
        export.prove(model, wrong, "x", export.Evidence("forty", some))
