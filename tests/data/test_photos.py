"""Every photo of ../shared/data/photos does what the golden table says.

photos.csv was checked by looking at the pictures: which way is up, that colours are right, white under what is
transparent. `python tests/data/test_photos.py` writes it anew; look again before you keep what it says.
"""

import contextlib
import csv
import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnetkit.data import formats
from resnetkit.data.image import EXTENSIONS, Preprocess, decode, pixels, stored_size
from resnetkit.errors import DataError

PHOTOS = Path(__file__).parents[3] / "shared" / "data" / "photos"
TABLE = Path(__file__).with_name("photos.csv")
COLUMNS = ("file", "format", "stored", "mode", "upright", "verdict", "first", "grid")
WHOLE, SMALL = Preprocess(draft=0), Preprocess(size=16)
GREY = Preprocess(draft=0, mean=(0.5,), std=(0.5,))
EXACT = ("PNG", "GIF", "BMP", "TIFF")  # the others may differ by a few levels from one build of a decoder to the next
HEIF = importlib.util.find_spec("pillow_heif") is not None

pytestmark = pytest.mark.skipif(not PHOTOS.is_dir(), reason="no ../shared/data/photos")


def colours(array):
    return np.asarray(array, np.uint8).tobytes().hex()


def row_of(path):
    """What happens to a file: header, size once upright, verdict, its first pixel, and 4 x 4 means of its pixels."""
    row = dict.fromkeys(COLUMNS, "") | {"file": path.relative_to(PHOTOS).as_posix()}
    with contextlib.suppress(DataError, OSError), formats.QUIET, open(path, "rb") as file:
        image = formats.open_image(file, "")
        row |= {"format": image.format, "stored": f"{image.width}x{image.height}", "mode": image.mode}
    try:
        image = decode(path, WHOLE)
    except DataError as error:
        verdict = re.sub(r" \(\d+ bytes not processed\)", "", str(error).removeprefix(f"{path}: "))
        return row | {"verdict": verdict}
    means = image.resize((4, 4), Image.Resampling.BOX)
    row |= {"upright": f"{image.width}x{image.height}", "verdict": "ok"}
    return row | {"first": colours(image.getpixel((0, 0))), "grid": colours(means)}


def table():
    with TABLE.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


ROWS = table() if TABLE.exists() else []


def levels(text):
    return np.frombuffer(bytes.fromhex(text), np.uint8).astype(int)


def test_the_table_is_whole():
    files = {path.relative_to(PHOTOS).as_posix() for path in PHOTOS.glob("*/*")}
    assert {row["file"] for row in ROWS} == files and len(ROWS) == 71
    assert all(Path(name).suffix.lower() in EXTENSIONS for name in files)


@pytest.mark.parametrize("row", ROWS, ids=[row["file"] for row in ROWS])
def test_photo(row):
    if row["format"] == "HEIF" and not HEIF:
        pytest.skip("pillow-heif is not installed")
    found = row_of(PHOTOS / row["file"])
    same = ("file", "format", "stored", "mode", "upright", "verdict")
    assert {key: found[key] for key in same} == {key: row[key] for key in same}
    if row["verdict"] == "ok":
        exact = row["format"] in EXACT
        assert np.abs(levels(found["first"]) - levels(row["first"])).max() <= (0 if exact else 8)
        assert np.abs(levels(found["grid"]) - levels(row["grid"])).max() <= (1 if exact else 3)
        small, whole = (decode(PHOTOS / row["file"], Preprocess(size=16, draft=draft)) for draft in (2.0, 0.0))
        difference = pixels(small, SMALL).astype(int) - pixels(whole, SMALL)
        assert np.abs(difference).mean() < 1 and small.mode == whole.mode == "RGB"
        assert decode(PHOTOS / row["file"], GREY).mode == "L"
    if row["stored"]:
        width, height = map(int, row["stored"].split("x"))
        accepted = width * height <= formats.MAX_PIXELS
        assert stored_size(PHOTOS / row["file"]) == ((width, height) if accepted else None)


def test_without_pillow_heif_the_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    path = PHOTOS / "modes" / "samplefilehub.heif"
    with pytest.raises(DataError) as caught:
        decode(path, WHOLE)
    assert str(caught.value) == f'{path}: is HEIC, which needs an optional package (pip install "resnetkit[heif]")'
    assert stored_size(path) is None


def test_eight_orientations_are_one_picture():
    found = [np.asarray(decode(PHOTOS / "orientation" / f"landscape_{i}.jpg", WHOLE), int) for i in range(1, 9)]
    assert {one.shape for one in found} == {(450, 600, 3)}
    for one in found:
        one[80:220, 240:360] = 0  # the digit in the middle
    for one in found[1:]:
        assert np.abs(one - found[0]).mean() < 15 and np.abs(one - found[1]).mean() < 5  # the first is lighter
        for turned in (one[:, ::-1], one[::-1], one[::-1, ::-1]):
            assert np.abs(turned - found[1]).mean() > 30


def test_colours_that_are_known_from_elsewhere():
    flag = decode(PHOTOS / "modes" / "Flag_of_the_Netherlands-16bit.png", WHOLE)
    assert [flag.getpixel((450, y)) for y in (50, 300, 550)] == [(174, 28, 40), (255, 255, 255), (33, 70, 139)]
    grey = np.asarray(decode(PHOTOS / "modes" / "basn0g16.png", WHOLE))
    assert grey.min() < 5 and grey.max() > 250 and len(np.unique(grey)) > 100
    two = [np.asarray(decode(PHOTOS / "modes" / f"animated-loop-3.{end}", WHOLE), int) for end in ("gif", "webp")]
    assert np.abs(two[0] - two[1]).mean() < 2
    name = "Channel_digital_image_CMYK_color"
    two = [np.asarray(decode(PHOTOS / "modes" / f"{name}{end}.jpg", WHOLE), int) for end in ("", "_no_profile")]
    assert np.abs(two[0] - two[1]).mean() < 3
    red, green, blue = two[0][200:230, 50:150].mean((0, 1))  # the lawn
    assert green > red > blue


JPEGS = sorted((PHOTOS / "large").glob("*.jpg")) if PHOTOS.is_dir() else []


@pytest.mark.parametrize("path", JPEGS, ids=[path.stem for path in JPEGS])
def test_a_draft_gives_the_pixels_of_the_whole(path):
    for size in (64, 224):
        draft, whole = (
            pixels(decode(path, preprocess), preprocess).astype(int)
            for preprocess in (Preprocess(size=size), Preprocess(size=size, draft=0))
        )
        assert np.abs(draft - whole).mean() < 0.5 and np.abs(draft - whole).max() < 12
    smaller = decode(path, Preprocess()).size != decode(path, WHOLE).size
    assert smaller or path.stem == "30-type_error"  # 3872 x 2403: only 1/1 gives whole pixels


if __name__ == "__main__":
    with TABLE.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(row_of, sorted(PHOTOS.glob("*/*"))))
