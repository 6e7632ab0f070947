"""Which curves a report draws, and what is laid under each: lines that follow from the run itself."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

from electramed_jax.report.run import Run

Points = Sequence[tuple[int, float]]  # (step, value)


@dataclasses.dataclass(frozen=True)
class Guide:
    """A dashed line: what a figure is to be compared with."""

    label: str
    points: Points


@dataclasses.dataclass(frozen=True)
class Panel:
    """One metric of every run.

    Attributes:
      guide: the dashed line under a run's curve, where there is one.
      shown: values that the y axis covers in any case.
      whole: show the plunge of the first steps, too, and where the run went on after a restart.
    """

    metric: str
    title: str
    guide: Callable[[Run], Guide | None] = lambda run: None
    shown: tuple[float, ...] = ()
    whole: bool = False


def _constant(label: str, of: Callable[[Run], float | None]) -> Callable[[Run], Guide | None]:
    def guide(run: Run) -> Guide | None:
        value = of(run)
        return None if value is None else Guide(label, [(0, value), (max(run.history.step, 1), value)])

    return guide


def _from_replaced(label: str, of: Callable[[float], float]) -> Callable[[Run], Guide | None]:
    """A figure that the fraction of replaced tokens decides."""

    def guide(run: Run) -> Guide | None:
        entries = run.history.split("validation") or run.history.split("train")
        points = [(e["step"], of(e["replaced_fraction"])) for e in entries if 0 < e.get("replaced_fraction", 0) < 1]
        return Guide(label, points) if points else None

    return guide


def _entropy(p: float) -> float:
    return -p * math.log(p) - (1 - p) * math.log(1 - p)


LEARNING = (
    Panel("loss", "Loss (both, weighted)"),
    Panel(
        "generator_loss",
        "Generator loss (nats a masked token)",
        _constant("word frequencies alone", lambda run: run.manifest.splits["validation"].unigram_cross_entropy),
    ),
    Panel("generator_accuracy", "Generator accuracy (its best guess)"),
    Panel("sampled_accuracy", "Sampled accuracy (its draw)"),
    Panel(
        "discriminator_loss",
        "Discriminator loss (nats a token)",
        _from_replaced("the same answer for every token", _entropy),
    ),
    Panel("discriminator_auc", "Discriminator AUC", _constant("chance", lambda run: 0.5), shown=(0.5, 0.7)),
    Panel(
        "discriminator_accuracy",
        "Discriminator accuracy",
        _from_replaced("“all original”", lambda replaced: 1 - replaced),
    ),
    Panel("discriminator_recall", "Recall of replaced tokens", shown=(0.0, 0.2)),
    Panel("discriminator_precision", "Precision of “replaced”"),
    Panel("replaced_fraction", "Replaced fraction of the tokens"),
    Panel("gradient_norm", "Gradient norm, before clipping"),
    Panel("learning_rate", "Learning rate", shown=(0.0,), whole=True),
    Panel(
        "fill_fraction",
        "Fill of the rows",
        _constant("the dataset's manifest", lambda run: run.manifest.splits["train"].fill_fraction),
        shown=(0.9, 1.0),
    ),
)
SPEED = (
    Panel("step_seconds", "Seconds a step", shown=(0.0,), whole=True),
    Panel("tokens_per_second", "Tokens a second, padding left out", shown=(0.0,), whole=True),
    Panel("model_flops_utilization", "Model FLOPs utilization", shown=(0.0,), whole=True),
)


def with_data(panels: Sequence[Panel], runs: Sequence[Run]) -> list[Panel]:
    """Those of whose metric a run has written something."""
    written = {name for run in runs for entry in run.history.entries for name in entry}
    return [panel for panel in panels if panel.metric in written]
