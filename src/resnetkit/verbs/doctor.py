"""doctor: what there is on this machine, what resnetkit uses of it, and what would make it faster.

It is asked where something is wrong: so what needs more than Python itself is imported where it is used, and what
cannot be imported is unknown.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from resnetkit._version import __version__
from resnetkit.errors import ResourceError, printable
from resnetkit.files import free_bytes, in_words
from resnetkit.runtime.machine import Machine, cores_allowed, this_machine
from resnetkit.verbs.caches import cache_folder

if TYPE_CHECKING:
    from resnetkit.verbs.bench import Bench

T = TypeVar("T")
THREADS = "RESNETKIT_THREADS"
FULL = 2 * 10**9  # bytes free, under which a disk is nearly full: a few training states
CORE = (
    *(
        "torch",
        "torchvision",
        "numpy",
        "pillow",
        "safetensors",
        "scikit-learn",
        "threadpoolctl",
        "scipy",
        "pydantic",
        "tomli-w",
    ),
    *("typer", "rich", "jinja2", "matplotlib", "filelock", "huggingface-hub", "natsort", "pyyaml"),
)
RUNTIME = 'pip install "resnetkit[runtime]"'
# package, what it brings, how to have it, and whether it makes networks faster
OPTIONAL = (
    ("onnx", "makes the graphs that the other runtimes take", RUNTIME, True),
    ("onnxruntime", "runs networks on the CPU", RUNTIME, True),
    ("openvino", "runs networks on the CPU", RUNTIME, True),
    ("ncnn", "runs networks on the CPU", RUNTIME, True),
    ("pillow-heif", "reads HEIC photos", 'pip install "resnetkit[heif]"', False),
    ("cleanlab", "finds labels that are probably wrong, as our own code does", 'pip install "resnetkit[trust]"', False),
    ("transformers", "proves an export to Hugging Face", "pip install transformers", False),
)
BATCHES = (1, 16)
SECONDS = 0.5


@dataclass(frozen=True)
class Package:
    """A package that resnetkit uses.

    Attributes:
        name: as pip knows it.
        version: None where it is not installed.
        brings: what an optional one is for; "" of those that must be there.
        install: the line that installs it.
        runs: whether it makes networks faster.
    """

    name: str
    version: str | None
    brings: str
    install: str
    runs: bool


@dataclass(frozen=True)
class Place:
    """Where something is kept.

    Attributes:
        what: is kept there.
        folder: None where it is kept nowhere, or where is unknown.
        held: bytes in it.
        free: bytes that its disk has free; None where that is unknown.
    """

    what: str
    folder: str | None
    held: int
    free: int | None


@dataclass(frozen=True)
class Diagnosis:
    """What there is on this machine.

    Attributes:
        resnetkit, python: versions.
        machine: processor, cores, limits, memory.
        gpus: names of those that torch sees.
        threads: that resnetkit uses; None where a package that tells is missing, as for the others.
        threads_from: why.
        packages: those that must be there, then the optional ones.
        torch_error: why torch cannot be imported, or "".
        jpeg_turbo: whether Pillow reads JPEGs with libjpeg-turbo; None where that is unknown.
        places: of weights and decoded images.
        offline: whether the user forbids the network.
        bench: the speed of the model, where one is named and can be run.
        not_timed: why it cannot be run, or "".
    """

    resnetkit: str
    python: str
    machine: Machine
    gpus: tuple[str, ...]
    threads: int | None
    threads_from: str
    packages: tuple[Package, ...]
    torch_error: str
    jpeg_turbo: bool | None
    places: tuple[Place, ...]
    offline: bool | None
    bench: Bench | None
    not_timed: str

    @property
    def advice(self) -> tuple[str, ...]:
        """What would make this machine faster."""
        return tuple(advice(self))

    def as_dict(self) -> dict[str, Any]:
        """As `--json` prints it."""
        bench = self.bench.as_dict() if self.bench else None
        return {**asdict(self), "bench": bench, "advice": list(self.advice)}


def doctor(model: str | Path | None = None, *, device: str = "auto", quiet: bool = False) -> Diagnosis:
    """Look at this machine as resnetkit sees it; nothing that is missing is an error.

    Args:
        model: a run folder or a model folder to time in batches of 1 and 16; none if left out.
        device: where to time it, "auto", "cpu", "cuda", ...
        quiet: no notes and no progress on stderr.

    Raises:
        ModelError: the model is refused.
        UsageError: the device cannot be.
    """
    torch_error, gpus = _torch()
    bench, not_timed = (None, "") if model is None else _timed(Path(model), device, quiet)
    return Diagnosis(
        resnetkit=__version__,
        python=platform.python_version(),
        machine=this_machine(),
        gpus=gpus,
        threads=_known(_num_threads),
        threads_from=threads_from(os.environ.get(THREADS, "")),
        packages=tuple(_packages()),
        torch_error=torch_error,
        jpeg_turbo=_known(_jpeg_turbo),
        places=tuple(_places()),
        offline=_known(_offline),
        bench=bench,
        not_timed=not_timed,
    )


def _known(ask: Callable[[], T]) -> T | None:
    """What a part of resnetkit says, or None where it cannot, for a package that is missing or broken."""
    try:
        return ask()
    except Exception:  # a broken library breaks in its own way
        return None


def _num_threads() -> int:
    from resnetkit.runtime.pipeline import num_threads

    return num_threads()


def _offline() -> bool:
    from resnetkit.weights.download import offline

    return offline()


def _jpeg_turbo() -> bool:
    from PIL import features

    return bool(features.check_feature("libjpeg_turbo"))


def _weights() -> Path:
    from resnetkit.weights.fetch import torch_cache

    return torch_cache()


def _hub() -> Path:
    from resnetkit.weights import hub

    return hub.cache()


def _torch() -> tuple[str, tuple[str, ...]]:
    """Why torch cannot be imported, or "", and the GPUs that it sees."""
    try:
        import torch

        gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        gpus += ["Apple GPU (mps)"] if torch.backends.mps.is_available() else []
    except Exception as error:  # in whatever way it is broken
        return _one_line(error), ()
    return "", tuple(gpus)


def _timed(model: Path, device: str, quiet: bool) -> tuple[Bench | None, str]:
    """The speed of a model, or why it cannot be run here."""
    try:
        from resnetkit.verbs.bench import bench
    except Exception as error:  # see _known
        return None, _one_line(error)
    try:
        return bench(model, backends=["auto"], batches=BATCHES, seconds=SECONDS, device=device, quiet=quiet), ""
    except ResourceError as error:
        return None, str(error)


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def threads_from(asked: str) -> str:
    """Why resnetkit uses as many threads as it does, given the text of RESNETKIT_THREADS."""
    if asked.isdecimal() and int(asked) > 0:
        return THREADS
    wrong = f"; {THREADS}={printable(asked)} is no number above 0" if asked else ""
    return f"the cores that this process may use, or its quota{wrong}"


def _packages() -> Iterator[Package]:
    for name in CORE:
        yield Package(name, _version(name), "", f"pip install {name}", runs=False)
    for name, brings, install, runs in OPTIONAL:
        yield Package(name, _version(name), brings, install, runs)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _places() -> Iterator[Place]:
    """Where weights are looked for and kept, and decoded images."""
    yield place("weights", _known(_weights))
    yield place("Hub", _known(_hub))
    yield place("images", cache_folder("auto"))
    yield place("here", _known(Path.cwd), count=False)


def place(what: str, folder: Path | None, *, count: bool = True) -> Place:
    """A folder, which need not be there, with what it holds (if that is to be counted) and what its disk has free."""
    if folder is None:
        return Place(what, None, 0, None)
    held = 0
    for parent, _, names in os.walk(folder) if count else ():
        for name in names:
            with suppress(OSError):  # gone meanwhile
                held += os.lstat(os.path.join(parent, name)).st_size
    free = None
    with suppress(OSError):
        free = free_bytes(folder)
    return Place(what, str(folder), held, free)


def advice(found: Diagnosis) -> Iterator[str]:
    """What would make a machine faster, only where it holds."""
    yield from _advice_on_threads(found)
    runtimes = [package.name for package in found.packages if package.runs and package.version is None]
    if runtimes and not found.gpus:  # where torch has a GPU, it is what runs the network
        yield f"{RUNTIME}: has {', '.join(runtimes)}, and the fastest runtime that gives torch's answers is taken"
    if found.jpeg_turbo is False:
        yield "pip install --force-reinstall pillow: this one reads JPEGs without libjpeg-turbo"
    known = {each.free: each.folder for each in found.places if each.folder and each.free is not None}
    for free, folder in known.items():  # one folder of a disk is enough
        if free is not None and free < FULL:
            yield f"free some space on the disk of {printable(folder)}: {in_words(free)} left"


def _advice_on_threads(found: Diagnosis) -> Iterator[str]:
    cores, quota = found.machine.usable_cores, found.machine.quota
    threads = found.threads or 1
    allowed = cores_allowed(cores, quota)
    if threads > allowed:
        limit = f"{cores} cores" if allowed == cores else f"{quota:g} cores' time, the quota of this container"
        yield f"export {THREADS}={allowed}: {threads} threads share {limit}"
    if threads < allowed and found.threads_from == THREADS:
        yield f"unset {THREADS}: {threads} of {allowed} cores are used"
    if quota is not None and quota < cores:
        how = "docker run --cpus, or limits.cpu of Kubernetes"
        yield f"raise the quota ({how}): it allows {quota:g} of {cores} cores"


def diagnosis_lines(found: Diagnosis) -> Iterator[str]:
    """A diagnosis as lines of a label and a text."""
    yield _line("resnetkit", f"{found.resnetkit}, Python {found.python}, {found.machine.system}")
    yield from _machine_lines(found)
    installed = [f"{each.name} {each.version}" for each in found.packages if each.version]
    yield _line("packages", ", ".join(installed))
    for each in found.packages:
        if each.version is None:
            yield _line("missing", f"{each.name}, which {each.brings or 'resnetkit needs'} ({each.install})")
    if found.torch_error:
        fix = "pip install --force-reinstall torch torchvision"
        yield _line("torch", f"cannot be imported: {found.torch_error} ({fix})")
    for where in found.places:
        yield _line(where.what, _kept(where))
    told = {True: "forbidden (RESNETKIT_OFFLINE or HF_HUB_OFFLINE)", False: "may be used", None: "unknown"}
    yield _line("network", told[found.offline])
    yield from _speed_lines(found)
    yield from (f"faster: {text}" for text in found.advice)


def _machine_lines(found: Diagnosis) -> Iterator[str]:
    machine = found.machine
    yield _line("processor", f"{machine.processor}; {_instructions(machine)}")
    quota = "no quota" if machine.quota is None else f"a quota of {machine.quota:g}"
    yield _line("cores", f"{machine.cores}, of which this process may use {machine.usable_cores}; {quota}")
    memory = "unknown" if machine.memory is None else in_words(machine.memory)
    limit = "no limit" if machine.memory_limit is None else f"a limit of {in_words(machine.memory_limit)}"
    yield _line("memory", f"{memory}; {limit}")
    yield _line("GPU", ", ".join(found.gpus) or ("unknown" if found.torch_error else "none that torch sees"))
    yield _line("threads", f"{found.threads or 'unknown'}: {found.threads_from}")
    decoder = {True: "libjpeg-turbo", False: "libjpeg without turbo", None: "unknown"}[found.jpeg_turbo]
    yield _line("JPEG", decoder)


def _instructions(machine: Machine) -> str:
    if machine.instructions is None:
        return "instructions unknown"
    return " ".join(machine.instructions) or "no vector instructions that are known here"


def _kept(where: Place) -> str:
    if where.folder is None:
        return "unknown" if where.what != "images" else "decoded ones stay in memory"
    kept = f"{in_words(where.held)} kept, " if where.what != "here" else ""
    return f"{printable(where.folder)}: {kept}{'unknown' if where.free is None else in_words(where.free)} free"


def _speed_lines(found: Diagnosis) -> Iterator[str]:
    if found.not_timed:
        yield _line("model", f"cannot be run: {found.not_timed}")
    if found.bench is not None:
        rate_of = f"{found.bench.noun}/s"
        rates = [
            f"{each.timing.images_per_second:,.1f} {rate_of} in batches of {each.batch}"
            for each in found.bench.measured
        ]
        yield _line("model", f"{found.bench.variant} at {found.bench.input}: {', '.join(rates)}")


def _line(label: str, text: str) -> str:
    return f"{label:11}{text}"
