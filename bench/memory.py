"""Whether memory stays flat: the resident memory of a process over 20,000 predictions of different JPEG files.

    python bench/memory.py --picture docs/memory.svg

The files are made before anything is counted: sides of 80 to 400 px, JPEG quality 70 to 95, no two alike; with
--photos they are distinct crops of photos. A ResNet-18 with fresh weights sees them at 64 px, through `predict` as the
command line calls it. Every backend is a process of its own. After every 100th prediction its resident memory is read
(/proc/self/statm, so Linux only). The slope, in MB for 10,000 predictions, is that of a line by least squares after the
first quarter, through the means of 15 equal parts, since what is read one after the other is alike; its 95 % interval
is that of Student's t.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from load import write_photos

EVERY, WARM, PARTS, PER = 100, 0.25, 15, 10_000


def write_files(root: Path, count: int) -> None:
    """`count` different JPEG files of different sizes."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    root.mkdir(parents=True)
    for i in range(count):
        width, height = (int(side) for side in rng.integers(80, 401, 2))
        small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
        small.resize((width, height), Image.Resampling.BICUBIC).save(
            root / f"{i}.jpg", quality=int(rng.integers(70, 96))
        )


def resident() -> float:
    """Memory of this process, MB of 10^6 bytes."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def measured(folder: Path, backend: str, count: int) -> list[float]:
    """Resident memory after every EVERYth of `count` predictions."""
    import resnetkit

    files = sorted((folder / "photos").rglob("*.jpg"))
    inputs = [files[i % len(files)] for i in range(count)]
    found = []
    for done, answer in enumerate(resnetkit.predict(folder / "model", inputs, backend=backend, device="cpu"), 1):
        assert not isinstance(answer, Exception), answer
        if done % EVERY == 0:
            found.append(resident())
    return found


def slope(memory: Sequence[float]) -> tuple[float, float, float]:
    """MB for 10,000 predictions after the first quarter, with a 95 % interval."""
    import numpy as np
    from scipy import stats

    parts = [part.mean() for part in np.array_split(memory[int(WARM * len(memory)) :], PARTS)]
    length = (1 - WARM) * len(memory) * EVERY / PARTS / PER
    line = stats.linregress(np.arange(PARTS) * length, parts)
    half = float(stats.t.ppf(0.975, PARTS - 2)) * float(line.stderr)
    return float(line.slope), float(line.slope) - half, float(line.slope) + half


def picture(memory: Mapping[str, Sequence[float]], path: Path) -> None:
    """Resident memory against predictions."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    pyplot.rcParams["svg.hashsalt"] = "resnetkit"
    figure, axis = pyplot.subplots(figsize=(6, 3.2))
    for name, found in memory.items():
        axis.plot([EVERY * (i + 1) for i in range(len(found))], found, label=name, linewidth=1.2)
    axis.set(xlabel="predictions", ylabel="resident memory, MB", ylim=(0, None))
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.grid(alpha=0.3)
    axis.legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def main() -> None:
    """Measure every backend, print slopes, draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="folder of photos to cut crops from")
    parser.add_argument("--count", type=int, default=20_000, help="predictions")
    parser.add_argument("--files", type=int, default=5000, help="different files among them")
    parser.add_argument("--backend", action="append", help="torch and onnxruntime if left out")
    parser.add_argument("--picture", type=Path, help="an .svg to write")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measured(Path(arguments.one[0]), arguments.one[1], arguments.count)))
        return
    import resnetkit
    from resnetkit.data.image import Preprocess

    memory = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        resnetkit.save(resnetkit.resnet18(num_classes=10).eval(), folder / "model", preprocess=Preprocess(size=64))
        if arguments.photos:
            write_photos(folder / "photos", arguments.photos, arguments.files, 0.6)
        else:
            write_files(folder / "photos", arguments.files)
        for backend in arguments.backend or ("torch", "onnxruntime"):
            command = [sys.executable, __file__, "--count", str(arguments.count), "--one", str(folder), backend]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            memory[backend] = json.loads(done.stdout.splitlines()[-1])
            line, low, high = slope(memory[backend])
            ends = f"{memory[backend][0]:.0f} MB after {EVERY}, {memory[backend][-1]:.0f} MB after {arguments.count:,}"
            print(f"{backend:12} {ends}; {line:+.2f} MB for {PER:,} more ({low:+.2f} to {high:+.2f})", flush=True)
    if arguments.picture:
        picture(memory, arguments.picture)


if __name__ == "__main__":
    main()
