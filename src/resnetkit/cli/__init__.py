"""argv to one call of the API, its rows to stdout, everything else to stderr.

Nothing heavy is imported before a verb is called: no torch, no pydantic, no verb; --help and --version answer at once,
even where torch is broken.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import gc
import json
import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Iterable
from typing import Annotated

import typer
from typer.exceptions import TyperException

from resnetkit._version import __version__
from resnetkit.cli import judging, measuring, serving, training, using
from resnetkit.errors import ResnetkitError, ResourceError, UsageError

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


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit


app.command("train", epilog="Example: resnetkit train photos/ --weights none --epochs 20 --out runs/photos")(
    training.train
)
app.command("eval", epilog="Example: resnetkit eval runs/photos photos/ --split test --min accuracy=0.9")(
    judging.evaluate
)
app.command("compare", epilog="Example: resnetkit compare runs/old runs/new photos/ --split test --out compared")(
    judging.compare
)
app.command("explain", epilog="Example: resnetkit explain runs/photos holiday/ --label cat --out explained")(
    judging.explain
)
app.command("check", epilog="Example: resnetkit check photos/ --labels --write fixes.csv")(judging.check)
app.command("predict", epilog="Example: resnetkit predict runs/photos holiday/ --format csv --out answers.csv")(
    using.predict
)
app.command("embed", epilog="Example: resnetkit embed runs/photos holiday/ --out features.npy --stage layer3")(
    using.embed
)
app.command("export", epilog="Example: resnetkit export runs/photos --format huggingface --push owner/name")(
    using.export
)
app.command("serve", epilog="Example: resnetkit serve runs/photos --port 8000")(serving.serve)
app.command("bench", epilog="Example: resnetkit bench runs/photos holiday/ --batch 1 --batch 16")(measuring.bench)
app.command("doctor", epilog="Example: resnetkit doctor runs/photos")(measuring.doctor)
app.command("models", epilog="Example: resnetkit models resnet34 --size 224 --svg resnet34.svg")(using.models)
app.command("demo")(training.demo)


def main(argv: Iterable[str] | None = None) -> None:
    """The command `resnetkit`: one line on stderr for an error, and its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    # to look through all objects of torch once more, before the process ends with them, took a second of every command
    atexit.register(gc.freeze)
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
