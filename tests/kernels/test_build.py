"""The kernels are compiled where there is a compiler, and else it is said what is missing; nothing half is left."""

import os
import subprocess
import sys

import pytest

from resnetkit.kernels import build


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A compiler that only notes what it is asked."""
    if sys.platform == "win32":
        pytest.skip("needs a shell")
    script = tmp_path / "c++"
    script.write_text(
        '#!/bin/sh\necho "$@" >> "$0.log"\n[ "$1" = -dumpmachine ] && echo "$MACHINE"\n'
        'while [ $# -gt 1 ]; do [ "$1" = -o ] && echo made > "$2"; shift; done\nexit ${STATUS:-0}\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    monkeypatch.setenv("MACHINE", "x86_64-linux-gnu")
    return script


def test_every_set_of_instructions_is_compiled(fake, tmp_path):
    (tmp_path / "out").mkdir()
    library = build.build(tmp_path / "out", ("-g",))
    assert library.read_text() == "made\n" and os.listdir(tmp_path / "out") == [build.NAME]
    asked = (tmp_path / "c++.log").read_text()
    amx = sys.platform.startswith("linux")
    assert (
        asked.count(" -c ") == 9 + 2 * amx and asked.count("-mavx2 -mfma") == 2 and asked.count("-DWITH_AMX") == 2 * amx
    )
    assert all("-g" in line or "-fsyntax-only" in line for line in asked.splitlines()[1:])


def test_what_a_compiler_does_not_know_is_left_out(fake, tmp_path):
    fake.write_text(fake.read_text().replace("#!/bin/sh\n", "#!/bin/sh\ncase $* in *amx*) exit 1;; esac\n"))
    (tmp_path / "out").mkdir()
    assert build.build(tmp_path / "out").exists()
    asked = (tmp_path / "c++.log").read_text()
    assert asked.count(" -c ") == 9 and "-DWITH_AMX" not in asked and "-mavx512f" in asked


def test_other_processors_have_one(fake, tmp_path, monkeypatch):
    monkeypatch.setenv("MACHINE", "aarch64-linux-gnu")
    build.build(tmp_path)
    asked = (tmp_path / "c++.log").read_text()
    assert asked.count(" -c ") == 4 and "-mavx" not in asked


def test_a_compiler_that_fails_or_is_not_there(fake, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    monkeypatch.setenv("STATUS", "1")
    with pytest.raises(build.CannotBuildError, match="failed"):
        build.build(tmp_path / "out")
    assert os.listdir(tmp_path / "out") == []
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", str(tmp_path / "out"))
    with pytest.raises(build.CannotBuildError, match="there is no C.. compiler; install"):
        build.build(tmp_path / "out")
    with pytest.raises(build.CannotBuildError, match="cannot be run"):
        build.build(tmp_path / "out", cxx=str(tmp_path / "none"))


def test_without_a_compiler_the_command_says_so(tmp_path):
    command = [sys.executable, "-m", "resnetkit.kernels.build"]
    environment = {"PATH": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 1 and done.stderr.startswith("error: there is no C++ compiler")


def test_a_library_older_than_its_sources_is_not_fresh(monkeypatch, tmp_path):
    monkeypatch.setattr(build, "HERE", tmp_path)
    assert not build.is_fresh()
    (tmp_path / build.NAME).write_text("")
    assert build.is_fresh()
    os.utime(tmp_path / build.NAME, (0, 0))
    assert not build.is_fresh()
