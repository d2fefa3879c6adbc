"""The compiled kernels are opened, choose what the processor has, and say what to do where they are not there."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from resnetkit.errors import ResourceError
from resnetkit.kernels import library
from resnetkit.kernels.layers import empty, mean
from resnetkit.kernels.library import LEVELS, Workers, available, best_level

needed = pytest.mark.skipif(not available(), reason="needs the compiled kernels: python -m resnetkit.kernels.build")


def test_without_them(monkeypatch, tmp_path):
    monkeypatch.setattr(library, "HERE", tmp_path)
    library.library.cache_clear()
    assert not library.available()
    with pytest.raises(ResourceError, match="own kernels are not there: .*python -m resnetkit.kernels.build"):
        Workers(1)
    library.library.cache_clear()


@needed
def test_the_processor_decides(monkeypatch):
    assert Workers(1).level == best_level() in LEVELS
    assert Workers(1, "base").level == "base"
    monkeypatch.setattr(library, "best_level", lambda: "base")
    for level in ("avx512", "sse", "BASE"):
        with pytest.raises(ResourceError, match=f"this processor has no {level} .one of base, avx2, avx512"):
            Workers(1, level)


FORKED = """
import os
import numpy as np
from resnetkit.kernels.layers import empty, mean
from resnetkit.kernels.library import Workers

workers = Workers(3)
x = empty((4, 5, 5, 32))
x[:] = 1
assert (mean(workers, x) == 1).all()
child = os.fork()
if not child:
    os._exit(0 if (mean(workers, x) == 1).all() else 3)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert (mean(workers, x) == 1).all()
print("done")
"""


@needed
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_goes_on_without_the_threads():
    command = [sys.executable, "-c", textwrap.dedent(FORKED)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


@needed
def test_threads_end_with_their_workers():
    if not os.path.isdir("/proc/self/task"):
        pytest.skip("threads cannot be counted here")
    before = len(os.listdir("/proc/self/task"))
    workers = Workers(5)
    assert len(os.listdir("/proc/self/task")) == before + 4
    x = empty((1, 1, 1, 16))
    x[:] = np.arange(16)
    np.testing.assert_array_equal(mean(workers, x)[0], np.arange(16))
    del workers
    assert len(os.listdir("/proc/self/task")) == before
