"""The engines report nothing home."""

import importlib.util
import os
import subprocess
import sys
import textwrap

import pytest

QUIET = """
import os, sys

tried = []

def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto", "subprocess.Popen"):
        tried.append((event, str(arguments)))

sys.addaudithook(watch)
import numpy as np
from resnetkit.data.image import Preprocess
from resnetkit.runtime import engines
from resnetkit.runtime.graph import Graph, Linear, Mean

head = Linear("logits", "embedding", np.eye(3, dtype=np.float32), np.zeros(3, np.float32))
graph = Graph((Mean("embedding", ("image",)), head), 3, 8)
for engine in (engines.onnxruntime, engines.openvino, engines.ncnn):
    print(engine(graph, Preprocess(size=8))(np.ones((2, 8, 8, 3), np.uint8)).shape)
print("openvino_telemetry" in sys.modules, "ORT_DISABLE_TELEMETRY" in os.environ, tried)
"""


def test_nothing_is_reported_home_and_nothing_is_left_there(tmp_path):
    """openvino and onnxruntime report that they are imported, and leave an id in the home folder, if not prevented."""
    for name in ("onnxruntime", "openvino", "ncnn"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"needs {name}")
    (tmp_path / "home").mkdir()
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("CI", "TF_BUILD", "JENKINS_URL", "ORT_DISABLE_TELEMETRY")
    }
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(QUIET)],
        env={**environment, "HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["(2, 3)", "(2, 3)", "(2, 3)", "False False []"]
    assert os.listdir(tmp_path / "home") == []


SIGNALLED = """
import faulthandler, gc, os, signal
import numpy as np
from resnetkit.data.image import Preprocess
from resnetkit.runtime import engines
from resnetkit.runtime.graph import Graph, Linear, Mean

faulthandler.enable()
head = Linear("logits", "embedding", np.eye(3, dtype=np.float32), np.zeros(3, np.float32))
graph = Graph((Mean("embedding", ("image",)), head), 3, 8)
models = [engines.openvino(graph, Preprocess(size=8)) for _ in range(2)]
while models:  # the first goes first
    del models[0]
    gc.collect()
kept = [np.zeros(3000) for _ in range(10000)]
signal.signal(signal.SIGINT, lambda *_: print("told"))
os.kill(os.getpid(), signal.SIGINT)
"""


def test_a_signal_after_several_models_in_openvino():
    """With a Core for each, a processor with AMX had the process end by SIGSEGV."""
    pytest.importorskip("openvino", reason="needs openvino")
    command = [sys.executable, "-c", textwrap.dedent(SIGNALLED)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "told\n"), done.stderr
