"""Images with masks."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.scenes import write_image, write_mask
from resnetkit.data import masks
from resnetkit.errors import DataError

MASK = np.zeros((40, 60), np.uint8)
MASK[:, 10:] = 1
MASK[30:, 50:] = 2
MASK[0, 0] = 255


def write(root: Path, mask: np.ndarray = MASK, orientation: int = 1, palette: bool = False) -> Path:
    write_image(root / "images" / "a.jpg", orientation=orientation)
    write_mask(root / "masks" / "a.png", mask, palette)
    return root


@pytest.mark.parametrize("palette", [False, True])
@pytest.mark.parametrize("packed", ["", "zip", "tar"])
def test_read(tmp_path: Path, palette: bool, packed: str) -> None:
    root = write(tmp_path / "data" / "inner", palette=palette)
    source = root if not packed else Path(shutil.make_archive(str(tmp_path / "packed"), packed, tmp_path / "data"))
    found = masks.scan(source)
    assert (len(found), found.classes) == (1, ("0", "1", "2"))
    np.testing.assert_array_equal(found.mask(0), MASK)
    assert found.counts("").tolist() == [399, 1900, 100]
    assert found.marks.sizes.tolist() == [[60, 40]]


LAYOUTS = {
    "camvid": ("{split}/a.png", "{split}annot/a.png"),
    "split inside": ("images/{split}/a.jpg", "masks/{split}/a.png"),
    "split outside": ("{split}/images/a.jpg", "{split}/labels/a.png"),
    "voc": ("{split}/JPEGImages/a.jpg", "{split}/SegmentationClass/a.png"),
    "suffix": ("{split}/images/a.jpg", "{split}/masks/a_mask.png"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path: Path, layout: str) -> None:
    for split in ("train", "val"):
        image, mask = (tmp_path / each.format(split=split) for each in LAYOUTS[layout])
        write_image(image)
        write_mask(mask, MASK + (split == "val") * (MASK < 2).astype(np.uint8))
    found = masks.scan(tmp_path)
    assert found.given_splits == ("train", "val")
    part = found.select("val")
    assert part.mask(0)[20, 20] == 2
    assert found.select("train").mask(0)[20, 20] == 1
    assert part.fingerprint() != found.fingerprint()


def test_names_and_ignored_classes(tmp_path: Path) -> None:
    root = write(tmp_path)
    (root / "classes.txt").write_text("road\nUnlabelled\nsky\nrain\n")
    found = masks.scan(root)
    assert found.classes == ("road", "sky", "rain")
    assert found.mask(0)[20, 20] == 255
    assert found.mask(0)[35, 55] == 1
    assert {each.what: each.examples for each in found.findings} == {
        "classes that are ignored": ("Unlabelled (1)",),
        "classes without a pixel": ("rain",),
    }
    assert masks.scan(root, ignore=["sky"]).classes == ("road", "rain")
    assert masks.scan(root, ignore=[0]).classes == ("sky", "rain")
    with pytest.raises(DataError, match="there is no class 'snow' to ignore"):
        masks.scan(root, ignore=["snow"])


def test_an_index_can_be_ignored_without_names(tmp_path: Path) -> None:
    found = masks.scan(write(tmp_path), ignore=[2])
    assert found.classes == ("0", "1")
    assert found.mask(0)[35, 55] == 255


@pytest.mark.parametrize(("names", "classes"), [("", ("background", "foreground")), ("cell\n", ("background", "cell"))])
def test_black_and_white(tmp_path: Path, names: str, classes: tuple[str, str]) -> None:
    root = write(tmp_path, np.where(MASK == 1, 255, 0).astype(np.uint8))
    if names:
        (root / "classes.txt").write_text(names)
    found = masks.scan(root)
    assert found.classes == classes
    np.testing.assert_array_equal(found.mask(0), MASK == 1)


def test_one_bit_and_sixteen(tmp_path: Path) -> None:
    one = tmp_path / "one" / "masks" / "a.png"
    write(tmp_path / "one")
    Image.fromarray(MASK == 1).save(one)
    assert masks.scan(tmp_path / "one").mask(0)[20, 20] == 1
    Image.fromarray(MASK.astype(np.uint16)).save(one)
    np.testing.assert_array_equal(masks.scan(tmp_path / "one").mask(0), MASK)
    Image.fromarray(MASK.astype(np.uint16) * 300).save(one)
    with pytest.raises(DataError, match=r"a.png: holds 10964, and indices of classes are under 256"):
        masks.scan(tmp_path / "one")


@pytest.mark.parametrize("orientation", range(2, 9))
def test_masks_turn_with_their_image(tmp_path: Path, orientation: int) -> None:
    """The mask marks the white part of the image, however both are stored."""
    pixels = np.where(MASK == 1, 255, 0).astype(np.uint8)
    exif = Image.Exif()
    exif[274] = orientation
    (tmp_path / "images").mkdir()
    Image.fromarray(pixels).convert("RGB").save(tmp_path / "images" / "a.png", exif=exif)
    write_mask(tmp_path / "masks" / "a.png", MASK)
    found = masks.scan(tmp_path)
    from resnetkit.data.image import Preprocess, decode, shown

    upright = np.asarray(shown(decode(tmp_path / "images" / "a.png", Preprocess())))[:, :, 0]
    np.testing.assert_array_equal(found.mask(0) == 1, upright > 128)
    assert found.findings[0].what == "images that EXIF turns, with their masks"


def test_an_upright_mask_stays(tmp_path: Path) -> None:
    found = masks.scan(write(tmp_path, MASK.T.copy(), orientation=6))
    np.testing.assert_array_equal(found.mask(0), MASK.T)


def test_refused(tmp_path: Path, photos: Path) -> None:
    assert masks.recognised(photos) is None
    with pytest.raises(DataError, match="holds no images with masks"):
        masks.scan(photos)
    root = write(tmp_path / "size", MASK[:20])
    with pytest.raises(DataError, match=r"masks/a.png: is 60 x 20, and its image .*images/a.jpg is 60 x 40"):
        masks.scan(root)
    root = write(tmp_path / "colour")
    Image.fromarray(MASK).convert("RGB").save(root / "masks" / "a.png")
    with pytest.raises(DataError, match=r"masks/a.png: is a picture of mode RGB"):
        masks.scan(root)
    root = write(tmp_path / "values")
    (root / "classes.txt").write_text("road\nsky\n")
    with pytest.raises(DataError, match=r"masks/a.png: holds 2, and there are 2 classes, from 0"):
        masks.scan(root)
    root = write(tmp_path / "damaged")
    (root / "masks" / "a.png").write_bytes((root / "masks" / "a.png").read_bytes()[:60])
    with pytest.raises(DataError, match=r"masks/a.png: "):
        masks.scan(root)
    root = write(tmp_path / "lossy")
    (root / "masks" / "a.png").unlink()
    Image.fromarray(MASK).save(root / "masks" / "a.jpg")
    with pytest.raises(DataError, match=r"a.jpg: is a mask in a lossy format"):
        masks.scan(root)
    root = write(tmp_path / "names")
    (root / "classes.txt").write_text("road\nroad\n")
    with pytest.raises(DataError, match="names 'road' twice"):
        masks.scan(root)


def test_what_has_no_partner_is_told(tmp_path: Path) -> None:
    root = write(tmp_path)
    write_image(root / "images" / "b.jpg")
    write_mask(root / "masks" / "c.png", MASK)
    assert {each.what: each.examples for each in masks.scan(root).findings} == {
        "images without a mask, left out": ("images/b.jpg",),
        "masks without an image, left out": ("masks/c.png",),
    }


def test_an_index_is_ignored_as_a_word_too(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "a.png")
    mask = np.zeros((40, 60), np.uint8)
    mask[:5], mask[5:9] = 1, 7
    (tmp_path / "masks").mkdir()
    Image.fromarray(mask).save(tmp_path / "masks" / "a.png")
    (tmp_path / "classes.txt").write_text("sky\nroad\n")
    assert masks.scan(tmp_path, ignore=["7"]).classes == masks.scan(tmp_path, ignore=[7]).classes == ("sky", "road")


def test_an_image_that_cannot_be_read_is_for_the_decoder_to_tell(tmp_path: Path) -> None:
    """As with boxes: the scan goes on, so that a share of such images may be left out."""
    for name in ("a", "b"):
        write_image(tmp_path / "images" / f"{name}.jpg")
        write_mask(tmp_path / "masks" / f"{name}.png", np.full((40, 60), ord(name) - ord("a"), np.uint8))
    (tmp_path / "images" / "b.jpg").write_bytes(b"nothing")
    found = masks.scan(tmp_path)
    assert len(found) == 2 and found.mask(1).shape == (40, 60)
    assert [each.what for each in found.findings] == ["images that cannot be read, with the size of their mask"]


def test_lists_are_splits(tmp_path: Path) -> None:
    for name in "abc":
        write_image(tmp_path / "JPEGImages" / f"{name}.jpg")
        write_mask(tmp_path / "SegmentationClass" / f"{name}.png", MASK)
    for folder, split, text in (("Segmentation", "train", "a"), ("Segmentation", "val", "c"), ("Main", "test", "b")):
        (tmp_path / "ImageSets" / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "ImageSets" / folder / f"{split}.txt").write_text(f"{text}\n")
    found = masks.scan(tmp_path)
    assert list(found.names) == ["JPEGImages/a.jpg", "JPEGImages/c.jpg"] and found.given_splits == ("train", "val")
    assert [each.what for each in found.findings] == ["images in no list of ImageSets, left out"]
    (tmp_path / "ImageSets" / "Segmentation" / "train.txt").write_text("")
    (tmp_path / "ImageSets" / "Segmentation" / "val.txt").write_text("x\n")
    with pytest.raises(DataError, match="lists in ImageSets name none"):
        masks.scan(tmp_path)
