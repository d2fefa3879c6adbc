"""The contract that every task keeps."""

import dataclasses
import io
import json

import numpy as np
import pytest
from PIL import Image

from resnetkit.data.image import Preprocess
from resnetkit.errors import DataError, UsageError
from resnetkit.tasks.task import TASKS, task_named

CLASSES = ("10", "9", "<b>")
EVERY = pytest.mark.parametrize("name", TASKS)
PREPROCESS = Preprocess(size=16)


@pytest.fixture
def root(tmp_path):
    for number, name in enumerate(CLASSES):
        (tmp_path / name).mkdir()
        Image.new("RGB", (20, 30), (80 * number, 0, 0)).save(tmp_path / name / "a.png")
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
    assert all(ending == ending.lower() and ending.startswith(".") for ending in modality.extensions)
    dataset = modality.scan(root)
    assert len(dataset) == 3 and set(dataset.classes) == set(CLASSES)
    values = [modality.preprocess(modality.read(path, PREPROCESS), PREPROCESS) for path in dataset.files]
    assert all(value.dtype == np.uint8 and value.shape == (16, 16, 3) for value in values)
    batch = modality.normalise(np.stack(values), PREPROCESS)
    assert batch.shape == (3, 3, 16, 16) and batch.dtype == np.float32
    for path, value in zip(dataset.files, values, strict=True):
        again = modality.preprocess(modality.read(path.read_bytes(), PREPROCESS), PREPROCESS)
        np.testing.assert_array_equal(again, value)
        with Image.open(io.BytesIO(modality.thumbnail(path))) as image:
            assert image.format == "JPEG" and max(image.size) <= 96


@EVERY
@pytest.mark.parametrize("source", [None, 5, 1.5, {"a": 1}, object()], ids=lambda value: type(value).__name__)
def test_what_cannot_be_read_is_said(name, source, tmp_path):
    modality = TASKS[name].modality
    with pytest.raises(UsageError, match=f"cannot predict a {type(source).__name__}"):
        modality.read(source, PREPROCESS)
    for missing in (tmp_path / "gone.png", b"", str(tmp_path)):
        with pytest.raises(DataError):
            modality.read(missing, PREPROCESS)


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
