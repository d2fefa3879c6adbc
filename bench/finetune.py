"""Fine-tuning on small photo sets: `resnetkit train --time-limit` against fastai, torchvision's loop and timm's parts.

    pip install --constraint constraints.txt fastai elpv-dataset
    python bench/finetune.py --weights ../shared/weights/resnet34-tiny-imagenet.safetensors

Same machine, threads, ResNet-34 weights, training and test images, input size and normalisation; every contestant has
its own recipe (finetune_peers.py says each) and its own process, in turns. Sets: finetune_data.py. The weights were
trained at 64 px, so CIFAR is seen at 64 px and the solar cells at 96 px; 224 px is what most networks see
(`--datasets elpv blood --size 224 --limits 50 --only resnetkit linear-probe`).

Time is the wall time of the process from its start, imports and decoding included. Peers: after each pass, without what
measuring the accuracy on the test images took, and without validation. Ours: one process a time limit, from start to
exit, so planning, validation, the model and the report are inside; nothing is in its cache before. It has no test
images: `resnetkit eval` scores these afterwards, as the peers' are scored beside the clock.
resnetkit-all is ours with --set model.pool=all, whose models torchvision and timm cannot open.
Memory is the peak of the largest process (ru_maxrss), loading workers apart. CPU seconds are kept too, for a machine
that others use meanwhile (--clock cpu; timm's lasting loading workers are not in them).

Each measurement is a JSON file under OUT/measured, and one that is there is not repeated: stop and start at will, and
remove those of resnetkit to measure a new version of it. In the end, or at once with --report, points.csv,
points.json, table.txt and finetune.svg are made of all that there are.

Measured with torch 2.14.1, torchvision 0.29.1, timm 1.0.31, fastai 2.8.12 (fastcore 2.2.39, fastprogress 1.1.6; fastai
accepts this torch, so nothing had to be forced) and elpv-dataset 1.0.0.post1.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from finetune_data import MAKERS, make  # noqa: E402
from finetune_report import report  # noqa: E402

PEERS = ("linear-probe", "tuned-probe", "fastai", "torchvision", "timm")
OURS = {"resnetkit": (), "resnetkit-all": ("--set", "model.pool=all")}  # contestant to its flags
SIZES = {"cifar": 64, "elpv": 96, "blood": 224}
LIMITS = {"cifar": (20, 45, 90, 180), "elpv": (30, 80, 160, 400), "blood": (50,)}


@dataclass(frozen=True)
class Measurement:
    """One process to run: a peer, or ours with a time limit in seconds."""

    dataset: str
    contestant: str
    seed: int
    size: int
    limit: int = 0

    def file(self, out: Path) -> Path:
        """Where its result is kept."""
        what = f"{self.contestant}{self.limit or ''}"
        return out / "measured" / f"{self.dataset}-{self.size}px-{what}-seed{self.seed}.json"


def measurements(args: argparse.Namespace) -> Iterator[Measurement]:
    """All that are asked for, seed by seed; each seed begins with another contestant."""
    for seed in range(args.seeds):
        for dataset in args.datasets:
            size = args.size or SIZES[dataset]
            limits = args.limits or LIMITS[dataset]
            turns = [Measurement(dataset, peer, seed, size) for peer in PEERS]
            turns += [Measurement(dataset, who, seed, size, limit) for who in OURS for limit in limits]
            turns = turns[::2] + turns[1::2]
            turns = turns[seed * 3 % len(turns) :] + turns[: seed * 3 % len(turns)]
            yield from (turn for turn in turns if not args.only or turn.contestant in args.only)


def run(command: list[str], env: Mapping[str, str], log: Path) -> dict[str, float]:
    """Seconds of a process, its CPU seconds and its peak memory in MB; it writes to `log` and `log`.err.

    Raises:
        RuntimeError: it failed.
    """
    with log.open("wb") as output, log.with_suffix(".err").open("wb") as errors:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=errors, env=env)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{log.with_suffix('.err').read_text(errors='replace')[-3000:]}")
    memory = usage.ru_maxrss / (1024 if sys.platform == "linux" else 2**20)
    return {"seconds": seconds, "cpu": usage.ru_utime + usage.ru_stime, "memory": memory}


def ours(this: Measurement, root: Path, args: argparse.Namespace, work: Path) -> list[dict[str, Any]]:
    """One point: `resnetkit train` with a time limit, from start to exit."""
    folder, cache, learnt = work / "run", work / "cache", work / "data"
    for split in ("train", "val"):
        shutil.copytree(root / split, learnt / split, copy_function=os.link)
    command = [sys.executable, "-m", "resnetkit", "train", str(learnt), "--weights", str(args.weights)]
    command += ["--seed", str(this.seed), "--time-limit", f"{this.limit}s", "--out", str(folder)]
    command += ["--set", f"image.size={this.size}", "--set", "image.crop_ratio=1", *OURS[this.contestant]]
    costs = run(command, environment(args) | {"RESNETKIT_CACHE": str(cache)}, work / "log")
    scored = [sys.executable, "-m", "resnetkit", "eval", str(folder), str(root), "--split", "test", "--json"]
    run(scored, environment(args), work / "scores")
    accuracy = json.loads((work / "scores").read_text(encoding="utf-8"))["metrics"]["accuracy"]
    return [{**costs, "accuracy": accuracy["value"], "n": accuracy["n"]}]


def peer(this: Measurement, root: Path, args: argparse.Namespace, work: Path) -> list[dict[str, Any]]:
    """A point for each pass over the training images."""
    script = Path(__file__).with_name("finetune_peers.py")
    command = [sys.executable, "-W", "ignore", str(script), this.contestant, "--root", str(root)]
    command += ["--weights", str(args.weights), "--size", str(this.size), "--seed", str(this.seed)]
    command += ["--threads", str(args.threads), "--passes", str(args.passes), "--every", str(args.every)]
    command += ["--workers", str(args.workers), "--started", repr(time.time())]
    memory = run(command, environment(args), work / "log")["memory"]
    points = json.loads((work / "log").read_text(encoding="utf-8").splitlines()[-1])
    return [{**point, "memory": memory} for point in points]


def environment(args: argparse.Namespace) -> dict[str, str]:
    """The environment of every contestant."""
    return os.environ | {"OMP_NUM_THREADS": str(args.threads), "RESNETKIT_THREADS": str(args.threads)}


def measure(this: Measurement, args: argparse.Namespace) -> None:
    """Run it, unless its result is there, and keep the result."""
    file = this.file(args.out)
    if file.exists():
        return
    root = make(this.dataset, args.out / "data", args.data, this.seed, args.images)
    work = args.out / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    points = (ours if this.contestant in OURS else peer)(this, root, args, work)
    shutil.rmtree(work)
    file.parent.mkdir(exist_ok=True)
    named = {**vars(this), "threads": args.threads, "points": points}
    file.with_suffix(".part").write_text(json.dumps(named, indent=1), encoding="utf-8")
    file.with_suffix(".part").rename(file)
    last = points[-1]
    print(f"{file.stem}: {last['accuracy']:.1%} in {last['seconds']:.0f} s, {last['memory']:.0f} MB", flush=True)


def refuse_mixture(args: argparse.Namespace) -> None:
    """Keep in OUT what all measurements there have in common.

    Raises:
        SystemExit: those that are there were made otherwise.
    """
    names = ("threads", "workers", "passes", "images")
    settings = {"weights": args.weights.name, **{name: getattr(args, name) for name in names}}
    file = args.out / "settings.json"
    args.out.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        file.write_text(json.dumps(settings), encoding="utf-8")
    elif json.loads(file.read_text(encoding="utf-8")) != settings:
        sys.exit(f"{args.out} holds measurements with {file.read_text(encoding='utf-8')}: give another --out")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="ResNet-34, torchvision's names, .safetensors")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="the folder that holds cifar10/")
    parser.add_argument("--out", type=Path, default=Path("runs/finetune-bench"))
    parser.add_argument("--datasets", nargs="+", choices=MAKERS, default=["cifar", "elpv"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2, help="loading processes of each peer")
    parser.add_argument(
        "--size", type=int, default=0, help="pixels for every set; 0: 64 for cifar, 96 for elpv, 224 for blood"
    )
    parser.add_argument("--limits", type=int, nargs="+", default=[], help="time limits of ours in seconds")
    parser.add_argument("--only", nargs="+", choices=(*OURS, *PEERS), default=[])
    parser.add_argument("--passes", type=int, default=0, help="of the peers, for a trial; 0: those of the recipes")
    parser.add_argument("--every", type=int, default=1, help="passes of a peer from one measured accuracy to the next")
    parser.add_argument("--images", type=int, default=0, help="images a split, for a trial; 0: all")
    parser.add_argument(
        "--clock", choices=("seconds", "cpu"), default="seconds", help="of the report: wall or CPU time"
    )
    parser.add_argument("--report", action="store_true", help="only report what is measured")
    args = parser.parse_args()
    failed = []
    if not args.report:
        refuse_mixture(args)
        for this in measurements(args):
            try:
                measure(this, args)
            except RuntimeError as error:
                failed.append(this.file(args.out).stem)
                print(f"{failed[-1]} failed: {error}", file=sys.stderr, flush=True)
    print(report(args.out, args.clock))
    if failed:
        sys.exit(f"failed, so not in the report: {', '.join(failed)}; start again to try only these")


if __name__ == "__main__":
    main()
