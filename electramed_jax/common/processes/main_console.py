"""Console output of the main process of a run; the other processes print nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

from electramed_jax.common import console, progress_panel
from electramed_jax.common.processes import distributed


def log_main(line: str) -> None:
    """Prints a line in the main process, unless quiet."""
    if distributed.is_main():
        console.say(line)


def warn_main(line: str) -> None:
    """Prints a warning in the main process, also when quiet."""
    if distributed.is_main():
        console.warn(line)


def training_display(
    title: str, start: int, total: int, shown: Sequence[str], *, live: bool = True
) -> contextlib.AbstractContextManager[progress_panel.TrainingDisplay]:
    """Returns `progress_panel.training_display` in the main process, and a display without output in the others.

    `live` False: lines instead of a panel, because a terminal has room for one.
    """
    if not distributed.is_main():
        return contextlib.nullcontext(_SilentDisplay())
    if not live:
        return contextlib.nullcontext(progress_panel.TrainingDisplay())
    return progress_panel.training_display(title, start, total, shown)


class _SilentDisplay(progress_panel.TrainingDisplay):
    def log_metrics(self, split: str, step: int, metrics: Mapping[str, float], line: str) -> None:
        pass

    def alert(self, line: str) -> None:
        pass
