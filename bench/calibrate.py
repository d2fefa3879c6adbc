"""How far a run's calibration may be believed on its test images, which it has not seen.

    python bench/calibrate.py runs/photos photos/ --other else/

Prints the expected calibration error and the log loss without and with the temperature, what the sets of each coverage
kept and how large they are, how many of the test images are called novel, and how many of the images of `--other`.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

import resnetkit
from resnetkit.ops.calibration import samples_for
from resnetkit.ops.intervals import Metric, wilson
from resnetkit.runtime.model import Model
from resnetkit.verbs.eval import part_of, run_on, score_split

COVERAGES = (0.8, 0.9, 0.95, 0.99)


def told(metric: Metric) -> str:
    """Value and interval, per cent."""
    assert metric.value is not None and metric.low is not None and metric.high is not None
    return f"{100 * metric.value:5.1f} % ({100 * metric.low:.1f} to {100 * metric.high:.1f})"


def novel(model: Model, files: list[Path]) -> Metric:
    """Share of the files that are called novel."""
    answers = [answer for _, answer in model.predictions(files)]
    return wilson(sum(bool(getattr(answer, "novel", False)) for answer in answers), len(answers))


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--other", type=Path, help="images of something else")
    arguments = parser.parse_args()
    model = resnetkit.load(arguments.run, device="cpu")
    known = model.checkpoint.calibration
    assert known is not None, "the run is not calibrated"
    _, split, part = part_of(model, run_on(arguments.run, arguments.data), arguments.data, None)
    plain = Model(replace(model.checkpoint, calibration=None), model.backend)
    print(f"{len(part):,} {split} images; calibrated on {known.n:,}, temperature {known.temperature:.2f}")
    for name, each in (("without", plain), ("with", model)):
        scores = score_split(each, (split, part), quiet=True)
        loss = scores.judged.losses.mean()
        print(
            f"{name:8} accuracy {told(scores.metrics['accuracy'])}  ECE {told(scores.metrics['ece'])}  loss {loss:.3f}"
        )
    for coverage in COVERAGES:
        if samples_for(coverage) <= len(known.scores):
            inside = known.possible(scores.logits, coverage)
            kept = wilson(int(inside[np.arange(len(inside)), scores.targets].sum()), len(inside))
            print(f"coverage {100 * coverage:.0f} %: kept {told(kept)}, {inside.sum(1).mean():.2f} classes in a set")
    print(f"novel: {told(novel(model, list(map(Path, part.files))))}")
    if arguments.other:
        elsewhere = model.task.modality.scan(arguments.other)
        print(f"novel of {arguments.other}: {told(novel(model, list(map(Path, elsewhere.files))))}")


if __name__ == "__main__":
    main()
