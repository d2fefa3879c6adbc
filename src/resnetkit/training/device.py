"""Device, precision and processes: what torch needs beside the loop, without a trainer library."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, TypeVar

import torch
from torch import distributed, nn

from resnetkit.errors import ResourceError
from resnetkit.runtime.backends import refuse_old_torch, torch_device
from resnetkit.runtime.pipeline import num_threads
from resnetkit.settings import Recipe

T = TypeVar("T")
Precision = Literal["f32", "bf16", "f16"]
MOST_HANDS = 8  # more wait for Python's lock
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


@dataclass(frozen=True)
class Setup:
    """Where and how a process trains.

    Attributes:
        device: "cpu", "cuda:0", ...
        precision: of the network's arithmetic in training; evaluation is always f32.
        rank, world: number of this process, and of processes.
        local: number of processes on this machine.
    """

    device: str
    precision: Precision
    rank: int = 0
    world: int = 1
    local: int = 1

    @property
    def threads(self) -> int:
        """Threads for this process."""
        return max(1, num_threads() // self.local)

    @property
    def hands(self) -> int:
        """Threads that make batches while the network learns on a GPU.

        On a CPU none: they would take turns with the threads of the network, which then wait for each other.
        """
        return 0 if self.kind == "cpu" else min(MOST_HANDS, self.threads)

    @property
    def augments_on(self) -> str:
        """Where images are augmented: where they are learnt from, if several threads may start its operations."""
        return self.device if self.kind == "cuda" else "cpu"

    @property
    def kind(self) -> str:
        """Device type as torch names it."""
        return self.device.partition(":")[0]

    @property
    def words(self) -> str:
        """The device by its name, and the precision."""
        name = torch.cuda.get_device_name(self.device) if self.kind == "cuda" else self.device
        return f"{name}, {self.precision}"

    def autocast(self) -> torch.autocast:
        """Context in which the network computes in the precision."""
        return torch.autocast(self.kind, DTYPES[self.precision], enabled=self.precision != "f32")


def processor_precision(kind: str) -> Precision:
    """What precision=auto means: bf16 on GPUs that compute in it, f16 on older ones, f32 everywhere else.

    On a CPU without bf16 units autocast is many times slower than f32, on one with them faster; its cost in accuracy
    has not been measured, so it has to be asked for (docs/decisions/003-f32-on-cpus.md).
    """
    if kind != "cuda":
        return "f32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "f16"


@contextmanager
def processes(device: str, precision: Precision | Literal["auto"]) -> Iterator[Setup]:
    """The setup of this process; under torchrun (WORLD_SIZE) it joins the others, gloo on CPUs and nccl on GPUs."""
    refuse_old_torch(torch.__version__)
    where = torch_device(device)
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", str(world)))
    if where == "cuda":
        where = _own_gpu(int(os.environ.get("LOCAL_RANK", "0")), local)
    kind = where.partition(":")[0]
    setup = Setup(where, processor_precision(kind) if precision == "auto" else precision, rank, world, local)
    if kind == "cuda":
        torch.cuda.set_device(where)  # which the collective operations on objects use
    if world > 1:
        # the others wait while the first one decodes
        distributed.init_process_group("nccl" if kind == "cuda" else "gloo", timeout=timedelta(hours=12))
    try:
        yield setup
    finally:
        if world > 1:
            distributed.destroy_process_group()


def _own_gpu(rank: int, local: int) -> str:
    """The GPU of the process with this number on this machine; two cannot share one."""
    there = torch.cuda.device_count()
    if local > there:
        what, fix = f"{local} processes need a GPU each, and there are {there}", "as many processes, or --device cpu"
        raise ResourceError(what, fix=fix)
    return f"cuda:{rank}"


def on_device(value: Any, device: str) -> Any:
    """A tensor, or lists and dicts of them, on a device."""
    if isinstance(value, list):
        return [on_device(each, device) for each in value]
    if isinstance(value, dict):
        return {name: on_device(each, device) for name, each in value.items()}
    return value.to(device)


def parallel(network: nn.Module, setup: Setup) -> Callable[..., torch.Tensor]:
    """A module as the loop calls it: gradients averaged over the processes where there are several."""
    if setup.world == 1:
        return network
    return nn.parallel.DistributedDataParallel(network, device_ids=[setup.device] if setup.kind == "cuda" else None)


def largest(value: int, setup: Setup) -> int:
    """The largest of the processes' values, so that all decide alike."""
    if setup.world == 1:
        return value
    box = torch.tensor(value, device=setup.device)
    distributed.all_reduce(box, distributed.ReduceOp.MAX)
    return int(box.item())


def from_first(values: dict[str, Any], setup: Setup) -> dict[str, Any]:
    """The first process's values in every process, so that what was measured is decided once."""
    if setup.world == 1:
        return values
    box = [values]
    distributed.broadcast_object_list(box, src=0)
    return box[0]


def summed(values: Sequence[float], setup: Setup) -> list[float]:
    """The sums of the processes' values."""
    if setup.world == 1:
        return list(values)
    box = torch.tensor(values, dtype=torch.float64, device=setup.device)
    distributed.all_reduce(box)
    return [float(value) for value in box.tolist()]


def gathered(mine: Sequence[T], setup: Setup) -> list[T]:
    """What every process has found for its items (rank, rank + world, ...), put together in the items' order."""
    if setup.world == 1:
        return list(mine)
    parts: list[Any] = [None] * setup.world
    distributed.all_gather_object(parts, list(mine))
    return [part[i] for i in range(max(map(len, parts))) for part in parts if i < len(part)]


def same_as_first(tensors: Mapping[str, torch.Tensor], setup: Setup) -> None:
    """Give every process the first one's tensors, in place: the statistics of BatchNorm are each process's own."""
    if setup.world > 1:
        for tensor in tensors.values():
            distributed.broadcast(tensor, src=0)


def wait_for_first(setup: Setup) -> None:
    """Wait until all processes are here."""
    if setup.world > 1:
        distributed.barrier()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory was refused: torch's CPU allocator has no class of its own for it."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def layout_of(recipe: Recipe) -> torch.memory_format:
    """How images lie in memory while a network learns, and while it is validated meanwhile."""
    return torch.channels_last if recipe.train.memory_format == "channels_last" else torch.contiguous_format
