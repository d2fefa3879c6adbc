"""Any file a user has becomes upright pixels or a DataError in one line."""

import errno
import io
import os
import random
import struct
import subprocess
import sys
import threading
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from resnetkit.data import formats
from resnetkit.data import image as images
from resnetkit.data.image import Preprocess, decode, from_array, from_image, normalise, pixels, preprocess_from
from resnetkit.errors import DataError, ModelError, UsageError
from resnetkit.tasks.task import IMAGE

PLAIN = Preprocess(size=16)
GREY = Preprocess(size=16, mean=(0.5,), std=(0.25,))
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


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "WEBP", "AVIF"])
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
    assert np.abs(np.array(corners(found)) - np.array(corners(upright))).max() < {
        "JPEG": 60,
        "WEBP": 9,
        "AVIF": 20,
    }.get(form, 1)
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


def test_wide_integers_are_clipped():
    image = Image.fromarray(np.array([[-5, 0, 257, 30000, 65535, 70000, 2**31 - 1]], np.int32))
    for found in (decode(encoded(image, "TIFF"), GREY), from_image(image, GREY)):
        assert np.asarray(found)[0].tolist() == [0, 0, 1, 117, 255, 255, 255]


@pytest.mark.parametrize(("colour", "channels"), [(2, 3), (6, 3), (4, 1)], ids=["RGB", "RGBA", "grey and alpha"])
def test_16_bit_png_with_channels_is_scaled(colour, channels):
    """Pillow takes the high byte, which is at most one level from the quotient by 257."""
    values = [0, 255, 256, 30000, 32768, 65535]
    row = b"".join(struct.pack(">H", v) * channels + (b"\xff\xff" if colour > 3 else b"") for v in values)
    content = png_header(6, 1, 16, colour) + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")
    assert np.asarray(decode(content, GREY))[0].tolist() == [v >> 8 for v in values]


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
    "Lab TIFF": (encoded(Image.new("LAB", (4, 4), (255, 128, 128)), "TIFF"), (255, 255, 255)),
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


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "JPEG2000", "MPO"])
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
    "video": (b"\0\0\0\x1cftypisom\0\0\2\0isomiso2mp41" + bytes(40), "is a video"),
    "raw": (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(40), "is a camera's raw file"),
    "damaged AVIF": (b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif" + bytes(40), "is a damaged AVIF"),
    "JPEG XL": (b"\xff\x0a" + bytes(40), "looks like JPEG XL"),
    "JPEG of no pixels": (
        JPEG.replace(b"\0\x18\0\x14\3", b"\0\0\0\x14\3"),
        "is a damaged JPEG: it says it has no pixels",
    ),
    "PPM": (encoded(Image.fromarray(NOISE), "PPM"), "is not an image of JPEG"),
    "text": (b"hello", "is not an image of JPEG"),
    "65,500 x 65,500": (png_header(65500, 65500) + chunk(b"IDAT", b""), "is over 89,478,485 pixels"),
    "10,000 x 10,000, 1 bit": (encoded(Image.new("1", (10_000, 10_000))), "is over 89,478,485 pixels"),
    "9,400 x 9,600": (png_header(9400, 9600) + chunk(b"IDAT", b""), "is over 89,478,485 pixels"),
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


class Elsewhere:
    """A file that is not on the disk by itself."""

    def __init__(self, file):
        self.file = file

    def open(self, mode="rb"):
        assert mode == "rb"
        return self.file

    def __fspath__(self):
        return "photos.tar/a.png"


class OneWay(io.BytesIO):
    def seekable(self):
        return False

    def seek(self, *where):
        raise io.UnsupportedOperation("seek")


class Failing(io.BytesIO):
    def read(self, *size):
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_source_that_opens_itself():
    for file in (io.BytesIO, OneWay):
        np.testing.assert_array_equal(decode(Elsewhere(file(PNG)), PLAIN), NOISE)
        assert images.stored_size(Elsewhere(file(PNG))) == (20, 24)
        assert images.thumbnail(Elsewhere(file(PNG))).startswith(b"\xff\xd8")
    with pytest.raises(DataError, match=r"^photos.tar/a.png: is not an image: empty file"):
        decode(Elsewhere(io.BytesIO()), PLAIN)
    with pytest.raises(DataError, match=r"^photos.tar/a.png: cannot be read: input/output error"):
        decode(Elsewhere(Failing(PNG)), PLAIN)


def test_a_path_that_is_no_pathlib_path(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    (entry,) = os.scandir(tmp_path)
    np.testing.assert_array_equal(decode(entry, PLAIN), NOISE)


def test_random_damage_is_a_data_error_or_an_image():
    seeds = [
        encoded(Image.fromarray(NOISE), form) for form in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "AVIF", "JPEG2000")
    ]
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


def heic(brands, form="heic"):
    box = b"ftyp" + form.encode() + bytes(4) + brands
    return struct.pack(">I", 4 + len(box)) + box + bytes(40)


@pytest.mark.parametrize("content", [heic(b"mif1heic"), heic(b"", "hevc"), heic(b"heix", "mif1"), heic(b"", "msf1")])
def test_heic_without_its_package(content, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    path = tmp_path / "IMG_1.HEIC"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        decode(path, PLAIN)
    assert str(caught.value) == f'{path}: is HEIC, which needs an optional package (pip install "resnetkit[heif]")'
    assert {".heic", ".heif", ".hif"} <= set(images.EXTENSIONS)


def test_heic_with_its_package():
    heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    heif.from_pillow(thirds()).save(buffer, quality=90)
    Image.init()
    known = "HEIF" in Image.OPEN
    found = decode(buffer.getvalue(), PLAIN)
    assert np.abs(np.asarray(found, int) - np.asarray(thirds(), int)).mean() < 10 and found.size == (48, 16)
    assert ("HEIF" in Image.OPEN) == known, "Pillow is the caller's too"
    with pytest.raises(DataError, match="is a damaged HEIF"):
        decode(heic(b"mif1heic"), PLAIN)


def webp_header(width, height):
    start = bytearray(encoded(Image.fromarray(NOISE), "WEBP", lossless=True))
    start[21:25] = struct.pack("<I", (width - 1) | (height - 1) << 14)
    return bytes(start)


@pytest.mark.parametrize("theirs", [None, 89_478_485, 10**12])
def test_the_ceiling_is_not_that_of_pillow(theirs, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", theirs)
    for bomb in (png_header(65500, 65500), png_header(9400, 9600), webp_header(16383, 16383)):
        with pytest.raises(DataError, match="pixels"):
            decode(bomb + chunk(b"IDAT", b""), PLAIN)
    assert theirs == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("form", ["JPEG", "MPO", "PNG", "BMP", "GIF", "AVIF", "JPEG2000"])
def test_a_lower_ceiling_of_the_caller_is_not_ours(form, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert decode(encoded(Image.fromarray(NOISE), form), PLAIN).size == (20, 24)


def test_a_webp_of_many_bytes(monkeypatch):
    monkeypatch.setattr(formats, "MAX_BYTES", 100)
    with pytest.raises(DataError, match="over 100 bytes"):
        decode(encoded(Image.fromarray(NOISE), "WEBP"), PLAIN)
    for form in ("BMP", "TIFF", "JPEG2000"):  # these are read bit by bit
        assert decode(encoded(Image.fromarray(NOISE), form), PLAIN).size == (20, 24)


def gif_of(frames):
    one = encoded(Image.new("L", (8, 8), 7), "GIF")
    frame = b"\x21\xf9\x04\0\0\0\0\0" + one[one.index(b",", 13) : -1]
    return one[:-1] + frame * (frames - 1) + b";"


def tiff_of(frames, last=0):
    """Grey 8 x 8 TIFF directories that share their pixels; the last points to `last`."""
    tags = [(256, 8), (257, 8), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, 8), (279, 64)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    size = 2 + len(entries) + 4
    ends = [72 + size * i for i in range(1, frames)] + [last]
    directories = (struct.pack("<H", len(tags)) + entries + struct.pack("<I", end) for end in ends)
    return b"II*\0" + struct.pack("<I", 72) + b"\7" * 64 + b"".join(directories)


@pytest.mark.parametrize("content", [gif_of(10_000), tiff_of(10_000), tiff_of(3, last=72)], ids=["GIF", "TIFF", "loop"])
def test_of_ten_thousand_frames_the_first_is_read(content):
    seen = Image.open(io.BytesIO(content))
    assert seen.n_frames in (10_000, 3)
    start = time.perf_counter()
    assert np.unique(decode(content, PLAIN)).tolist() == [7]
    assert time.perf_counter() - start < 0.5


PROFILES = {
    "rubbish": b"rubbish" * 20,
    "of three bytes": b"\0\0\1",
    "cut short": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()[:200],
    "sRGB": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    "Lab, wider than any screen": ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes(),
    "XYZ": ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes(),
}


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
@pytest.mark.parametrize("name", PROFILES)
def test_colour_profiles_change_nothing(name, form):
    plain = decode(encoded(Image.fromarray(NOISE), form), PLAIN)
    np.testing.assert_array_equal(
        decode(encoded(Image.fromarray(NOISE), form, icc_profile=PROFILES[name]), PLAIN), plain
    )


def test_a_png_profile_that_cannot_be_unpacked():
    np.testing.assert_array_equal(decode(PNG[:33] + chunk(b"iCCP", b"x\0\0rubbish") + PNG[33:], PLAIN), NOISE)


# --- memory ----------------------------------------------------------------------------------------------------------

PEAK = """
import sys
from pathlib import Path
from resnetkit.data.image import Preprocess, decode

def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1000

content = sys.stdin.buffer.read()
before = peak()
image = decode(content, Preprocess())
print(image.size, image.getpixel((0, 0)), peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from /proc")
@pytest.mark.parametrize(
    ("depth", "colour", "size", "pixel"), [(8, 6, 4, 191), (16, 0, 2, 128)], ids=["RGBA", "16-bit"]
)
def test_80_megapixels_are_held_three_times_at_most(depth, colour, size, pixel):
    width, height = 10_000, 8_000
    packer, row = zlib.compressobj(1), b"\0" + b"\x80" * width * size
    data = b"".join(packer.compress(row * 100) for _ in range(height // 100)) + packer.flush()
    exif = Image.Exif()
    exif[274] = 6
    content = png_header(width, height, depth, colour) + chunk(b"eXIf", exif.tobytes()[6:]) + chunk(b"IDAT", data)
    ran = subprocess.run([sys.executable, "-c", PEAK], input=content + chunk(b"IEND", b""), capture_output=True)
    assert not ran.returncode, ran.stderr.decode()
    said, grown = ran.stdout.decode().rsplit(maxsplit=1)
    assert said == f"({height}, {width}) ({pixel}, {pixel}, {pixel})"
    # Pillow holds 4 bytes a pixel: as stored, on the background, and turned: 960 MB; the rest is the allocator's.
    assert float(grown) < 1.1 * 3 * 4 * width * height / 1e6


def test_of_large_images_one_at_a_time_is_decoded(monkeypatch):
    inside, most, real = [], [], images.upright

    def upright(*given):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.01)
        inside.pop()
        return real(*given)

    monkeypatch.setattr(images, "upright", upright)
    for limit, together in ((100, False), (1000, True)):
        monkeypatch.setattr(images, "LARGE_PIXELS", limit)
        most.clear()
        threads = [threading.Thread(target=decode, args=(PNG, PLAIN)) for _ in range(8)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert len(most) == 8 and (max(most) > 1) == together


# --- JPEG at a smaller scale -----------------------------------------------------------------------------------------

WIDE = Image.fromarray(np.kron(NOISE[:12, :16], np.ones((100, 100, 1), np.uint8)))  # 1600 x 1200


@pytest.mark.parametrize(
    ("settings", "cut", "expected"),
    [
        ({"size": 16}, (0, 0), (200, 150)),
        ({"size": 100}, (0, 0), (400, 300)),
        ({"size": 224}, (0, 0), (800, 600)),
        ({"size": 224, "draft": 1.0}, (0, 0), (400, 300)),
        ({"size": 224, "draft": 0}, (0, 0), (1600, 1200)),
        ({"size": 224, "crop_ratio": 0.5}, (0, 0), (1600, 1200)),
        ({"size": 300, "resize": "squash"}, (0, 0), (800, 600)),
        ({"size": 301, "resize": "squash"}, (0, 0), (1600, 1200)),
        ({"size": 400, "resize": "letterbox"}, (0, 0), (800, 600)),
        ({"size": 401, "resize": "letterbox"}, (0, 0), (1600, 1200)),
        ({"size": 100}, (2, 0), (799, 600)),  # a quarter of 1598 is no whole number
        ({"size": 100}, (0, 1), (1600, 1199)),
    ],
    ids=str,
)
def test_a_draft_is_the_smallest_that_suffices(settings, cut, expected):
    source = encoded(WIDE.crop((0, 0, 1600 - cut[0], 1200 - cut[1])), "JPEG")
    assert decode(source, Preprocess(**settings)).size == expected
    assert decode(encoded(WIDE), Preprocess(**settings)).size == WIDE.size


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "progressive", "MPO", "grey from RGB"])
@pytest.mark.parametrize("resize", ["crop", "squash", "letterbox"])
def test_a_draft_gives_nearly_the_pixels_of_the_whole(mode, resize):
    smooth = WIDE.resize((1600, 1200), Image.Resampling.BICUBIC, box=(250, 250, 500, 440))
    source = encoded(
        smooth.convert(mode) if mode in ("L", "CMYK") else smooth,
        "MPO" if mode == "MPO" else "JPEG",
        quality=95,
        **({"progressive": True} if mode == "progressive" else {}),
        **({"save_all": True, "append_images": [WIDE]} if mode == "MPO" else {}),
    )
    grey = {"mean": (0.5,), "std": (0.5,)} if mode == "grey from RGB" else {}
    draft, whole = (Preprocess(size=64, resize=resize, draft=value, **grey) for value in (2.0, 0.0))
    assert decode(source, draft).size == (200, 150) and decode(source, whole).size == (1600, 1200)
    difference = pixels(decode(source, draft), draft).astype(int) - pixels(decode(source, whole), whole)
    assert np.abs(difference).mean() < 0.5 and np.abs(difference).max() < 8


def test_a_lossless_jpeg_is_decoded_whole():
    """Which libjpeg cannot scale: a grey one of 64 x 64 whose every difference from the pixel before is nought."""
    markers = (
        (0xC3, bytes.fromhex("08 0040 0040 01 01 11 00")),  # start of frame: 8 bits, height, width, one component
        (0xC4, bytes.fromhex("00 01 000000000000000000000000000000 00")),  # one code, a single bit: no difference
        (0xDA, bytes.fromhex("01 01 00 01 00 00")),
    )
    segments = (struct.pack(">BBH", 0xFF, kind, len(content) + 2) + content for kind, content in markers)
    source = b"\xff\xd8" + b"".join(segments) + bytes(64 * 64 // 8) + b"\xff\xd9"
    found = decode(source, Preprocess(size=8, draft=1))
    assert found.size == (64, 64) and np.unique(found).tolist() == [128]


def test_a_draft_is_turned():
    exif = Image.Exif()
    exif[274] = 6
    stored = thirds().resize((480, 160), Image.Resampling.NEAREST).transpose(Image.Transpose.ROTATE_90)
    found = decode(encoded(stored, "JPEG", exif=exif), PLAIN)
    assert found.size == (120, 40)
    assert [np.asarray(found)[20, x].argmax() for x in (10, 60, 110)] == [0, 1, 2]


def test_the_ceiling_of_a_jpeg_is_that_of_its_draft(monkeypatch):
    monkeypatch.setattr(formats, "MAX_PIXELS", 1_000_000)
    assert decode(encoded(WIDE, "JPEG"), PLAIN).size == (200, 150)
    small = Preprocess(size=16, draft=0)
    for source, preprocess in (
        (encoded(WIDE, "JPEG"), small),
        (encoded(WIDE, "JPEG", progressive=True), PLAIN),
        (encoded(WIDE), PLAIN),
    ):
        with pytest.raises(DataError, match="1600 x 1200 is over 1,000,000 pixels"):
            decode(source, preprocess)
    monkeypatch.setattr(formats, "MAX_JPEG_PIXELS", 1_500_000)
    with pytest.raises(DataError, match="is over"):
        decode(encoded(WIDE, "JPEG"), PLAIN)


def test_an_older_model_decodes_whole():
    older = {key: value for key, value in PLAIN.as_dict().items() if key != "draft"}
    assert preprocess_from(older, Path("model.json")) == Preprocess(size=16, draft=0)
    assert preprocess_from(PLAIN.as_dict(), Path("model.json")).draft == 2


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
        {"size": 20_000},
        {"crop_ratio": 0},
        {"crop_ratio": 1.1},
        {"resize": "cut"},
        {"interpolation": "nearest"},
        {"background": 256},
        {"draft": 0.5},
        {"draft": -1},
        {"draft": float("nan")},
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
