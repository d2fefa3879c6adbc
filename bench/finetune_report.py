"""Tables and the picture of finetune.py, of the measurements in a folder.

Means are over seeds, with a 95 % interval of Student's t over them, or Wilson's over the test images where there is
one seed. "Time to the peer's final accuracy" compares mean curves, without interpolation: for the peer, the first pass
from which on its accuracy is not under its final one; for ours, the shortest time limit from which on every longer one
reaches it too; 0 times faster says that it does not. At equal time, ours is the longest run that ended before the peer
did.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

OURS = ("resnetkit", "resnetkit-all")
AIMS = {"linear-probe": 10, "tuned-probe": 10}  # the others: 4
CLOCKS = {"seconds": "wall time, s", "cpu": "CPU time, s"}
Z95 = 1.959963984540054


@dataclass(frozen=True)
class Point:
    """A place on a contestant's curve: a pass or a time limit, one value a seed."""

    seconds: tuple[float, ...]
    accuracies: tuple[float, ...]
    memory: tuple[float, ...]
    seeds: tuple[int, ...]
    n: int

    @property
    def time(self) -> float:
        """Mean seconds."""
        return float(np.mean(self.seconds))

    @property
    def accuracy(self) -> float:
        """Mean accuracy."""
        return float(np.mean(self.accuracies))

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the accuracy."""
        return over_seeds(self.accuracies) if len(self.accuracies) > 1 else wilson(self.accuracy, self.n)


Curve = Sequence[Point]
Panel = Mapping[str, Curve]


def over_seeds(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of a mean by Student's t."""
    half = float(stats.t.ppf(0.975, len(values) - 1)) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return float(np.mean(values)) - half, float(np.mean(values)) + half


def wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of n."""
    centre = (share + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * math.sqrt(share * (1 - share) / n + Z95**2 / (4 * n * n))
    return centre - half, centre + half


def rows_of(out: Path) -> list[dict[str, Any]]:
    """Every measured point: place is the number of the pass, or our time limit."""
    rows = []
    for file in sorted((out / "measured").glob("*.json")):
        kept = json.loads(file.read_text(encoding="utf-8"))
        points = kept.pop("points")
        for number, point in enumerate(points, 1):
            rows.append({**kept, "place": kept["limit"] or point.pop("passes", number), **point})
    return rows


def panels_of(rows: Sequence[Mapping[str, Any]], clock: str) -> dict[str, Panel]:
    """Curves by set and contestant, of the seeds that have each place of their contestant."""
    panels: dict[str, Panel] = {}
    for title, who in sorted({(f"{row['dataset']}, {row['size']} px", row["contestant"]) for row in rows}):
        own = [row for row in rows if (f"{row['dataset']}, {row['size']} px", row["contestant"]) == (title, who)]
        places = sorted({row["place"] for row in own})
        found = {(row["place"], row["seed"]): row for row in own}
        seeds = [s for s in sorted({row["seed"] for row in own}) if all((place, s) in found for place in places)]
        at = [[found[place, seed] for seed in seeds] for place in places] if seeds else []
        curve = [
            Point(
                tuple(row[clock] for row in here),
                tuple(row["accuracy"] for row in here),
                tuple(row["memory"] for row in here),
                tuple(row["seed"] for row in here),
                here[0]["n"],
            )
            for here in at
        ]
        panels[title] = {**panels.get(title, {}), **({who: curve} if curve else {})}
    return panels


def reached(curve: Curve, accuracy: float) -> Point | None:
    """The first point from which on the curve is not under an accuracy."""
    first = None
    for point in reversed(curve):
        if point.accuracy < accuracy:
            break
        first = point
    return first


def times_faster(ours: Curve, theirs: Curve) -> str:
    """How many times sooner ours reaches the peer's final accuracy: by the mean curves, and the range of the seeds'."""

    def ratio(mine: Curve, other: Curve) -> float:
        first, last = reached(mine, other[-1].accuracy), reached(other, other[-1].accuracy)
        return last.time / first.time if first and last else 0.0

    if not ours:
        return "-"
    if ours[0].seeds != theirs[0].seeds:
        return "other seeds"
    number = len(ours[0].seeds)
    alone = sorted(ratio(of_seed(ours, i), of_seed(theirs, i)) for i in range(number))
    of_seeds = f" ({alone[0]:.1f} to {alone[-1]:.1f})" if number > 1 else ""
    return f"{ratio(ours, theirs):.1f}{of_seeds}"


def of_seed(curve: Curve, i: int) -> Curve:
    """A curve of one seed, the i-th."""
    return [Point((at.seconds[i],), (at.accuracies[i],), (at.memory[i],), (at.seeds[i],), at.n) for at in curve]


def percent(value: float, interval: tuple[float, float], sign: str = "") -> str:
    return f"{100 * value:{sign}.1f} ({100 * interval[0]:{sign}.1f} to {100 * interval[1]:{sign}.1f})"


def at_equal_time(ours: Curve, last: Point) -> str:
    """Our accuracy less the peer's at the peer's end, seed by seed, in points of percent."""
    within = [point for point in ours if point.time <= last.time]
    if not within:
        return "no run as short"
    point = within[-1]
    if point.seeds != last.seeds:
        return "other seeds"
    gains = [a - b for a, b in zip(point.accuracies, last.accuracies, strict=True)]
    if len(gains) > 1:
        return percent(float(np.mean(gains)), over_seeds(gains), "+") + f" at {point.time:.0f} s"
    return f"{100 * gains[0]:+.1f} (one seed) at {point.time:.0f} s"


def table(title: str, panel: Panel, who_we_are: str) -> str:
    """A Markdown table of a set: each peer against one of ours."""
    ours = panel.get(who_we_are, [])
    seeds = max((len(curve[0].seeds) for curve in panel.values()), default=0)
    peak = f"{max(np.mean(point.memory) for point in ours):.0f}" if ours else "-"
    lines = [
        f"### {title}, {seeds} seed{'s' * (seeds > 1)}, against {who_we_are}\n",
        "| peer | its final accuracy, % | reached after | ours reaches it after | times faster (seeds), aim "
        "| ours less peer's at equal time, points | peak MB, ours and peer |",
        "|---|---|---|---|---|---|---|",
    ]
    for who, curve in panel.items():
        if who in OURS:
            continue
        final, theirs, mine = curve[-1], reached(curve, curve[-1].accuracy), reached(ours, curve[-1].accuracy)
        assert theirs
        after = f"{mine.time:.0f} s" if mine else "not reached" if ours else "-"
        lines.append(
            f"| {who} | {percent(final.accuracy, final.interval)} | {theirs.time:.0f} s of {final.time:.0f} "
            f"| {after} | {times_faster(ours, curve)}, {AIMS.get(who, 4)} "
            f"| {at_equal_time(ours, final)} | {peak} and {np.mean(final.memory):.0f} |"
        )
    runs = "; ".join(f"{point.time:.0f} s {percent(point.accuracy, point.interval)}" for point in ours)
    return "\n".join([*lines, f"\nOurs, %: {runs or 'not measured'}\n"])


def picture(panels: Mapping[str, Panel], path: Path, clock: str) -> None:
    """Accuracy against wall time: one panel a set, one line a contestant."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "resnetkit"  # the same points give the same file
    figure, axes = pyplot.subplots(1, len(panels), figsize=(6 * len(panels), 4.2), squeeze=False)
    colors = {
        "resnetkit": "C3",
        "resnetkit-all": "C4",
        "linear-probe": "C7",
        "tuned-probe": "C8",
        "fastai": "C0",
        "torchvision": "C1",
        "timm": "C2",
    }
    for axis, (title, panel) in zip(axes[0], panels.items(), strict=True):
        for who, curve in panel.items():
            means = [100 * point.accuracy for point in curve]
            bounds = [[100 * bound for bound in point.interval] for point in curve]
            spread = [[m - low for m, (low, _) in zip(means, bounds, strict=True)]]
            spread += [[high - m for m, (_, high) in zip(means, bounds, strict=True)]]
            style = {"color": colors.get(who), "linewidth": 2.2 if who in OURS else 1.2, "marker": "o", "markersize": 3}
            axis.errorbar([point.time for point in curve], means, spread, label=who, capsize=2, elinewidth=0.7, **style)
        axis.set(title=title, xlabel=CLOCKS[clock], ylabel="accuracy on the test images, %", xscale="log")
        axis.xaxis.set_major_formatter("{x:.0f}")
        axis.grid(alpha=0.3, which="both")
        axis.legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def report(out: Path, clock: str = "seconds") -> str:
    """Write points.csv, points.json, finetune.svg and table.txt by a clock ("seconds" or "cpu"); gives the tables."""
    rows = rows_of(out)
    if not rows:
        return "nothing is measured yet"
    (out / "points.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    with (out / "points.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    panels = panels_of(rows, clock)
    picture(panels, out / "finetune.svg", clock)
    text = "\n".join(
        table(f"{title}, {CLOCKS[clock]}", panel, who)
        for title, panel in panels.items()
        for who in OURS
        if who in panel
    )
    (out / "table.txt").write_text(text, encoding="utf-8")
    return text
