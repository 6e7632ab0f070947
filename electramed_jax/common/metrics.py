"""Metrics on disk: one JSON line an entry, and TensorBoard; written by the main process alone."""

from __future__ import annotations

import json
import os
from typing import Any

from electramed_jax.common import distributed, files

FILE = "metrics.jsonl"


class MetricsWriter:
    """Appends to `workdir/metrics.jsonl` and `workdir/tensorboard/`. A context manager.

    A run that goes on from step k drops the entries after k that its predecessor had already written, so that the file reads
    as if there had been no interruption.
    """

    def __init__(self, workdir: str, *, resumed_step: int):
        self._lines = self._events = None
        if not distributed.is_main():
            return
        from tensorboardX import SummaryWriter

        path = files.join(workdir, FILE)
        kept = [entry for entry in read(workdir) if entry["step"] <= resumed_step]
        files.write_text(path, "".join(json.dumps(entry) + "\n" for entry in kept))
        self._lines = open(path, "a", encoding="utf-8")
        self._events = SummaryWriter(os.path.join(workdir, "tensorboard"), purge_step=resumed_step + 1)

    def write(self, step: int, split: str, metrics: dict[str, float]) -> None:
        """One entry: {"step": ..., "split": "train" or "validation", "loss": ..., ...}."""
        if self._lines is None:
            return
        self._lines.write(json.dumps({"step": step, "split": split} | metrics) + "\n")
        self._lines.flush()
        for name, value in metrics.items():
            self._events.add_scalar(f"{split}/{name}", value, step)

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(self, *_: Any) -> None:
        if self._lines is not None:
            self._lines.close()
            self._events.close()


def read(workdir: str) -> list[dict[str, Any]]:
    """Every whole entry written so far; none where there is no file. A last line cut off by a crash is left out."""
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
