"""The degradation experiment: plain-20, plain-56, ResNet-20 and ResNet-56 on a part of CIFAR-10, with one recipe.

    python docs/paper/degradation.py --data ../shared/data/cifar10

Unpacks the first images of each class of train.zip and test.zip into --out, trains the four networks with
`resnetkit.train` and docs/paper/degradation.toml (one that is finished is not trained again, one that was interrupted
is resumed), and writes degradation.csv and degradation.svg beside this file: training loss, and error on the test
images after every epoch. The test images choose nothing: the curves are what is compared.
"""

from __future__ import annotations

import argparse
import csv
import zipfile
from pathlib import Path

from matplotlib.figure import Figure

import resnetkit

HERE = Path(__file__).parent
NETWORKS = ("plain20", "plain56", "resnet20", "resnet56")


def unpack(archive: Path, folder: Path, each: int) -> None:
    """The first `each` images of every class, as class folders."""
    with zipfile.ZipFile(archive) as members:
        for name in sorted(members.namelist()):
            label, _, file = name.partition("/")
            if file and int(Path(file).stem) < each:
                members.extract(name, folder)


def prepared(source: Path, data: Path, images: int) -> Path:
    """`images` training images of each class, and 200 test images, unpacked once."""
    if not data.exists():
        unpack(source / "train.zip", data / "train", images)
        unpack(source / "test.zip", data / "val", 200)
    return data


def trained(name: str, data: Path, run: Path, settings: dict[str, object]) -> list[dict[str, str]]:
    """The rows of results.csv of a network that is trained to its end."""
    if not (run / "model").exists():
        going_on = (run / "recipe.toml").exists()
        more = {} if going_on else {"model": name, "recipe": HERE / "degradation.toml", "settings": settings}
        resnetkit.train("" if going_on else data, out=run, resume=going_on, **more)
    with (run / "results.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def draw(found: dict[str, list[dict[str, str]]]) -> None:
    """Both curves of each network, plain ones dashed."""
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    loss, error = figure.subplots(1, 2)
    for name, rows in found.items():
        epochs = [int(row["epoch"]) for row in rows]
        style = {"linestyle": "--" if name.startswith("plain") else "-", "linewidth": 2.2 if "56" in name else 1.2}
        loss.plot(epochs, [float(row["train_loss"]) for row in rows], label=name, **style)
        error.plot(epochs, [100 * (1 - float(row["val_accuracy"])) for row in rows], label=name, **style)
    for axis, title in ((loss, "training loss"), (error, "test error, %")):
        axis.set(xlabel="epoch", title=title)
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    figure.savefig(HERE / "degradation.svg", metadata={"Date": None, "Creator": None})


def main() -> None:
    """Train what is missing, and write the table and the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of train.zip and test.zip")
    parser.add_argument("--out", type=Path, default=Path("runs/degradation"))
    parser.add_argument("--images", type=int, default=1500, help="training images of each class")
    parser.add_argument("--epochs", type=int, default=15)
    args = parser.parse_args()
    data = prepared(args.data, args.out / "data", args.images)
    found = {name: trained(name, data, args.out / name, {"train.epochs": args.epochs}) for name in NETWORKS}
    with (HERE / "degradation.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("network", "epoch", "train_loss", "test_error"))
        for name, rows in found.items():
            writer.writerows((name, r["epoch"], r["train_loss"], 1 - float(r["val_accuracy"])) for r in rows)
    draw(found)
    for name, rows in found.items():
        print(f"{name}: training loss {float(rows[-1]['train_loss']):.3f}, test accuracy {rows[-1]['val_accuracy']}")


if __name__ == "__main__":
    main()
