"""argv to one call of the API, its rows to stdout, everything else to stderr.

Nothing heavy is imported before a verb is called: no torch, no pydantic, no verb; --help and --version answer at once,
even where torch is broken.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import logging
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from resnetkit._version import __version__
from resnetkit.errors import ResnetkitError, ResourceError, UsageError
from resnetkit.verbs.memory import keep_freed_memory
from resnetkit.verbs.rows import comparison_lines, line, print_metrics, write_rows

_STARTED = time.monotonic()
INTERRUPTED = 130

app = typer.Typer(
    name="resnetkit",
    help="Residual networks from a folder of examples: trained, measured with error bars, and run anywhere.\n\n"
    "Start here:  resnetkit demo   or   resnetkit train photos/   (one folder a class)",
    epilog="Exit codes: 0 done, 2 usage, 3 data, 4 some items failed or a gate missed, 5 model refused, 6 resource, "
    "7 diverged, 8 network, 130 interrupted.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

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
    typer.Argument(help="Class folders, a .zip or .tar of them, or a CSV of path,label[s][,split].", metavar="DATA"),
]
Mirror = Annotated[
    bool,
    typer.Option("--mirror", help="Answer for an image and its mirror image: half as fast; where sides do not matter."),
]
ModelArgument = Annotated[Path, typer.Argument(help="A run folder or a model folder.", metavar="MODEL")]


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit


@app.command("train", epilog="Example: resnetkit train photos/ --weights none --epochs 20 --out runs/photos")
def _train(
    data: DataArgument = "",
    model: Annotated[
        str | None, typer.Option(help="The network: resnet18, resnet34, resnet50, ...", metavar="NAME")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="IMAGENET1K_V1, a .safetensors or .pth, hf://owner/name, none.", metavar="NAME"),
    ] = None,
    recipe: Annotated[str, typer.Option(help="A named recipe (digits) or a .toml file.", metavar="NAME|FILE")] = "",
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images.", metavar="N")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step.", metavar="N")] = None,
    time_limit: Annotated[str | None, typer.Option(help="Be done in 90s, 10m or 1.5h.", metavar="TIME")] = None,
    out: Annotated[
        str | None, typer.Option(help="The run folder; runs/<name of the data> if left out.", metavar="DIR")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Move an older run aside.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and write nothing.")] = False,
    task: Annotated[
        str | None, typer.Option(help="classify or multilabel; read from the data if left out.", metavar="T")
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
        started=_STARTED,
    )
    if run.metrics:
        print_metrics(run.metrics, {"folder": str(run.folder)}, as_json)
        if not quiet:
            print(f"model in {run.folder}/model, report in {run.folder}/report.html", file=sys.stderr)


@app.command("eval", epilog="Example: resnetkit eval runs/photos photos/ --split test --min accuracy=0.9")
def _eval(
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


@app.command("compare", epilog="Example: resnetkit compare runs/old runs/new photos/ --split test --out compared")
def _compare(
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


@app.command("predict", epilog="Example: resnetkit predict runs/photos holiday/ --format csv --out answers.csv")
def _predict(
    model: ModelArgument,
    inputs: Annotated[
        list[str], typer.Argument(help="Files, folders, globs, or - for a list on standard input.", metavar="INPUTS...")
    ],
    top: Annotated[int, typer.Option(help="Classes in each answer.", metavar="N", min=1)] = 5,
    form: Annotated[str, typer.Option("--format", help="table, jsonl or csv.", metavar="NAME")] = "table",
    out: Annotated[str | None, typer.Option(help="Write to this file instead.", metavar="FILE")] = None,
    backend: Annotated[str, typer.Option(help="auto or torch.", metavar="NAME")] = "auto",
    mirror: Mirror = False,
    device: Device = None,
    as_json: JsonFlag = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Label files, in the order given."""
    from resnetkit import api
    from resnetkit.errors import DataError, IncompleteError

    form = "jsonl" if as_json else form
    if form not in ("table", "jsonl", "csv"):
        raise UsageError(f"there is no format {form!r}", fix="one of table, jsonl, csv")
    count = failed = 0
    rows: list[Mapping[str, Any]] = []
    for answer in api.predict(model, inputs, top=top, backend=backend, device=device or "auto", mirror=mirror):
        count += 1
        if isinstance(answer, DataError):
            failed += 1
            print(f"error: {answer}", file=sys.stderr)
        elif out or form == "csv":
            rows.append(answer.row())
        else:
            print(line(answer.row(), form), flush=True)
    if out or form == "csv":
        write_rows(rows, form, out)
    if failed:
        raise IncompleteError(f"{failed} of {count} files could not be read")


@app.command("export", epilog="Example: resnetkit export runs/photos --format huggingface --push owner/name")
def _export(
    model: ModelArgument,
    form: Annotated[str, typer.Option("--format", help="torchvision or huggingface.", metavar="NAME")],
    out: Annotated[
        str | None, typer.Option(help="The new folder; beside the model if left out.", metavar="DIR")
    ] = None,
    push: Annotated[
        str, typer.Option(help="Upload it to the Hugging Face Hub; a new repository is private.", metavar="OWNER/NAME")
    ] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Move an older folder aside.")] = False,
    as_json: JsonFlag = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write a model for another library, once it is proven to give the same logits there."""
    from resnetkit import api

    done = api.export(model, form, out=out, push=push, overwrite=overwrite, quiet=quiet)
    if as_json:
        print(json.dumps(done.as_dict()))
        return
    print(f"{done.folder}: opened in {done.opened_in}, logits differ by {done.difference:.1e} of the largest at most")
    if done.pushed:
        print(f"{done.pushed}: holds the same files")


@app.command("models", epilog="Example: resnetkit models resnet34 --size 224 --svg resnet34.svg")
def _models(
    name: Annotated[str, typer.Argument(help="A network, to see its stages; all if left out.", metavar="NAME")] = "",
    size: Annotated[int | None, typer.Option(help="Height and width of the input, px.", metavar="N")] = None,
    svg: Annotated[str | None, typer.Option(help="Draw its stages into this file.", metavar="FILE")] = None,
    as_json: JsonFlag = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """List the networks with what they cost and their published weights, or the stages of one."""
    from dataclasses import asdict

    from resnetkit import api
    from resnetkit.verbs.models import stage_lines, summary_lines

    if not name and (size is not None or svg is not None):
        raise UsageError("--size and --svg are of one network", fix="resnetkit models resnet34 --size 224")
    stages = api.describe_model(name, size, svg) if name else []
    found = [] if name else api.list_models()
    if as_json:
        print(json.dumps([asdict(stage) for stage in stages] + [asdict(row) for row in found]))
    else:
        print(*(stage_lines(stages) if name else summary_lines(found)), sep="\n")


@app.command("demo")
def _demo(
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


def _gate(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise UsageError(f"--min {text} is not METRIC=NUMBER", fix="write --min accuracy=0.9") from None


def main(argv: Iterable[str] | None = None) -> None:
    """The command `resnetkit`: one line on stderr for an error, and its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    with contextlib.suppress(ValueError, AttributeError):  # stderr may be no file, under a debugger or a test
        faulthandler.enable()
    debug = "--debug" in arguments
    if "--quiet" in arguments:
        logging.getLogger("resnetkit").setLevel(logging.ERROR)
    try:
        _refuse_lost_folder()
        code = app(arguments, standalone_mode=False) or 0
        if code == INTERRUPTED:  # typer has caught Ctrl-C where no verb was ready for it
            print("error: interrupted", file=sys.stderr)
    except TyperException as error:
        code = _complain(UsageError(error.format_message()), arguments)
    except ResnetkitError as error:
        if debug:
            traceback.print_exc()
        code = _complain(error, arguments)
    except SystemExit:
        # typer ends so where stdout was closed, as by `| head`: whoever reads has enough, and that is no error
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 0
    except Exception as error:
        if debug:
            raise
        code = _complain(_bug(error), arguments)
    sys.exit(code)


def _refuse_lost_folder() -> None:
    """MKL ends the process where the working folder is gone, so that is told before torch is loaded."""
    try:
        os.getcwd()
    except OSError as error:
        raise ResourceError("the working folder is gone", fix="cd to one that is there") from error


def _complain(error: ResnetkitError, arguments: list[str]) -> int:
    if "--json" in arguments:
        print(
            json.dumps({"error": error.what, "path": error.path, "fix": error.fix, "code": error.exit_code}),
            file=sys.stderr,
        )
    else:
        print(f"error: {error}", file=sys.stderr)
    return error.exit_code


def _bug(error: Exception) -> ResnetkitError:
    """A bug of ours, with its traceback in a file."""
    with tempfile.NamedTemporaryFile(
        "w", prefix="resnetkit-crash-", suffix=".txt", delete=False, encoding="utf-8"
    ) as file:
        file.write(f"resnetkit {__version__}, Python {sys.version}\n{sys.argv}\n\n{traceback.format_exc()}")
    return ResnetkitError(
        f"{type(error).__name__}: {error}", fix=f"a bug of resnetkit's: the traceback is in {file.name}"
    )
