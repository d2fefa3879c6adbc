"""What the machine has and what of it this process may use, read from the files in which Linux says so; no torch.

Elsewhere most of it is unknown, which is None. A container sees the cores of its host; how much of them it may use is
said by its control group, in files of two versions.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

CGROUPS, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
CPUINFO = Path("/proc/cpuinfo")
UNLIMITED = 2**60  # bytes; version 1 writes the largest number there is where memory has no limit
# names in /proc/cpuinfo, and what the field calls them; those that matter for networks
INSTRUCTIONS = {
    **{name: name for name in ("sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16")},
    **{name: name for name in ("avx512_fp16", "avx_vnni", "amx_tile", "amx_int8", "amx_bf16", "sve", "i8mm", "bf16")},
    "asimd": "neon",
    "asimddp": "dotprod",
}


@dataclass(frozen=True)
class Machine:
    """A machine as this process sees it; None is unknown, or for a limit that there is none.

    Attributes:
        system: operating system with its version.
        processor: its name.
        cores: of the machine.
        usable_cores: that this process may run on.
        quota: cores' worth of time that its control group allows.
        memory: bytes of the machine.
        memory_limit: bytes that its control group allows.
        instructions: sets of instructions that matter for networks.
    """

    system: str
    processor: str
    cores: int
    usable_cores: int
    quota: float | None
    memory: int | None
    memory_limit: int | None
    instructions: tuple[str, ...] | None


def this_machine() -> Machine:
    """The machine that this process is on."""
    cpuinfo = text_of(CPUINFO)
    cores = os.cpu_count() or 1
    return Machine(
        system=platform.platform(),
        processor=processor(cpuinfo) or platform.processor() or platform.machine(),
        cores=cores,
        usable_cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores,
        quota=cpu_quota(),
        memory=_memory(),
        memory_limit=memory_limit(),
        instructions=instructions(cpuinfo),
    )


def instructions(cpuinfo: str) -> tuple[str, ...] | None:
    """Sets of instructions that matter for networks, from the text of /proc/cpuinfo; None where it names none."""
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", cpuinfo, re.MULTILINE)
    if found is None:
        return None
    present = set(found[1].split())
    return tuple(told for name, told in INSTRUCTIONS.items() if name in present)


def processor(cpuinfo: str) -> str:
    """The processor's name, from the text of /proc/cpuinfo; "" where it has none."""
    found = re.search(r"^model name\s*:\s*(.*\S)", cpuinfo, re.MULTILINE)
    return found[1] if found else ""


def cores_allowed(cores: int, quota: float | None) -> int:
    """Threads that cores and a quota of cores' time are enough for: more are stopped in turns."""
    return cores if quota is None else min(cores, max(1, int(quota)))


def cpu_quota(root: Path = CGROUPS, own: Path = OWN_CGROUPS) -> float | None:
    """Cores' worth of time that the control groups of this process allow, the least of them; None for no limit.

    Args:
        root: where control groups are mounted.
        own: names those of this process.
    """
    found = [quota_of(text_of(folder / "cpu.max")) for folder in _groups(root, own, "")]
    for folder in _groups(root, own, "cpu"):
        texts = (text_of(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
        found.append(quota_of(" ".join(texts)))
    return min((quota for quota in found if quota is not None), default=None)


def quota_of(text: str) -> float | None:
    """Cores' worth of time that "quota period" allows, both in us; None for "max", -1, and what is no such text."""
    found = re.fullmatch(r"\s*(\d+)\s+(\d+)\s*", text)
    if found is None or not int(found[1]) or not int(found[2]):
        return None
    return int(found[1]) / int(found[2])


def memory_limit(root: Path = CGROUPS, own: Path = OWN_CGROUPS) -> int | None:
    """Bytes that the control groups of this process allow, the least of them; None for no limit. Arguments as above."""
    texts = [text_of(folder / "memory.max") for folder in _groups(root, own, "")]
    texts += [text_of(folder / "memory.limit_in_bytes") for folder in _groups(root, own, "memory")]
    found = [int(text) for text in texts if text.strip().isdecimal()]
    return min((limit for limit in found if limit < UNLIMITED), default=None)


def _groups(root: Path, own: Path, controller: str) -> Iterator[Path]:
    """The folder of this process's group and those above it, of a controller of version 1, or "" for version 2.

    Inside a container the group's name may be that of the host, and its folder what is mounted: so the root counts too.
    """
    mounts = {"": (root, root / "unified")}.get(controller, (root / controller, root / f"{controller},cpuacct"))
    for line in text_of(own).splitlines():
        _, _, rest = line.partition(":")
        names, _, group = rest.partition(":")
        if controller in names.split(","):
            inside = Path(group.lstrip("/"))
            yield from (mount / part for mount in mounts for part in (inside, *inside.parents))


def _memory() -> int | None:
    with suppress(AttributeError, ValueError, OSError):  # not on Windows
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None


def text_of(path: Path) -> str:
    """Of a file of the system; "" where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
