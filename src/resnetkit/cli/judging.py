"""Commands that say whether one may believe it."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from resnetkit.cli.flags import DataArgument, Debug, Device, InputsArgument, JsonFlag, Mirror, ModelArgument, Quiet
from resnetkit.cli.rows import comparison_lines, explanation_line, print_metrics
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
    """Show what speaks for a class in each image (Grad-CAM), and the training images that are most like it."""
    from resnetkit import api
    from resnetkit.errors import DataError, IncompleteError

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


def _gate(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise UsageError(f"--min {text} is not METRIC=NUMBER", fix="write --min accuracy=0.9") from None
