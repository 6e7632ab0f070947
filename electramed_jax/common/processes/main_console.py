"""Console output of the main process of a run."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

from electramed_jax.common import console, progress_panel
from electramed_jax.common.processes import distributed


def log_main(line: str) -> None:
    """Says a line, in the main process alone."""
    if distributed.is_main():
        console.say(line)


def warn_main(line: str) -> None:
    """The same of what a person should know, quiet or not."""
    if distributed.is_main():
        console.warn(line)


def training_display(
    title: str, start: int, total: int, shown: Sequence[str]
) -> contextlib.AbstractContextManager[progress_panel.TrainingDisplay]:
    """`console.steps` in the main process; the others say nothing."""
    return (
        progress_panel.training_display(title, start, total, shown)
        if distributed.is_main()
        else contextlib.nullcontext(_SilentDisplay())
    )


class _SilentDisplay(progress_panel.TrainingDisplay):
    def log_metrics(self, split: str, step: int, figures: Mapping[str, float], line: str) -> None:
        pass

    def alert(self, line: str) -> None:
        pass
