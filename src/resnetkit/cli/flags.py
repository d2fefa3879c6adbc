"""Flags that several commands share."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

STARTED = time.monotonic()  # of the process, as nearly as can be told

JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No notes and no progress on stderr.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.", metavar="NAME")]
Seed = Annotated[int | None, typer.Option(help="Of splits, first weights, order and augmentation.", metavar="N")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Any setting: --set optim.lr=0.01 (see docs/settings.md).", metavar="KEY=VALUE"),
]
DataArgument = Annotated[
    str,
    typer.Argument(
        help="Class folders, a .zip or .tar of them, a CSV of path,label[s][,split][,group], or a table of texts.",
        metavar="DATA",
    ),
]
InputsArgument = Annotated[
    list[str],
    typer.Argument(help="Files, folders, globs, or - for a list on standard input; texts too.", metavar="INPUTS..."),
]
Mirror = Annotated[
    bool,
    typer.Option("--mirror", help="Answer for an image and its mirror image: half as fast; where sides do not matter."),
]
ModelArgument = Annotated[Path, typer.Argument(help="A run folder or a model folder.", metavar="MODEL")]
