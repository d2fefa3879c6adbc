"""What goes to stdout: answers and metrics as lines. Imports nothing heavy, as the command line does not."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def line(row: Mapping[str, Any], form: str) -> str:
    """An answer as one line, a row of a table or JSON."""
    if form == "jsonl":
        return json.dumps(row, ensure_ascii=True)
    from resnetkit.errors import printable

    keys = [key for key in row if key == "label" or key.startswith("label_")]
    ranked = [(row[key], row[key.replace("label", "score")]) for key in keys]
    present = f"{row['labels'] or 'no label'}:  " if "labels" in row else ""
    said = "  ".join(f"{label} {100 * score:.1f} %" for label, score in ranked)
    one_of = f"  one of {row['set'] or 'none'}" if "set" in row else ""
    doubts = ("  not sure" if row.get("uncertain") else "") + ("  novel" if row.get("novel") else "")
    return f"{printable(row['path'])}  {present}{said}{one_of}{doubts}"


def explanation_line(row: Mapping[str, Any]) -> str:
    """An explanation as one line: path, label and score, overlay, and the training image that is most like it."""
    from resnetkit.errors import printable

    row = {name: printable(value) if isinstance(value, str) else value for name, value in row.items()}
    other = f"  {row['explained']} explained" if row["explained"] != row["label"] else ""
    near = ""
    if "nearest_1" in row:
        near = f"  like {row['nearest_1']} ({row['nearest_1_label']}, {row['nearest_1_similarity']:.2f})"
    return f"{row['path']}  {row['label']} {100 * row['score']:.1f} %{other}  {row['overlay']}{near}"


def write_rows(rows: list[Mapping[str, Any]], form: str, out: str | None) -> None:
    """Answers into a file, or as CSV to stdout where none is named."""
    from resnetkit.errors import printable
    from resnetkit.files import write
    from resnetkit.run import as_csv

    if form == "csv":
        columns = list(dict.fromkeys(name for row in rows for name in row)) or ["path", "label", "score"]
        text = as_csv(columns, ({**row, "path": printable(row["path"])} for row in rows))
    else:
        text = "".join(line(row, form) + "\n" for row in rows)
    if out:
        write(Path(out), text)
    else:
        print(text, end="")


def print_metrics(metrics: Mapping[str, Mapping[str, Any]], more: Mapping[str, str], as_json: bool) -> None:
    """Metrics with their intervals, or as JSON together with `more`."""
    if as_json:
        print(json.dumps({**more, "metrics": metrics}))
        return
    for name, metric in metrics.items():
        if metric["value"] is None:
            print(f"{name:24} -        ({metric['method']})")
        else:
            interval = f"{100 * metric['low']:.1f} to {100 * metric['high']:.1f} %"
            print(f"{name:24} {100 * metric['value']:5.1f} %  ({interval}, n = {metric['n']:,})")


def comparison_lines(comparison: Mapping[str, Any]) -> Iterator[str]:
    """The verdict, the differences with their intervals, and what each model has right of each class."""
    yield comparison["verdict"]
    right = f"images that A alone has right: {comparison['only_a_right']:,}, B alone: {comparison['only_b_right']:,}"
    test = "McNemar's exact" if comparison["groups"] is None else f"of {comparison['groups']:,} groups swapped,"
    yield f"{right}; {test} p = {comparison['p']:.2g}"
    for name, metric in comparison["b_less_a"].items():
        if metric["value"] is not None:
            low, value, high = (
                100 * metric[key] if name != "log_loss" else metric[key] for key in ("low", "value", "high")
            )
            unit = " points" if name != "log_loss" else ""
            yield f"{name + ', B less A':24} {value:+.2f}{unit}  ({low:+.2f} to {high:+.2f}, n = {metric['n']:,})"
    for name, counts in comparison["classes"].items():
        yield f"{name:24} A has {counts['a']:,} of {counts['n']:,} right, B {counts['b']:,}"
