"""Metrics on disk: one JSON line an entry, and TensorBoard; written by the main process alone."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

from electramed_jax.common import distributed, files
from electramed_jax.common.errors import UserError

FILE, TENSORBOARD = "metrics.jsonl", "tensorboard"


class MetricsWriter:
    """Appends to `workdir/metrics.jsonl` and `workdir/tensorboard/`. A context manager.

    A run that goes on from step k drops the entries after k that its predecessor had already
    written, so that the file reads as if there had been no interruption.
    """

    def __init__(self, workdir: str, *, resumed_step: int):
        self._path = files.join(workdir, FILE)
        self._lines = self._events = None
        if not distributed.is_main():
            return
        kept = [entry for entry in read(workdir) if entry["step"] <= resumed_step]
        files.write_text(self._path, "".join(json.dumps(entry) + "\n" for entry in kept))
        with _storage_errors(self._path):
            # Unbuffered: what a full disk refused is not tried again when the file is closed.
            self._lines = open(self._path, "ab", buffering=0)
            self._events = _Events(files.join(workdir, TENSORBOARD), first_step=resumed_step + 1)

    def write(self, step: int, split: str, metrics: Mapping[str, float]) -> None:
        """One entry: {"step": ..., "split": "train" or "validation", "loss": ..., ...}.

        Raises:
          UserError: the disk is full or gone.
        """
        if self._lines is None:
            return
        line = (json.dumps({"step": step, "split": split} | metrics) + "\n").encode()
        with _storage_errors(self._path):
            if self._lines.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._events.write(step, {f"{split}/{name}": value for name, value in metrics.items()})

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(self, *_: Any) -> None:
        if self._lines is not None:
            self._lines.close()
            self._events.close()


def read(workdir: str) -> list[dict[str, Any]]:
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


def has(workdir: str, step: int, split: str) -> bool:
    """Whether the entry of that step and split is on file."""
    return any(entry["step"] == step and entry["split"] == split for entry in read(workdir))


class _Events:
    """A TensorBoard event file, on disk after each `write`.

    tensorboardX's own SummaryWriter leaves the writing to a thread. A full disk kills that thread,
    and after ten more values the run would wait for it for ever.
    """

    def __init__(self, folder: str, *, first_step: int):
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        self._event = Event
        files.make_dirs(folder)
        self._writer = EventsWriter(os.path.join(folder, "events"))
        # TensorBoard forgets what earlier files say of this step and later ones.
        start = SessionLog(status=SessionLog.START)
        self._writer.write_event(Event(step=first_step, wall_time=time.time(), session_log=start))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        from tensorboardX.proto.summary_pb2 import Summary

        summary = Summary(value=[Summary.Value(tag=t, simple_value=v) for t, v in values.items()])
        event = self._event(step=step, wall_time=time.time(), summary=summary)
        self._writer.write_event(event)
        self._writer.flush()

    def close(self) -> None:
        with contextlib.suppress(OSError):  # `write` has said so already
            self._writer.close()


@contextlib.contextmanager
def _storage_errors(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); the checkpoints are whole; free space "
            "or mend the storage, then run the same command again"
        ) from error
