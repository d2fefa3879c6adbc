"""Any file a user has becomes upright pixels or a DataError in one line."""

import io
import os
import random
import struct
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnetkit.data import image as images
from resnetkit.data.image import Preprocess, decode, from_array, from_image, normalise, pixels, preprocess_from
from resnetkit.errors import DataError, ModelError, UsageError
from resnetkit.tasks.task import IMAGE

PLAIN = Preprocess(size=16)
GREY = Preprocess(size=16, mean=(0.5,), std=(0.25,))
PHOTOS = Path(__file__).parents[3] / "shared" / "data" / "photos"
NOISE = np.random.default_rng(0).integers(0, 256, (24, 20, 3)).astype(np.uint8)


def encoded(image, form="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_header(width, height, depth=8, colour=2):
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))


def corners(image):
    """Colours of the corners, row by row."""
    array = np.asarray(image)
    return [array[y, x].tolist() for y in (1, -2) for x in (1, -2)]


# --- orientation -----------------------------------------------------------------------------------------------------

STORED = {  # how an upright picture is stored under each orientation
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation(orientation, form):
    blocks = np.kron(
        np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8), np.ones((8, 12, 1))
    )
    upright = Image.fromarray(blocks.astype(np.uint8))
    stored = upright.transpose(STORED[orientation]) if STORED[orientation] is not None else upright
    exif = Image.Exif()
    exif[274] = orientation
    found = decode(encoded(stored, form, exif=exif), PLAIN)
    assert found.size == (24, 16)
    assert np.abs(np.array(corners(found)) - np.array(corners(upright))).max() < {"JPEG": 60, "WEBP": 9}.get(form, 1)
    if form in ("PNG", "TIFF"):
        np.testing.assert_array_equal(np.asarray(found), np.asarray(upright))


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0",
        b"Exif\0\0rubbish",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff",
        b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\1" * 40,
    ],
)
def test_malformed_exif_is_ignored(exif):
    found = decode(encoded(Image.fromarray(NOISE), "JPEG", exif=exif), PLAIN)
    np.testing.assert_array_equal(found, np.asarray(Image.open(io.BytesIO(encoded(Image.fromarray(NOISE), "JPEG")))))


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_orientation_out_of_its_range_is_ignored(orientation):
    exif = Image.Exif()
    exif[274] = orientation
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(NOISE), exif=exif), PLAIN), NOISE)


# --- modes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
@pytest.mark.parametrize(("value", "expected"), [(0, 0), (255, 1), (30000, 117), (65535, 255)])
@pytest.mark.parametrize("preprocess", [PLAIN, GREY])
def test_16_bit_grey_is_scaled(form, value, expected, preprocess):
    image = Image.fromarray(np.full((6, 5), value, np.uint16))
    assert np.unique(decode(encoded(image, form), preprocess)).tolist() == [expected]


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0.0, 0.5, 1.0], [0, 128, 255]), ([0.0, 100.0, 300.0], [0, 100, 255]), ([np.nan, -1.0, np.inf], [0, 0, 255])],
)
def test_float_grey(values, expected):
    image = Image.fromarray(np.array([values], np.float32))
    for found in (decode(encoded(image, "TIFF"), GREY), from_image(image, GREY)):
        assert np.asarray(found)[0].tolist() == expected


def palette(image):
    image = image.quantize(4)
    image.info["transparency"] = 0
    return image


CYAN = Image.new("CMYK", (4, 4), (255, 0, 0, 0))
MODES = {  # file, pixel at 0, 0 on white
    "1-bit": (encoded(Image.new("1", (4, 4), 1)), (255, 255, 255)),
    "1-bit TIFF, white is zero": (encoded(Image.new("1", (4, 4), 0), "TIFF"), (0, 0, 0)),
    "L": (encoded(Image.new("L", (4, 4), 77)), (77, 77, 77)),
    "LA": (encoded(Image.new("LA", (4, 4), (0, 51))), (204, 204, 204)),
    "RGBA": (encoded(Image.new("RGBA", (4, 4), (255, 0, 0, 0))), (255, 255, 255)),
    "RGBA half": (encoded(Image.new("RGBA", (4, 4), (255, 0, 0, 51))), (255, 204, 204)),
    "RGB with a transparent colour": (encoded(Image.new("RGB", (4, 4), (9, 8, 7)), transparency=(9, 8, 7)), (255,) * 3),
    "L with a transparent grey": (encoded(Image.new("L", (4, 4), 9), transparency=9), (255, 255, 255)),
    "P": (encoded(Image.new("RGB", (4, 4), (10, 20, 30)).quantize(4)), (10, 20, 30)),
    "P with transparency": (encoded(palette(Image.new("RGB", (4, 4), (10, 20, 30)))), (255, 255, 255)),
    "CMYK JPEG": (encoded(CYAN, "JPEG"), (0, 255, 255)),
    "CMYK TIFF": (encoded(CYAN, "TIFF"), (0, 255, 255)),
}


@pytest.mark.parametrize("name", MODES)
def test_modes(name):
    source, expected = MODES[name]
    found = decode(source, PLAIN)
    assert found.mode == "RGB"
    assert np.abs(np.array(found.getpixel((0, 0)), int) - expected).max() <= 1
    assert decode(source, GREY).mode == "L"


def test_background_is_that_of_the_preprocess():
    source = encoded(Image.new("RGBA", (4, 4), (255, 0, 0, 0)))
    assert decode(source, Preprocess(background=10)).getpixel((0, 0)) == (10, 10, 10)


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_animations_give_their_first_frame(form):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green")]
    options = {"lossless": True} if form == "WEBP" else {}
    source = encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
    assert decode(source, PLAIN).getpixel((3, 3)) == (255, 0, 0)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF"])
def test_every_accepted_format(form, tmp_path):
    path = tmp_path / "misnamed.jpg"  # the name does not count
    path.write_bytes(encoded(Image.fromarray(NOISE), form))
    assert decode(path, PLAIN).size == (20, 24)


# --- refused files ---------------------------------------------------------------------------------------------------

JPEG, PNG = encoded(Image.fromarray(NOISE), "JPEG"), encoded(Image.fromarray(NOISE))
EPS = encoded(Image.fromarray(NOISE), "EPS")
TEXT_BOMB = png_header(4, 4) + chunk(b"zTXt", b"x\0\0" + zlib.compress(b"\0" * 100_000_000)) + PNG[33:]
PROFILE_BOMB = png_header(4, 4) + chunk(b"iCCP", b"x\0\0" + zlib.compress(b"\0" * 100_000_000)) + PNG[33:]
REFUSED = {
    "empty": (b"", "empty file"),
    "spaces": (b" \n ", "empty file"),
    "truncated JPEG": (JPEG[: len(JPEG) // 2], "cannot be read"),
    "truncated PNG": (PNG[: len(PNG) // 2], "cannot be read"),
    "PNG with a wrong checksum": (PNG[:60] + b"\0\0\0\0" + PNG[64:], "cannot be read"),
    "HTML": (b"\n<!doctype html><p>404", "looks like HTML"),
    "JSON": (b'{"error": 404}', "looks like JSON"),
    "PDF": (b"%PDF-1.7\n", "looks like PDF"),
    "EPS": (EPS, "looks like PostScript"),
    "SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "looks like SVG"),
    "XML": (b'<?xml version="1.0"?><svg/>', "looks like XML or SVG"),
    "PSD": (b"8BPS\0\1" + bytes(40), "looks like PSD"),
    "zip": (b"PK\3\4" + bytes(40), "looks like a zip archive"),
    "HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
    "PPM": (encoded(Image.fromarray(NOISE), "PPM"), "is not an image of JPEG"),
    "text": (b"hello", "is not an image of JPEG"),
    "65,500 x 65,500": (png_header(65500, 65500) + chunk(b"IDAT", b""), "exceeds limit"),
    "10,000 x 10,000, 1 bit": (encoded(Image.new("1", (10_000, 10_000))), "exceeds limit"),
    "9,400 x 9,600": (png_header(9400, 9600) + chunk(b"IDAT", b""), "exceeds limit"),
    "1 x 60,000": (encoded(Image.new("L", (1, 60_000))), "times as long as wide"),
    "60,000 x 1": (encoded(Image.new("L", (60_000, 1))), "times as long as wide"),
    "PNG of no pixels": (png_header(0, 5), ""),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name, tmp_path):
    content, reason = REFUSED[name]
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    for source in (path, str(path), content):
        with pytest.raises(DataError) as caught:
            decode(source, PLAIN)
        line = str(caught.value)
        assert reason in line and "\n" not in line and len(line) < 500
        assert isinstance(source, bytes) or str(path) in line


@pytest.mark.parametrize("bomb", [TEXT_BOMB, PROFILE_BOMB], ids=["zTXt", "iCCP"])
def test_png_with_100_mb_in_a_chunk(bomb):
    with pytest.raises(DataError):
        decode(bomb, PLAIN)


def test_unreadable_paths(tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    for name, reason in (("folder.jpg", "is a directory"), ("gone.jpg", "no such file"), ("x" * 300, "too long")):
        with pytest.raises(DataError, match=reason):
            decode(tmp_path / name, PLAIN)
    with pytest.raises(DataError, match="null byte"):
        decode("a\0b.jpg", PLAIN)


def test_a_file_that_goes_away_while_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"rubbish")
    real = images._opened
    calls = []

    def opened(source):
        calls.append(source)
        if len(calls) > 1:
            path.unlink()
        return real(source)

    monkeypatch.setattr(images, "_opened", opened)
    with pytest.raises(DataError, match="no such file"):
        decode(path, PLAIN)


def test_random_damage_is_a_data_error_or_an_image():
    seeds = [encoded(Image.fromarray(NOISE), form) for form in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "AVIF")]
    rng = random.Random(7)
    refused = 0
    for _ in range(300):
        damaged = bytearray(rng.choice(seeds))
        for _ in range(rng.choice((1, 2, 8))):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        del damaged[rng.choice((len(damaged), rng.randrange(len(damaged)))) :]
        try:
            assert pixels(decode(bytes(damaged), PLAIN), PLAIN).shape == (16, 16, 3)
        except DataError as error:
            refused += 1
            assert "\n" not in str(error)
    assert 30 < refused < 300


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="no ../shared/data/photos")
@pytest.mark.parametrize("folder", ["normal", "orientation", "modes", "large", "broken"])
def test_photos_of_the_wild(folder):
    decoded = 0
    for path in sorted((PHOTOS / folder).iterdir()):
        try:
            assert pixels(decode(path, PLAIN), PLAIN).shape == (16, 16, 3)
            decoded += 1
        except DataError as error:
            assert folder == "broken" or path.suffix.lower() in (".jp2", ".heif", ".heic"), str(error)
    assert decoded


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="no ../shared/data/photos")
def test_photos_in_seven_orientations_are_one_picture():
    found = [
        pixels(decode(PHOTOS / "orientation" / f"landscape_{i}.jpg", PLAIN), PLAIN).astype(int) for i in range(2, 9)
    ]
    assert max(np.abs(other - found[0]).mean() for other in found) < 6


# --- geometry --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (1, 1000), (1000, 1), (3, 2), (15, 17), (16, 16), (640, 31)])
@pytest.mark.parametrize("resize", ["crop", "squash", "letterbox"])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_size_gives_the_size_of_the_network(size, resize, channels):
    preprocess = Preprocess(size=16, resize=resize, mean=(0.5,) * channels, std=(0.2,) * channels)
    found = pixels(decode(encoded(Image.new("RGB", size, (200, 200, 200))), preprocess), preprocess)
    assert found.shape == (16, 16, channels) and found.dtype == np.uint8
    if resize != "letterbox":
        assert np.unique(found).tolist() == [200]


def thirds():
    """Left third red, middle green, right blue; 48 x 16."""
    return Image.fromarray(np.repeat(np.eye(3, dtype=np.uint8)[None] * 255, 16, 1).repeat(16, 0).reshape(16, 48, 3))


def test_crop_takes_the_centre():
    preprocess = Preprocess(size=16, resize="crop", crop_ratio=1.0)
    np.testing.assert_array_equal(pixels(thirds(), preprocess), np.asarray(thirds())[:, 16:32])
    half = pixels(Image.fromarray(NOISE[:16, :16]), Preprocess(size=8, crop_ratio=0.5))
    np.testing.assert_array_equal(half, NOISE[4:12, 4:12])


def test_squash_takes_everything():
    found = pixels(thirds(), Preprocess(size=15, resize="squash"))
    assert [found[7, x].argmax() for x in (1, 7, 13)] == [0, 1, 2]


def test_letterbox_has_bars_in_the_colour_of_the_mean():
    found = pixels(thirds(), Preprocess(size=48, resize="letterbox"))
    np.testing.assert_array_equal(found[16:32], np.asarray(thirds()))
    bars = np.concatenate([found[:16], found[32:]]).reshape(-1, 3)
    np.testing.assert_array_equal(np.unique(bars, axis=0), [[round(255 * m) for m in Preprocess().mean]])
    grey = pixels(thirds().convert("L"), Preprocess(size=48, resize="letterbox", mean=(0.5,), std=(0.5,)))
    assert np.unique(grey[:16]).tolist() == [128]


def test_reduction_is_antialiased():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    for interpolation in ("bilinear", "bicubic"):
        found = pixels(Image.fromarray(stripes), Preprocess(size=16, crop_ratio=1, interpolation=interpolation))
        assert np.abs(found[:, 2:-2].astype(int) - 128).max() < 8


@pytest.mark.parametrize("preprocess", [PLAIN, GREY])
def test_normalise(preprocess):
    batch = np.random.default_rng(1).integers(0, 256, (2, 16, 16, preprocess.channels)).astype(np.uint8)
    found = normalise(batch, preprocess)
    expected = (batch / 255 - np.array(preprocess.mean)) / np.array(preprocess.std)
    np.testing.assert_allclose(found, expected.transpose(0, 3, 1, 2), atol=1e-6)
    assert found.dtype == np.float32 and found.flags.c_contiguous


# --- Preprocess, values in memory ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "preprocess",
    [
        PLAIN,
        GREY,
        Preprocess(size=20, resize="letterbox", interpolation="bicubic", background=0),
        Preprocess(crop_ratio=1),
    ],
)
def test_preprocess_round_trip(preprocess):
    import json

    again = preprocess_from(json.loads(json.dumps(preprocess.as_dict())), Path("model.json"))
    assert again == preprocess
    image = decode(PNG, preprocess)
    one, two = (normalise(pixels(image, p)[None], p) for p in (preprocess, again))
    assert one.tobytes() == two.tobytes()


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 0},
        {"size": -5},
        {"size": "big"},
        {"size": 5000},
        {"crop_ratio": 0},
        {"crop_ratio": 1.1},
        {"resize": "cut"},
        {"interpolation": "nearest"},
        {"background": 256},
        {"mean": (0.5, 0.5)},
        {"mean": (0.5,)},
        {"std": (0.1, 0.1, 0.0)},
        {"std": (0.1, 0.1, -1.0)},
        {"mean": (float("nan"),) * 3},
        {"std": (float("inf"),) * 3},
        {"std": None},
        {"unknown": 1},
    ],
    ids=str,
)
def test_a_preprocess_that_cannot_be(wrong):
    with pytest.raises(ModelError, match="model.json: preprocess"):
        preprocess_from(PLAIN.as_dict() | wrong, Path("model.json"))


@pytest.mark.parametrize("shape", [(24, 20), (24, 20, 1), (24, 20, 3), (24, 20, 4)])
@pytest.mark.parametrize("preprocess", [PLAIN, GREY])
def test_arrays_images_and_files_go_one_way(shape, preprocess, tmp_path):
    array = np.random.default_rng(2).integers(0, 256, shape).astype(np.uint8)
    image = Image.fromarray(array[:, :, 0] if shape[2:] == (1,) else array)
    image.save(tmp_path / "a.png")
    sources = [tmp_path / "a.png", str(tmp_path / "a.png"), (tmp_path / "a.png").read_bytes(), image, array]
    sources += [Image.open(tmp_path / "a.png"), np.asfortranarray(array)]
    found = [IMAGE.preprocess(IMAGE.read(source, preprocess), preprocess) for source in sources]
    assert len({one.tobytes() for one in found}) == 1


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3)),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4), bool),
    ],
    ids=lambda array: f"{array.dtype} {array.shape}",
)
def test_an_array_that_is_not_an_image(array):
    with pytest.raises(UsageError, match="is not an image"):
        from_array(array, PLAIN)


def test_an_image_in_memory_that_cannot_be_read():
    with pytest.raises(DataError, match="cannot be read"):
        from_image(Image.open(io.BytesIO(JPEG[:-100])), PLAIN)
    with pytest.raises(DataError, match="no pixels"):
        from_image(Image.new("RGB", (0, 0)), PLAIN)
    with pytest.raises(DataError, match="times as long"):
        from_image(Image.new("RGB", (5000, 1)), PLAIN)


def test_decoding_in_threads_leaves_warnings_as_they_were(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encoded(Image.fromarray(NOISE), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"))
    before = list(warnings.filters)

    def work():
        for _ in range(20):
            decode(tmp_path / "a.jpg", PLAIN)
            images.stored_size(tmp_path / "a.jpg")

    threads = [threading.Thread(target=work) for _ in range(6)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert warnings.filters == before


def test_stored_size(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "b.png").write_bytes(b"x")
    (tmp_path / "c.png").write_bytes(png_header(65500, 65500))
    assert images.stored_size(tmp_path / "a.png") == (20, 24)
    assert [images.stored_size(tmp_path / name) for name in ("b.png", "c.png", "gone.png")] == [None] * 3


def test_thumbnail_is_small_and_says_nothing_of_its_owner(tmp_path):
    exif = Image.Exif()
    exif[0x010F], exif[274], exif[0x8825] = "SECRETCAM", 6, {1: "N", 2: (52.0, 30.0, 0.0)}
    source = encoded(Image.new("RGB", (400, 100), "red"), "JPEG", exif=exif, comment=b"SECRETNOTE")
    found = images.thumbnail(source)
    with Image.open(io.BytesIO(found)) as image:
        assert image.size == (24, 96) and not image.getexif() and "exif" not in image.info
    assert b"SECRET" not in found and b"Exif" not in found and len(found) < 5000


def test_file_names_with_odd_characters(tmp_path):
    for name in (
        "a\nb.png",
        "\t.png",
        "-rf.png",
        "🐈.png",
        "e\u0301.png",
        os.fsdecode(b"\xff\xfe.png"),
        "a" * 251 + ".png",
    ):
        (tmp_path / name).write_bytes(PNG)
        assert decode(tmp_path / name, PLAIN).size == (20, 24)
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(DataError) as caught:
            decode(tmp_path / name, PLAIN)
        assert "\n" not in str(caught.value) and str(caught.value).encode()
