"""What a file is: its upright size, what is special about it, its hash; or why it cannot be read."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from conftest import picture
from resnetkit.data.dataset import scan
from resnetkit.data.duplicates import perceptual_hash
from resnetkit.data.inspect import Fact, Trait, as_columns, inspect
from resnetkit.errors import DataError

RGB = picture((200, 40, 40), 1, 64)


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def array():
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(RGB))
    return buffer.getvalue()


def deep(mode):
    """A PNG of 16 bits a channel, which Pillow cannot write in colour."""
    channels = {"L": 1, "RGB": 3}[mode]
    rows = b"".join(b"\0" + bytes(range(2 * channels)) * 40 for _ in range(40))
    header = struct.pack(">IIBBBBB", 40, 40, 16, {"L": 0, "RGB": 2}[mode], 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    chunks = (struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(
    ("name", "save", "traits"),
    [
        ("a.png", lambda p: RGB.save(p), Trait(0)),
        ("a.JPG", lambda p: RGB.save(p, "JPEG"), Trait(0)),
        ("a.jpg", lambda p: RGB.save(p, exif=turned(3)), Trait.ROTATED),
        ("b.png", lambda p: RGB.convert("L").save(p), Trait.GREY),
        ("c.png", lambda p: RGB.convert("RGBA").save(p), Trait.TRANSPARENT),
        ("d.png", lambda p: p.write_bytes(deep("L")), Trait.GREY | Trait.SIXTEEN_BIT),
        ("e.png", lambda p: p.write_bytes(deep("RGB")), Trait.SIXTEEN_BIT),
        ("f.jpg", lambda p: RGB.convert("CMYK").save(p), Trait.CMYK),
        ("g.png", lambda p: RGB.convert("P").save(p), Trait.PALETTE),
        ("h.webp", lambda p: RGB.save(p, save_all=True, append_images=[picture((0, 0, 9), 2, 64)]), Trait.ANIMATED),
        ("i.jpg", lambda p: RGB.save(p, "PNG"), Trait.OTHER_ENDING),
        ("j.npy", lambda p: np.save(p, np.asarray(RGB)), Trait(0)),
        ("k.bmp", lambda p: p.write_bytes(array()), Trait.OTHER_ENDING),
    ],
)
def test_what_is_special_is_seen(tmp_path, name, save, traits):
    save(tmp_path / name)
    assert inspect(tmp_path / name).traits == traits


def test_sizes_are_those_of_the_upright_picture(tmp_path):
    big = picture((9, 9, 200), 3, 800).crop((0, 0, 800, 300))
    for number, orientation in enumerate((1, 3, 6, 8)):
        big.save(tmp_path / f"{number}.jpg", exif=turned(orientation))
    sizes = [(fact.width, fact.height) for fact in (inspect(path) for path in sorted(tmp_path.iterdir()))]
    assert sizes == [(800, 300), (800, 300), (300, 800), (300, 800)], "and not those of the scale it is decoded at"
    assert (inspect(tmp_path / "0.jpg").hash ^ perceptual_hash(big)).bit_count() <= 4


@pytest.mark.parametrize("quality", [50, 95])
def test_a_truncated_jpeg_fails_although_it_is_decoded_at_a_small_scale(tmp_path, quality):
    buffer = io.BytesIO()
    picture((9, 200, 9), 4, 1200).save(buffer, "JPEG", quality=quality)
    for share in (0.2, 0.6, 0.95):
        (tmp_path / "a.jpg").write_bytes(buffer.getvalue()[: int(share * buffer.tell())])
        with pytest.raises(DataError, match="truncated"):
            inspect(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"", "empty file"), (b"<html>", "HTML"), (b"\xff\xd8\xff\xe0junk", "Truncated"), (b"hello", "not an image")],
)
def test_what_cannot_be_read_says_why(tmp_path, content, why):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(DataError, match=why):
        inspect(tmp_path / "a.jpg")


def test_columns_of_an_archive(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for name in ("red/1.png", "blue/1.png"):
            buffer = io.BytesIO()
            RGB.save(buffer, "PNG")
            archive.writestr(name, buffer.getvalue())
        archive.writestr("red/2.png", b"nothing")
    files = scan(tmp_path / "data.zip", (".png",)).files

    def attempt(file):
        try:
            return inspect(file)
        except DataError as error:
            return error

    facts = as_columns(3, map(attempt, files))
    assert facts.readable.tolist() == [True, True, False] and facts.widths.tolist() == [64, 64, 0]
    assert facts.hashes[0] == facts.hashes[1] == perceptual_hash(RGB) and len(facts) == 3
    assert facts.failed[0][0] == 2 and facts.failed[0][1].what.startswith("is not an image")
    assert as_columns(1, [Fact(1, 2, Trait.GREY | Trait.PALETTE, 7)]).having(Trait.PALETTE) == 1
