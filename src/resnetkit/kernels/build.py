"""Compiles the kernels into this folder: `python -m resnetkit.kernels.build`. It needs nothing but Python.

The package's own build does it too, so whoever installs from source with a C++ compiler has them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

HERE = Path(__file__).parent
SOURCES = HERE / "cpp"
NAME = "kernels" + {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
# one table of kernels for each set of instructions; the processor chooses when it runs
AVX512 = ("-mavx512f", "-mavx512vl", "-mavx512dq", "-mavx512bw", "-mfma")
LEVELS = {
    "BASE": (),
    "AVX2": ("-mavx2", "-mfma"),
    "AVX512": AVX512,
    "AMX": (*AVX512, "-mavx512bf16", "-mavx512vnni", "-mamx-tile", "-mamx-bf16", "-mamx-int8"),  # only on Linux
}
BYTES = {**LEVELS, "VNNI": (*AVX512, "-mavx512vnni")}
# levels of 8 bits are the same with every set of instructions, and nothing is infinite
EXACTLY = ("-ffp-contract=off", "-ffinite-math-only", "-fno-signed-zeros")
FLAGS = ("-std=c++20", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fvisibility=hidden", "-pthread", "-Wall")


class CannotBuildError(Exception):
    """There is no compiler, or it fails; the message says which."""


def compiler() -> str:
    """Of C++: the variable CXX, or what is found.

    Raises:
        CannotBuildError: there is none.
    """
    asked = os.environ.get("CXX", "")
    for name in (asked, "g++", "clang++", "c++"):
        if name and shutil.which(name):
            return name
    raise CannotBuildError("there is no C++ compiler; install g++ or clang++, or set CXX")


def is_fresh() -> bool:
    """Whether the library is there and no source is newer."""
    library, sources = HERE / NAME, (*SOURCES.iterdir(), Path(__file__))
    return library.exists() and library.stat().st_mtime > max(path.stat().st_mtime for path in sources)


def build(folder: Path = HERE, extra: Sequence[str] = (), cxx: str = "") -> Path:
    """Compile the library and put it into a folder at once.

    Args:
        folder: where it goes.
        extra: further flags, such as -fsanitize=address.
        cxx: another compiler than `compiler` finds, also one for other processors.

    Returns:
        The library.

    Raises:
        CannotBuildError: there is no compiler, or it fails.
    """
    cxx = cxx or compiler()
    intel = _run([cxx, "-dumpmachine"]).startswith(("x86_64", "amd64"))
    position = () if sys.platform == "win32" else ("-fPIC",)
    levels = [name for name in LEVELS if name == "BASE" or (intel and (name != "AMX" or _has_amx(cxx)))]
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        objects = []
        for name, command in _units(levels):
            objects.append(str(Path(temporary) / f"{name}.o"))
            _run([cxx, *FLAGS, *position, *extra, *command, "-c", "-o", objects[-1]])
        library = Path(temporary) / NAME
        _run([cxx, "-shared", "-pthread", *extra, *objects, "-o", str(library)])
        os.replace(library, folder / NAME)
    return folder / NAME


def _units(levels: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    for name in ("api", "pool"):
        yield name, [str(SOURCES / f"{name}.cpp"), *(["-DWITH_AMX"] if "AMX" in levels else [])]
    for name in levels:
        yield name, [str(SOURCES / "kernels.cpp"), f"-DKERNELS={name}", *LEVELS[name]]
    for name in (*levels, *(["VNNI"] if "AVX512" in levels else [])):
        yield f"{name}_BYTES", [str(SOURCES / "bytes.cpp"), f"-DKERNELS={name}_BYTES", *EXACTLY, *BYTES[name]]


def _has_amx(cxx: str) -> bool:
    """Whether the compiler knows these instructions, and the system gives leave to use them as Linux does."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        _run([cxx, *LEVELS["AMX"], "-fsyntax-only", "-x", "c++", os.devnull])
    except CannotBuildError:
        return False
    return True


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    except OSError as error:
        raise CannotBuildError(f"{command[0]} cannot be run: {error}") from error
    if done.returncode:
        raise CannotBuildError(f"{command[0]} failed: {done.stderr.strip()[:2000]}")
    return done.stdout


if __name__ == "__main__":
    try:
        print(build())
    except CannotBuildError as error:
        sys.exit(f"error: {error}")
