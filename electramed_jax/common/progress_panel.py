"""Display of a training run: a live panel on a terminal, with messages above it, or one line per entry in a log."""

from __future__ import annotations

import collections
import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from electramed_jax.common import console, step_timer

TRAIN = "train"  # the metrics of this split are shown in the panel instead of printed lines
REFRESHES = 4  # per second
TREND_LENGTH = 20  # entries
LEVELS = "▁▂▃▄▅▆▇█"
MIN_TREND_COLUMNS = 72  # width of a terminal from which trends are shown
MAX_BAR_WIDTH = 32  # columns


class TrainingDisplay:
    """Display for a log: one line per entry. Subclasses use the arguments that it ignores."""

    def set_step(self, step: int) -> None:
        """Shows the number of steps done."""

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:  # noqa: ARG002
        """Shows an activity other than training, such as "saving", during the block."""
        yield

    def log_metrics(self, split: str, step: int, metrics: Mapping[str, float], line: str) -> None:  # noqa: ARG002
        """Shows the metrics of a split at a step; `line` is the message with them."""
        console.say(line)

    def alert(self, line: str) -> None:
        """Shows an alert of the run."""
        console.warn(line)


class LiveDisplay(TrainingDisplay):
    """Display for a terminal: a panel with the newest metrics of each split.

    The lines of other splits than training, and alerts, are printed above the panel.
    """

    def __init__(self, title: str, start: int, total: int, shown: Sequence[str]):
        """See `training_display`."""
        self._title, self._start, self._total, self._shown = title, start, total, shown
        self._step, self._stage = start, "compiling"
        self._began = self._training_since = time.monotonic()
        self._newest: dict[str, tuple[int, Mapping[str, float]]] = {}
        self._history: dict[str, collections.deque[float]] = {}
        self._alerts = 0
        self._console = Console(stderr=True)
        self._unicode = self._console.encoding.lower().startswith("utf")

    @contextlib.contextmanager
    def running(self) -> Iterator[LiveDisplay]:
        """Draws the panel during the block."""
        with Live(get_renderable=self._draw, console=self._console, refresh_per_second=REFRESHES):
            yield self
            self._stage = "stopped" if self._step < self._total else "done"

    def set_step(self, step: int) -> None:
        """Moves the bar; the first call ends the stage "compiling"."""
        if self._stage == "compiling":
            self._stage, self._training_since, self._start = "training", time.monotonic(), step
        self._step = step

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Shows `name` as the activity during the block."""
        before, self._stage = self._stage, name
        try:
            yield
        finally:
            self._stage = before

    def log_metrics(self, split: str, step: int, metrics: Mapping[str, float], line: str) -> None:
        """Shows the metrics in the panel; prints the line, for training only at the level VERBOSE."""
        self._newest[split] = (step, metrics)
        if split == TRAIN:
            for name in self._shown:
                if name in metrics:
                    self._history.setdefault(name, collections.deque(maxlen=TREND_LENGTH)).append(metrics[name])
            console.detail(line)
        else:
            console.say(line)

    def alert(self, line: str) -> None:
        """Prints the alert, and counts it in the panel."""
        self._alerts += 1
        console.warn(line)

    # ---- called by rich's thread ----

    def _draw(self) -> RenderableType:
        parts: list[RenderableType] = [self._bar(), Text(self._speed(), style="dim")]
        if self._newest:
            parts.append(self._table())
        if self._alerts:
            noun = "alert" if self._alerts == 1 else "alerts"
            parts.append(Text(f"{self._alerts} {noun} so far: see above", style="yellow"))
        return Group(*parts)

    def _bar(self) -> RenderableType:
        grid = Table.grid(padding=(0, 1))
        share = self._step / self._total if self._total else 1.0
        grid.add_row(
            Text(self._title, style="bold"),
            Text(self._stage, style="cyan"),
            ProgressBar(
                total=max(self._total, 1), completed=self._step, width=min(MAX_BAR_WIDTH, self._console.width // 3)
            ),
            Text(f"{self._step:,}/{self._total:,}", no_wrap=True),
            Text(f"{share:.0%}", style="dim"),
        )
        return grid

    def _speed(self) -> str:
        """Returns `0.158 s/step   12,987 tokens/s   15 min 30 s left   41 min 2 s so far`."""
        metrics = self._newest.get(TRAIN, (0, {}))[1]
        seconds = metrics.get("step_seconds")
        parts = []
        if seconds is None and self._step > self._start:
            seconds = (time.monotonic() - self._training_since) / (self._step - self._start)
        if seconds is not None:
            parts.append(f"{seconds:.3f} s/step")
            if "tokens_per_second" in metrics:
                parts.append(f"{metrics['tokens_per_second']:,.0f} tokens/s")
            if "model_flops_utilization" in metrics:
                parts.append(f"MFU {metrics['model_flops_utilization']:.1%}")
            if self._step < self._total:
                parts.append(f"{step_timer.format_duration((self._total - self._step) * seconds)} left")
        parts.append(f"{step_timer.format_duration(time.monotonic() - self._began)} so far")
        return "   ".join(parts)

    def _table(self) -> RenderableType:
        trends = self._unicode and self._console.width >= MIN_TREND_COLUMNS
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("")
        for split, (step, _) in self._newest.items():
            table.add_column(f"{split} at {step:,}", justify="right")
        if trends:
            table.add_column(f"{TRAIN}, the last {TREND_LENGTH}")
        for name in self._shown:
            values = [metrics.get(name) for _, metrics in self._newest.values()]
            if any(value is not None for value in values):
                trend = [format_trend(list(self._history.get(name, ())))] if trends else []
                table.add_row(name, *("" if value is None else f"{value:.4g}" for value in values), *trend)
        return table


def format_trend(values: Sequence[float]) -> str:
    """Returns the finite values as a sparkline: bars of eight heights between the minimum and the maximum."""
    finite = [value for value in values if abs(value) < float("inf")]
    if len(finite) < 2:
        return ""
    low, span = min(finite), (max(finite) - min(finite)) or 1.0
    return "".join(LEVELS[int((value - low) / span * (len(LEVELS) - 1) + 0.5)] for value in finite)


@contextlib.contextmanager
def training_display(title: str, start: int, total: int, shown: Sequence[str]) -> Iterator[TrainingDisplay]:
    """Yields a `TrainingDisplay`: a live panel on a terminal, one line per entry in a log.

    Args:
      title: name of the run in the panel.
      start: steps done by earlier processes.
      total: steps of the whole run.
      shown: names of the metrics in the panel, in order; a metric that an entry lacks is left out.
    """
    if not console.is_live():
        yield TrainingDisplay()
        return
    with LiveDisplay(title, start, total, shown).running() as live:
        yield live
