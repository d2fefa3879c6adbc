"""How long a large COCO data set takes to be read, and how much memory: 100,000 images with seven objects each.

    python bench/scene_scan.py FOLDER
    python bench/scene_scan.py FOLDER --images 10000 --profile

Makes FOLDER if it is not there: images are hard links to files of 640 x 480, and annotations have boxes and polygons of
eight corners, of 80 classes whose ids have gaps. Each scan is a process of its own: of boxes, and of outlines too.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

LINKS = 50_000  # to one file; some file systems allow no more than 65,000
WIDTH, HEIGHT, OBJECTS, CLASSES, CORNERS = 640, 480, 7, 80, 8


def make(root: Path, count: int) -> None:
    """The images, and annotations.json, which is written last."""
    (root / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        path = root / "images" / f"{i:06}.jpg"
        if i % LINKS:
            os.link(root / "images" / f"{i - i % LINKS:06}.jpg", path)
        else:
            forms = rng.integers(0, 255, (6, 8, 3), np.uint8)
            Image.fromarray(forms).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(path)
    ids = np.sort(rng.choice(10 * count, count, replace=False)).tolist()
    names = (f"images/{i:06}.jpg" for i in range(count))
    images = [{"id": k, "file_name": n, "width": WIDTH, "height": HEIGHT} for k, n in zip(ids, names, strict=True)]
    categories = [{"id": k, "name": f"class {k}"} for k in range(1, 2 * CLASSES, 2)]
    content = {"images": images, "annotations": annotations(ids, rng), "categories": categories}
    (root / "annotations.json").write_text(json.dumps(content), encoding="utf-8")


def annotations(ids: list[int], rng: np.random.Generator) -> list[dict[str, object]]:
    """Ellipses of `CORNERS` corners within their images."""
    total = len(ids) * OBJECTS
    half = rng.integers(3, (WIDTH // 4, HEIGHT // 4), (total, 2))
    middle = half + rng.random((total, 2)) * (np.array([WIDTH, HEIGHT]) - 2 * half)
    angles = np.arange(CORNERS) * 2 * np.pi / CORNERS
    ring = np.stack([np.cos(angles), np.sin(angles)], 1)
    corners = np.round(middle[:, None] + half[:, None] * ring, 2).reshape(total, -1).tolist()
    boxes = np.round(np.concatenate([middle - half, 2 * half], 1), 2).tolist()
    kinds = (2 * rng.integers(0, CLASSES, total) + 1).tolist()
    return [
        {
            "id": k,
            "image_id": ids[k // OBJECTS],
            "category_id": kinds[k],
            "bbox": boxes[k],
            "area": boxes[k][2] * boxes[k][3],
            "iscrowd": 0,
            "segmentation": [corners[k]],
        }
        for k in range(total)
    ]


def peak() -> float:
    """The most memory that this process has had, in MB (Linux): not its parent's, which getrusage hands down."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def scan(root: Path, outlines: bool, profiled: bool) -> None:
    """In this process, with a line of what it took."""
    from resnetkit.data import boxes

    before = peak()
    start, cpu = time.perf_counter(), time.process_time()
    if profiled:
        import cProfile

        cProfile.runctx("boxes.scan(root, outlines=outlines)", {}, locals(), sort="tottime")
        return
    found = boxes.scan(root, outlines=outlines)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    objects = sum(int(found.counts(split).sum()) for split in found.given_splits or ("",))
    kind = "outlines" if outlines else "boxes"
    print(
        f"{kind}: {len(found):,} images, {objects:,} objects: {seconds:.1f} s ({cpu:.1f} s of processor time), "
        f"at most {peak():,.0f} MB, {before:,.0f} MB before"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--profile", action="store_true", help="where the time goes")
    parser.add_argument("--only", choices=["boxes", "outlines"], help="one scan, in this process")
    args = parser.parse_args()
    if not (args.folder / "annotations.json").exists():
        make(args.folder, args.images)
    if args.only:
        scan(args.folder, args.only == "outlines", args.profile)
        return
    for kind in ("boxes", "outlines"):
        command = [sys.executable, __file__, str(args.folder), "--only", kind]
        subprocess.run([*command, *["--profile"] * args.profile], check=True)


if __name__ == "__main__":
    main()
