"""A CSV of several labels an image, in both its forms; those of one label are in test_dataset.py."""

import numpy as np
import pytest
from PIL import Image

from resnetkit.data.dataset import CODES, refuse_untrainable, several_labels
from resnetkit.errors import DataError
from resnetkit.tasks.task import IMAGE, TASKS, task_for

COLUMN = "path,labels\na.png,dog|cat\nb.png,\nc.png, 10 |cat|cat\n"
COLUMNS = "path,cat,dog,10\na.png,1,1,0\nb.png,0,0,0\nc.png,True,False,1\n"


def write(root, text):
    for name in "abc":
        Image.new("RGB", (8, 8)).save(root / f"{name}.png")
    (root / "labels.csv").write_text(text, encoding="utf-8")
    return root / "labels.csv"


@pytest.mark.parametrize("text", [COLUMN, COLUMNS])
def test_both_forms_are_one_data_set(tmp_path, text):
    dataset = IMAGE.scan(write(tmp_path, text))
    assert dataset.several and task_for(dataset) == "multilabel" and dataset.classes == ("10", "cat", "dog")
    assert list(dataset.names) == ["a.png", "b.png", "c.png"]
    assert dataset.targets.tolist() == [[0, 1, 1], [0, 0, 0], [1, 1, 0]]
    assert dataset.take(np.array([2])).targets.tolist() == [[1, 1, 0]] and not dataset.has_splits


def test_splits_and_the_order_of_lines(tmp_path):
    text = "split,labels,path\nval,x,c.png\ntrain,x|y,b.png\ntest,,a.png\n"
    dataset = IMAGE.scan(write(tmp_path, text))
    assert list(dataset.names) == ["a.png", "b.png", "c.png"]
    assert [CODES[code] for code in dataset.splits] == ["test", "train", "val"]
    assert dataset.targets.tolist() == [[0, 0], [1, 1], [1, 0]]
    assert dataset.num_samples("test") == 1 and dataset.counts("train").tolist() == [1, 1]
    refuse_untrainable(dataset, tmp_path)  # a held-out split need not have every label


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,labels\na.png\n", "line 2 is cut short"),
        ("path,labels\na.png,x\n,y\n", "line 3 has no path or no label"),
        ("path,label,labels\na.png,x,y\n", "line 1 has the columns label and labels"),
        ("path,cat,dog\na.png,1,0\nb.png,1,2\n", "line 3 has '2' in column 'dog'"),
        ("path,cat,width\na.png,1,640\n", "line 2 has '640' in column 'width'"),
        ("path,cat,dog\na.png,1,0\nb.png,1\n", "line 3 has None in column 'dog'"),
        ("path,cat,cat\na.png,1,0\n", "line 1 has a label 'cat': named twice"),
        ("path,a|b\na.png,1\n", "line 1 has a label 'a|b'"),
        ("path,cat,\na.png,1,0\n", "line 1 has a label ''"),
        ("path,labels\na.png,cat|Cat\n", "differ only in case"),
        ("path,kind\na.png,x\n", "line 1 has no column label"),
        ("path\na.png\n", "line 1 has no column label"),
        ("path,labels,split\na.png,x,train\nb.png,x,dev\n", "line 3 has the split 'dev'"),
        ("path,labels\na.png,x\ngone.png,x\n", "line 3: there is no file gone.png"),
    ],
)
def test_refused(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(DataError) as caught:
        IMAGE.scan(path)
    assert message in str(caught.value) and str(path) in str(caught.value) and caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("text", "message", "allowed"),
    [
        ("path,labels\na.png,\nb.png,\n", "has no label at all", False),
        ("path,cat,dog\na.png,1,0\nb.png,0,0\n", "has no images of label 'dog'", True),
        ("path,cat,dog,split\na.png,1,0,train\nb.png,0,1,val\n", "label 'dog' is in val or test, but not", False),
    ],
)
def test_what_cannot_be_learnt_from(tmp_path, text, message, allowed):
    dataset = IMAGE.scan(write(tmp_path, text))
    with pytest.raises(DataError, match=message):
        refuse_untrainable(dataset, tmp_path)
    if allowed:
        refuse_untrainable(dataset, tmp_path, allow_empty_class=True)


def test_one_label_can_be_learnt(tmp_path):
    refuse_untrainable(IMAGE.scan(write(tmp_path, "path,broken\na.png,1\nb.png,0\n")), tmp_path)


def test_one_class_an_image_as_several_labels(tmp_path):
    """--task multilabel: a class is a label, and "cat|dog" two."""
    dataset = IMAGE.scan(write(tmp_path, "path,label\na.png,dog\nb.png,cat|dog\nc.png,cat\n"))
    assert not dataset.several and task_for(dataset) == "classify"
    several = TASKS["multilabel"].target.prepare(dataset)
    assert several.classes == ("cat", "dog") and several.targets.tolist() == [[0, 1], [1, 1], [1, 0]]
    assert TASKS["multilabel"].target.prepare(several) is several
    with pytest.raises(DataError, match="has several labels an image"):
        TASKS["classify"].target.prepare(several)
    with pytest.raises(DataError, match="holds no label"):
        several_labels(IMAGE.scan(write(tmp_path, "path,label\na.png,|\nb.png,x\n")))


@pytest.mark.parametrize(
    "text",
    [
        "path,label,group\nb.png,x,anna\na.png,y,ben\nc.png,x,anna\n",
        "path,x,group\nb.png,1,anna\na.png,0,ben\nc.png,1,anna\n",
    ],
)
def test_groups(tmp_path, text):
    dataset = IMAGE.scan(write(tmp_path, text))
    assert list(dataset.names) == ["a.png", "b.png", "c.png"] and dataset.groups.tolist() == [1, 0, 0]
    assert dataset.take(np.array([2, 0])).groups.tolist() == [0, 1] and "group" not in dataset.classes
    assert several_labels(dataset).groups.tolist() == [1, 0, 0] if not dataset.several else True
    with pytest.raises(DataError, match="line 3 has no group, but others do"):
        IMAGE.scan(write(tmp_path, "path,label,group\na.png,x,anna\nb.png,y,\n"))
    assert IMAGE.scan(write(tmp_path, "path,label,group\na.png,x,\nb.png,y,\n")).groups is None
    text = "path,x,group\na.png,1,0\nb.png,0,1\n"  # a label that happens to be called so
    with pytest.raises(DataError, match="a column group of 0 and 1"):
        IMAGE.scan(write(tmp_path, text))
