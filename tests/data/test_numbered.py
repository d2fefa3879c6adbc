"""Masks whose numbers are objects."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from data.scenes import write_image, write_mask
from resnetkit.data import boxes
from resnetkit.data.outlines import Outlined
from resnetkit.errors import DataError
from resnetkit.ops import rle

NUMBERS = np.zeros((40, 60), np.uint8)
NUMBERS[5:15, 10:30] = 1
NUMBERS[20:40, 50:60] = 2
NUMBERS[0, 0] = 7
NUMBERS[30, 0:3] = 7  # another part of it


def write(root: Path, mask: np.ndarray = NUMBERS, folder: str = "masks", **how: Any) -> Path:
    write_image(root / "images" / "a.jpg", **how)
    write_mask(root / folder / "a.png", mask)
    return root


def read(root: Path) -> Outlined:
    found = boxes.scan(root, outlines=True)
    assert isinstance(found, Outlined)
    return found


def told(found: Outlined) -> dict[str, tuple[str, ...]]:
    return {each.what: each.examples for each in found.findings}


@pytest.mark.parametrize("folder", ["masks", "instances", "SegmentationObject"])
@pytest.mark.parametrize("packed", ["", "zip"])
def test_each_number_is_an_object(tmp_path: Path, folder: str, packed: str) -> None:
    root = write(tmp_path / "data" / "inner", folder=folder)
    source = root if not packed else Path(shutil.make_archive(str(tmp_path / "packed"), packed, tmp_path / "data"))
    found = read(source)
    assert (found.classes, found.form, told(found)) == (("object",), "masks of objects", {})
    assert found.objects(0).boxes.tolist() == [[10, 5, 30, 15], [50, 20, 60, 40], [0, 0, 3, 31]]
    for region, number in zip(found.regions(0, (60, 40)), (1, 2, 7), strict=True):
        np.testing.assert_array_equal(region.dense(40, 60), number == NUMBERS)
    assert [each.area for each in found.regions(0, (120, 80))] == [800, 800, 16]


def test_the_same_objects_as_coco_has_them(tmp_path: Path) -> None:
    """Boxes, pixels, classes and their names are equal, and so are those of images without an object."""
    rng = np.random.default_rng(0)
    names, images, annotations = ["ground", "cat", "dog"], [], []
    for i in range(4):
        numbers, kinds = np.zeros((40, 60), np.uint16), np.zeros((40, 60), np.uint8)
        for k in range(3 * i):
            x, y = rng.integers(0, 55), rng.integers(0, 35)
            numbers[y : y + rng.integers(1, 20), x : x + rng.integers(1, 20)] = 300 + k
        for number in np.unique(numbers[numbers > 0]).tolist():
            mask, kind = numbers == number, int(rng.integers(1, 3))
            kinds[mask] = kind
            (y,), (x,) = (np.nonzero(mask.any(axis))[:1] for axis in (1, 0))
            box = [int(x[0]), int(y[0]), int(x[-1] - x[0] + 1), int(y[-1] - y[0] + 1)]
            one = {"image_id": i, "category_id": kind, "bbox": box, "iscrowd": 0}
            outline = {"size": [40, 60], "counts": rle.encode(mask)}
            annotations.append({"id": len(annotations), **one, "segmentation": outline})
        images.append({"id": i, "file_name": f"images/{i}.jpg", "width": 60, "height": 40})
        for root in ("coco", "png"):
            write_image(tmp_path / root / "images" / f"{i}.jpg")
        write_mask(tmp_path / "png" / "instances" / f"{i}.png", numbers)
        write_mask(tmp_path / "png" / "classes" / f"{i}.png", kinds)
    categories = [{"id": k, "name": names[k]} for k in (1, 2)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "coco" / "a.json").write_text(json.dumps(content))
    (tmp_path / "png" / "classes.txt").write_text("\n".join(names))
    coco, png = read(tmp_path / "coco"), read(tmp_path / "png")
    assert png.classes == coco.classes and list(png.names) == list(coco.names)
    assert told(png) == {"images without an object, kept as empty": ("images/0.jpg",)}
    for row in range(4):
        one, other = coco.objects(row), png.objects(row)
        np.testing.assert_array_equal(one.boxes, other.boxes)
        np.testing.assert_array_equal(one.labels, other.labels)
        for a, b in zip(coco.regions(row, (60, 40)), png.regions(row, (60, 40)), strict=True):
            assert (a.top, a.left) == (b.top, b.left)
            np.testing.assert_array_equal(a.mask, b.mask)
    assert list(png.outlines.texts) == list(coco.outlines.texts)


def write_voc(root: Path) -> Path:
    """Three images of two objects, with borders; the second object of the last has no class."""
    kinds = np.where(NUMBERS == 1, 15, np.where(NUMBERS == 2, 3, 0)).astype(np.uint8)
    numbers = NUMBERS.copy()
    numbers[4, 10:30] = kinds[4, 10:30] = 255
    numbers[numbers == 7] = 0
    for name in "abc":
        write_image(root / "JPEGImages" / f"{name}.jpg")
        write_mask(root / "SegmentationObject" / f"{name}.png", numbers, palette=True)
        write_mask(root / "SegmentationClass" / f"{name}.png", kinds * (kinds != (3 if name == "c" else 0)))
    write_image(root / "JPEGImages" / "d.jpg")
    return root


def test_voc(tmp_path: Path) -> None:
    root = write_voc(tmp_path)
    found = read(root)
    assert found.classes == ("3", "15")
    assert [found.objects(row).labels.tolist() for row in range(3)] == [[1, 0], [1, 0], [1]]
    assert told(found) == {
        "masks with a border of 255, which is nobody's": tuple(f"SegmentationObject/{k}.png" for k in "abc"),
        "images without a mask, left out": ("JPEGImages/d.jpg",),
        "objects without a class, left out": ("SegmentationObject/c.png: object 2",),
    }
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\n")
    (lists / "val.txt").write_text("c\n")
    found = read(root)
    assert found.given_splits == ("train", "val") and list(found.names) == ["JPEGImages/a.jpg", "JPEGImages/c.jpg"]
    assert told(found)["images in no list of ImageSets, left out"] == ("JPEGImages/b.jpg",)
    (root / "SegmentationClass" / "a.png").unlink()
    assert told(read(root))["images without a mask of classes, left out"] == ("JPEGImages/a.jpg",)


def test_the_class_of_most_pixels(tmp_path: Path) -> None:
    kinds = np.where(NUMBERS == 1, 1, 2).astype(np.uint8)
    kinds[5:15, 28:30] = 2
    write_mask(write(tmp_path) / "classes" / "a.png", kinds)
    (tmp_path / "classes.txt").write_text("ground\ncat\ndog\nowl\n")
    found = read(tmp_path)
    assert found.classes == ("cat", "dog", "owl") and found.objects(0).labels.tolist() == [0, 1, 1]
    assert told(found) == {
        "objects of several classes, taken for the one that most of their pixels have": ("masks/a.png: object 1",),
        "classes without an object": ("owl",),
    }
    (tmp_path / "classes.txt").write_text("ground\ncat\n")
    with pytest.raises(DataError, match=r"masks/a.png: has objects of class 2, and there are 2 classes, from 0"):
        read(tmp_path)


def test_255_is_a_border_or_a_number(tmp_path: Path) -> None:
    black_and_white = read(write(tmp_path / "one", np.where(NUMBERS == 1, 255, 0).astype(np.uint8)))
    assert told(black_and_white) == {"masks of 0 and 255, of one object each": ("masks/a.png",)}
    assert black_and_white.regions(0, (60, 40))[0].area == 200
    many = np.arange(40 * 60).reshape(40, 60) // 9
    through = read(write(tmp_path / "through", many.clip(0, 255).astype(np.uint8)))
    assert len(through.objects(0).labels) == 255
    sixteen = read(write(tmp_path / "sixteen", np.where(NUMBERS == 1, 255, NUMBERS).astype(np.uint16)))
    assert len(sixteen.objects(0).labels) == 3 and not sixteen.findings


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("upright", [False, True])
def test_objects_turn_with_their_image(orientation: int, upright: bool, tmp_path: Path) -> None:
    """Unless their mask is of the size of the upright image alone."""
    if upright and orientation < 5:
        pytest.skip("the sizes are the same")
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(NUMBERS).save(tmp_path / "m.png", exif=exif)
    with Image.open(tmp_path / "m.png") as image:
        want = np.asarray(ImageOps.exif_transpose(image))
    (tmp_path / "m.png").unlink()
    found = read(write(tmp_path, want.copy() if upright else NUMBERS, orientation=orientation))
    for region, box, number in zip(found.regions(0, want.shape[::-1]), found.objects(0).boxes, (1, 2, 7), strict=True):
        np.testing.assert_array_equal(region.dense(*want.shape), want == number)
        assert region.box == tuple(box.tolist())


def test_names_of_one_class(tmp_path: Path) -> None:
    root = write(tmp_path)
    for text, classes in (("cell\n", ("cell",)), ("background\ncell\n", ("cell",)), ("background\n", ("object",))):
        (root / "classes.txt").write_text(text)
        assert read(root).classes == classes
    (root / "classes.txt").write_text("background\ncat\ndog\n")
    with pytest.raises(DataError, match=r"classes.txt: names 2 classes, and nothing says of which each object is"):
        read(root)


def test_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"masks/a.png: is 60 x 20, and its image .*images/a.jpg is 60 x 40"):
        read(write(tmp_path / "size", NUMBERS[:20]))
    root = write(tmp_path / "classes")
    write_mask(root / "classes" / "a.png", NUMBERS[:20])
    with pytest.raises(DataError, match=r"classes/a.png: is 60 x 20, and its image .*images/a.jpg is 60 x 40"):
        read(root)
    root = write(tmp_path / "turned", orientation=6)
    write_mask(root / "classes" / "a.png", NUMBERS.T.copy())
    with pytest.raises(DataError, match=r"classes/a.png: is 40 x 60, and masks/a.png is 60 x 40"):
        read(root)
    with pytest.raises(DataError, match=r"masks/a.png: is a picture of mode RGB, and a mask holds the number of an"):
        read(write(tmp_path / "colour", np.stack([NUMBERS] * 3, 2)))
    root = write(tmp_path / "large", folder="other")
    (root / "masks").mkdir()
    Image.fromarray(NUMBERS.astype(np.int32) * 10_000).save(root / "masks" / "a.tif")
    with pytest.raises(DataError, match=r"masks/a.tif: holds 70000, and numbers of objects are under 65536"):
        read(root)
    photo = np.random.default_rng(0).integers(0, 255, (200, 300), np.uint8)
    root = write(tmp_path / "photo", photo, size=(300, 200))
    with pytest.raises(DataError, match=r"masks/a.png: holds 254 numbers that change from pixel to pixel"):
        read(root)
    root = write(tmp_path / "lossy")
    (root / "masks" / "a.png").unlink()
    Image.fromarray(NUMBERS).save(root / "masks" / "a.jpg")
    with pytest.raises(DataError, match=r"a.jpg: is a mask in a lossy format, in which numbers of objects do not"):
        read(root)


def test_what_has_no_partner_is_told(tmp_path: Path) -> None:
    root = write(tmp_path)
    write_image(root / "images" / "b.jpg")
    write_mask(root / "masks" / "c.png", NUMBERS)
    assert told(read(root)) == {
        "images without a mask, left out": ("images/b.jpg",),
        "masks without an image, left out": ("masks/c.png",),
    }


def test_coco_comes_first_and_boxes_alone_have_none(tmp_path: Path) -> None:
    root = write(tmp_path)
    assert boxes.recognised(root) is None
    content: dict[str, list[Any]] = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
    content["images"].append({"id": 1, "file_name": "images/a.jpg", "width": 60, "height": 40})
    (root / "a.json").write_text(json.dumps(content))
    assert read(root).form == "COCO JSON"
