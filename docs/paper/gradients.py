"""Norm of the loss's gradient by depth at initialisation, plain against residual: a CSV and a picture beside this file.

    python docs/paper/gradients.py

For each network the mean over five seeds of the gradient's norm with respect to each 3x3 convolution, for a batch of 64
images of noise and random labels, in training mode. Kaiming initialisation, as everywhere in resnetkit. Ten seconds.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

from resnetkit import models

HERE = Path(__file__).parent
NETWORKS, SEEDS, BATCH = ("plain20", "plain56", "plain110", "resnet20", "resnet56", "resnet110"), 5, 64


def norms(variant: str, seed: int) -> list[float]:
    """Gradient norm of each 3x3 convolution, from the input to the output."""
    torch.manual_seed(seed)
    network = models.build(variant)
    loss = nn.functional.cross_entropy(network(torch.randn(BATCH, 3, 32, 32)), torch.randint(0, 10, (BATCH,)))
    loss.backward()
    return [float(m.weight.grad.norm()) for m in network.modules() if isinstance(m, nn.Conv2d)]


def main() -> None:
    """Write gradients.csv and gradients.svg."""
    found = {name: np.mean([norms(name, seed) for seed in range(SEEDS)], 0) for name in NETWORKS}
    with (HERE / "gradients.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("network", "layer", "gradient_norm"))
        writer.writerows((name, i + 1, f"{v:.6g}") for name, values in found.items() for i, v in enumerate(values))
    figure = Figure(figsize=(8, 3.5), layout="constrained")
    axis = figure.subplots()
    for name, values in found.items():
        style = {"linestyle": "--"} if name.startswith("plain") else {}
        axis.semilogy(np.linspace(0, 1, len(values)), values, label=name, **style)
    axis.set_xlabel("depth, from the input (0) to the output (1)")
    axis.set_ylabel("norm of the gradient")
    axis.legend(ncols=2, frameon=False)
    axis.grid(alpha=0.3)
    figure.savefig(HERE / "gradients.svg", metadata={"Date": None, "Creator": None})
    for name, values in found.items():
        print(f"{name:10} first layer {values[0]:.3g}, last layer {values[-1]:.3g}, ratio {values[0] / values[-1]:.3g}")


if __name__ == "__main__":
    main()
