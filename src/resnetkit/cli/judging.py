"""Commands that say whether one may believe it."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from resnetkit.cli.flags import DataArgument, Debug, Device, InputsArgument, JsonFlag, Mirror, ModelArgument, Quiet, Set
from resnetkit.cli.rows import comparison_lines, explanation_line, print_metrics
from resnetkit.errors import IncompleteError, UsageError

if TYPE_CHECKING:
    from resnetkit.ops.intervals import Metric


def evaluate(
    model: ModelArgument,
    data: DataArgument,
    split: Annotated[
        str | None, typer.Option(help="train, val, test or all; what was held out if left out.", metavar="NAME")
    ] = None,
    minimum: Annotated[
        list[str] | None, typer.Option("--min", help="Exit 4 below: --min accuracy=0.9.", metavar="METRIC=X")
    ] = None,
    minimum_low: Annotated[
        list[str] | None,
        typer.Option(
            "--min-low", help="Exit 4 if the interval reaches below: --min-low accuracy=0.85.", metavar="METRIC=X"
        ),
    ] = None,
    maximum: Annotated[
        list[str] | None, typer.Option("--max", help="Exit 4 above: --max ece=0.05.", metavar="METRIC=X")
    ] = None,
    out: Annotated[
        str | None, typer.Option(help="Write metrics, predictions and a report here.", metavar="DIR")
    ] = None,
    backend: Annotated[
        str, typer.Option(help="auto (the fastest), torch, onnxruntime, openvino, ncnn or native.", metavar="NAME")
    ] = "auto",
    mirror: Mirror = False,
    device: Device = None,
    as_json: JsonFlag = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Score a model on data with known answers: accuracy, macro-F1 and recall, each with n and a 95 % interval."""
    from resnetkit import api

    gates = [*_gates("--min", minimum), *_gates("--min-low", minimum_low), *_gates("--max", maximum)]
    device = device or "auto"
    scores = api.evaluate(model, data, split=split, out=out, backend=backend, device=device, mirror=mirror, quiet=quiet)
    print_metrics(scores.as_dict(), {"split": scores.split}, as_json)
    for path, reason in scores.failed:
        print(f"error: {path}: {reason}", file=sys.stderr)
    for gate in gates:
        gate.refuse(scores.metrics)
    if scores.failed:
        raise IncompleteError(f"{len(scores.failed)} images could not be read", fix="they are in no score")


def compare(
    a: ModelArgument,
    b: ModelArgument,
    data: DataArgument,
    split: Annotated[
        str | None, typer.Option(help="train, val, test or all; what was held out if left out.", metavar="NAME")
    ] = None,
    out: Annotated[str | None, typer.Option(help="Write comparison.json and flipped.csv here.", metavar="DIR")] = None,
    backend: Annotated[
        str, typer.Option(help="auto (the fastest), torch, onnxruntime, openvino, ncnn or native.", metavar="NAME")
    ] = "auto",
    device: Device = None,
    as_json: JsonFlag = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Say which of two models is better on the same images, or that one cannot tell and how many would be needed."""
    from resnetkit import api

    found = api.compare(a, b, data, split=split, out=out, backend=backend, device=device or "auto", quiet=quiet)
    if as_json:
        print(json.dumps(found.as_dict()))
    else:
        print(*comparison_lines(found.as_dict()), sep="\n")
    for path, reason in found.a.failed:
        print(f"error: {path}: {reason}", file=sys.stderr)
    if found.a.failed:
        raise IncompleteError(f"{len(found.a.failed)} images could not be read", fix="they are in no comparison")


def check(
    data: DataArgument,
    labels: Annotated[bool, typer.Option("--labels", help="Also look for images whose label is wrong.")] = False,
    weights: Annotated[
        str,
        typer.Option(help="For --labels: IMAGENET1K_V1, a .safetensors or .pth, hf://owner/name.", metavar="NAME"),
    ] = "IMAGENET1K_V1",
    write: Annotated[
        str | None, typer.Option(help="Write proposed fixes here, for --set data.fixes=FILE.", metavar="FILE")
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(help="For check.html and check.json; checks/<name of the data> if left out.", metavar="DIR"),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Move an older check aside.")] = False,
    device: Device = None,
    settings: Set = None,
    as_json: JsonFlag = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Say what would harm a training or its score: broken files, copies across splits, classes and wrong labels."""
    from resnetkit import api
    from resnetkit.errors import DataError
    from resnetkit.recipe import parse_setting

    found = api.check(
        data,
        labels=labels,
        weights=weights,
        write=write,
        out=out,
        overwrite=overwrite,
        device=device or "auto",
        settings=dict(map(parse_setting, settings or ())),
        quiet=quiet,
    )
    lines = [json.dumps(found.as_dict())] if as_json else list(found.lines())
    print(*lines, sep="\n")
    look = sum(finding.severity != "note" for finding in found.found)
    if found.exit_code == 3:
        raise DataError("training would refuse this data", path=data, fix="see the first lines above, or check.html")
    if found.exit_code == 4:
        raise IncompleteError(f"{look} findings to look at", path=data, fix="see them above, or in check.html")


def explain(
    model: ModelArgument,
    inputs: InputsArgument,
    out: Annotated[str, typer.Option(help="The new folder, for a PNG each, a table and a page.", metavar="DIR")],
    label: Annotated[
        str | None, typer.Option(help="The class to explain; the predicted one if left out.", metavar="NAME")
    ] = None,
    evidence: Annotated[
        str | None, typer.Option(help="Training images; those of the run if left out.", metavar="DATA")
    ] = None,
    nearest: Annotated[int, typer.Option(help="Training images beside each.", metavar="N", min=0)] = 4,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Move an older folder aside.")] = False,
    device: Device = None,
    as_json: JsonFlag = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show what speaks for a class in each image, sound or text, and the training samples that are most like it."""
    from resnetkit import api
    from resnetkit.errors import DataError

    found = api.explain(
        model,
        inputs,
        out=out,
        label=label,
        evidence=evidence,
        nearest=nearest,
        device=device or "auto",
        overwrite=overwrite,
        quiet=quiet,
    )
    for each in found:
        if isinstance(each, DataError):
            print(f"error: {each}", file=sys.stderr)
        else:
            print(json.dumps(each.row()) if as_json else explanation_line(each.row()))
    failed = sum(isinstance(each, DataError) for each in found)
    if failed:
        raise IncompleteError(f"{failed} of {len(found)} files could not be read")


@dataclass(frozen=True)
class _Gate:
    """What a metric has to reach: `flag` is --min, --min-low or --max."""

    flag: str
    name: str
    limit: float

    def refuse(self, metrics: Mapping[str, Metric]) -> None:
        """Refuse metrics of which this one misses the limit, or does not exist."""
        if self.name not in metrics:
            raise UsageError(f"there is no metric {self.name!r}", fix=f"one of {', '.join(metrics)}")
        metric = metrics[self.name]
        value = metric.low if self.flag == "--min-low" else metric.value
        which = "the lower end of " if self.flag == "--min-low" else ""
        if value is None:
            raise IncompleteError(f"{self.name} is unknown ({metric.method}), and {self.flag} asks for {self.limit}")
        if value > self.limit if self.flag == "--max" else value < self.limit:
            side = "over" if self.flag == "--max" else "under"
            raise IncompleteError(f"{which}{self.name} is {value:.4g}, {side} the {self.limit} of {self.flag}")


def _gates(flag: str, texts: list[str] | None) -> list[_Gate]:
    return [_gate(flag, text) for text in texts or ()]


def _gate(flag: str, text: str) -> _Gate:
    name, _, value = text.partition("=")
    try:
        limit = float(value)
    except ValueError:
        limit = math.nan
    if math.isnan(limit):
        raise UsageError(f"{flag} {text} is not METRIC=NUMBER", fix=f"write {flag} accuracy=0.9")
    return _Gate(flag, name, limit)
