"""Two processes of one thread against one process of two: `resnetkit train` under torchrun, in turns.

    python bench/scale.py --size 64 --batch 32
    python bench/scale.py --size 224 --batch 16 --images 96

Both train ResNet-34 from scratch on the same generated photos with the same global batch. The time is that between the
first epoch's row of results.csv and the last one's, so that starting and decoding are outside; validation is inside.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from load import write_photos  # noqa: E402

SETTINGS = ("model.weights=none", "model.stem=imagenet", "train.memory_format=channels_last", "data.test=0")


def seconds(root: Path, processes: int, args: argparse.Namespace, out: Path) -> float:
    """Seconds of the epochs after the first one."""
    start = [sys.executable, "-m"]
    if processes > 1:
        start += ["torch.distributed.run", "--nproc-per-node", str(processes), "--module"]
    settings = [flag for setting in (*SETTINGS, f"image.size={args.size}") for flag in ("--set", setting)]
    command = [*start, "resnetkit", "train", str(root), "--out", str(out), "--quiet"]
    command += ["--epochs", str(args.epochs), "--batch-size", str(args.batch), *settings]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": str(2 // processes)})
    with (out / "results.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return float(rows[-1]["seconds"]) - float(rows[0]["seconds"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--images", type=int, default=320)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    found: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "photos"
        write_photos(root, None, args.images, 0.6)
        for number in range(args.rounds):
            for processes, times in found.items():
                times.append(seconds(root, processes, args, Path(folder) / f"run-{processes}-{number}"))
    ratios = sorted(one / two for one, two in zip(found[1], found[2], strict=True))
    print(
        f"one process of two threads {statistics.median(found[1]):.1f} s, "
        f"two of one {statistics.median(found[2]):.1f} s: {statistics.median(ratios):.2f} times faster "
        f"({ratios[0]:.2f} to {ratios[-1]:.2f}, {args.rounds} rounds)"
    )


if __name__ == "__main__":
    main()
