"""What goes to stdout: answers and metrics as lines. Imports nothing heavy, as the command line does not."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO


def line(row: Mapping[str, Any], form: str) -> str:
    """An answer as one line, a row of a table or JSON."""
    if form == "jsonl":
        return json.dumps(row, ensure_ascii=True)
    from resnetkit.errors import printable

    if "a" in row and "b" in row:
        same = {1: "  same", 0: "  different"}.get(row.get("same", -1), "")
        return f"{printable(row['a'])}  {printable(row['b'])}  {row['score']:.3f}{same}"
    if "x1" in row or "share" in row:
        return _place_line(row)
    keys = [key for key in row if key == "label" or key.startswith("label_")]
    ranked = [(row[key], row[key.replace("label", "score")]) for key in keys]
    present = f"{row['labels'] or 'no label'}:  " if "labels" in row else ""
    said = "  ".join(f"{label} {100 * score:.1f} %" for label, score in ranked)
    one_of = f"  one of {row['set'] or 'none'}" if "set" in row else ""
    doubts = ("  not sure" if row.get("uncertain") else "") + ("  novel" if row.get("novel") else "")
    return f"{printable(row['path'])}  {present}{said}{one_of}{doubts}"


def _place_line(row: Mapping[str, Any]) -> str:
    """A box as path, label, score and corners; a class of a mask as path, label and share of the pixels."""
    from resnetkit.errors import printable

    path = printable(row["path"])
    if not row["label"]:
        return f"{path}  nothing found"
    share = row["share"] if "share" in row else row["score"]
    corners = "".join(f"  {row[name]:.1f}" for name in ("x1", "y1", "x2", "y2") if name in row)
    return f"{path}  {row['label']} {100 * share:.1f} %{corners}"


def explanation_line(row: Mapping[str, Any]) -> str:
    """An explanation as one line: path, label and score, overlay or words, and the training sample most like it."""
    from resnetkit.errors import printable

    row = {name: printable(value) if isinstance(value, str) else value for name, value in row.items()}
    other = f"  {row['explained']} explained" if row["explained"] != row["label"] else ""
    near = ""
    if "nearest_1" in row:
        near = f"  like {row['nearest_1']} ({row['nearest_1_label']}, {row['nearest_1_similarity']:.2f})"
    shows = row["overlay"] if "overlay" in row else row["words"]
    return f"{row['path']}  {row['label']} {100 * row['score']:.1f} %{other}  {shows}{near}"


@contextmanager
def rows_into(out: str | None, call: Mapping[str, Any], *, resume: bool, overwrite: bool) -> Iterator[Rows]:
    """Where answers go as they come: stdout, or a file that takes its name when all are there.

    Until then it has the file's name with .partial behind, and stays if the work ends early: `resume` goes on with it.

    Args:
        out: the file; None is stdout.
        call: what the answers depend on, "format" among it; is kept in a file with .call behind, and must be the same.
        resume: go on with what is there.
        overwrite: begin anew where something is there.

    Raises:
        UsageError: something is there, nothing is, or it is of another call.
        ResourceError: the disk refuses.
    """
    if out is None:
        yield Rows(str(call["format"]), sys.stdout, {})
        return
    from resnetkit.files import resource_errors, write

    partial, beside = Path(f"{out}.partial"), Path(f"{out}.call")
    _refuse(Path(out), partial, resume=resume, overwrite=overwrite)
    with resource_errors(out):
        done = _done(partial, beside, call) if resume else {}
        write(beside, json.dumps(call))
        try:
            with partial.open("a" if done else "w", encoding="utf-8", newline="") as file:
                yield Rows(str(call["format"]), file, done)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(out)
        finally:
            if partial.exists() and not partial.stat().st_size:
                partial.unlink()
            if not partial.exists():
                beside.unlink(missing_ok=True)


def _refuse(out: Path, partial: Path, *, resume: bool, overwrite: bool) -> None:
    from resnetkit.errors import UsageError

    if resume and overwrite:
        raise UsageError("--resume and --overwrite exclude each other", fix="give one of them")
    if resume and not partial.exists():
        what = "is finished already" if out.exists() else "there is nothing to go on with"
        raise UsageError(what, path=out, fix="leave --resume out, or choose another --out")
    if overwrite or resume:
        return
    if partial.exists():
        raise UsageError("holds answers so far", path=partial, fix="--resume to go on, --overwrite to begin anew")
    if out.exists():
        raise UsageError("is there already", path=out, fix="--overwrite to replace it, or another --out")


@dataclass
class Rows:
    """Answers on their way to a file.

    Attributes:
        form: table, jsonl or csv.
        file: where they go.
        done: printable paths of the answers of an earlier call, and the columns of a CSV under "".
    """

    form: str
    file: TextIO
    done: dict[str, tuple[str, ...]]
    columns: tuple[str, ...] = ()

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """The rows of one answer, whole and at once."""
        from resnetkit.errors import printable
        from resnetkit.run import as_csv

        if self.form != "csv":
            print("\n".join(line(row, self.form) for row in rows), file=self.file, flush=True)
            return
        if not self.columns:
            self.columns = self.done.get("", tuple(rows[0]))
            if not self.done:
                print(as_csv(self.columns, []), end="", file=self.file)
        named = ({**row, "path": printable(row["path"])} for row in rows)
        print(as_csv(self.columns, named).partition("\n")[2], end="", file=self.file)
        self.file.flush()


def _done(partial: Path, beside: Path, call: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """The whole lines of a file that was left: a last one that is cut short is removed from it.

    Raises:
        UsageError: it holds a table, which does not say where a path ends, or answers of another call.
    """
    from resnetkit.errors import UsageError, printable
    from resnetkit.run import plain

    if call["format"] == "table":
        raise UsageError("a table cannot be resumed", path=partial, fix="--format csv or jsonl")
    fix = "give the same model and options, or --overwrite"
    try:
        before = json.loads(beside.read_text(encoding="utf-8"))
        other = [name for name in call if before.get(name) != call[name]]
    except (OSError, ValueError, AttributeError):
        raise UsageError("does not say what it is of", path=partial, fix=fix) from None
    if other:
        raise UsageError(f"holds answers with another {' and '.join(other)}", path=partial, fix=fix)
    content = partial.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(partial, len(whole))
    text = whole.decode("utf-8")
    if text and _several_rows(text, call["format"]):
        text = _without_last(text, call["format"])
        os.truncate(partial, len(text.encode("utf-8")))
    if call["format"] == "jsonl":
        return {printable(json.loads(each)["path"]): () for each in text.splitlines()}
    reader = csv.DictReader(io.StringIO(text, newline=""))
    found: dict[str, tuple[str, ...]] = {plain(row["path"]): () for row in reader}
    return {"": tuple(reader.fieldnames or ()), **found} if text else {}


def _several_rows(text: str, form: str) -> bool:
    """Whether an answer takes several rows, as boxes and masks do."""
    if form == "jsonl":
        return bool({"x1", "share"} & json.loads(text.partition("\n")[0]).keys())
    return bool({"x1", "share"} & set(text.partition("\n")[0].split(",")))


def _without_last(text: str, form: str) -> str:
    """Without the rows of the last path, which may not all be there."""
    lines = text.splitlines(keepends=True)

    def path(line: str) -> str:
        return str(json.loads(line)["path"]) if form == "jsonl" else next(csv.reader([line]))[0]

    last = path(lines[-1])
    while len(lines) > (form == "csv") and path(lines[-1]) == last:
        lines.pop()
    return "".join(lines)


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
