"""Commands that use a model, or say what there is."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resnetkit.cli.flags import Debug, Device, InputsArgument, JsonFlag, Mirror, ModelArgument, Quiet
from resnetkit.cli.rows import rows_into
from resnetkit.errors import UsageError

if TYPE_CHECKING:
    from resnetkit.runtime.export import Exported


def predict(
    model: ModelArgument,
    inputs: InputsArgument,
    top: Annotated[
        int | None, typer.Option(help="Classes in each answer: 5; or most boxes: 100.", metavar="N", min=1)
    ] = None,
    form: Annotated[str, typer.Option("--format", help="table, jsonl or csv.", metavar="NAME")] = "table",
    out: Annotated[str | None, typer.Option(help="Write to this file instead.", metavar="FILE")] = None,
    backend: Annotated[
        str, typer.Option(help="auto (the fastest), torch, onnxruntime, openvino, ncnn or native.", metavar="NAME")
    ] = "auto",
    mirror: Mirror = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an --out that was left early.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older --out.")] = False,
    coverage: Annotated[
        float | None, typer.Option(help="Also the classes that hold the true one this often: 0.95.", metavar="X")
    ] = None,
    draw: Annotated[
        str | None, typer.Option(help="Boxes or masks, drawn over their images, in this new folder.", metavar="DIR")
    ] = None,
    device: Device = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="scale.engine=ray: on many machines (see docs/run.md).", metavar="KEY=VALUE"),
    ] = None,
    as_json: JsonFlag = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Label files, in the order given, and say where the model is not sure or knows nothing alike."""
    from resnetkit import api
    from resnetkit.errors import DataError, IncompleteError
    from resnetkit.recipe import parse_setting
    from resnetkit.verbs.verify import Pair

    form = "jsonl" if as_json else form
    _refuse_form(form, out, resume=resume)
    count, failed, pairs = 0, 0, []
    chosen = dict(map(parse_setting, settings or ()))
    call = {"format": form, "model": _digest(model), "top": top, "mirror": mirror, "coverage": coverage}
    with _kept(out, quiet), rows_into(out, call, resume=resume, overwrite=overwrite) as rows:
        done = frozenset(rows.done)
        if resume and not quiet:
            print(f"{len(done - {''}):,} answers are there already", file=sys.stderr)
        options = {"top": top, "backend": backend, "device": device or "auto", "mirror": mirror, "coverage": coverage}
        options["draw"] = draw
        quietly = quiet or not out
        for answer in api.predict(model, inputs, skip=done, settings=chosen, quiet=quietly, **options):  # type: ignore[arg-type]
            count += 1
            if isinstance(answer, DataError):
                failed += 1
                print(f"error: {answer}", file=sys.stderr)
            else:
                rows.write(_rows(answer, form))
                pairs += [answer] if isinstance(answer, Pair) else []
    if pairs and not quiet:
        print(*rate_lines(pairs), sep="\n", file=sys.stderr)
    if failed:
        raise IncompleteError(f"{failed} of {count} files could not be read")


def _rows(answer: Any, form: str) -> list[dict[str, Any]]:
    """The rows of an answer; in JSON with its masks."""
    found: list[dict[str, Any]] = (getattr(answer, "full_rows", answer.rows) if form == "jsonl" else answer.rows)()
    return found


def _refuse_form(form: str, out: str | None, *, resume: bool) -> None:
    if form not in ("table", "jsonl", "csv"):
        raise UsageError(f"there is no format {form!r}", fix="one of table, jsonl, csv")
    if resume and not out:
        raise UsageError("--resume goes on with a file", fix="name it with --out")


def rate_lines(pairs: list[Any]) -> Iterator[str]:
    """How well the scores of pairs tell whether they are of one speaker, where that is known."""
    from resnetkit.verbs.verify import error_rate

    found = error_rate(pairs)
    if found is None:
        return
    rate, threshold = found
    if rate.value is None:
        yield f"no equal error rate: {rate.method}"
        return
    span = "" if rate.low is None or rate.high is None else f" ({100 * rate.low:.1f} to {100 * rate.high:.1f} %)"
    yield f"EER {100 * rate.value:.1f} %{span}, n = {rate.n:,} pairs, at a score of {threshold:.3f}; {rate.method}"


def _digest(model: Path) -> str:
    """Of a model folder's manifest; "" where there is none, which is told when it is opened."""
    from resnetkit.files import MANIFEST, sha256

    manifests = [folder / MANIFEST for folder in (model / "model", model) if (folder / MANIFEST).is_file()]
    return sha256(manifests[0]) if manifests else ""


@contextmanager
def _kept(out: str | None, quiet: bool) -> Iterator[None]:
    """Say on Ctrl-C what is kept and how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        if out and not quiet and Path(f"{out}.partial").exists():  # one without an answer is removed
            print(f"{out}.partial holds the answers so far: the same command with --resume goes on", file=sys.stderr)
        raise


def embed(
    model: ModelArgument,
    inputs: InputsArgument,
    out: Annotated[
        str,
        typer.Option(help="features.npy, with features.csv of row,path beside it; or features.csv.", metavar="FILE"),
    ],
    stage: Annotated[
        str, typer.Option(help="embedding, or layer1 .. layer4: their means over space.", metavar="NAME")
    ] = "embedding",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Move older files aside.")] = False,
    device: Device = None,
    as_json: JsonFlag = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write the features of files, in the order given: as a NumPy array with the files' names, or as CSV."""
    from resnetkit import api
    from resnetkit.errors import IncompleteError, printable

    done = api.embed(model, inputs, out=out, stage=stage, device=device or "auto", overwrite=overwrite, quiet=quiet)
    for error in done.failed:
        print(f"error: {error}", file=sys.stderr)
    if as_json:
        failed = [{"path": error.path, "error": error.what} for error in done.failed]
        print(json.dumps({"out": str(done.out), "rows": done.rows, "width": done.width, "failed": failed}))
    else:
        print(f"{printable(done.out)}: {done.rows:,} rows of {done.width:,} features")
    if done.failed:
        count = done.rows + len(done.failed)
        raise IncompleteError(f"{len(done.failed)} of {count} files could not be read", fix="they are in no row")


def export(
    model: ModelArgument,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="onnx, openvino, ncnn, native, torchscript, safetensors, torchvision, huggingface.",
            metavar="NAME",
        ),
    ],
    out: Annotated[
        str | None, typer.Option(help="The new folder; beside the model if left out.", metavar="DIR")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Images to compare both on; the run's val if left out.", metavar="DATA")
    ] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Convolutions in int8: onnx, openvino, native.")] = False,
    max_drop: Annotated[
        float | None, typer.Option(help="How far accuracy, 0..1, may fall in int8: 0.005 if left out.", metavar="X")
    ] = None,
    push: Annotated[
        str, typer.Option(help="Upload it to the Hugging Face Hub; a new repository is private.", metavar="OWNER/NAME")
    ] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Move an older folder aside.")] = False,
    as_json: JsonFlag = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write a model for another library or engine, once it is proven to give the same logits there."""
    from resnetkit import api

    options = {"data": data, "int8": int8, "max_drop": max_drop, "out": out, "push": push, "overwrite": overwrite}
    done = api.export(model, form, quiet=quiet, **options)  # type: ignore[arg-type]
    if as_json:
        print(json.dumps(done.as_dict()))
        return
    print(*export_lines(done), sep="\n")
    if done.pushed:
        print(f"{done.pushed}: holds the same files")


def export_lines(done: Exported) -> Iterator[str]:
    """What was written, and how it compares with the model."""
    proof, percent = done.proof, f"{100 * (done.proof.agreement.value or 0):.1f} %"
    yield f"{done.folder}: opened in {done.opened_in}, {done.size / 1e6:.1f} MB, {proof.latency:.1f} ms each"
    differ = f"logits differ by {proof.difference:.1e} of the largest at most"
    yield f"compared on {proof.source}: {differ}, {percent} the same answer"
    if done.int8:
        lost, speeds = done.int8["lost"], done.int8["images_per_second"]
        points = (f"{100 * lost[key]:.1f}" for key in ("value", "low", "high"))
        yield "in int8 accuracy falls by {} points ({} to {}, n = {:,})".format(*points, lost["n"])
        yield f"int8 answers {speeds['int8']:.1f} images/s, float32 {speeds['f32']:.1f}, in batches of 8"
        if done.int8["float32"]:
            yield f"stay float32: {', '.join(done.int8['float32'])}"


def models(
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
