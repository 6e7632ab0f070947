"""The curves of a report, and their dashed reference lines, which are computed from the run."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

from electramed_jax.report.run import Run

Points = Sequence[tuple[int, float]]  # (step, value)


@dataclasses.dataclass(frozen=True)
class Guide:
    """A dashed reference line."""

    label: str
    points: Points


@dataclasses.dataclass(frozen=True)
class Panel:
    """A figure with the curves of one metric.

    Attributes:
      metric: name in metrics.jsonl.
      title: of the figure.
      guide: returns the reference line of a run, or None.
      y_includes: values that the y axis includes.
      full_range: show the first steps as well, which may have extreme values, and the restarts.
      unit: logged value of one unit of the figure, such as 2**30 for a metric in bytes that is shown in GiB.
    """

    metric: str
    title: str
    guide: Callable[[Run], Guide | None] = lambda run: None
    y_includes: tuple[float, ...] = ()
    full_range: bool = False
    unit: float = 1.0


def _constant(label: str, value_of: Callable[[Run], float | None]) -> Callable[[Run], Guide | None]:
    def guide(run: Run) -> Guide | None:
        value = value_of(run)
        return None if value is None else Guide(label, [(0, value), (max(run.history.step, 1), value)])

    return guide


def _from_replaced(label: str, value_of: Callable[[float], float]) -> Callable[[Run], Guide | None]:
    """Returns a reference line that depends on the fraction of replaced tokens."""

    def guide(run: Run) -> Guide | None:
        entries = run.history.split("validation") or run.history.split("train")
        points = [
            (e["step"], value_of(e["replaced_fraction"])) for e in entries if 0 < e.get("replaced_fraction", 0) < 1
        ]
        return Guide(label, points) if points else None

    return guide


def _unigram_cross_entropy(run: Run) -> float | None:
    split = run.manifest.splits.get("validation")
    return split.unigram_cross_entropy if split else None


def _entropy(p: float) -> float:
    return -p * math.log(p) - (1 - p) * math.log(1 - p)


LEARNING = (
    Panel("loss", "Loss (both, weighted)"),
    Panel(
        "generator_loss",
        "Generator loss (nats per masked token)",
        _constant("token frequencies alone", _unigram_cross_entropy),
    ),
    Panel("generator_accuracy", "Generator accuracy (arg-max)"),
    Panel("sampled_accuracy", "Generator accuracy (sampled)"),
    Panel(
        "discriminator_loss",
        "Discriminator loss (nats per token)",
        _from_replaced("the same prediction for every token", _entropy),
    ),
    Panel("discriminator_auc", "Discriminator AUC", _constant("chance", lambda run: 0.5), y_includes=(0.5, 0.7)),
    Panel(
        "discriminator_accuracy",
        "Discriminator accuracy",
        _from_replaced("“all original”", lambda replaced: 1 - replaced),
    ),
    Panel("discriminator_recall", "Recall of replaced tokens", y_includes=(0.0, 0.2)),
    Panel("discriminator_precision", "Precision of “replaced”"),
    Panel("replaced_fraction", "Replaced fraction of the tokens"),
    Panel("gradient_norm", "Gradient norm, before clipping"),
    Panel("learning_rate", "Learning rate", y_includes=(0.0,), full_range=True),
    Panel(
        "fill_fraction",
        "Fill fraction of the rows",
        _constant("the dataset's manifest", lambda run: run.manifest.splits["train"].fill_fraction),
        y_includes=(0.9, 1.0),
    ),
)
GIB = 2**30
SPEED = (
    Panel("step_seconds", "Seconds per step", y_includes=(0.0,), full_range=True),
    Panel("tokens_per_second", "Non-pad tokens per second", y_includes=(0.0,), full_range=True),
    Panel("model_flops_utilization", "Model FLOPs utilization", y_includes=(0.0,), full_range=True),
    Panel("device_memory_bytes", "Device memory in use (GiB)", y_includes=(0.0,), full_range=True, unit=GIB),
    Panel("device_memory_peak_bytes", "Device memory, largest (GiB)", y_includes=(0.0,), full_range=True, unit=GIB),
    Panel("host_memory_bytes", "Host memory of the process (GiB)", y_includes=(0.0,), full_range=True, unit=GIB),
)


def panels_with_data(panels: Sequence[Panel], runs: Sequence[Run]) -> list[Panel]:
    """Returns the panels with a metric that a run has logged."""
    written = {name for run in runs for entry in run.history.entries for name in entry}
    return [panel for panel in panels if panel.metric in written]
