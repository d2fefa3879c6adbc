"""bench: how fast a model is on this machine, by backend and batch, whether all backends agree, and from files."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resnetkit import run
from resnetkit.checkpoint import FLOAT32
from resnetkit.data.audio import AudioPreprocess
from resnetkit.data.image import Pixels, Preprocess
from resnetkit.data.sources import Line
from resnetkit.errors import DataError, ResnetkitError, ResourceError, UsageError
from resnetkit.ops.metrics import relative_difference
from resnetkit.ops.timing import Timing, timing
from resnetkit.runtime.backends import BACKENDS, TorchBackend
from resnetkit.runtime.export import probe
from resnetkit.runtime.int8 import ENGINES as INT8_ENGINES
from resnetkit.runtime.model import Model, load_classifier
from resnetkit.runtime.pipeline import num_threads
from resnetkit.verbs.console import Advance, bar, note
from resnetkit.verbs.export import beside
from resnetkit.verbs.predict import sources_of

BATCHES = (1, 2, 8, 32)
SECONDS = 2.0
ROUNDS = 5
FILES_BATCH = 32  # what `Model.answers` takes at once, as predict and eval do
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Measured:
    """A backend with a batch size.

    Attributes:
        backend: its name.
        precision: "f32", or "int8" of an export that lies beside the model.
        device: where it runs.
        batch: images in each call.
        timing: of the calls, from normalised arrays to logits.
        difference: from torch's logits, the largest over the largest logit; None without torch.
        agreement: share of the probe's inputs with torch's top-1, 0..1; None without torch.
    """

    backend: str
    precision: str
    device: str
    batch: int
    timing: Timing
    difference: float | None
    agreement: float | None

    def row(self) -> dict[str, Any]:
        """As `--json` prints it."""
        told = asdict(self)
        return run.finite({**told.pop("timing"), **told})


@dataclass(frozen=True)
class FromFiles:
    """A backend on files: reading, decoding and the network together, each file once.

    Attributes:
        backend: its name.
        precision: "f32" or "int8".
        files: number of files.
        seconds: for all of them.
        failed: why some could not be read; they count as files.
    """

    backend: str
    precision: str
    files: int
    seconds: float
    failed: tuple[DataError, ...]

    def row(self) -> dict[str, Any]:
        """As `--json` prints it."""
        told = {"backend": self.backend, "precision": self.precision, "files": self.files, "failed": len(self.failed)}
        return {**told, "seconds": self.seconds, "images_per_second": self.files / self.seconds}


@dataclass(frozen=True)
class Bench:
    """What was measured.

    Attributes:
        variant: the network.
        size: height and width of its input, px; 0 where that is no image.
        noun: what it takes, "images", "sounds" or "texts".
        input: one of them in words, "224 px".
        threads: that resnetkit uses.
        measured: each backend with each batch size.
        from_files: each backend, where files were given.
        skipped: why a backend was not measured, by its name.
        peak_memory: the most bytes that this whole process, all backends and Python itself, has held so far; None where
            the system does not say.
    """

    variant: str
    size: int
    noun: str
    input: str
    threads: int
    measured: tuple[Measured, ...]
    from_files: tuple[FromFiles, ...]
    skipped: dict[str, str]
    peak_memory: int | None

    def as_dict(self) -> dict[str, Any]:
        """As `--json` prints it."""
        rows = {"measured": [each.row() for each in self.measured]}
        files = {"from_files": [each.row() for each in self.from_files], "files_batch": FILES_BATCH}
        more = {"rounds": ROUNDS, "skipped": self.skipped, "peak_memory": self.peak_memory}
        told = {"variant": self.variant, "size": self.size, "input": self.input, "threads": self.threads}
        return {**told, **rows, **files, **more}


def bench(
    model: str | Path,
    inputs: Sequence[str | Path] = (),
    *,
    backends: Sequence[str] = (),
    batches: Sequence[int] = BATCHES,
    seconds: float = SECONDS,
    device: str = "auto",
    quiet: bool = False,
) -> Bench:
    """Measure a model on this machine.

    Exports in int8 that lie beside the model are measured, too, where no backend is named.

    Every backend with every batch size has its turn in each of five rounds, after a call that is not counted: so
    another process's load hits all alike.

    Args:
        model: a run folder or a model folder.
        inputs: files, folders, globs or "-", to measure with reading and decoding too; each file once.
        backends: names; all that are installed if left out.
        batches: images in a call.
        seconds: for each backend with each batch size, over all rounds; at least a call a round.
        device: where, "auto", "cpu", "cuda", ...
        quiet: no notes and no progress on stderr.

    Raises:
        UsageError: there is no such backend, or a number is out of range.
        DataError: an input matches no file.
        ModelError: the model is refused.
        ResourceError: a backend that was asked for, or every one, is not installed; a batch does not fit in memory.
    """
    if min(batches, default=0) < 1:
        raise UsageError(f"batch = {min(batches, default='nothing')}", fix="give 1 or more")
    if not 0 < seconds < float("inf"):
        raise UsageError(f"seconds = {seconds}", fix="give more than 0")
    opened, skipped = _opened(Path(model), backends, device, quiet)
    first = next(iter(opened.values()))
    paths = sources_of(first, inputs)
    measured = _measured(opened, _torch_logits(Path(model), opened, device), (batches, seconds), quiet)
    files = tuple(_from_files(each, paths, quiet) for each in opened.values()) if paths else ()
    size = first.preprocess.size if isinstance(first.preprocess, Preprocess) else 0
    told = first.checkpoint.meta.variant, size, first.task.modality.noun, in_words(first.preprocess)
    return Bench(*told, num_threads(), measured, files, skipped, peak_memory())


def in_words(preprocess: Any) -> str:
    """How large one input of a network is."""
    if isinstance(preprocess, AudioPreprocess):
        return f"{preprocess.seconds:g} s at {preprocess.rate:,} Hz"
    return f"{preprocess.size} px" if isinstance(preprocess, Preprocess) else f"{preprocess.length:,} tokens"


def _opened(folder: Path, names: Sequence[str], device: str, quiet: bool) -> tuple[dict[str, Model], dict[str, str]]:
    """The model on each backend, and why it is not on others; one that is asked for by name must be there."""
    opened: dict[str, Model] = {}
    missing: dict[str, ResnetkitError] = {}
    for name in dict.fromkeys(names or (name for name in BACKENDS if name != "auto")):
        try:
            opened[name] = load_classifier(folder, backend=name, device=device)
        except (ResourceError, UsageError) as error:  # not installed; not for this device
            missing[name] = error
            if names:
                raise
            note(f"{name}: left out: {error}", quiet)
    if not names:
        opened |= dict(_int8_beside(folder, quiet))
    if not opened:
        raise next(iter(missing.values()))
    return opened, {name: str(error) for name, error in missing.items()}


def _int8_beside(folder: Path, quiet: bool) -> Iterator[tuple[str, Model]]:
    """The exports in int8 of a run or of a model folder, where `export` puts them, as far as they can be opened."""
    model = folder / "model" if (folder / "model").is_dir() else folder
    for path in (beside(model, f"{form}-int8") for form in INT8_ENGINES):
        if not path.is_dir():
            continue
        try:
            found = load_classifier(path)
        except ResnetkitError as error:
            note(f"{path}: left out: {error}", quiet)
            continue
        yield f"{found.backend.name} {precision_of(found)}", found


def precision_of(model: Model) -> str:
    """That of an export, else "f32"."""
    return model.checkpoint.deployed.precision if model.checkpoint.deployed else FLOAT32


def _torch_logits(folder: Path, opened: dict[str, Model], device: str) -> Floats | None:
    """What torch makes of the probe; None where it is not there."""
    found = next((model for model in opened.values() if isinstance(model.backend, TorchBackend)), None)
    try:
        reference = found or load_classifier(folder, backend="torch", device=device)
    except (ResourceError, UsageError):  # not installed; an export, which has no weights for it
        return None
    return reference.backend(probe(reference))


def _measured(
    opened: dict[str, Model], reference: Floats | None, how: tuple[Sequence[int], float], quiet: bool
) -> tuple[Measured, ...]:
    batches, seconds = how
    pairs = [(name, batch) for name in opened for batch in dict.fromkeys(batches)]
    images = probe(next(iter(opened.values())))
    inputs = {batch: np.resize(images, (batch, *images.shape[1:])) for _, batch in pairs}  # the probe over and over
    calls = [_call(name, opened[name], inputs[batch]) for name, batch in pairs]
    with bar("timing", ROUNDS * len(pairs), quiet=quiet) as advance:
        times = in_turn(calls, seconds / ROUNDS, advance)
    unknown = None, None
    agrees = {n: unknown if reference is None else agreement(reference, opened[n].backend(images)) for n in opened}
    return tuple(
        Measured(*_named(opened[name]), _device(opened[name]), batch, timing(rounds, batch), *agrees[name])
        for (name, batch), rounds in zip(pairs, times, strict=True)
    )


def _named(model: Model) -> tuple[str, str]:
    return model.backend.name, precision_of(model)


def _device(model: Model) -> str:
    return model.backend.device if isinstance(model.backend, TorchBackend) else "cpu"


def _call(name: str, model: Model, batch: Pixels) -> Callable[[], object]:
    def call() -> object:
        try:
            return model.backend(batch)
        except (MemoryError, RuntimeError) as error:  # torch raises the latter, with these words
            if not (isinstance(error, MemoryError) or "memory" in str(error)):
                raise
            raise ResourceError(
                f"{name} is out of memory at {len(batch)} images a call", fix="a smaller --batch"
            ) from error

    return call


def in_turn(calls: Sequence[Callable[[], object]], seconds: float, advance: Advance) -> list[list[list[float]]]:
    """Seconds that each call took, by call and round.

    In each round each has its turn: once without being timed, since it finds the caches full of another's data, and
    then again and again for some seconds, but once at least.
    """
    times: list[list[list[float]]] = [[] for _ in calls]
    for turn in range(ROUNDS * len(calls)):
        call = calls[turn % len(calls)]
        call()
        times[turn % len(calls)].append(_repeated(call, seconds))
        advance(turn + 1)
    return times


def _repeated(call: Callable[[], object], seconds: float) -> list[float]:
    found: list[float] = []
    while sum(found) < seconds or not found:
        started = time.perf_counter()
        call()
        found.append(time.perf_counter() - started)
    return found


def agreement(reference: Floats, logits: Floats) -> tuple[float, float]:
    """The largest difference of two logits over the largest logit, and the share of inputs with the same top-1."""
    same = np.mean(reference.argmax(1) == logits.argmax(1)) if reference.shape == logits.shape else 0.0
    return relative_difference(reference, logits), float(same)


def _from_files(model: Model, paths: Sequence[Path | Line], quiet: bool) -> FromFiles:
    """Every file once through a model; they are read once before, so that each backend finds them in memory alike."""
    for path in paths:
        with suppress(OSError), path.open("rb") as file:  # the model says what is wrong with it
            file.read()
    failed = []
    started = time.perf_counter()
    with bar(f"{' '.join(_named(model))} from files", len(paths), quiet=quiet) as advance:
        for done, (_, answer) in enumerate(model.answers(paths, FILES_BATCH), 1):
            if isinstance(answer, DataError):
                failed.append(answer)
            advance(done)
    return FromFiles(*_named(model), len(paths), time.perf_counter() - started, tuple(failed))


def peak_memory() -> int | None:
    """The most bytes that this process has held in memory so far; None where the system does not say (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def bench_lines(found: Bench) -> Iterator[str]:
    """A table of backends and batches, and what is to be known of it."""
    rate_of = f"{found.noun}/s"
    yield f"{found.variant} at {found.input}, threads: {found.threads}"
    yield f"backend       precision  device  batch {rate_of:>10}    p50 ms    p99 ms   calls  difference  same top-1"
    yield from map(_line, found.measured)
    yield f"{rate_of}: the median of {ROUNDS} rounds; p99: of fewer than 100 calls, the slowest"
    yield "difference: the largest from torch's logits over the largest logit, on 7 made inputs, as same top-1"
    for each in found.from_files:
        rate = each.files / each.seconds
        unread = f", {len(each.failed):,} of them could not be read" if each.failed else ""
        name = f"{each.backend} {each.precision}"
        yield f"{name} from files: {rate:,.1f} {rate_of} ({each.files:,} files, each once{unread})"
    if found.peak_memory is not None:
        yield f"memory: {found.peak_memory / 1e6:,.0f} MB at most, of this whole process so far"


def _line(each: Measured) -> str:
    speed = each.timing
    agrees = f"{'-':>10}  {'-':>10}"
    if each.difference is not None and each.agreement is not None:
        agrees = f"{each.difference:10.1e}  {100 * each.agreement:8.0f} %"
    name = f"{each.backend:13} {each.precision:9}  {each.device:6} {each.batch:6}"
    times = f"{speed.images_per_second:10,.1f} {speed.p50:9,.2f} {speed.p99:9,.2f} {speed.calls:7,}"
    return f"{name} {times}  {agrees}"
