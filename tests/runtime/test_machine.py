"""What a machine has and allows, read from texts as Linux writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from resnetkit.runtime.machine import cpu_quota, instructions, memory_limit, processor, quota_of, this_machine

X86 = "processor\t: 0\nmodel name\t: A Fast One @ 3 GHz\nflags\t\t: fpu avx avx2 avx512_vnni avx_vnni amx_int8\n\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp i8mm\n"


def files(root: Path, contents: dict[str, str]) -> None:
    for name, text in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (2 * X86, ("avx", "avx2", "avx512_vnni", "avx_vnni", "amx_int8")),
        (ARM, ("i8mm", "neon", "dotprod")),
        ("flags\t\t: fpu\n", ()),
        ("", None),
    ],
)
def test_instructions(text: str, found: tuple[str, ...] | None) -> None:
    assert instructions(text) == found


def test_processor() -> None:
    assert processor(X86) == "A Fast One @ 3 GHz" and processor(ARM) == ""


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("150000 100000\n", 1.5),
        ("50000 100000", 0.5),
        ("max 100000\n", None),
        ("-1 100000", None),
        ("100000", None),
        ("100000 0", None),
        ("", None),
    ],
)
def test_quota(text: str, cores: float | None) -> None:
    assert quota_of(text) == cores


@pytest.mark.parametrize(
    ("own", "contents", "quota", "memory"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n", "memory.max": "4096\n"}, 2.0, 4096),
        ("0::/\n", {"cpu.max": "max 100000\n", "memory.max": "max\n"}, None, None),
        # the least of the group and those above it
        ("0::/a/b\n", {"a/cpu.max": "50000 100000", "a/b/cpu.max": "max 100000", "a/b/memory.max": "7"}, 0.5, 7),
        # version 1; the group's name is that of the host, and only the mount itself is there
        (
            "4:memory:/docker/1\n2:cpu,cpuacct:/docker/1\n",
            {
                "cpu,cpuacct/cpu.cfs_quota_us": "300000\n",
                "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
                "memory/memory.limit_in_bytes": "9223372036854771712\n",
            },
            3.0,
            None,
        ),
        (
            "1:cpu:/x\n4:memory:/x\n0::/\n",
            {
                "cpu/x/cpu.cfs_quota_us": "-1",
                "cpu/x/cpu.cfs_period_us": "100000",
                "memory/x/memory.limit_in_bytes": "1000",
            },
            None,
            1000,
        ),
        ("", {}, None, None),
    ],
)
def test_limits_of_control_groups(tmp_path: Path, own: str, contents, quota: float | None, memory: int | None) -> None:
    files(tmp_path / "cgroup", contents)
    files(tmp_path, {"own": own})
    assert cpu_quota(tmp_path / "cgroup", tmp_path / "own") == quota
    assert memory_limit(tmp_path / "cgroup", tmp_path / "own") == memory


def test_no_such_files(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path / "a", tmp_path / "b") is None and memory_limit(tmp_path / "a", tmp_path / "b") is None


def test_this_machine() -> None:
    machine = this_machine()
    assert machine.system and machine.processor and 1 <= machine.usable_cores <= machine.cores
    assert machine.memory is None or machine.memory > 10**8
