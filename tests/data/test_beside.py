"""Pictures of numbers beside images; the rest is in test_masks.py and test_numbered.py."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest

from data.scenes import write_image
from resnetkit.data import beside, masks
from resnetkit.data.place import Findings, opened


@pytest.mark.parametrize("bits", [2, 4])
def test_indices_of_few_bits_are_not_spread(tmp_path: Path, bits: int) -> None:
    """Pillow multiplies grey of two and four bits, so that the last class would be 255, which is ignored."""
    image = write_image(tmp_path / "images" / "a.png", (8, 4))
    last = 2**bits - 1
    packed = bytes([0b00011011] * 2 if bits == 2 else [0x01, 0x23, 0x45, 0x67 | last])
    (tmp_path / "masks").mkdir()
    grey_png(tmp_path / "masks" / "a.png", (8, 4), bits, packed)
    values = beside.read(tmp_path / "masks" / "a.png", image, masks.KIND).values
    assert values.max() == last and values[0].tolist()[:4] == ([0, 1, 2, 3])


def grey_png(path: Path, size: tuple[int, int], bits: int, row: bytes) -> None:
    """A grey PNG of few bits, which Pillow does not write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", *size, bits, 0, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for _ in range(size[1])))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b""))


def test_class_folders_are_passed_over_soon(tmp_path: Path) -> None:
    """Each folder is listed once, not once for each of its images."""
    for name in ("train/cat/a.jpg", "train/cat/b.jpg", "train/dog/a.jpg", "val/dog/a.jpg"):
        write_image(tmp_path / name)
    place = opened(tmp_path)
    assert place.folders == {"": ["train", "val"], "train": ["cat", "dog"], "val": ["dog"]}
    place.tree.children = None  # type: ignore[assignment,method-assign]
    assert not beside.partners(place, masks.KIND, Findings())
