"""Pascal VOC."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.scenes import voc_xml, write_image, write_voc
from resnetkit.data import boxes
from resnetkit.errors import DataError

CAT = [("cat", 1.0, 2.0, 11.0, 12.0)]


def test_lists_are_splits(tmp_path: Path) -> None:
    root = write_voc(
        tmp_path / "d", dict.fromkeys("abcd", CAT), {"train": "a", "val": "b", "trainval": "ab", "test": "cx"}
    )
    found = boxes.scan(root)
    assert [(s, found.num_samples(s)) for s in found.given_splits] == [("train", 1), ("val", 1), ("test", 1)]
    assert {each.what: each.examples for each in found.findings} == {
        "images that are not there, but in a list": ("test.txt: x",),
        "images in no list of ImageSets, left out": ("JPEGImages/d.jpg",),
    }
    (root / "ImageSets" / "Main" / "train.txt").unlink()
    assert boxes.scan(root).num_samples("train") == 1  # trainval takes its place; val has its own
    (root / "ImageSets" / "Main" / "test.txt").write_text("b\n")


def test_an_image_in_two_lists(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a.jpg: is in the lists of train and test"):
        boxes.scan(write_voc(tmp_path / "d", {"a": CAT}, {"train": "a", "test": "a"}))


def test_difficult_objects_are_not_judged(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "d", {"a": CAT})
    (root / "Annotations" / "a.xml").write_text(voc_xml("a.jpg", None, CAT, difficult=1))
    found = boxes.scan(root)
    assert found.objects(0).crowds.tolist() == [True]
    assert found.counts("").tolist() == [0]


def test_images_are_found_by_either_name(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "d", {"a": CAT})
    write_image(root / "JPEGImages" / "b.png")
    (root / "Annotations" / "b.xml").write_text(voc_xml("wrong", (60, 40), CAT))
    write_image(root / "JPEGImages" / "c.jpg")  # without an XML
    (root / "Annotations" / "gone.xml").write_text(voc_xml("gone.jpg", (60, 40), CAT))
    found = boxes.scan(root)
    assert [len(found.objects(row).boxes) for row in range(len(found))] == [1, 1, 0]
    assert {each.what: each.examples for each in found.findings} == {
        "images that are not there, left out with their boxes": ("Annotations/gone.xml",),
        "images without a box, kept as empty": ("JPEGImages/c.jpg",),
    }


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        ("<annotation><filename>a.jpg</filename>", r"a.xml: is not XML: no element found: line 1"),
        (
            '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>\n<annotation><filename>&x;</filename></annotation>',
            r"line 1 has a DOCTYPE",
        ),
        (voc_xml("a.jpg", (60, 40), [("", 1, 2, 3, 4)]), r"object 1: it has no name"),
        (voc_xml("a.jpg", (60, 40), CAT).replace("<xmax>11.0", "<xmax>wide"), r"object 1: bndbox/xmax is 'wide'"),
        (voc_xml("a.jpg", (60, 40), CAT).replace("bndbox", "polygon"), r"object 1: bndbox/xmin is ''"),
    ],
)
def test_refused(tmp_path: Path, xml: str, message: str) -> None:
    root = write_voc(tmp_path / "d", {"a": CAT})
    (root / "Annotations" / "a.xml").write_text(xml)
    with pytest.raises(DataError, match=message):
        boxes.scan(root)


def test_a_doctype_in_another_encoding_is_seen(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "d", {"a": CAT})
    hidden = '<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE annotation><annotation/>'.encode("utf-16")
    (root / "Annotations" / "a.xml").write_bytes(hidden)
    with pytest.raises(DataError, match="has a DOCTYPE"):
        boxes.scan(root)


def test_other_xml_is_told(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "d", {"a": CAT})
    (root / "Annotations" / "other.xml").write_text("<project/>")
    assert boxes.scan(root).findings[0].examples == ("Annotations/other.xml",)
    (root / "Annotations" / "again.xml").write_text(voc_xml("a.jpg", (60, 40), CAT))
    with pytest.raises(DataError, match=r"describes JPEGImages/a.jpg, as another XML does"):
        boxes.scan(root)


def test_sizes_and_encodings_that_are_none(tmp_path: Path) -> None:
    write_image(tmp_path / "JPEGImages" / "a.jpg")
    xml = voc_xml("a.jpg", (60, 40), [("cat", 1, 1, 9, 9)]).replace("<width>60", "<width>inf")
    path = tmp_path / "Annotations" / "a.xml"
    path.parent.mkdir()
    path.write_text(xml)
    assert len(boxes.scan(tmp_path)) == 1
    path.write_text(f'<?xml version="1.0" encoding="foo"?>{xml}')
    with pytest.raises(DataError, match="a.xml"):
        boxes.scan(tmp_path)


def test_lists_of_two_years(tmp_path: Path) -> None:
    for year, name in (("VOC2007", "000005"), ("VOC2012", "2008_1")):
        write_voc(tmp_path / year, {name: [("cat", 1, 1, 9, 9)]}, {"train": [name]})
    found = boxes.scan(tmp_path)
    assert len(found) == found.num_samples("train") == 2
