"""Metrics of a run on disk: metrics.jsonl, with one JSON line per entry, and TensorBoard events.

Only the main process writes them, and passes them to the trackers. The file informs; it never blocks a resume: a line
that is not an entry is skipped with a warning, and kept when a run resumes and writes the file again.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from electramed_jax.common.console import say, warn
from electramed_jax.common.errors import UserError, first_line
from electramed_jax.common.processes import distributed
from electramed_jax.common.processes.main_console import warn_main
from electramed_jax.common.storage import files, json_values, tfrecord
from electramed_jax.common.tracking.trackers import RunInfo, Trackers

METRICS_FILE, TENSORBOARD_FOLDER = "metrics.jsonl", "tensorboard"
UPLOAD_SECONDS = 60.0  # between uploads of a file in storage that cannot append
MAX_FAILURE_SECONDS = 1800.0  # time for which storage may fail before the run stops; entries are kept in memory


class MetricsWriter:
    """Appends to `workdir/metrics.jsonl` and `workdir/tensorboard/`. A context manager.

    A run that resumes from step k drops the entries after k that were written before, so that the file reads as if the
    run had not been interrupted. Lines that are not entries stay where they are.

    An entry in a local file is on disk when `write` returns. Object stores cannot append: both files are uploaded in
    full, at most once a minute, and by `flush`.
    """

    def __init__(
        self, workdir: str, *, resumed_step: int, trackers: str = "", settings: Mapping[str, Any] | None = None
    ):
        """Opens the files in the main process; does nothing in the others.

        Args:
          workdir: folder of the run.
          resumed_step: step after which the run starts.
          trackers: names of services that receive the metrics too; see `trackers`.
          settings: config of the run, for the trackers.
        """
        self._outputs: _Outputs | None = None
        if not distributed.is_main():
            return
        lines = _read_lines(workdir)
        kept = [line for line, entry in lines if entry is None or entry["step"] <= resumed_step]
        content = b"".join(line + b"\n" for line in kept)
        path = files.join(workdir, METRICS_FILE)
        with files.atomic_write(path) as file:
            file.write(content)
        self._outputs = _Outputs(
            _open_log(path, content),
            _TensorBoardEvents(files.join(workdir, TENSORBOARD_FOLDER), first_step=resumed_step + 1),
            Trackers(trackers, RunInfo(workdir, settings or {}, resumed_step)),
        )

    def write(self, step: int, split: str, metrics: Mapping[str, float]) -> None:
        """Writes an entry: {"step": ..., "split": "train" or "validation", "loss": ..., ...}.

        Raises:
          UserError: the disk is full, or storage has failed for half an hour.
        """
        if self._outputs is None:
            return
        entry = {"step": step, "split": split, **metrics}
        self._outputs.lines.write((json.dumps(entry) + "\n").encode())
        named = {f"{split}/{name}": value for name, value in metrics.items()}
        self._outputs.events.write(step, named)
        self._outputs.trackers.log(step, named)

    def flush(self) -> None:
        """Stores every entry so far, unless storage fails; to be called before a checkpoint is saved."""
        if self._outputs is not None:
            self._outputs.lines.flush()
            self._outputs.events.flush()

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._outputs is not None:
            self._outputs.lines.close()
            self._outputs.events.close()
            self._outputs.trackers.close()


def read_metrics(workdir: str) -> list[dict[str, Any]]:
    """Returns the entries of metrics.jsonl in order; none if there is no file.

    An entry is a JSON object with "step", "split" and numbers, which may be NaN or infinite. Other lines are left out
    with one warning for the file. A last line that a crash truncated is left out without a warning.
    """
    return [entry for _, entry in _read_lines(workdir) if entry is not None]


def _read_lines(workdir: str) -> list[tuple[bytes, dict[str, Any] | None]]:
    """Returns each line of metrics.jsonl with its entry, or None if it is not an entry; no truncated last line.

    Warns once about the lines that are not entries.
    """
    path = files.join(workdir, METRICS_FILE)
    if not files.exists(path):
        return []
    *lines, last = files.read_bytes(path).split(b"\n")
    read = [(line, _parse_entry(line)) for line in lines]
    complete = _parse_entry(last)
    if bad := [number for number, (_, entry) in enumerate(read, 1) if entry is None]:
        _warn_once(path, bad)
    return [*read, (last, complete)] if complete is not None else read


def _parse_entry(line: bytes) -> dict[str, Any] | None:
    """Returns the entry of a line; None if it is none."""
    try:
        entry = json_values.parse_json(line, METRICS_FILE, dict[str, Any], finite=False)
    except UserError:
        return None
    step, split = entry.get("step"), entry.get("split")
    if type(step) is not int or not 0 <= step <= json_values.MAX_INT or not isinstance(split, str):
        return None
    numbers = (value for name, value in entry.items() if name not in ("step", "split"))
    is_valid = all(type(v) is float or (type(v) is int and abs(v) <= json_values.MAX_INT) for v in numbers)
    return entry if is_valid else None


_warned: set[tuple[str, int]] = set()  # (path, bad lines) of the warnings of this process


def _warn_once(path: str, bad: list[int]) -> None:
    if (path, len(bad)) in _warned:
        return
    _warned.add((path, len(bad)))
    count = "a line is" if len(bad) == 1 else f"{len(bad):,} lines are"
    first = "" if len(bad) == 1 else "the first is "
    warn_main(
        f"{path}: {count} not an entry with a step, a split and numbers ({first}line {bad[0]:,}); left out of reports, "
        "kept in the file; correct it or remove it by hand"
    )


def has_entry(workdir: str, step: int, split: str) -> bool:
    """Returns in every process whether the file has an entry of a step and split; the main process reads it."""
    exists = distributed.is_main() and any(
        entry["step"] == step and entry["split"] == split for entry in read_metrics(workdir)
    )
    return bool(distributed.broadcast_from_main(int(exists)))


class _TensorBoardEvents:
    """A TensorBoard event file, on disk after each `write`.

    tensorboardX's own writer is not used for two reasons. It writes in a thread; a full disk ends that thread, and
    after ten more values the run would block forever. It cannot write to gs:// without another client library.
    """

    def __init__(self, folder: str, *, first_step: int):
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        self._event = Event
        files.make_dirs(folder)
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"
        self._file = _open_log(files.join(folder, name))
        self._append(Event(wall_time=time.time(), file_version="brain.Event:2"))
        # TensorBoard drops the events of this step and later ones that earlier files contain.
        start = SessionLog(status=SessionLog.START)
        self._append(Event(step=first_step, wall_time=time.time(), session_log=start))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        from tensorboardX.proto.summary_pb2 import Summary

        summary = Summary(value=[Summary.Value(tag=t, simple_value=v) for t, v in values.items()])
        self._append(self._event(step=step, wall_time=time.time(), summary=summary))

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def _append(self, event: Any) -> None:
        self._file.write(tfrecord.frame_record(event.SerializeToString()))


class _Log(Protocol):
    """A file that grows. Data that storage does not accept is kept in memory and written with the next data."""

    def write(self, data: bytes) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


class _Outputs(NamedTuple):
    lines: _Log
    events: _TensorBoardEvents
    trackers: Trackers


def _open_log(path: str, content: bytes = b"") -> _Log:
    """Opens `path` for appending; `content` is the current content of the file."""
    local = files.local_path(path)
    return _UploadedLog(path, content) if local is None else _LocalLog(local)


class _LocalLog:
    """A local file that is appended to."""

    def __init__(self, path: str):
        self._path, self._failure = path, _WriteFailure(path)
        self._file: Any = None
        self._pending = b""

    def write(self, data: bytes) -> None:
        self._pending += data
        self.flush()

    def flush(self) -> None:
        try:
            if self._file is None:
                # Unbuffered, so that the pending bytes after a failure are known.
                self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115 closed by `close`
            while self._pending:
                self._pending = self._pending[self._file.write(self._pending) :]
        except OSError as error:
            self._failure.record(error)
        else:
            self._failure.clear()

    def close(self) -> None:
        if self._pending and not self._failure.is_final:
            self.flush()
        if self._file is not None:
            self._file.close()


class _UploadedLog:
    """A remote file that is uploaded whole each time."""

    def __init__(self, path: str, content: bytes):
        self._failure = _WriteFailure(path)
        self._path, self._data = path, bytearray(content)
        self._uploaded_bytes, self._next_upload = len(content), 0.0

    def write(self, data: bytes) -> None:
        self._data += data
        if time.monotonic() >= self._next_upload:
            self.flush()

    def flush(self) -> None:
        if self._uploaded_bytes == len(self._data):
            return
        try:
            with files.atomic_write(self._path, retry=False) as file:  # retries would block the training loop
                file.write(self._data)
        except Exception as error:  # noqa: BLE001 each client library raises its own
            self._failure.record(error)
        else:
            self._uploaded_bytes = len(self._data)
            self._failure.clear()
        self._next_upload = time.monotonic() + UPLOAD_SECONDS

    def close(self) -> None:
        self.flush()


class _WriteFailure:
    """A failure of storage: logged once, and raised when it is permanent.

    Attributes:
      is_final: whether `record` has raised.
    """

    def __init__(self, path: str):
        self._path = path
        self._since: float | None = None
        self.is_final = False

    def record(self, error: Exception) -> None:
        """Records a failed write; raises a UserError if the disk is full or storage has failed for too long."""
        reason = getattr(error, "strerror", None) or first_line(error)
        now = time.monotonic()
        if self._since is None:
            self._since = now
        self.is_final = getattr(error, "errno", None) in files.FULL_DISK or now - self._since > MAX_FAILURE_SECONDS
        if self.is_final:
            raise UserError(
                f"{self._path}: cannot be written ({reason}); the checkpoints are complete; free space "
                "or fix the storage, then run the same command again"
            ) from error
        if self._since == now:
            warn(f"{self._path}: cannot be written ({reason}); the entries are kept and written with the next one")

    def clear(self) -> None:
        """Records a successful write."""
        if self._since is not None:
            say(f"{self._path}: can be written again")
        self._since = None
