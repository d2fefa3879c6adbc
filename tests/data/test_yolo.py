"""YOLO's text files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data.scenes import write_image, write_yolo
from resnetkit.data import boxes
from resnetkit.errors import DataError

BOX = "1 0.5 0.5 0.5 0.25\n"  # of 60 x 40: 15, 15, 45, 25


def test_boxes_and_polygons(tmp_path: Path) -> None:
    text = f"{BOX}\n0 0.1 0.1 0.5 0.1 0.5 0.9\n"
    found = boxes.scan(write_yolo(tmp_path, {"train/a": text, "val/b": ""}))
    assert (found.classes, found.given_splits) == (("cat", "dog"), ("train", "val"))
    np.testing.assert_allclose(found.objects(0).boxes, [[15, 15, 45, 25], [6, 4, 30, 36]], atol=1e-4)
    assert found.objects(0).labels.tolist() == [1, 0]
    assert found.findings[0].examples == ("images/val/b.jpg",)


def test_split_first_and_labels_without_images(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        write_yolo(tmp_path / split, {"a": BOX}, "")
    (tmp_path / "data.yaml").write_text("names: {0: cat, 1: dog}\ntrain: ../train/images\nval: ../valid/images\n")
    (tmp_path / "train" / "labels" / "gone.txt").write_text(BOX)
    found = boxes.scan(tmp_path)
    assert found.given_splits == ("train", "val", "test")
    assert found.findings[0].examples == ("train/labels/gone.txt",)


def test_splits_by_the_yaml(tmp_path: Path) -> None:
    settings = "path: .\ntrain: images/one\nval: lists/v.txt\nnames: [cat, dog]\n"
    root = write_yolo(tmp_path, {"one/a": BOX, "two/b": BOX, "two/c": BOX}, settings)
    (root / "lists").mkdir()
    (root / "lists" / "v.txt").write_text("./images/two/b.jpg\n")
    found = boxes.scan(root / "data.yaml")
    assert [found.num_samples(split) for split in ("train", "val", "")] == [1, 1, 1]
    (root / "lists" / "v.txt").write_text("./images/one/a.jpg\n")
    with pytest.raises(DataError, match="is in train and in val by data.yaml"):
        boxes.scan(root)


@pytest.mark.parametrize("file", ["classes.txt", "obj.names"])
def test_names_in_a_text_file(tmp_path: Path, file: str) -> None:
    root = write_yolo(tmp_path, {"a": BOX}, "")
    (root / file).write_text("cat\ndog\n")
    assert boxes.scan(root).classes == ("cat", "dog")


def test_labels_beside_their_images(tmp_path: Path) -> None:
    write_image(tmp_path / "photos" / "a.jpg").with_suffix(".txt").write_text(BOX)
    assert boxes.recognised(tmp_path) is None  # any text might lie there
    (tmp_path / "photos" / "classes.txt").write_text("cat\ndog\n")
    assert boxes.scan(tmp_path).objects(0).labels.tolist() == [1]


def test_without_names(tmp_path: Path) -> None:
    found = boxes.scan(write_yolo(tmp_path, {"a": BOX}, ""))
    assert found.classes == ("0", "1")
    assert found.findings[0].what.startswith("classes without names")


def test_an_unknown_class_is_left_out(tmp_path: Path) -> None:
    found = boxes.scan(write_yolo(tmp_path, {"a": BOX + "7 0.5 0.5 0.1 0.1\n"}))
    assert len(found.objects(0).boxes) == 1
    assert found.findings[0].examples == ("labels/a.txt: line 2, class 7",)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("cat 0.5 0.5 0.1 0.1", r"labels/a.txt: line 2 is 'cat 0.5 0.5 0.1 0.1' \(numbers only\)"),
        ("0 0.5 0.5 0.1", r"line 2 has 4 numbers"),
        ("0 0.5 0.5 0.1 0.1 0.9", r"line 2 has 6 numbers"),
        ("0.5 0.5 0.5 0.1 0.1", r"line 2 has the class 0.5"),
        ("0 30 20 10 10", r"line 2 has 30 \(coordinates are shares"),
        ("-1 0.5 0.5 0.1 0.1", r"line 2 has the class -1"),
    ],
)
def test_refused(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        boxes.scan(write_yolo(tmp_path, {"a": f"{BOX}{line}\n"}))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("names: [a, [", r"data.yaml: is not YAML"),
        ("names: !!python/object:os.system {}", r"is not YAML"),
        ("names: {0: a, 5: b}", r"not numbered one after another"),
        ("names: [a, a]", r"two classes are called 'a'"),
        ("names: 5", r"neither a list nor a table"),
    ],
)
def test_settings_refused(tmp_path: Path, settings: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        boxes.scan(write_yolo(tmp_path, {"a": BOX}, settings))


@pytest.mark.parametrize("word", ["99999999", "1000000000000", "nan", "inf"])
def test_a_class_of_a_number_that_none_has(tmp_path: Path, word: str) -> None:
    root = write_yolo(tmp_path, {"a": f"{word} 0.5 0.5 0.1 0.1\n"}, "")
    with pytest.raises(DataError, match=r"line 1 (has the class|is) "):
        boxes.scan(root)


def test_names_are_words_as_they_stand(tmp_path: Path) -> None:
    settings = "names: [yes, no, 007, 2020-99-99]\n"
    assert boxes.scan(write_yolo(tmp_path, {"a": BOX}, settings)).classes == ("yes", "no", "007", "2020-99-99")


def test_names_that_refer_to_themselves_are_refused_at_once(tmp_path: Path) -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    for one, other in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{other}: &{other} [{', '.join([f'*{one}'] * 9)}]")
    root = write_yolo(tmp_path, {"a": BOX}, "\n".join([*lines, "names: *i"]))
    with pytest.raises(DataError, match="holds what is no name"):
        boxes.scan(root)


def test_the_yaml_that_is_named_counts(tmp_path: Path) -> None:
    root = write_yolo(tmp_path, {"a": BOX}, "names: [one, two]\n")
    (root / "mine.yaml").write_text("names: [wanted, other]\n")
    assert boxes.scan(root / "mine.yaml").classes == ("wanted", "other")
    assert boxes.scan(root).classes == ("one", "two")
