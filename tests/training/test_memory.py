"""Memory in metrics.jsonl: the kernel's number for this process, and the fullest device of those that report one."""

from __future__ import annotations

import pathlib
import re
import types

import jax
import numpy as np

from electramed_jax.training import memory


def resident_bytes() -> int:
    """Returns VmRSS of /proc/self/status; memory_metrics reads another file."""
    return int(re.search(r"VmRSS:\s+(\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]) * 1024


def test_host_memory_is_that_of_the_process():
    before = memory.memory_metrics()["host_memory_bytes"]
    block = np.ones(2**24)  # 128 MiB
    after = memory.memory_metrics()["host_memory_bytes"]
    assert abs(after - resident_bytes()) < 16 * 2**20
    assert after - before > 100 * 2**20, "also what was allocated since"
    del block


def test_device_memory_is_that_of_the_fullest_device_and_left_out_where_none_is_reported(monkeypatch):
    assert memory.memory_metrics().keys() == {"host_memory_bytes"}, "the CPU reports none"
    stats = ({"bytes_in_use": 5, "peak_bytes_in_use": 9}, {"bytes_in_use": 7, "peak_bytes_in_use": 8}, None)
    devices = [types.SimpleNamespace(memory_stats=lambda found=found: found) for found in stats]
    monkeypatch.setattr(jax, "local_devices", lambda: devices)
    metrics = memory.memory_metrics()
    assert (metrics["device_memory_bytes"], metrics["device_memory_peak_bytes"]) == (7, 9)
