"""How well `resnetkit train --time-limit` knows before the first step what it will take, and whether it keeps to it.

    python bench/plan.py DATA --weights ../shared/weights/resnet34-tiny-imagenet.safetensors --limits 60 180 600

Each limit is a process of its own with an empty cache. Predicted: the seconds that the line "plan: ..." says, from that
line to the exit; taken: those that it took. The limit is kept from the start of the process to its exit; 5 % or 3 s
over is what is promised at most.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

PLAN = re.compile(r"plan: (.*); (\d+) s in all")


@dataclass(frozen=True)
class Row:
    """A run: its limit, what it predicted and what it took, in seconds, and its plan and accuracy."""

    limit: int
    predicted: float
    taken: float
    whole: float
    kept: bool
    accuracy: float
    plan: str


def run(data: str, limit: int, flags: list[str]) -> Row:
    """Train with a limit; gives what was said and what it took."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "resnetkit", "train", data, "--time-limit", f"{limit}s", *flags]
        env = os.environ | {"RESNETKIT_CACHE": f"{folder}/cache"}
        started = planned = time.perf_counter()
        plan, predicted = "", 0.0
        command += ["--out", f"{folder}/run"]
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=env
        ) as process:
            assert process.stderr
            for line in process.stderr:
                if found := PLAN.search(line):
                    planned, plan, predicted = time.perf_counter(), found[1], float(found[2])
        ended = time.perf_counter()
        if process.returncode:
            sys.exit(f"{' '.join(command)} failed")
        accuracy = json.loads(Path(folder, "run", "metrics.json").read_text(encoding="utf-8"))["accuracy"]["value"]
    whole = ended - started
    kept = whole <= max(1.05 * limit, limit + 3)
    return Row(limit, predicted, ended - planned, whole, kept, accuracy, plan)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--limits", type=int, nargs="+", default=[60, 180, 600])
    parser.add_argument("--weights", required=True)
    parser.add_argument("--ours", nargs=argparse.REMAINDER, default=[], help="flags of resnetkit train; stands last")
    args = parser.parse_args()
    for limit in args.limits:
        row = run(args.data, limit, ["--weights", args.weights, *args.ours])
        print(
            json.dumps({name: round(v, 3) if isinstance(v, float) else v for name, v in asdict(row).items()}),
            flush=True,
        )


if __name__ == "__main__":
    main()
