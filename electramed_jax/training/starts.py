"""history.jsonl of a workdir: one line for each start of the run that trained at least one step.

Lines are only ever appended. The main process writes a start's line after its first step: settings count from the
first step that was trained with them, and a start that trained nothing leaves no line. With each save a line
{"seconds": {part: seconds}, "step": step, "time": ...} follows, which splits the time since the start (run_clock.py).
When the process ends, a last line {"end": reason, "step": last step, ...} follows; after a kill it is missing.

Earlier versions wrote starts.json, a list with the first six fields; it is read before history.jsonl.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import shlex
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax

import electramed_jax
from electramed_jax.common import config_io
from electramed_jax.common.console import warn
from electramed_jax.common.errors import UserError, first_line
from electramed_jax.common.processes import distributed
from electramed_jax.common.run_clock import LOST, RunClock, Seconds, add_seconds
from electramed_jax.common.storage import files
from electramed_jax.common.tracking.trackers import redact_secrets
from electramed_jax.common.versions import code_commit, package_versions

CHECKPOINTS = "checkpoints"
FINISHED = "finished"  # the recorded end of a start that trained all steps it was to train
HISTORY_FILE, STARTS_FILE = "history.jsonl", "starts.json"
VOCABULARY = "vocabulary"  # key of the vocabulary's SHA-256 in the field "dataset"

Start = Mapping[str, Any]  # a line of history.jsonl; see `RunRecord`
DeviceHours = dict[tuple[str, int], float]  # hours x devices by (device kind, number of devices)


class RunRecord:
    """Records one start of a run. A context manager: leaving it records the end. Only the main process writes.

    Attributes:
      end: why the process ends, if not by an error: FINISHED or "preempted".

    The line of a start has these fields:
      step: number of steps that were completed before it; its first step is the next one.
      time: of the start, ISO 8601.
      devices, device_kind, processes: number of devices, their kind, number of processes.
      version: of this package; `commit` is the git commit of its folder, with "+changes" if files differ from it.
      jax: version of jax; `packages` has those of all of `versions.PACKAGES`, and of Python.
      hosts: host name of each process.
      command: command line of the main process.
      settings: the resolved config.
      changed: {name: [old, new]} of the settings that differ from those of the start before.
      dataset: fingerprints of the training data, {name: SHA-256}.
      began: Unix time at which its clock started, in seconds.
    """

    def __init__(
        self,
        workdir: str,
        step: int,
        settings: Mapping[str, Any],
        *,
        earlier_settings: Mapping[str, Any] | None = None,
        dataset: Mapping[str, str] | None = None,
        clock: RunClock | None = None,
    ):
        """Collects the fields. A collective: all processes call it.

        Args:
          workdir: folder of the run.
          step: number of completed steps.
          settings: resolved config as nested dicts.
          earlier_settings: those of the newest start that trained a step; None: there is none.
          dataset: fingerprints of the data.
          clock: splits the time of this start; None: its time is not recorded.
        """
        self.end = FINISHED
        self._clock = clock
        self._path, self._last_step, self._is_recorded = files.join(workdir, HISTORY_FILE), step, False
        hosts = distributed.allgather_text(socket.gethostname())
        if not distributed.is_main():
            return
        changed = {} if earlier_settings is None else config_io.diff_settings(earlier_settings, settings)
        self._line = {
            "step": step,
            "time": _now(),
            "devices": jax.device_count(),
            "device_kind": jax.devices()[0].device_kind,
            "processes": jax.process_count(),
            "version": electramed_jax.__version__,
            "commit": code_commit(),
            "jax": jax.__version__,
            "packages": package_versions(),
            "hosts": hosts,
            "command": redact_secrets(shlex.join(["electramed", *sys.argv[1:]])),
            "settings": dict(settings),
            "changed": {name: list(values) for name, values in changed.items()},
            "dataset": dict(dataset or {}),
        }
        if clock is not None:
            self._line["began"] = time.time() - sum(clock.seconds().values())

    def record_step(self, step: int) -> None:
        """Notes a completed step; the first call appends the line of this start."""
        self._last_step = step
        if distributed.is_main() and not self._is_recorded:
            files.append_line(self._path, json.dumps(self._line))
            self._is_recorded = True

    def record_seconds(self, step: int) -> None:
        """Appends the split of the time since the start; called with each save. An error of storage is ignored."""
        if distributed.is_main() and self._is_recorded and self._clock is not None:
            with contextlib.suppress(UserError, OSError):
                files.append_line(self._path, json.dumps({"step": step, "time": _now()} | self._seconds()))

    def _seconds(self) -> dict[str, Any]:
        return {} if self._clock is None else {"seconds": self._clock.seconds()}

    def __enter__(self) -> RunRecord:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        """Appends the end of this start, if it trained a step; an error of storage is ignored."""
        if distributed.is_main() and self._is_recorded:
            reason = self.end if error is None else first_line(error)
            with contextlib.suppress(UserError, OSError):
                line = {"end": reason, "step": self._last_step, "time": _now()} | self._seconds()
                files.append_line(self._path, json.dumps(line))


_FROM_LATER_LINES = ("end", "last_step", "splits")  # fields of a start that `read_starts` adds


def read_starts(workdir: str) -> list[dict[str, Any]]:
    """Returns the starts of a run in order, from starts.json and history.jsonl; see `RunRecord` for the fields.

    A start with a recorded end has the additional fields "end" (the reason) and "last_step". "splits" holds the splits
    of its time, [{"step": ..., "seconds": {part: seconds}}]. Lines that cannot be read are skipped with one warning:
    they inform, and never block a run.
    """
    starts: list[dict[str, Any]] = []
    damaged = 0
    for entry in _read_entries(workdir):
        if _is_start(entry):
            starts.append({name: value for name, value in entry.items() if name not in _FROM_LATER_LINES})
        elif isinstance(entry, dict) and {"end", "seconds"} & entry.keys() and _is_count(entry.get("step")):
            if starts and "end" in entry:
                starts[-1] |= {"end": str(entry["end"]), "last_step": entry["step"]}
            if starts and (seconds := _read_seconds(entry)):
                starts[-1].setdefault("splits", []).append({"step": entry["step"], "seconds": seconds})
        else:
            damaged += 1
    if damaged:
        warn(f"{files.join(workdir, HISTORY_FILE)}: {damaged} lines cannot be read and are skipped; they are kept")
    return starts


def split_wall_time(starts: Sequence[Start]) -> Seconds:
    """Returns the seconds of each part of a run's wall time; empty if no start recorded its time.

    The time of a start counts up to the save from which the next start resumed. The rest, up to the beginning of the
    next start, is lost to restarts: repeated steps, and the wait for a machine after a preemption or a crash. The time
    after a start that finished is not part of the run. So the parts add up to the wall time.

    Args:
      starts: from `read_starts`.
    """
    total: Seconds = {}
    timed = [start for start in starts if isinstance(start.get("began"), float)]
    for number, start in enumerate(timed):
        following = timed[number + 1] if number + 1 < len(timed) else None
        splits = [{"step": start["step"], "seconds": {}}, *start.get("splits", [])]
        kept = splits[-1]
        if following is not None:
            kept = next((split for split in reversed(splits) if split["step"] <= following["step"]), splits[0])
            kept_until, last = (start["began"] + sum(split["seconds"].values()) for split in (kept, splits[-1]))
            end = last if start.get("end") == FINISHED else following["began"]
            total = add_seconds(total, {LOST: max(0.0, end - kept_until)})
        total = add_seconds(total, kept["seconds"])
    return total


@dataclasses.dataclass(frozen=True)
class Phase:
    """Consecutive steps of a checkpoint that were trained with the same settings, code and rows.

    Attributes:
      first_step, last_step: the steps, both included.
      settings: the resolved config as nested dicts; None if it was not recorded.
      code: version and commit of this package.
      train_rows: SHA-256 of the training rows; "" if it was not recorded.
    """

    first_step: int
    last_step: int
    settings: dict[str, Any] | None
    code: str
    train_rows: str

    def __str__(self) -> str:
        return f"steps {self.first_step:,} to {self.last_step:,}"


def find_phases(starts: Sequence[Start], step: int) -> list[Phase]:
    """Returns the phases that led to the checkpoint of a step.

    A step that was trained again after a restart counts with the settings of the last start that trained it before the
    checkpoint. Settings that an earlier version did not record are derived from the changes that the next start did.

    Args:
      starts: from `read_starts`.
      step: number of completed steps of the checkpoint.
    """
    phases: list[Phase] = []
    settings = _derive_settings(starts)
    for number, start in enumerate(starts):
        last = min([step, *(later["step"] for later in starts[number + 1 :])])
        if last <= start["step"]:
            continue
        rows = str((start.get("dataset") or {}).get("train", ""))
        phase = Phase(start["step"] + 1, last, settings[number], _code(start), rows)
        if phases and dataclasses.replace(phase, first_step=0, last_step=0) == dataclasses.replace(
            phases[-1], first_step=0, last_step=0
        ):
            phases[-1] = dataclasses.replace(phases[-1], last_step=last)
        else:
            phases.append(phase)
    return phases


def device_hours(entries: Sequence[Mapping[str, Any]], starts: Sequence[Start]) -> DeviceHours:
    """Returns the time spent on steps, by device kind and number of devices.

    Args:
      entries: entries of metrics.jsonl of the train split, in order.
      starts: from `read_starts`.
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


def _code(start: Start) -> str:
    """Returns "electramed_jax 0.1.0 (0123456789ab)"."""
    commit, plus, _ = str(start.get("commit") or "").partition("+")
    return f"electramed_jax {start.get('version', '')}".rstrip() + (f" ({commit[:12]}{plus})" if commit else "")


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _read_entries(workdir: str) -> list[Any]:
    """Returns the entries of both files; None in place of one that is not JSON."""
    entries: list[Any] = []
    if files.exists(path := files.join(workdir, STARTS_FILE)):
        try:
            earlier = files.read_json(path)
            entries += earlier if isinstance(earlier, list) else [None]
        except UserError:
            entries.append(None)
    if files.exists(path := files.join(workdir, HISTORY_FILE)):
        for line in files.read_bytes(path).splitlines():
            try:
                entries.append(json.loads(line))
            except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
                entries.append(None)
    return entries


def _read_seconds(entry: Mapping[str, Any]) -> Seconds:
    """Returns the split of a line; empty if it has none, or a damaged one."""
    seconds = entry.get("seconds")
    if not isinstance(seconds, dict) or not all(type(value) is float or _is_count(value) for value in seconds.values()):
        return {}
    return {str(name): float(value) for name, value in seconds.items()}


def _is_start(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and all(_is_count(entry.get(name)) for name in ("step", "devices"))
        and _is_count(entry.get("processes", 1))
        and isinstance(entry.get("device_kind"), str)
        and isinstance(entry.get("time"), str)
        and isinstance(entry.get("settings") or {}, dict)
        and all(isinstance(entry.get(name) or {}, dict) for name in ("dataset", "changed"))
        and all(isinstance(pair, list) and len(pair) == 2 for pair in (entry.get("changed") or {}).values())
    )


def _is_count(value: Any) -> bool:
    """Returns whether a JSON value is a whole number that a float holds exactly."""
    return type(value) is int and 0 <= value < 2**53


def _derive_settings(starts: Sequence[Start]) -> list[dict[str, Any] | None]:
    """Returns the settings of each start; those of starts without a record from the next recorded start's changes."""
    derived: list[dict[str, Any] | None] = []
    following: dict[str, Any] | None = None
    for start in reversed(starts):
        settings = start.get("settings") or following
        derived.append(settings)
        following = _undo_changes(settings, start.get("changed") or {}) if settings else None
    return derived[::-1]


def _undo_changes(settings: dict[str, Any], changed: Mapping[str, Any]) -> dict[str, Any]:
    """Returns nested settings with the old values of `changed`, {"a.b": [old, new]}."""
    earlier = json.loads(json.dumps(settings))
    for name, (old, _) in changed.items():
        *groups, last = name.split(".")
        place = earlier
        for group in groups:
            inner = place.setdefault(group, {})
            place = inner if isinstance(inner, dict) else {}  # a damaged line names a setting as a group
        place[last] = old
    return earlier
