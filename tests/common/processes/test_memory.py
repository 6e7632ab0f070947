"""Freed memory is kept: XLA takes the buffers of a step on a CPU without page faults."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Allocates, fills and frees 64 MiB in a thread, as XLA does in every step; prints the page faults of the last ten times.
STEPS = """
import ctypes, resource, sys, threading
from electramed_jax.common.processes.memory import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]

def step():
    block = libc.malloc(64 << 20)
    libc.memset(block, 1, 64 << 20)
    libc.free(block)

def run():
    for number in range(12):
        if number == 2:
            first = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        step()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - first)

thread = threading.Thread(target=run)
thread.start()
thread.join()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the C library of other systems has no such options")
def test_a_repeated_step_takes_its_buffers_without_page_faults():
    def count_faults(how: str) -> int:
        return int(subprocess.run([sys.executable, "-c", STEPS, how], check=True, capture_output=True).stdout)

    assert count_faults("returned") > 10_000, "64 MiB are 16,384 pages"
    assert count_faults("kept") < 100
