"""The few curves that a model card shows."""

from __future__ import annotations

import dataclasses

from electramed_jax.report import figures, panels
from electramed_jax.report import run as run_lib

METRICS = ("generator_loss", "discriminator_loss", "discriminator_auc")


def of_learning(workdir: str, up_to: int) -> dict[str, bytes]:
    """PNGs by file name, of the metrics that the run has, up to a step.

    Raises:
      UserError: no training workdir, or matplotlib is not there.
    """
    (run,) = run_lib.read_all([workdir])
    entries = [entry for entry in run.history.entries if entry["step"] <= up_to]
    run = dataclasses.replace(run, history=dataclasses.replace(run.history, entries=entries))
    shown = [panel for panel in panels.with_data(panels.LEARNING, [run]) if panel.metric in METRICS]
    return {f"{panel.metric}.png": figures.png(figures.curves(panel, [run])) for panel in shown}
