"""How near are copies of a picture to it, and other pictures to each other: what NEAR_BITS and ALIKE rest on.

    python bench/near.py --data photos/ --others test.zip

For each kind of change, of the images in --data: the most bits in which the hashes differ, the share within NEAR_BITS,
and the share that is found in the end. Then the pairs among --others that are near by their hashes, and in the end;
and the seconds and memory of comparing a million random hashes.
"""

from __future__ import annotations

import argparse
import io
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from resnetkit.data.dataset import scan
from resnetkit.data.duplicates import NEAR_BITS, SMALLEST, Near, confirmed, near, perceptual_hash
from resnetkit.data.image import EXTENSIONS, Preprocess, decode, shown

WHOLE = Preprocess(draft=0.0)
Change = Callable[[Image.Image], Image.Image]


def saved(quality: int) -> Change:
    def change(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer)

    return change


def resized(factor: float) -> Change:
    def change(image: Image.Image) -> Image.Image:
        size = (round(image.width * factor), round(image.height * factor))
        return image.resize(size, Image.Resampling.BICUBIC)

    return change


def cropped(share: float) -> Change:
    """Without so much of each side."""

    def change(image: Image.Image) -> Image.Image:
        x, y = round(share * image.width), round(share * image.height)
        return image.crop((x, y, image.width - x, image.height - y))

    return change


CHANGES = {
    **{f"JPEG quality {quality}": saved(quality) for quality in (40, 60, 75, 90)},
    **{f"resized to {100 * factor:.0f} %": resized(factor) for factor in (0.5, 0.7, 1.4, 2.0)},
    "50 %, then JPEG quality 60": lambda image: saved(60)(resized(0.5)(image)),
    "brightened": lambda image: image.point(lambda value: value * 0.9 + 20),
    "1 % cropped from each side": cropped(0.01),
    "3 % cropped from each side": cropped(0.03),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}


def copies(images: list[Image.Image], name: str) -> None:
    """The bits of one kind of change, and what is found of it."""
    pairs = [(image, CHANGES[name](image)) for image in images]
    pairs = [(image, copy) for image, copy in pairs if min(copy.size) >= SMALLEST]
    bits = np.array([(perceptual_hash(a) ^ perceptual_hash(b)).bit_count() for a, b in pairs])
    if not len(bits):
        return
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, f"{i}.png") for i in range(2 * len(pairs))]
        for path, image in zip(files, (image for pair in pairs for image in pair), strict=True):
            image.save(path)
        rows = np.arange(2 * len(pairs)).reshape(-1, 2)[bits <= NEAR_BITS]
        found = confirmed(Near(rows, np.zeros(len(rows), np.uint8), True), files, 2)
    shares = f"{(bits <= NEAR_BITS).mean():.3f} within {NEAR_BITS}, {len(found.pairs) / len(bits):.3f} found"
    print(f"{name:28} n = {len(bits)}, at most {bits.max()} bits, {shares}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="class folders or an archive of them")
    parser.add_argument("--others", type=Path, help="pictures that are no copies of each other")
    parser.add_argument("--count", type=int, default=200)
    arguments = parser.parse_args()
    files = scan(arguments.data, EXTENSIONS).files
    chosen = np.random.default_rng(0).permutation(len(files))[: arguments.count].tolist()
    images = [shown(decode(files[row], WHOLE)) for row in chosen]
    for name in CHANGES:
        copies(images, name)
    if arguments.others:
        files = scan(arguments.others, EXTENSIONS).files
        hashes = np.array([perceptual_hash(shown(decode(file, WHOLE))) for file in files], np.uint64)
        started = time.perf_counter()
        found = near(hashes)
        seconds = time.perf_counter() - started
        seen = confirmed(found, files, 2)
        total = len(files) * (len(files) - 1) // 2
        print(
            f"of {total:,} pairs {len(found.pairs)} within {NEAR_BITS} bits ({seconds:.2f} s), {len(seen.pairs)} found"
        )
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    near(np.random.default_rng(0).integers(1, 2**63, 1_000_000, dtype=np.uint64))
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"a million hashes: {time.perf_counter() - started:.0f} s, {more:.0f} MB more")


if __name__ == "__main__":
    main()
