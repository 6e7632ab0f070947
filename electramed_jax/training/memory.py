"""Memory of the host and of the devices, for metrics.jsonl: cheap enough to read with every entry."""

from __future__ import annotations

import jax

from electramed_jax.common.processes.memory import resident_bytes


def memory_metrics() -> dict[str, float]:
    """Returns the memory of this process and of its fullest device, in bytes.

    Returns:
      host_memory_bytes: resident memory of this process; on systems other than Linux the largest so far.
      device_memory_bytes, device_memory_peak_bytes: in use now, and the largest so far. Only of backends that report
        them, which the CPU's does not.
    """
    metrics = {"host_memory_bytes": float(resident_bytes())}
    stats = [found for device in jax.local_devices() if (found := device.memory_stats())]
    for metric, name in (("device_memory_bytes", "bytes_in_use"), ("device_memory_peak_bytes", "peak_bytes_in_use")):
        if values := [found[name] for found in stats if name in found]:
            metrics[metric] = float(max(values))
    return metrics
