"""The life of a server, as a process: it drains when it is told to, and survives the death of what it has started."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from resnetkit.errors import ResourceError
from resnetkit.serving.limits import Limits
from resnetkit.serving.server import bound, most_connections
from servers import Tally, commanded, form_of, living, load


def ask(port: int, body: bytes | None = None, path: str = "/v2/health/ready") -> int:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        client.request("POST" if body else "GET", path, body, {"content-type": "image/png"})
        return client.getresponse().status
    finally:
        client.close()


def test_few_files_a_dead_worker_and_sigterm_under_load(trained: Path, photo: bytes) -> None:
    """I20, I21, I24, I29: one process for all of it, since each takes seconds to start."""
    with commanded(trained, "--port", "0", limit=96) as server:
        port = server.port
        crowd = [socket.create_connection(("127.0.0.1", port), 5) for _ in range(150)]
        time.sleep(0.2)
        assert server.process.poll() is None
        for each in crowd:
            each.close()
        deadline = time.monotonic() + 10
        while ask(port, photo, "/predict") != 200 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert ask(port, photo, "/predict") == 200

        worker = int(subprocess.check_output(["pgrep", "-P", str(server.process.pid), "-f", "spawn_main"]).split()[0])
        mark = len(server.lines)
        os.kill(worker, signal.SIGKILL)
        server.told("worker", 10, mark)
        server.told("ready", 60, mark)  # how soon that is, bench/serve.py measures
        assert ask(port, photo, "/predict") == 200

        found: list[Tally] = []
        clients = threading.Thread(target=lambda: found.append(load(port, photo, 8, 20)))
        clients.start()
        time.sleep(0.5)
        server.process.send_signal(signal.SIGTERM)
        told = time.monotonic()
        assert server.process.wait(30) == 0 and time.monotonic() - told < 30
        clients.join()
        (tally,) = found
        assert tally.answered > 8 and tally.lost == 0 and tally.other == 0
        assert not [line for line in server.lines if line.get("event") == "bug"] and not server.other


def test_sigkill_leaves_nothing(trained: Path) -> None:
    """I22: neither processes nor a port that is taken."""
    with commanded(trained, "--port", "0") as server:
        port, pid = server.port, server.process.pid
        children = subprocess.check_output(["pgrep", "-P", str(pid)]).split()
        server.process.kill()
        server.process.wait()
        deadline = time.monotonic() + 60  # the one that imports for successors finishes that first
        while any(Path(f"/proc/{int(child)}").exists() for child in children) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not [child for child in children if Path(f"/proc/{int(child)}").exists()]
        bound("127.0.0.1", port).close()


def test_nothing_is_written_to_a_disk(tmp_path: Path, trained: Path, photo: bytes, monkeypatch) -> None:
    """I33: a temporary folder that is full, or not there, is of no concern: uploads stay in memory."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "not-there"))
    kind, body = form_of([photo, b"x" * 3_000_000])
    with living(trained) as live:
        first, second = live.post("/predict", body, kind).json["answers"]
    assert "label" in first and second["code"] == "unsupported"


def test_the_port_is_taken(run_cli, trained: Path) -> None:
    """I23: told before any model is opened."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        code, _, err = run_cli("serve", trained, "--port", other.getsockname()[1])
        assert code == 6 and err.startswith("error: cannot listen on 127.0.0.1") and err.count("\n") == 1
    with pytest.raises(ResourceError):
        bound("203.0.113.1", 0)


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    """I23."""
    command = [sys.executable, "-m", "resnetkit", "serve", str(tmp_path / "none"), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 5 and "there is no such model" in done.stderr and "Traceback" not in done.stderr


def test_connections_fit_the_files_that_may_be_open(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    assert most_connections(Limits()) == 32
    monkeypatch.setattr(resource, "getrlimit", lambda _: (-1, -1))
    assert most_connections(Limits(max_connections=7)) == 7
