"""starts.json of a workdir: time, step and devices of each start of the run."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from electramed_jax import __version__
from electramed_jax.common.processes import distributed
from electramed_jax.common.storage import files

CHECKPOINTS = "checkpoints"
STARTS_FILE = "starts.json"
DeviceHours = dict[tuple[str, int], float]  # hours x devices by (device kind, number of devices)


def record_start(workdir: str, step: int) -> None:
    """Appends an entry to starts.json: training starts or resumes after `step` steps."""
    if not distributed.is_main():
        return
    start = {
        "step": step,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "devices": jax.device_count(),
        "device_kind": jax.devices()[0].device_kind,
        "processes": jax.process_count(),
        "version": __version__,
        "jax": jax.__version__,
    }
    files.write_json(files.join(workdir, STARTS_FILE), [*read_starts(workdir), start])


def read_starts(workdir: str) -> list[dict[str, Any]]:
    """Returns the entries of starts.json in order; none for runs of early versions, which wrote no such file."""
    path = files.join(workdir, STARTS_FILE)
    return files.read_json(path) if files.exists(path) else []


def device_hours(entries: Sequence[Mapping[str, Any]], starts: Sequence[dict[str, Any]]) -> DeviceHours:
    """Returns the time spent on steps, by device kind and number of devices.

    Args:
      entries: entries of metrics.jsonl of the train split, in order.
      starts: entries of starts.json.
    """
    hours: DeviceHours = {}
    before = 0
    for entry in entries:
        # The last start before the step ran it: steps of an earlier process after that start were repeated.
        start = next((start for start in reversed(starts) if start["step"] < entry["step"]), None)
        if start is not None:
            key = (start["device_kind"], start["devices"])
            seconds = entry.get("step_seconds", 0.0) * (entry["step"] - before)
            hours[key] = hours.get(key, 0.0) + seconds * start["devices"] / 3600
        before = entry["step"]
    return hours
