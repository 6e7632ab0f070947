"""PNG curves for a model card."""

from __future__ import annotations

import dataclasses

from electramed_jax.report import figures, panels
from electramed_jax.report import run as run_lib

METRICS = ("generator_loss", "discriminator_loss", "discriminator_auc")


def learning_curves(workdir: str, up_to: int) -> dict[str, bytes]:
    """Returns PNG files by name: the curves of `METRICS` up to a step.

    Raises:
      UserError: the folder is not a training workdir, or matplotlib is not installed.
    """
    (run,) = run_lib.read_runs([workdir])
    entries = [entry for entry in run.history.entries if entry["step"] <= up_to]
    run = dataclasses.replace(run, history=dataclasses.replace(run.history, entries=entries))
    chosen = [panel for panel in panels.panels_with_data(panels.LEARNING, [run]) if panel.metric in METRICS]
    return {f"{panel.metric}.png": figures.to_png(figures.draw_curves(panel, [run])) for panel in chosen}
