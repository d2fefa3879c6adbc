"""Commands that train."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from resnetkit.cli.flags import STARTED, DataArgument, Debug, Device, JsonFlag, Quiet, Seed, Set
from resnetkit.cli.rows import line, print_metrics
from resnetkit.verbs.memory import keep_freed_memory


def train(
    data: DataArgument = "",
    model: Annotated[
        str | None, typer.Option(help="The network: resnet18, resnet34, ..., words, vdcnn9, wave34.", metavar="NAME")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="IMAGENET1K_V1, a .safetensors or .pth, hf://owner/name, none.", metavar="NAME"),
    ] = None,
    recipe: Annotated[str, typer.Option(help="A named recipe (digits) or a .toml file.", metavar="NAME|FILE")] = "",
    epochs: Annotated[int | None, typer.Option(help="Passes over the training examples.", metavar="N")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Examples a step.", metavar="N")] = None,
    time_limit: Annotated[str | None, typer.Option(help="Be done in 90s, 10m or 1.5h.", metavar="TIME")] = None,
    out: Annotated[
        str | None, typer.Option(help="The run folder; runs/<name of the data> if left out.", metavar="DIR")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Move an older run aside.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and write nothing.")] = False,
    task: Annotated[
        str | None,
        typer.Option(help="classify, multilabel, sound, text, ...; read from the data if left out.", metavar="T"),
    ] = None,
    seed: Seed = None,
    device: Device = None,
    settings: Set = None,
    as_json: JsonFlag = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train a residual network on a folder of examples, score it, and write a run folder with the model."""
    from resnetkit import api
    from resnetkit.recipe import parse_setting

    keep_freed_memory()
    run = api.train(
        data,
        model=model,
        weights=weights,
        recipe=recipe,
        epochs=epochs,
        batch_size=batch_size,
        time_limit=time_limit,
        out=out,
        resume=resume,
        overwrite=overwrite,
        dry_run=dry_run,
        task=task,
        seed=seed,
        device=device,
        settings=dict(map(parse_setting, settings or ())),
        quiet=quiet,
        started=STARTED,
    )
    if run.metrics:
        print_metrics(run.metrics, {"folder": str(run.folder)}, as_json)
        if not quiet:
            print(f"model in {run.folder}/model, report in {run.folder}/report.html", file=sys.stderr)


def demo(
    folder: Annotated[str, typer.Option(help="Where the digits are written.", metavar="DIR")] = "digits",
    out: Annotated[str, typer.Option(help="The run folder.", metavar="DIR")] = "runs/digits",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Move an older run aside.")] = False,
    seed: Seed = None,
    device: Device = None,
    settings: Set = None,
    as_json: JsonFlag = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Watch ResNet-34 learn 1,797 handwritten digits from scratch, be scored, and label new ones: about a minute."""
    from resnetkit import api
    from resnetkit.recipe import parse_setting

    keep_freed_memory()
    chosen = dict(map(parse_setting, settings or ()))
    run, answers = api.demo(
        folder, out=out, overwrite=overwrite, seed=seed, device=device, settings=chosen, quiet=quiet
    )
    print_metrics(run.metrics, {"folder": str(run.folder)}, as_json)
    if as_json:
        return
    print()
    for answer in answers:
        print(line(answer.row(), "table"))
    print(f"\nThe report: {run.folder}/report.html.  What to try next:")
    print(f"  resnetkit predict {run.folder} {folder}/test --format csv --out answers.csv")
    print(f"  resnetkit eval {run.folder} {folder}")
    print("  resnetkit train your-photos/          # one folder a class")
