"""Metrics on disk: one JSON line an entry, and TensorBoard; the main process writes them, and tells trackers."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping
from typing import Any, Protocol

from electramed_jax.common.console import say, warn
from electramed_jax.common.errors import UserError
from electramed_jax.common.processes import distributed
from electramed_jax.common.storage import files, tfrecord
from electramed_jax.common.tracking.trackers import RunInfo, Trackers

FILE, TENSORBOARD = "metrics.jsonl", "tensorboard"
UPLOAD_SECONDS = 60.0  # between uploads of a file that cannot be appended to
PATIENCE_SECONDS = 1800.0  # for which storage may fail before the run stops; nothing is lost meanwhile


class MetricsWriter:
    """Appends to `workdir/metrics.jsonl` and `workdir/tensorboard/`. A context manager.

    A run that goes on from step k drops the entries after k that its predecessor had already
    written, so that the file reads as if there had been no interruption.

    An entry in a local file is on disk when `write` returns. Object stores cannot append: there both files are
    uploaded whole, at most once a minute, and by `flush`.
    """

    def __init__(
        self, workdir: str, *, resumed_step: int, trackers: str = "", settings: Mapping[str, Any] | None = None
    ):
        """`trackers`: services to tell, too (see `trackers`); `settings`: the run's, for them."""
        self._lines = self._events = None
        if not distributed.is_main():
            return
        path = files.join(workdir, FILE)
        kept = [entry for entry in read_metrics(workdir) if entry["step"] <= resumed_step]
        text = "".join(json.dumps(entry) + "\n" for entry in kept)
        files.write_text(path, text)
        self._lines = _open(path, text.encode())
        self._events = _Events(files.join(workdir, TENSORBOARD), first_step=resumed_step + 1)
        self._trackers = Trackers(trackers, RunInfo(workdir, settings or {}, resumed_step))

    def write(self, step: int, split: str, metrics: Mapping[str, float]) -> None:
        """One entry: {"step": ..., "split": "train" or "validation", "loss": ..., ...}.

        Raises:
          UserError: the disk is full, or storage has failed for half an hour.
        """
        if self._lines is None:
            return
        self._lines.write((json.dumps({"step": step, "split": split} | metrics) + "\n").encode())
        named = {f"{split}/{name}": value for name, value in metrics.items()}
        self._events.write(step, named)
        self._trackers.log(step, named)

    def flush(self) -> None:
        """Every entry so far is stored when this returns, if storage works: to be called before a checkpoint is."""
        if self._lines is not None:
            self._lines.flush()
            self._events.flush()

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(self, *_: Any) -> None:
        if self._lines is not None:
            self._lines.close()
            self._events.close()
            self._trackers.close()


def read_metrics(workdir: str) -> list[dict[str, Any]]:
    """Every whole entry so far; none without a file. A last line cut off by a crash is left out."""
    path = files.join(workdir, FILE)
    if not files.exists(path):
        return []
    entries = []
    for line in files.read_text(path).splitlines():
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return entries


def has_entry(workdir: str, step: int, split: str) -> bool:
    """Whether the entry of that step and split is on file; the main process looks, for all."""
    here = distributed.is_main() and any(
        entry["step"] == step and entry["split"] == split for entry in read_metrics(workdir)
    )
    return bool(distributed.broadcast_from_main(int(here)))


class _Events:
    """A TensorBoard event file, on disk after each `write`.

    tensorboardX's own writer leaves the writing to a thread. A full disk kills that thread, and after ten more
    values the run would wait for it for ever. And it knows no gs:// without a client library of its own.
    """

    def __init__(self, folder: str, *, first_step: int):
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        self._event = Event
        files.make_dirs(folder)
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"
        self._file = _open(files.join(folder, name))
        self._append(Event(wall_time=time.time(), file_version="brain.Event:2"))
        # TensorBoard forgets what earlier files say of this step and later ones.
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
    """A file that grows. What storage refuses is kept and tried again with what comes next."""

    def write(self, data: bytes) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


def _open(path: str, already: bytes = b"") -> _Log:
    """Continues `path`, which holds `already`."""
    return _Uploaded(path, already) if files.local_path(path) is None else _Appended(files.local_path(path))


class _Appended:
    def __init__(self, path: str):
        self._path, self._trouble = path, _WriteFailure(path)
        self._file: Any = None
        self._left = b""

    def write(self, data: bytes) -> None:
        self._left += data
        self.flush()

    def flush(self) -> None:
        try:
            if self._file is None:
                # Unbuffered: what is left after a failure is ours to know.
                self._file = open(self._path, "ab", buffering=0)
            while self._left:
                self._left = self._left[self._file.write(self._left) :]
        except OSError as error:
            self._trouble.met(error)
        else:
            self._trouble.over()

    def close(self) -> None:
        if self._left and not self._trouble.lasting:
            self.flush()
        if self._file is not None:
            self._file.close()


class _Uploaded:
    def __init__(self, path: str, already: bytes):
        self._trouble = _WriteFailure(path)
        self._path, self._data = path, bytearray(already)
        self._stored, self._next_upload = len(already), 0.0

    def write(self, data: bytes) -> None:
        self._data += data
        if time.monotonic() >= self._next_upload:
            self.flush()

    def flush(self) -> None:
        if self._stored == len(self._data):
            return
        try:
            with files.atomic_write(self._path, retry=False) as file:  # training does not wait for it
                file.write(self._data)
        except Exception as error:  # of whichever client library
            self._trouble.met(error)
        else:
            self._stored = len(self._data)
            self._trouble.over()
        self._next_upload = time.monotonic() + UPLOAD_SECONDS

    def close(self) -> None:
        self.flush()


class _WriteFailure:
    """Storage that fails: said once, borne for a while."""

    def __init__(self, path: str):
        self._path = path
        self._since: float | None = None
        self.lasting = False

    def met(self, error: Exception) -> None:
        """Raises UserError where the disk is full, or storage has failed for too long."""
        reason = getattr(error, "strerror", None) or str(error).split("\n")[0]
        now = time.monotonic()
        if self._since is None:
            self._since = now
        self.lasting = getattr(error, "errno", None) in files.FULL_DISK or now - self._since > PATIENCE_SECONDS
        if self.lasting:
            raise UserError(
                f"{self._path}: cannot be written ({reason}); the checkpoints are whole; free space "
                "or mend the storage, then run the same command again"
            ) from error
        if self._since == now:
            warn(f"{self._path}: cannot be written ({reason}); kept, and tried again with the next entry")

    def over(self) -> None:
        if self._since is not None:
            say(f"{self._path}: is written again")
        self._since = None
