"""Commands that measure this machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from resnetkit.cli.flags import Debug, Device, JsonFlag, ModelArgument, Quiet


def doctor(
    model: Annotated[
        Path | None, typer.Argument(help="Time this run folder or model folder, too.", metavar="[MODEL]")
    ] = None,
    device: Device = None,
    as_json: JsonFlag = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Say what this machine has, what resnetkit uses of it, and what would make it faster."""
    from resnetkit import api
    from resnetkit.verbs.doctor import diagnosis_lines

    found = api.doctor(model, device=device or "auto", quiet=quiet)
    if as_json:
        print(json.dumps(found.as_dict()))
    else:
        print(*diagnosis_lines(found), sep="\n")


def bench(
    model: ModelArgument,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(help="Files to measure with reading and decoding, too.", metavar="[INPUTS...]"),
    ] = None,
    backend: Annotated[
        list[str] | None, typer.Option(help="Only this one; may be given again.", metavar="NAME")
    ] = None,
    batch: Annotated[
        list[int] | None, typer.Option(help="Images in a call; may be given again.", metavar="N", min=1)
    ] = None,
    seconds: Annotated[float, typer.Option(help="For each backend with each batch size.", metavar="S")] = 2.0,
    device: Device = None,
    as_json: JsonFlag = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure a model here: images/s and latency of every backend, whether they agree, and speed from files."""
    from resnetkit import api
    from resnetkit.errors import IncompleteError
    from resnetkit.verbs.bench import BATCHES, bench_lines

    found = api.bench(
        model,
        inputs or (),
        backends=backend or (),
        batches=batch or BATCHES,
        seconds=seconds,
        device=device or "auto",
        quiet=quiet,
    )
    if as_json:
        print(json.dumps(found.as_dict()))
    else:
        print(*bench_lines(found), sep="\n")
    failed = found.from_files[0].failed if found.from_files else ()
    for error in failed:
        print(f"error: {error}", file=sys.stderr)
    if failed:
        raise IncompleteError(f"{len(failed)} of {found.from_files[0].files} files could not be read")
