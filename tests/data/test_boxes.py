"""Which form boxes are in, and what all forms have in common."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from data.scenes import coco_json, voc_xml, write_image, write_json, write_voc, write_yolo
from resnetkit.data import boxes
from resnetkit.data.annotated import Boxed
from resnetkit.errors import DataError

BOX = [10.0, 5.0, 30.0, 25.0]
FORMS = ("COCO JSON", "Pascal VOC", "YOLO")


def write(form: str, root: Path, size: tuple[int, int] = (60, 40), orientation: int = 1) -> Path:
    """One image of 60 x 40 with one box, BOX, of a cat."""
    image = write_image(root / "images" / "train" / "a.jpg", (60, 40), orientation)
    if form == "COCO JSON":
        content = coco_json({1: ("a.jpg", *size)}, [(1, 3, [10, 5, 20, 20])], {3: "cat"})
        write_json(root / "annotations.json", content)
    elif form == "Pascal VOC":
        image.with_suffix(".xml").write_text(voc_xml("a.jpg", size, [("cat", *BOX)]), encoding="utf-8")
    else:
        write_yolo(root, {}, "names: [cat]")
        (root / "labels" / "train").mkdir(parents=True)
        text = f"0 {20 / size[0]} {15 / size[1]} {20 / size[0]} {20 / size[1]}\n"
        (root / "labels" / "train" / "a.txt").write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("packed", ["", "zip", "tar"])
def test_recognised_in_place(tmp_path: Path, form: str, packed: str) -> None:
    root = write(form, tmp_path / "data" / "inner")
    source = root if not packed else Path(shutil.make_archive(str(tmp_path / "packed"), packed, tmp_path / "data"))
    found = boxes.scan(source)
    assert (found.form, found.classes, len(found)) == (form, ("cat",), 1)
    np.testing.assert_allclose(found.objects(0).boxes, [BOX], atol=1e-4)
    assert found.objects(0).boxes.dtype == np.float32
    with found.files[0].open("rb") as file:
        assert file.read(2) == b"\xff\xd8"  # a JPEG, in the archive too
    assert found.truth.sizes.tolist() == [[60, 40]]
    if form != "COCO JSON":
        assert found.given_splits == ("train",)


@pytest.mark.parametrize("form", FORMS)
def test_boxes_of_an_upright_annotation_stay(tmp_path: Path, form: str) -> None:
    """EXIF 6 shows an image of 60 x 40 as 40 x 60, and the annotation is for that."""
    found = boxes.scan(write(form, tmp_path / "data", size=(40, 60), orientation=6))
    np.testing.assert_allclose(found.objects(0).boxes, [BOX], atol=1e-4)
    assert found.truth.sizes.tolist() == [[40, 60]]


@pytest.mark.parametrize("form", FORMS[:2])
@pytest.mark.parametrize(
    ("orientation", "box"),
    [(2, [30, 5, 50, 25]), (3, [30, 15, 50, 35]), (4, [10, 15, 30, 35]), (5, [5, 10, 25, 30])]
    + [(6, [15, 10, 35, 30]), (7, [15, 30, 35, 50]), (8, [5, 30, 25, 50])],
)
def test_boxes_turn_with_their_image(tmp_path: Path, form: str, orientation: int, box: list[float]) -> None:
    found = boxes.scan(write(form, tmp_path / "data", orientation=orientation))
    np.testing.assert_allclose(found.objects(0).boxes, [box], atol=1e-4)
    assert [each.what for each in found.findings] == ["images that EXIF turns, with their boxes"]


@pytest.mark.parametrize("form", FORMS[:2])
def test_another_size_is_refused(tmp_path: Path, form: str) -> None:
    with pytest.raises(DataError, match=r"a.jpg: is 60 x 40, and its annotation is for 600 x 400"):
        boxes.scan(write(form, tmp_path / "data", size=(600, 400)))


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    many: list[tuple[str, float, float, float, float]] = [("cat", 1, 1, 5, 5)]
    many += [("cat", 5, 5, 5, 9)] * 12 + [("cat", 30, 5, 20, 9), ("dog", 70, 1, 80, 9), ("dog", 50, 1, 80, 9)]
    many += [("dog", float("nan"), 1, 2, 3), ("dog", 2, 2, 3, 3)]
    found = boxes.scan(write_voc(tmp_path / "data", {"a": many, "b": []}))
    told = {each.what: each for each in found.findings}
    assert {what: each.count for what, each in told.items()} == {
        "boxes without area, left out": 13,
        "boxes outside of their image, left out": 1,
        "boxes that reached over the edge of their image, clipped": 1,
        "boxes that are not finite, left out": 1,
        "images without a box, kept as empty": 1,
    }
    assert len(told["boxes without area, left out"].examples) == 10
    assert told["boxes outside of their image, left out"].examples == ("JPEGImages/a.jpg: object 15, dog",)
    assert found.objects(0).boxes.tolist() == [[1, 1, 5, 5], [50, 1, 60, 9], [2, 2, 3, 3]]
    assert found.objects(1).boxes.shape == (0, 4)
    assert found.counts("").tolist() == [1, 2]


def test_splits_keep_their_boxes(tmp_path: Path) -> None:
    images = {f"{k}": [("cat", k, 1, k + 5, 9)] for k in range(6)}
    found = boxes.scan(write_voc(tmp_path / "data", images, {"train": "015", "val": "2", "test": "34"}))
    part = found.select("test").take(np.array([1, 0]))
    assert isinstance(part, Boxed)
    assert [int(part.objects(row).boxes[0, 0]) for row in (0, 1)] == [4, 3]
    assert [name[-5] for name in part.names] == ["4", "3"]
    assert part.fingerprint() != found.fingerprint()


def test_other_boxes_are_another_data_set(tmp_path: Path) -> None:
    one, other = (write_voc(tmp_path / name, {"a": [("cat", 1, 1, x, 9)]}) for name, x in (("a", 5), ("b", 6)))
    assert boxes.scan(one).fingerprint() != boxes.scan(other).fingerprint()
    assert boxes.scan(one).fingerprint() == boxes.scan(one).fingerprint()


def test_nothing_or_two_forms_are_refused(tmp_path: Path, photos: Path) -> None:
    assert boxes.recognised(photos) is None
    with pytest.raises(DataError, match="holds no boxes in a form that is known"):
        boxes.scan(photos)
    root = write("COCO JSON", tmp_path / "both")
    write("Pascal VOC", root)
    with pytest.raises(DataError, match="both COCO JSON and Pascal VOC"):
        boxes.scan(root)
    assert boxes.scan(root / "annotations.json").form == "COCO JSON"
    with pytest.raises(DataError, match="there is no such file or folder"):
        boxes.scan(tmp_path / "nowhere")
    (root / "images" / "train" / "a.jpg").unlink()
    with pytest.raises(DataError, match=r"none of their images; 1 images that are not there.*: a.jpg"):
        boxes.scan(root / "annotations.json")


def test_unreadable_images_are_told(tmp_path: Path) -> None:
    root = write("Pascal VOC", tmp_path / "data")
    (root / "images" / "train" / "a.jpg").write_bytes(b"no image")
    found = boxes.scan(root)
    assert found.findings[0].what.startswith("images that cannot be read")
    assert found.objects(0).boxes.tolist() == [BOX]
