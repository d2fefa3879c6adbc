"""Many machines: the predictions of a long list of files as a Ray Data job, with the rows and the order of one process.

Ray is imported only when it is asked for. It reports its use to its makers unless RAY_USAGE_STATS_ENABLED is 0, so it
is, from before the import until Ray has been shut down, for all processes that are started here.
"""

from __future__ import annotations

import logging
import os
import pickle
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from resnetkit.errors import DataError, ModelError, ResnetkitError, ResourceError, UsageError
from resnetkit.files import MANIFEST, sha256
from resnetkit.recipe import refuse_unknown
from resnetkit.runtime.model import Model, load_classifier
from resnetkit.runtime.pipeline import num_threads
from resnetkit.settings import STRICT, Auto
from resnetkit.tasks.classes import Prediction

PIP = 'pip install "resnetkit[scale]"'
SILENCE = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
BATCH = 32  # of Model.predictions; pieces are whole batches, so that each image is inferred beside the same others
MOST_BATCHES = 8  # a piece: while one batch is inferred the next is decoded, but not across pieces
MOST_CORES = 4  # a worker


@dataclass(frozen=True, config=STRICT)
class Scale:
    """Where predictions are made, of `--set scale.key=value`."""

    engine: Literal["local", "ray"] = "local"
    """local: in this process; ray: by the machines of a Ray cluster."""
    workers: Annotated[int, Field(ge=1, le=100_000)] | Auto = "auto"
    """Processes that have the model open; auto: one for every four cores of a machine, or one a GPU."""


@dataclass(frozen=True)
class Call:
    """What each worker is asked, as in `Model.predictions` and `load`."""

    top: int
    coverage: float | None
    backend: str
    device: str
    mirror: bool


@dataclass(frozen=True)
class Layout:
    """How many workers, and what each of them has."""

    workers: int
    cores: int
    gpus: int = 0


def scale_from(settings: Mapping[str, Any]) -> Scale:
    """The settings of a prediction, by dotted key.

    Raises:
        UsageError: an unknown key (with the nearest known one), or a value that cannot be.
    """
    known = [f"scale.{name}" for name in Scale.__dataclass_fields__]
    for key in settings:
        refuse_unknown(key, known)
    try:
        return TypeAdapter(Scale).validate_python({key.partition(".")[2]: value for key, value in settings.items()})
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"scale.{first['loc'][0]} = {first['input']!r}: {first['msg']}", fix="correct it") from error


def layout(nodes: Sequence[Mapping[str, float]], workers: int | Auto, *, gpu: bool) -> Layout:
    """Workers for the machines of a cluster, so that all of them have work.

    Args:
        nodes: Ray's resources of each machine, "CPU" and "GPU".
        workers: how many, or "auto".
        gpu: give each worker a GPU if there are any.

    Raises:
        UsageError: the machines have fewer cores than workers are asked for.
    """
    with_gpu = [node for node in nodes if gpu and node.get("GPU", 0) >= 1]
    if with_gpu:
        there = sum(int(node["GPU"]) for node in with_gpu)
        cores = min(int(node.get("CPU", 0) // node["GPU"]) for node in with_gpu)
        return Layout(there if workers == "auto" else min(workers, there), max(1, cores), 1)
    cpus = [int(node.get("CPU", 0)) for node in nodes if node.get("CPU", 0) >= 1] or [1]
    if workers == "auto":
        cores = min(MOST_CORES, *cpus)
        return Layout(sum(each // cores for each in cpus), cores)
    for cores in range(min(MOST_CORES, max(cpus)), 0, -1):
        if sum(each // cores for each in cpus) >= workers:
            return Layout(workers, cores)
    raise UsageError(f"scale.workers = {workers:,}, and the cluster has {sum(cpus):,} cores", fix="ask for fewer")


def predictions(
    model: Model, paths: Sequence[Path], call: Call, scale: Scale
) -> Iterator[tuple[Path, Prediction | DataError]]:
    """As `Model.predictions`, by the workers of a cluster: each opens the model's folder, and files by their paths.

    Args:
        model: the model, open here.
        paths: files, which the workers find under their absolute paths.
        call: what is asked.
        scale: how many workers.

    Raises:
        ModelError: a worker refuses the model, or finds another one under its path.
        ResourceError: Ray is not installed, cannot be reached, or has lost too many workers.
        UsageError: as `Model.predictions` and `layout`.
    """
    next(model.predictions([], call.top, call.coverage), None)  # what is refused is refused before anything is started
    with cluster(scale.workers) as ray:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpu = call.device in ("auto", "cuda") and call.backend in ("auto", "torch") and not model.checkpoint.deployed
        plan = layout(nodes, scale.workers, gpu=gpu)
        on = ("torch", "cuda") if plan.gpus else (model.backend.name, call.device if call.device != "auto" else "cpu")
        asked = replace(call, backend=on[0], device=on[1])
        yield from zip(paths, _answers(ray, model, paths, asked, plan), strict=True)


def refuse_one_gpu(device: str) -> None:
    """Refuse the name of a certain GPU, which means nothing on many machines.

    Raises:
        UsageError: it is one.
    """
    if ":" in device:
        raise UsageError(f"scale.engine = ray gives each worker a GPU of its own, not {device}", fix="--device cuda")


def _answers(
    ray: Any, model: Model, paths: Sequence[Path], call: Call, plan: Layout
) -> Iterator[Prediction | DataError]:
    """Of all paths in their order."""
    size = BATCH * max(1, min(MOST_BATCHES, len(paths) // (4 * BATCH * plan.workers)))
    pieces = [paths[start : start + size] for start in range(0, len(paths), size)]
    if not pieces:
        return
    rows = [{"paths": b"\0".join(os.fsencode(os.path.abspath(path)) for path in piece)} for piece in pieces]
    folder = model.checkpoint.folder
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows))
    dataset.context.execution_options.preserve_order = True
    dataset.context.enable_progress_bars = False
    found = dataset.map_batches(
        Worker,
        fn_constructor_args=(os.path.abspath(folder), sha256(folder / MANIFEST), call, plan.cores),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(plan.workers, len(pieces))),
        num_cpus=plan.cores,
        num_gpus=plan.gpus,
    )
    try:
        for piece, row in zip(pieces, found.iter_rows(), strict=True):
            yield from _named(piece, pickle.loads(row["answers"]))
    except ray.exceptions.RayTaskError:  # what a worker has raised and we have not foreseen: a bug
        raise
    except ray.exceptions.RayError as error:
        what = f"Ray gave up: {str(error).splitlines()[0]}"
        raise ResourceError(what, fix="the same command with --out FILE --resume goes on") from error


def _named(paths: Sequence[Path], answers: Any) -> Iterator[Prediction | DataError]:
    """Answers under the names that the paths have here."""
    if isinstance(answers, ResnetkitError):
        raise answers
    for path, answer in zip(paths, answers, strict=True):
        if isinstance(answer, Prediction):
            yield replace(answer, path=str(path))
        else:
            yield DataError(answer.what, path=path, fix=answer.fix)


class Worker:
    """A process on one of the machines: opens the model once, and answers pieces of the list.

    Args:
        folder: the model's, on this machine as on the first.
        digest: of its manifest there.
        call: what is asked.
        cores: that this process may use.
    """

    def __init__(self, folder: str, digest: str, call: Call, cores: int) -> None:
        os.environ["RESNETKIT_THREADS"] = str(cores)  # the process is Ray's, and has nothing else to do
        self.call = call
        self.model: Model | ResnetkitError
        try:
            self.model = load_classifier(folder, backend=call.backend, device=call.device, mirror=call.mirror)
            if sha256(self.model.checkpoint.folder / MANIFEST) != digest:
                fix = "copy the same model folder to all of them"
                self.model = ModelError("is another model on another machine", path=folder, fix=fix)
        except ResnetkitError as error:  # in an answer it keeps its kind, raised here it would be one of Ray's
            self.model = error

    def __call__(self, rows: Mapping[str, Any]) -> dict[str, list[bytes]]:
        """Answers of one piece: its paths, joined by zero bytes, to the pickle of a list, or of why there is none."""
        if isinstance(self.model, ResnetkitError):
            return {"answers": [pickle.dumps(self.model)]}
        paths = [Path(os.fsdecode(path)) for path in bytes(rows["paths"][0]).split(b"\0")]
        answers = self.model.predictions(paths, self.call.top, self.call.coverage)
        return {"answers": [pickle.dumps([answer for _, answer in answers])]}


def import_ray() -> Any:
    """The package ray with ray.data, which is told to report nothing home.

    Raises:
        ResourceError: it is not installed.
    """
    with _environment():
        try:
            import_module("ray.data")
            return import_module("ray")
        except ImportError as error:
            raise ResourceError("scale.engine = ray needs its package", fix=PIP) from error


@contextmanager
def cluster(workers: int | Auto) -> Iterator[Any]:
    """Ray: as the calling program has started it, at RAY_ADDRESS, or started here and shut down at the end.

    Raises:
        ResourceError: Ray is not installed, cannot be reached, or does not start.
    """
    ray = import_ray()
    log = logging.getLogger("ray.data")
    level = log.level
    log.setLevel(logging.ERROR)
    ours = not ray.is_initialized()
    with _environment():
        try:
            if ours:
                _start(ray, max(num_threads(), 1 if workers == "auto" else workers))
            yield ray
        finally:
            if ours:
                ray.shutdown()
            log.setLevel(level)


def _start(ray: Any, cores: int) -> None:
    """Connect to RAY_ADDRESS, or start Ray with so many cores."""
    address = os.environ.get("RAY_ADDRESS", "")
    new = {"address": "local", "num_cpus": cores, "include_dashboard": False}
    try:
        with _muted():
            ray.init(**({"address": address} if address else new), log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:  # ConnectionError is an OSError
        what = f"Ray {'at ' + address + ' ' if address else ''}does not start: {' '.join(str(error).split())}"
        raise ResourceError(what, fix="see RAY_ADDRESS, or leave scale.engine out") from error


@contextmanager
def _environment() -> Iterator[None]:
    """SILENCE in the environment, which is the caller's again afterwards."""
    before = {name: os.environ.get(name) for name in SILENCE}
    os.environ.update(SILENCE)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _muted() -> Iterator[None]:
    """Nothing on the descriptor of stderr, where Ray speaks whatever it is told; errors are raised."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
