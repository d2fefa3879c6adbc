"""The contract that every task keeps."""

import dataclasses
import io
import json

import numpy as np
import pytest
from PIL import Image

from resnetkit.data import example
from resnetkit.data.audio import AudioPreprocess
from resnetkit.data.image import Preprocess
from resnetkit.data.tokens import TextPreprocess
from resnetkit.errors import DataError, UsageError
from resnetkit.tasks.task import TASKS, task_for, task_named
from senses import tone, write_wav

CLASSES = ("10", "9", "<b>")
EVERY = pytest.mark.parametrize("name", TASKS)
PREPROCESS = {
    "images": Preprocess(size=16),
    "sounds": AudioPreprocess(rate=8_000, seconds=0.5, mels=24),
    "texts": TextPreprocess(length=16),
}
INPUTS = {"images": (3, 16, 16), "sounds": (1, 24, 48), "texts": (16,)}
NOT_ONE = {"images": "cannot predict a {}", "sounds": "a {} is not a sound", "texts": "a {} is not a text"}


@pytest.fixture
def root(name, tmp_path):
    noun = TASKS[name].modality.noun
    for number, label in enumerate(CLASSES):
        (tmp_path / label).mkdir()
        if noun == "images":
            Image.new("RGB", (20, 30), (80 * number, 0, 0)).save(tmp_path / label / "a.png")
        elif noun == "sounds":
            pytest.importorskip("soundfile")
            write_wav(tmp_path / label / "a.wav", tone("low", number))
        else:
            (tmp_path / label / "a.txt").write_text(f"text {number}", encoding="utf-8")
    return tmp_path


@EVERY
def test_frozen(name):
    task = task_named(name)
    assert task is TASKS[name]
    for value, field in ((task, "target"), (task.modality, "read"), (task.target, "decode")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, field, None)


def test_unknown():
    with pytest.raises(UsageError, match="there is no task 'detekt' .one of classify"):
        task_named("detekt")


@EVERY
def test_from_files_to_the_input_of_a_network(name, root):
    modality = TASKS[name].modality
    prepare = PREPROCESS[modality.noun]
    assert all(ending == ending.lower() and ending.startswith(".") for ending in modality.extensions)
    dataset = modality.scan(root)
    assert len(dataset) == 3 and set(dataset.classes) == set(CLASSES)
    assert dataset.noun == modality.noun and task_for(TASKS[name].target.prepare(dataset)) == name
    assert modality.copies(dataset, 1).tolist() == [0, 1, 2]
    values = [modality.preprocess(modality.read(file, prepare), prepare) for file in dataset.files]
    assert all(value.dtype == prepare.dtype and value.shape == prepare.shape for value in values)
    assert modality.prepared(prepare.as_dict(), root) == prepare
    batch = modality.normalise(np.stack(values), prepare)
    assert batch.shape == (3, *INPUTS[modality.noun])
    assert batch.dtype == (np.int64 if modality.noun == "texts" else np.float32)
    for file, value in zip(dataset.files, values, strict=True):
        with file.open("rb") as opened:
            again = modality.preprocess(modality.read(opened.read(), prepare), prepare)
        np.testing.assert_array_equal(again, value)
        np.testing.assert_array_equal(modality.parts(modality.read(file, prepare), prepare)[0].shape, value.shape)
        stored, aspect, _ = example.of(file, prepare)
        np.testing.assert_array_equal(stored, value)
        assert aspect > 0 and np.isfinite(aspect)
        if modality.thumbnail is not None:
            with Image.open(io.BytesIO(modality.thumbnail(file))) as image:
                assert image.format == "JPEG" and max(image.size) <= 192


@EVERY
@pytest.mark.parametrize("source", [None, 5, 1.5, {"a": 1}, object()], ids=lambda value: type(value).__name__)
def test_what_cannot_be_read_is_said(name, source, tmp_path):
    modality = TASKS[name].modality
    prepare = PREPROCESS[modality.noun]
    with pytest.raises(UsageError, match=NOT_ONE[modality.noun].format(type(source).__name__)):
        modality.read(source, prepare)
    for missing in (tmp_path / "gone.png", b"", tmp_path):
        with pytest.raises(DataError):
            modality.read(missing, prepare)


@EVERY
def test_from_logits_to_answers(name):
    target = TASKS[name].target
    targets = target.encode(["9", "10"], CLASSES)
    logits = np.stack([[-5, 5, -5], [5, -5, -5]]).astype(np.float32)
    rows = [target.decode(row, CLASSES, "x.png", 2).row() for row in logits]
    assert [row["label"] for row in rows] == ["9", "10"] and all(row["path"] == "x.png" for row in rows)
    json.dumps(rows, allow_nan=False)
    found = target.metrics(logits, targets, CLASSES)
    assert found[target.headline].value == 1.0 and found[target.headline].n == 2
    with pytest.raises(DataError):
        target.encode(["unknown"], CLASSES)
