"""starts.json of a workdir: when training started or resumed, from which step, on which devices."""

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
DeviceHours = dict[tuple[str, int], float]


def record_start(workdir: str, step: int) -> None:
    """Adds a line to starts.json: training begins, or goes on, after this step."""
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
    """The lines of starts.json, in order; none where the run was started by a version that wrote none."""
    path = files.join(workdir, STARTS_FILE)
    return files.read_json(path) if files.exists(path) else []


def device_hours(entries: Sequence[Mapping[str, Any]], starts: Sequence[dict[str, Any]]) -> DeviceHours:
    """Time on steps, in hours times devices, by (kind of device, how many of it at once), where the workdir tells.

    Args:
      entries: of the train split, in order.
      starts: of starts.json.
    """
    hours: DeviceHours = {}
    before = 0
    for entry in entries:
        # Of the last start before the step: what an earlier process did beyond that start was done again.
        start = next((start for start in reversed(starts) if start["step"] < entry["step"]), None)
        if start is not None:
            key = (start["device_kind"], start["devices"])
            seconds = entry.get("step_seconds", 0.0) * (entry["step"] - before)
            hours[key] = hours.get(key, 0.0) + seconds * start["devices"] / 3600
        before = entry["step"]
    return hours
