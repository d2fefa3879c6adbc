"""Peak memory of a training on large photos, beside the same photos made small: boxes, and objects with their pixels.

    python bench/scene_photos.py FOLDER

Each photo gets ten made boxes with an outline, in the pixels of its file. `resnetkit train` learns one epoch with
ResNet-18 on the canvas of its defaults, in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from resnetkit.data.annotated import header_of
from resnetkit.data.formats import EXTENSIONS

SMALL, OBJECTS = 640, 10  # pixels of the long side; boxes a photo
KINDS = {"detect": "boxes", "instances": "objects with their pixels"}


def annotated(root: Path) -> float:
    """annotations.json beside photos; gives the megapixels of the largest."""
    rng = np.random.default_rng(0)
    images, annotations, most = [], list[dict[str, object]](), 0.0
    for k, path in enumerate(sorted(path for path in root.iterdir() if path.suffix.lower() in EXTENSIONS)):
        header = header_of(path)
        assert header is not None, path
        (width, height), _ = header
        most = max(most, width * height / 1e6)
        images.append({"id": k, "file_name": path.name, "width": width, "height": height})
        for _ in range(OBJECTS):
            x, y = (rng.random(2) * 0.6 * (width, height)).tolist()
            w, h = ((0.05 + 0.35 * rng.random(2)) * (width, height)).tolist()
            outline = [x, y + h / 2, x + w / 2, y, x + w, y + h / 2, x + w / 2, y + h]
            where = {"image_id": k, "category_id": int(rng.integers(1, 4)), "bbox": [x, y, w, h]}
            annotations.append({"id": len(annotations), **where, "iscrowd": 0, "segmentation": [outline]})
    categories = [{"id": k, "name": f"class {k}"} for k in range(1, 4)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations.json").write_text(json.dumps(content), encoding="utf-8")
    return most


def trained(root: Path, task: str, out: Path) -> tuple[float, float]:
    """Seconds and peak memory in MB of one epoch."""
    command = [sys.executable, "-m", "resnetkit", "train", str(root), "--task", task, "--out", str(out), "--quiet"]
    command += ["--model", "resnet18", "--weights", "none", "--epochs", "1", "--set", "data.test=0"]
    started = time.perf_counter()
    measure = "import resource, subprocess, sys; code = subprocess.run(sys.argv[1:]).returncode; "
    measure += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)"
    done = subprocess.run([sys.executable, "-c", measure, *command], check=True, capture_output=True, text=True)
    return time.perf_counter() - started, int(done.stdout.split()[-1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of photos")
    args = parser.parse_args()
    files = sorted(path for path in args.folder.iterdir() if path.suffix.lower() in EXTENSIONS)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("large", "small"):
            (Path(folder) / name).mkdir()
        for path in files:
            shutil.copy(path, Path(folder) / "large")
            with Image.open(path) as image:
                shrunk = ImageOps.exif_transpose(image).convert("RGB")
                shrunk.thumbnail((SMALL, SMALL))
                shrunk.save(Path(folder) / "small" / f"{path.stem}.jpg")
        for name in ("large", "small"):
            root = Path(folder) / name
            most = annotated(root)
            for task, what in KINDS.items():
                seconds, peak = trained(root, task, Path(folder) / f"{name}-{task}")
                print(
                    f"{len(files)} photos of at most {most:.1f} megapixels, {what}: {seconds:.0f} s, {peak:,.0f} MB",
                    flush=True,
                )


if __name__ == "__main__":
    main()
