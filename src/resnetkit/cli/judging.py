"""Commands that say whether one may believe it."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from resnetkit.cli.flags import DataArgument, Debug, Device, JsonFlag, Mirror, ModelArgument, Quiet, Set
from resnetkit.cli.rows import comparison_lines, print_metrics
from resnetkit.errors import UsageError


def evaluate(
    model: ModelArgument,
    data: DataArgument,
    split: Annotated[
        str | None, typer.Option(help="train, val, test or all; what was held out if left out.", metavar="NAME")
    ] = None,
    minimum: Annotated[
        list[str] | None, typer.Option("--min", help="Exit 4 below: --min accuracy=0.9.", metavar="METRIC=X")
    ] = None,
    out: Annotated[
        str | None, typer.Option(help="Write metrics, predictions and a report here.", metavar="DIR")
    ] = None,
    backend: Annotated[str, typer.Option(help="auto or torch.", metavar="NAME")] = "auto",
    mirror: Mirror = False,
    device: Device = None,
    as_json: JsonFlag = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Score a model on data with known answers: accuracy, macro-F1 and recall, each with n and a 95 % interval."""
    from resnetkit import api
    from resnetkit.errors import IncompleteError

    gates = [_gate(text) for text in minimum or ()]
    device = device or "auto"
    scores = api.evaluate(model, data, split=split, out=out, backend=backend, device=device, mirror=mirror, quiet=quiet)
    print_metrics(scores.as_dict(), {"split": scores.split}, as_json)
    for path, reason in scores.failed:
        print(f"error: {path}: {reason}", file=sys.stderr)
    for name, least in gates:
        if name not in scores.metrics:
            raise UsageError(f"there is no metric {name!r}", fix=f"one of {', '.join(scores.metrics)}")
        value = scores.metrics[name].value
        if value is None or value < least:
            raise IncompleteError(f"{name} is {value}, under the {least} of --min")
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
    backend: Annotated[str, typer.Option(help="auto or torch.", metavar="NAME")] = "auto",
    device: Device = None,
    as_json: JsonFlag = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Say which of two models is better on the same images, or that one cannot tell and how many would be needed."""
    from resnetkit import api
    from resnetkit.errors import IncompleteError

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
    from resnetkit.errors import DataError, IncompleteError
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


def _gate(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise UsageError(f"--min {text} is not METRIC=NUMBER", fix="write --min accuracy=0.9") from None
