"""Growing against training the deep network from the start, at equal wall time, on a part of CIFAR-10.

    python docs/paper/growing.py --data ../shared/data/cifar10

ResNet-56 is trained for --epochs epochs; ResNet-20 for three quarters of as many, and after that, grown into ResNet-56,
for three quarters once more. A step of ResNet-20 costs a third of one of ResNet-56, so both take about the same time,
which is measured. The images and the recipe are those of degradation.py, with zero-init residual for both. Writes
growing.csv beside this file; a run that is finished is not trained again, one that was interrupted is resumed.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from degradation import HERE, prepared, trained

COLUMNS = ("seed", "way", "epochs", "seconds", "train_loss", "test_accuracy")


def main() -> None:
    """Train what is missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of train.zip and test.zip")
    parser.add_argument("--out", type=Path, default=Path("runs/growing"))
    parser.add_argument("--images", type=int, default=1500, help="training images of each class")
    parser.add_argument("--epochs", type=int, default=8, help="of the deep network from the start, a multiple of 4")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--precision", default="auto")
    args = parser.parse_args()
    data = prepared(args.data, args.out / "data", args.images)
    common = {"model.zero_init_residual": True, "train.precision": args.precision}
    deep = {**common, "train.epochs": args.epochs}
    growing = {**common, "train.epochs": args.epochs * 3 // 2, "grow.from": "resnet20", "grow.at": 0.5}
    lines = []
    for seed in range(args.seeds):
        for way, settings in (("deep from the start", deep), ("grown", growing)):
            run = args.out / f"{way.split()[0]}-{seed}"
            last = trained("resnet56", data, run, {**settings, "train.seed": seed})[-1]
            lines.append((seed, way, last["epoch"], last["seconds"], last["train_loss"], last["val_accuracy"]))
            print(dict(zip(COLUMNS, lines[-1], strict=True)))
    with (HERE / "growing.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows((COLUMNS, *lines))


if __name__ == "__main__":
    main()
