"""COCO JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data.scenes import coco_json, write_image, write_json
from resnetkit.data import boxes
from resnetkit.errors import DataError

SIZE = (60, 40)


def write(root: Path, content: dict[str, Any], *names: str) -> Path:
    for name in names or ("a.jpg", "b.jpg"):
        write_image(root / "images" / name)
    write_json(root / "annotations.json", content)
    return root


def test_ids_with_gaps(tmp_path: Path) -> None:
    images = {70: ("b.jpg", *SIZE), 9: ("a.jpg", *SIZE)}
    found = boxes.scan(
        write(tmp_path, coco_json(images, [(70, 90, [1, 2, 3, 4]), (9, 2, [5, 6, 7, 8])], {90: "toothbrush", 2: "car"}))
    )
    assert (found.classes, found.category_ids) == (("car", "toothbrush"), (2, 90))
    assert [name[-5] for name in found.names] == ["a", "b"]
    assert found.truth.ids.tolist() == [9, 70]
    assert found.objects(1).boxes.tolist() == [[1, 2, 4, 6]]
    assert [found.objects(row).labels.tolist() for row in (0, 1)] == [[0], [1]]


def test_crowds_polygons_and_empty_images(tmp_path: Path) -> None:
    content = coco_json({1: ("a.jpg", *SIZE), 2: ("b.jpg", *SIZE)}, [(1, 1, [1, 2, 3, 4])] * 4, {1: "car", 5: "bus"})
    first, second, third, fourth = content["annotations"]
    first["iscrowd"] = 1
    second |= {"bbox": None, "segmentation": [[1, 1, 9, 1, 9, 7.5, 1, 7]]}
    third["bbox"] = [1, 2, None, 4]
    fourth["category_id"] = 77
    found = boxes.scan(write(tmp_path, content))
    assert found.objects(0).crowds.tolist() == [True, False]
    assert found.objects(0).boxes.tolist() == [[1, 2, 4, 6], [1, 1, 9, 7.5]]
    assert found.counts("").tolist() == [1, 0]
    assert {each.what: each.examples for each in found.findings} == {
        "images without a box, kept as empty": ("images/b.jpg",),
        "boxes that are not finite, left out": ("annotations.json: annotation 3",),
        "boxes of an unknown category, left out": ("annotations.json: annotation 4, category 77",),
        "classes without a box": ("bus (id 5)",),
        "objects have an outline, which --task instances learns": ("annotations.json: annotation 2",),
    }


@pytest.mark.parametrize("layout", ["official", "roboflow"])
def test_splits(tmp_path: Path, layout: str) -> None:
    for split in ("train", "val"):
        content = coco_json({1: ("a.jpg", *SIZE)}, [(1, 1, [1, 2, 3, 4 + (split == "val")])], {1: "car"})
        folder = tmp_path / (f"{split}2017" if layout == "official" else split.replace("val", "valid"))
        write_image(folder / "a.jpg")
        official = tmp_path / "annotations" / f"instances_{split}2017.json"
        write_json(official if layout == "official" else folder / "_annotations.coco.json", content)
    if layout == "official":
        write_json(tmp_path / "annotations" / "captions_val2017.json", {"images": []})
    found = boxes.scan(tmp_path)
    assert found.given_splits == ("train", "val")
    assert found.select("val").objects(0).boxes.tolist() == [[1, 2, 4, 7]]
    assert found.truth.ids.tolist() == [0, 1]  # both files count from 1


def test_images_that_are_not_there(tmp_path: Path) -> None:
    content = coco_json({1: ("a.jpg", *SIZE), 2: ("gone.jpg", *SIZE)}, [(2, 1, [1, 2, 3, 4])], {1: "car"})
    found = boxes.scan(write(tmp_path, content))
    assert list(found.names) == ["images/a.jpg"]
    assert found.findings[0].examples == ("gone.jpg",)


def broken(change: str) -> dict[str, Any]:
    content = coco_json(
        {1: ("a.jpg", *SIZE), 2: ("b.jpg", *SIZE)}, [(1, 1, [1, 2, 3, 4]), (2, 1, [1, 2, 3, 4])], {1: "car", 2: "bus"}
    )
    if change == "image twice":
        content["images"][1]["id"] = 1
    elif change == "annotation twice":
        content["annotations"][1]["id"] = 1
    elif change == "no image":
        content["annotations"][1]["image_id"] = 99
    elif change == "id as text":
        content["images"][0]["id"] = "1"
    elif change == "same name":
        content["categories"][1]["name"] = "car"
    else:  # corners instead of sizes
        for each in content["annotations"]:
            each["bbox"] = [30, 20, 55, 38]
    return content


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("image twice", r"annotations.json: 1 ids of images are used more than once: 1"),
        ("annotation twice", r"1 ids of annotations are used more than once: 1"),
        ("no image", r"1 annotations are of no image: 2"),
        ("id as text", r"id is '1', not a whole number"),
        ("same name", r"two categories are called 'car'"),
        ("corners", r"2 of 2 boxes end outside of their image, as if they were x1, y1, x2, y2"),
    ],
)
def test_refused(tmp_path: Path, change: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        boxes.scan(write(tmp_path, broken(change)))


def test_damaged_json_names_the_place(tmp_path: Path) -> None:
    root = write(tmp_path, broken("image twice"))
    whole = (root / "annotations.json").read_text()
    (root / "annotations.json").write_text(whole[:-40])
    with pytest.raises(DataError, match=r"annotations.json: is not JSON: .*line 1 column"):
        boxes.scan(root / "annotations.json")
    (root / "annotations.json").write_text("[" * 100_000)
    with pytest.raises(DataError, match="is not JSON"):
        boxes.scan(root / "annotations.json")
    (root / "annotations.json").write_text(json.dumps({"images": []}))
    with pytest.raises(DataError, match="it has no list of annotations, categories"):
        boxes.scan(root / "annotations.json")


def test_one_image_in_two_splits(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "a.jpg")
    for split in ("train", "val"):
        write_json(tmp_path / f"{split}.json", coco_json({1: ("a.jpg", *SIZE)}, [], {1: "car"}))
    with pytest.raises(DataError, match="is in train and again in val.json"):
        boxes.scan(tmp_path)


def test_files_without_a_split_beside_each_other(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_json(tmp_path / f"{name}.json", coco_json({}, [], {1: "car"}))
    with pytest.raises(DataError, match=r"which split is one.json\? There are 2 annotation files"):
        boxes.scan(tmp_path)


def test_two_images_of_one_name(tmp_path: Path) -> None:
    for folder in ("left", "right"):
        write_image(tmp_path / folder / "a.jpg")
    write_json(tmp_path / "annotations.json", coco_json({1: ("a.jpg", *SIZE)}, [], {1: "car"}))
    with pytest.raises(DataError, match="there are 2 images called a.jpg"):
        boxes.scan(tmp_path)
    write_json(tmp_path / "annotations.json", coco_json({1: ("../right/a.jpg", *SIZE)}, [], {1: "car"}))
    assert list(boxes.scan(tmp_path).names) == ["right/a.jpg"]


def test_a_split_that_is_cut_short_is_told(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_image(tmp_path / split / f"{split}.jpg")
        content = coco_json({1: (f"{split}.jpg", 60, 40)}, [(1, 1, [1, 1, 9, 9])], {1: "cat"})
        write_json(tmp_path / f"{split}.json", content)
    cut = (tmp_path / "train.json").read_text()[:-5]
    (tmp_path / "train.json").write_text(cut)
    with pytest.raises(DataError, match=r"train.json: is not JSON: .*char \d+"):
        boxes.scan(tmp_path)


def test_an_image_of_another_folder_is_another_image(tmp_path: Path) -> None:
    write_image(tmp_path / "cam2" / "0001.jpg")
    write_image(tmp_path / "cam1" / "0002.jpg")
    images = {1: ("cam1/0001.jpg", 60, 40), 2: ("cam1/0002.jpg", 60, 40)}
    write_json(tmp_path / "all.json", coco_json(images, [(1, 1, [1, 1, 9, 9])], {1: "cat"}))
    found = boxes.scan(tmp_path)
    assert len(found) == 1 and "cam1/0001.jpg" in found.findings[0].examples


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ('"width": 60', '"width": NaN'),
        ('"width": 60', '"width": Infinity'),
        ('"image_id": 1', '"image_id": [1]'),
        ('"category_id": 1', '"category_id": [1]'),
        ('"bbox": [1', f'"bbox": [{"9" * 400}'),
    ],
)
def test_values_of_a_wrong_kind_end_in_no_bug(tmp_path: Path, change: str, told: str) -> None:
    write_image(tmp_path / "a.jpg")
    text = json.dumps(coco_json({1: ("a.jpg", 60, 40)}, [(1, 1, [1, 1, 9, 9])], {1: "cat"}))
    assert change in text
    (tmp_path / "all.json").write_text(text.replace(change, told))
    try:
        found = boxes.scan(tmp_path)
    except DataError as error:
        assert "all.json" in str(error)
    else:
        assert len(found) == 1
