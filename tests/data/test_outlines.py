"""Outlines of objects: what is kept of them, and where their pixels lie."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.scenes import write_image
from resnetkit.data import boxes, outlines
from resnetkit.data.outlines import Outlined
from resnetkit.ops import rle

SQUARE = [10.0, 10, 30, 10, 30, 20, 10, 20]  # 20 x 10 pixels


def write(root: Path, segmentations: list[Any], orientation: int = 1, size: tuple[int, int] = (60, 40)) -> Path:
    """An image of 60 x 40 with an object for each of some outlines."""
    write_image(root / "a.jpg", (60, 40), orientation)
    box = [10, 10, 20, 10]
    annotations = [
        {
            "id": k,
            "image_id": 1,
            "category_id": 7,
            "bbox": box,
            "iscrowd": int(isinstance(each, dict)),
            "segmentation": each,
        }
        for k, each in enumerate(segmentations)
    ]
    images = [{"id": 1, "file_name": "a.jpg", "width": size[0], "height": size[1]}]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 7, "name": "cat"}]}
    (root / "a.json").write_text(json.dumps(content))
    return root


def read(root: Path) -> Outlined:
    found = boxes.scan(root, outlines=True)
    assert isinstance(found, Outlined)
    return found


def test_polygons_and_run_lengths_are_the_same_pixels(tmp_path: Path) -> None:
    mask = np.zeros((40, 60), bool)
    mask[10:20, 10:30] = True
    runs = {"size": [40, 60], "counts": rle.runs(mask)}
    text = {"size": [40, 60], "counts": rle.encode(mask)}
    found = read(write(tmp_path / "d", [[SQUARE], runs, text]))
    assert not found.findings
    assert found.objects(0).crowds.tolist() == [False, True, True]
    for region in found.regions(0, (60, 40)):
        np.testing.assert_array_equal(region.dense(40, 60), mask)
    for region in found.regions(0, (120, 80)):
        assert region.box == (20, 20, 60, 40) and region.area == 800
    again = read(write(tmp_path / "e", [[SQUARE], runs, runs]))
    assert again.fingerprint() != found.fingerprint()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("upright", [False, True])
def test_exif_turns_outlines_with_their_image(orientation: int, upright: bool, tmp_path: Path) -> None:
    """As it turns the image itself; unless they are stated to be of the upright one."""
    lying = orientation >= 5
    if upright and not lying:
        pytest.skip("the sizes are the same")
    size = (40, 60) if upright else (60, 40)
    (region,) = read(write(tmp_path / "d", [[SQUARE]], orientation, size)).regions(0, (40, 60) if lying else (60, 40))
    mask = np.zeros(size[::-1], np.uint8)
    mask[10:20, 10:30] = 255
    exif = Image.Exif()
    exif[274] = 1 if upright else orientation
    Image.fromarray(mask).save(tmp_path / "mask.png", exif=exif)
    from PIL import ImageOps

    with Image.open(tmp_path / "mask.png") as image:
        want = np.asarray(ImageOps.exif_transpose(image)) > 0
    np.testing.assert_array_equal(region.dense(*want.shape), want)


@pytest.mark.parametrize(
    "bad",
    [
        None,
        [],
        "polygon",
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4, 5]],
        [[1, 1, 5, 5, 9, 9]],
        [[1, 1, float("nan"), 5, 9, 2]],
        [[1, 1, 1e9, 5, 9, 2]],
        [[1, 1, "5", "x", 9, 2]],
        [[1, 1, [2], 5, 9, 2]],
        {"size": [40, 60], "counts": [5, 5]},
        {"size": [40, 60], "counts": [2400]},
        {"size": [40, 60], "counts": [-5, 2405]},
        {"size": [40, 60], "counts": [1.5, 2398.5]},
        {"size": [60, 40], "counts": [100, 2300]},
        {"size": [40, 60], "counts": "?????"},
        {"size": [40, 60], "counts": "\u1234"},
        {"size": [40, 60], "counts": 7},
        {"size": [10**9, 10**9], "counts": [1, 10**18 - 1]},
        {"counts": [2400]},
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_no_outline_is_left_out_and_told(bad: Any, tmp_path: Path) -> None:
    found = read(write(tmp_path / "d", [[SQUARE], bad]))
    assert len(found.regions(0, (60, 40))) == len(found.objects(0).labels) == 1
    (finding,) = found.findings
    assert finding.what == "objects without a sound outline, left out" and finding.examples == ("a.json: annotation 1",)


def test_a_polygon_beside_good_ones_is_left_out(tmp_path: Path) -> None:
    found = read(write(tmp_path / "d", [[SQUARE, [1, 1, 2, 2]]]))
    assert found.regions(0, (60, 40))[0].area == 200
    assert [each.what for each in found.findings] == [
        "polygons without three corners or an area, left out of their object"
    ]


def test_outlines_follow_their_boxes(tmp_path: Path) -> None:
    """A box that is left out takes its outline with it; images come in the order of their names."""
    root = write(tmp_path / "d", [[SQUARE]])
    write_image(root / "Z.jpg", (60, 40))
    content = json.loads((root / "a.json").read_text())
    content["images"].insert(0, {"id": 2, "file_name": "Z.jpg", "width": 60, "height": 40})
    other = [0, 0, 6, 0, 6, 6, 0, 6]
    first = content["annotations"][0]
    content["annotations"] += [
        {**first, "id": 5, "image_id": 2, "bbox": [1, 1, 0, 4], "segmentation": [SQUARE]},
        {**first, "id": 6, "image_id": 2, "bbox": [0, 0, 6, 6], "segmentation": [other]},
    ]
    (root / "a.json").write_text(json.dumps(content))
    found = read(root)
    areas = {name: [r.area for r in found.regions(row, (60, 40))] for row, name in enumerate(found.names)}
    assert areas == {"Z.jpg": [36], "a.jpg": [200]}
    assert [r.area for r in found.take(np.array([1])).regions(0, (60, 40))] == [200]
    assert outlines.drawn(found.outlines.texts[0], (60, 40), (30, 20)).area == 9
    assert outlines.sound(json.dumps([other]), (60, 40))[1] == 0


def test_other_forms_have_no_outlines(tmp_path: Path) -> None:
    from data.scenes import write_yolo

    found = boxes.scan(write_yolo(tmp_path / "y", {"a": "0 0.5 0.5 0.1 0.1\n"}), outlines=True)
    assert not isinstance(found, Outlined)
