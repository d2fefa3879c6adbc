"""A model folder is whole and sound, or it is refused; no pickle, no torch."""

import json
import os
import pickle
import stat
import sys
import time
import warnings

import numpy as np
import pytest
import safetensors.numpy

from resnetkit import checkpoint, files
from resnetkit.checkpoint import Meta, card, read, timm_config, write
from resnetkit.data.image import Preprocess
from resnetkit.errors import ModelError, ResourceError, UsageError
from resnetkit.models import build
from resnetkit.ops.intervals import wilson
from resnetkit.weights.read import read_state
from weights.conftest import python
from weights.headers import MEASURE, check_measured, header, hostile

FILES = ["README.md", "config.json", "manifest.json", "model.json", "model.safetensors"]
HOSTILE = (
    "<script>alert(1)</script>",
    "..",
    "../../etc/passwd",
    "x" * 300,
    "=cmd()",
    "two\nlines",
    '"`|',
    "🐈",
    "con ",
)


def meta(**changes):
    values = {
        "task": "classify",
        "variant": "resnet18",
        "options": {"in_channels": 3},
        "classes": ("cat", "dog", "zebra"),
        "preprocess": json.loads(json.dumps(Preprocess(size=32).as_dict())),
        "weights": "IMAGENET1K_V1",
        "scores": {"accuracy": wilson(9, 10).as_dict(), "recall/x": wilson(0, 0).as_dict()},
    }
    return Meta(**{**values, **changes})


def tensors(classes=3, **changes):
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(classes, 4)).astype(np.float32), np.zeros(classes, np.float32)
    return {"fc.weight": weight, "fc.bias": bias, "bn1.running_var": np.ones(2, np.float32), **changes}


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "model", meta(), tensors())


def seal(folder):
    """Make the manifest again, as one who changes a model on purpose would."""
    (folder / files.MANIFEST).unlink()
    files._write_manifest(folder)
    return folder


def edit(folder, **changes):
    values = json.loads((folder / "model.json").read_text()) | changes
    (folder / "model.json").write_text(json.dumps({k: v for k, v in values.items() if v is not ...}))
    return seal(folder)


def refused(folder, message):
    with pytest.raises(ModelError) as caught:
        read(folder)
    line = str(caught.value)
    assert message in line and str(folder) in line and "\n" not in line
    assert caught.value.exit_code == 5 and caught.value.fix


def test_round_trip(folder):
    found = read(folder)
    assert found.meta == meta() and found.folder == folder
    assert found.tensors.keys() == tensors().keys()
    for name, array in tensors().items():
        assert found.tensors[name].dtype == array.dtype and found.tensors[name].tobytes() == array.tobytes()
    assert sorted(os.listdir(folder)) == FILES
    assert os.listdir(folder.parent) == ["model"]


def test_a_run_folder_is_read_by_its_model(folder):
    assert read(folder.parent).folder == folder


def test_tensors_that_are_not_contiguous(tmp_path):
    weight = np.arange(12, dtype=np.float32).reshape(4, 3).T
    found = read(write(tmp_path / "m", meta(), tensors(**{"fc.weight": weight})))
    np.testing.assert_array_equal(found.tensors["fc.weight"], weight)


@pytest.mark.parametrize(("name", "step"), [(name, 7 if name.startswith("model.s") else 3) for name in FILES])
def test_a_flipped_bit_anywhere_is_refused(folder, name, step):
    original = (folder / name).read_bytes()
    # the manifest's own "format" key is the one place that nothing depends on
    spared = original.index(b'"files"') if name == "manifest.json" else 0
    for position in range(spared, len(original), step):
        damaged = bytearray(original)
        damaged[position] ^= 1 << position % 7
        (folder / name).write_bytes(damaged)
        with pytest.raises(ModelError) as caught:
            read(folder)
        assert caught.value.exit_code == 5 and "\n" not in str(caught.value)
    (folder / name).write_bytes(original)
    assert read(folder).meta == meta()


@pytest.mark.parametrize("name", FILES)
def test_truncated_extended_or_missing(folder, name):
    original = (folder / name).read_bytes()
    for size in (0, 1, len(original) // 2, len(original) - 2):
        (folder / name).write_bytes(original[:size])
        refused(folder, "manifest cannot be read" if name == "manifest.json" else f"corrupt: {size:,} of")
    (folder / name).write_bytes(original + b"x")
    refused(folder, "manifest cannot be read" if name == "manifest.json" else "corrupt: ")
    (folder / name).unlink()
    refused(folder, {"manifest.json": "has no manifest", "model.json": "holds no model.json"}.get(name, "is missing"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "is of format 2, this version reads up to 1 (update resnetkit)"),
        ({"format": "1"}, "is of format 1"),
        ({"format": ...}, "cannot be read as a model.json"),
        ({"classes": ...}, "does not say its classes"),
        ({"classes": []}, "does not say its classes"),
        ({"classes": "abc"}, "does not say its classes"),
        ({"preprocess": ...}, "does not say its preprocess"),
        ({"preprocess": {}}, "does not say its preprocess"),
        ({"preprocess": [1]}, "does not say its preprocess"),
        ({"task": ...}, "does not say its task"),
        ({"variant": None}, "does not say its variant"),
        ({"options": ...}, "does not say its options"),
        ({"classes": ["a", "b"]}, "names 2 classes for a head of 3"),
        ({"classes": ["a", "b", "a"]}, "names the class 'a' twice"),
    ],
    ids=str,
)
def test_a_model_json_that_does_not_say_enough(folder, changes, message):
    refused(edit(folder, **changes), message)


@pytest.mark.parametrize("text", ["", "[]", "1", '{"format": 1', "\xff", "[" * 100_000, '{"format": NaN}'])
def test_a_model_json_that_is_none(folder, text):
    (folder / "model.json").write_text(text, encoding="latin-1")
    refused(seal(folder), "is of format nan" if "NaN" in text else "cannot be read as a model.json")


def test_keys_of_later_versions_are_passed_over(folder):
    assert read(edit(folder, more=1, scores=..., weights=...)).meta == meta(scores={}, weights="none")


BAD = {
    "NaN": ({"fc.weight": np.full((3, 4), np.nan, np.float32)}, "fc.weight holds NaN or infinite values"),
    "infinite": ({"x": np.array([1, -np.inf], np.float16)}, "x holds NaN or infinite values"),
    "negative variance": ({"bn1.running_var": np.array([1, -1e-9], np.float32)}, "holds negative variances"),
    "all zero": ({"fc.weight": np.zeros((3, 4), np.float32)}, "all weights are zero"),
    "no head": ({"fc.bias": None}, "the tensor fc.bias is missing"),
    "a scalar for a head": ({"fc.bias": np.array(1, np.float32)}, "names 3 classes for a head of 1"),
    "a matrix for a head": ({"fc.bias": np.ones((3, 1), np.float32)}, "names 3 classes for a head of 3"),
}


@pytest.mark.parametrize("name", BAD)
def test_unsound_weights_are_refused(folder, name):
    changes, message = BAD[name]
    kept = {key: array for key, array in tensors(**changes).items() if array is not None}
    (folder / "model.safetensors").write_bytes(safetensors.numpy.save(kept))
    refused(seal(folder), message)


DTYPES = {"float16": "<f2", "float32": "<f4", "float64": "<f8"}


@pytest.mark.parametrize("name", DTYPES)
def test_floats_of_numpy_are_read_as_they_are(tmp_path, name):
    weight = np.array([[0.5, -2, 1, 4]] * 3).astype(DTYPES[name])
    found = read(write(tmp_path / "m", meta(), tensors(**{"fc.weight": weight}))).tensors["fc.weight"]
    assert found.dtype == np.dtype(name) and found.tolist() == weight.tolist()


def test_tensors_of_the_other_byte_order_are_written_as_little_endian(tmp_path):
    weight = np.arange(12, dtype=">f4").reshape(3, 4)
    folder = write(tmp_path / "m", meta(), tensors(**{"fc.weight": weight}))
    np.testing.assert_array_equal(read(folder).tensors["fc.weight"], weight)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04K\x01.",
        (2**63 - 1).to_bytes(8, "little") + b"{}",
        header(b"{}" + b" " * 6),
        header(b"[" * 50_000),
        header(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}', bytes(4)),
        header(b'{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}}', bytes(4)),
        header(b'{"fc.bias":{"dtype":"BF16","shape":[3],"data_offsets":[0,6]}}', bytes(6)),
        header(b'{"fc.bias":{"dtype":"F8_E4M3","shape":[3],"data_offsets":[0,3]}}', bytes(3)),
    ],
    ids=["empty", "pickle", "2^63", "no tensors", "deep", "short", "overflow", "bfloat16", "float8"],
)
def test_a_weights_file_that_is_none(folder, content):
    (folder / "model.safetensors").write_bytes(content)
    refused(seal(folder), "")


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux only")
def test_hostile_headers_are_refused_at_once_and_in_little_memory(tmp_path):
    names = set()
    for name, content in hostile():
        folder = write(tmp_path / name, meta(), tensors())
        (folder / "model.safetensors").write_bytes(content)
        seal(folder)
        names.add(name)
    done = python("from resnetkit.checkpoint import read" + MEASURE, *tmp_path.iterdir())
    assert done.returncode == 0, done.stderr
    check_measured(done.stdout, names)


class Canary:
    def __reduce__(self):
        return os.mkdir, ("canary",)


@pytest.mark.parametrize("name", ["model.pth", "model.pt", "model.bin", "model.pkl", "model.safetensors"])
def test_a_file_is_never_a_model(tmp_path, run_cli, name):
    (tmp_path / name).write_bytes(pickle.dumps(Canary()))
    refused(tmp_path / name, "is a file, not a model folder (give a run folder or a model folder; weights go to train")
    code, out, err = run_cli("predict", tmp_path / name, tmp_path)
    assert (code, out) == (5, "") and "is a file, not a model folder" in err and err.count("\n") == 1
    assert not (tmp_path / "canary").exists()


def test_folders_that_are_no_models(tmp_path):
    refused(tmp_path / "gone", "there is no such model")
    refused(tmp_path, "holds no model.json")
    (tmp_path / "recipe.toml").touch()
    refused(tmp_path, "is a run without a model yet (finish it with train --resume)")


def test_paths_that_cannot_be(tmp_path):
    refused(tmp_path / ("x" * 5000), "there is no such model")
    with pytest.raises(ModelError, match="there is no such model"):
        read(tmp_path / "a\0b")


def test_a_file_that_may_not_be_read(folder):
    (folder / "model.safetensors").chmod(0)
    folder.parent.chmod(0o755)
    code = """
import os
from pathlib import Path
from resnetkit.checkpoint import read
if os.geteuid() == 0:
    os.seteuid(65534)
read(Path("model"))
"""
    done = python(code, cwd=folder.parent)
    assert done.returncode == 5, done.stderr
    assert done.stdout.startswith("model/model.safetensors: cannot be read: Permission denied (")


FOREIGN = {
    "torch.distributed.checkpoint": [".metadata", "__0_0.distcp"],
    "Orbax": ["_CHECKPOINT_METADATA", "manifest.ocdbt", "d/x"],
    "TensorFlow SavedModel": ["saved_model.pb", "variables/variables.index"],
    "TensorFlow checkpoint": ["checkpoint", "model.ckpt-1.index", "model.ckpt-1.data-00000-of-00001"],
    "": ["config.json", "pytorch_model.bin"],
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_folders_of_others_are_refused_and_named(tmp_path, run_cli, kind):
    for name in FOREIGN[kind]:
        (tmp_path / "m" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "m" / name).write_bytes(pickle.dumps(Canary()))
    refused(
        tmp_path / "m", "is not a resnetkit checkpoint" + (f" but a{'n' * (kind == 'Orbax')} {kind}" if kind else "")
    )
    code, out, err = run_cli("predict", tmp_path / "m", tmp_path)
    assert (code, out) == (5, "") and "is not a resnetkit checkpoint" in err and err.count("\n") == 1
    assert not (tmp_path / "canary").exists()


def test_a_checkpoint_of_torch_distributed(tmp_path):
    """A real one, as torch writes it."""
    import torch
    import torch.distributed.checkpoint as dcp

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is one process only
        dcp.save({"fc.bias": torch.zeros(3)}, checkpoint_id=tmp_path / "dcp", no_dist=True)
    refused(tmp_path / "dcp", "is not a resnetkit checkpoint but a torch.distributed.checkpoint")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ("a",)}, "names 1 classes for a head of 3"),
        ({"classes": ("a", "b", "b")}, "names the class 'b' twice"),
        ({"classes": ("a", "b", "\udcff")}, "not valid Unicode"),
    ],
)
def test_classes_that_do_not_fit_are_not_written(tmp_path, changes, message):
    with pytest.raises(UsageError, match=message):
        write(tmp_path / "m", meta(**changes), tensors())
    assert os.listdir(tmp_path) == []


def test_an_existing_folder_is_not_overwritten(folder):
    before = (folder / "model.json").read_bytes()
    with pytest.raises(ResourceError, match="not empty"):
        write(folder, meta(classes=("x", "y", "z")), tensors())
    assert (folder / "model.json").read_bytes() == before and os.listdir(folder.parent) == ["model"]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_modes_follow_the_umask(tmp_path, mask):
    before = os.umask(mask)
    try:
        folder = write(tmp_path / "m", meta(), tensors())
    finally:
        os.umask(before)
    assert {stat.S_IMODE((folder / name).stat().st_mode) for name in FILES} == {0o666 & ~mask}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o777 & ~mask


def test_hostile_class_names_survive(tmp_path):
    folder = write(tmp_path / "m", meta(classes=HOSTILE, scores={}), tensors(len(HOSTILE)))
    assert read(folder).meta.classes == HOSTILE
    assert json.loads((folder / "config.json").read_text())["label_names"] == list(HOSTILE)
    assert os.listdir(tmp_path) == ["m"] and sorted(os.listdir(folder)) == FILES


@pytest.mark.parametrize("key", ["task", "variant", "weights", "written_by", "classes"])
@pytest.mark.parametrize("size", [4097, 10_000_000])
def test_names_without_end_are_refused(folder, key, size):
    value = "x" * size
    changed = edit(folder, **{key: ["a", value, "b"] if key == "classes" else value})
    refused(changed, "of more than 4,096" if key == "classes" else f"says its {key} in no text of at most 4,096")
    assert len(str(pytest.raises(ModelError, read, changed).value)) < 1000


def test_long_names_are_not_written(tmp_path):
    with pytest.raises(UsageError, match="a class of more than 4,096 characters"):
        write(tmp_path / "m", meta(classes=("a", "b", "x" * 4097)), tensors())
    folder = write(tmp_path / "m", meta(classes=("a", "b", "x" * 4096)), tensors())
    assert read(folder).meta.classes[2] == "x" * 4096


@pytest.mark.parametrize("value", [1, None, ["IMAGENET1K_V1"], {"a": 1}])
def test_a_source_that_is_no_text(folder, value):
    refused(edit(folder, weights=value), "says its weights in no text")


@pytest.mark.parametrize("name", ["model.json", "manifest.json", "README.md", "config.json"])
def test_a_huge_file_is_refused_without_being_read(folder, name):
    with (folder / name).open("r+b") as file:
        file.truncate(1 << 40)
    started = time.perf_counter()
    refused(folder, "")
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "<script>alert(1)</script>", "nul\0", "resnet18/../.."])
def test_names_are_never_paths(folder, name):
    """They come back as they are, and what builds a network of them says that there is none."""
    found = read(edit(folder, variant=name, weights=name)).meta
    assert (found.variant, found.weights) == (name, name)
    with pytest.raises(UsageError, match="there is no model"):
        build(found.variant)


def test_timm_config(folder):
    found = json.loads((folder / "config.json").read_text())
    assert found["architecture"] == "resnet18" and found["num_classes"] == 3 and found["num_features"] == 512
    assert found["label_names"] == ["cat", "dog", "zebra"] and found["model_args"] == {"in_chans": 3}
    expected = {
        "input_size": [3, 32, 32],
        "interpolation": "bilinear",
        "crop_pct": 0.875,
        "crop_mode": "center",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "num_classes": 3,
    }
    assert found["pretrained_cfg"].items() >= expected.items()


@pytest.mark.parametrize(("resize", "mode"), [("crop", "center"), ("squash", "squash"), ("letterbox", "border")])
def test_timm_config_crop_mode(resize, mode):
    found = timm_config(meta(preprocess=Preprocess(resize=resize).as_dict(), variant="resnet50"))
    assert found["pretrained_cfg"]["crop_mode"] == mode and found["num_features"] == 2048
    assert found["pretrained_cfg"]["crop_pct"] == (0.875 if resize == "crop" else 1.0)


@pytest.mark.parametrize(
    ("variant", "options"),
    [
        ("resnet18", {"stem": "small"}),
        ("resnet18", {"shortcut": "A"}),
        ("resnet18", {"shortcut": "C"}),
        ("resnet18", {"replace_stride_with_dilation": [False, True, True]}),
        ("resnet34d", {"stem": "imagenet"}),
        ("resnet34d", {"shortcut": "B"}),
    ],
    ids=str,
)
def test_networks_that_timm_does_not_have(tmp_path, variant, options):
    folder = write(tmp_path / "m", meta(variant=variant, options=options), tensors())
    assert not (folder / "config.json").exists()
    assert "library_name: resnetkit" in (folder / "README.md").read_text()
    assert read(folder).meta.options == options


def test_card():
    text = card(meta())
    assert text.startswith("---\nlibrary_name: timm\n") and "| accuracy | 0.9000 |" in text and "recall/x" not in text
    assert "IMAGENET1K_V1" in text and "`zebra`" in text and "mean [0.485" in text
    assert "No scores were measured" in card(meta(scores={}))
    assert "`49` ..." in card(meta(classes=tuple(map(str, range(60)))))


def test_no_torch_is_needed():
    import subprocess
    import sys

    code = "import sys; import resnetkit.checkpoint; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
    assert checkpoint.FORMAT == 1


# ONNX is a format of export; as a model or as weights it is refused by its content, so nothing that it names is opened.
ONNX = b"\x08\x08\x12\x07pytorch:\x20\n\x06custom" + b"location" + b"../../../../etc/passwd"


@pytest.mark.parametrize("name", ["model.onnx", "model.safetensors"])
def test_onnx_is_never_a_model(tmp_path, name):
    """D16, D17: whatever its external data, operators and size."""
    (tmp_path / name).write_bytes(ONNX)
    with pytest.raises(ModelError) as caught:
        read(tmp_path / name)
    assert caught.value.exit_code == 5
    with pytest.raises(ModelError, match="is neither safetensors nor a torch checkpoint"):
        read_state(tmp_path / name)
