"""A training run as a terminal shows it: one panel, drawn anew in its place, and above it the lines that stay."""

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

TRAIN = "train"  # the split whose lines only the panel tells
REFRESHES = 4  # a second
TREND = 20  # entries
LEVELS = "▁▂▃▄▅▆▇█"
WIDE = 72  # columns, from which there is room for trends
BAR = 32  # columns at most


class TrainingDisplay:
    """A training run as a log tells it: one line an interval."""

    def set_step(self, step: int) -> None:
        """So many steps are done."""

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """What is done inside instead of training: "saving"."""
        yield

    def log_metrics(self, split: str, step: int, figures: Mapping[str, float], line: str) -> None:
        """Figures of a split by name, and the line that tells them."""
        console.say(line)

    def alert(self, line: str) -> None:
        """Something is wrong with the run."""
        console.warn(line)


class LiveDisplay(TrainingDisplay):
    """See `training_display`. Training figures replace one another in the panel; what other splits said, and alerts,
    stay above it."""

    def __init__(self, title: str, start: int, total: int, shown: Sequence[str]):
        self._title, self._start, self._total, self._shown = title, start, total, shown
        self._step, self._stage = start, "compiling"
        self._began = self._training_since = time.monotonic()
        self._newest: dict[str, tuple[int, Mapping[str, float]]] = {}
        self._history: dict[str, collections.deque[float]] = {}
        self._alerts = 0
        self._console = Console(stderr=True)
        self._unicode = self._console.encoding.lower().startswith("utf")

    @contextlib.contextmanager
    def drawn(self) -> Iterator[LiveDisplay]:
        with Live(get_renderable=self._draw, console=self._console, refresh_per_second=REFRESHES):
            yield self
            self._stage = "stopped" if self._step < self._total else "done"

    def set_step(self, step: int) -> None:
        if self._stage == "compiling":
            self._stage, self._training_since, self._start = "training", time.monotonic(), step
        self._step = step

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        before, self._stage = self._stage, name
        try:
            yield
        finally:
            self._stage = before

    def log_metrics(self, split: str, step: int, figures: Mapping[str, float], line: str) -> None:
        self._newest[split] = (step, figures)
        if split == TRAIN:
            for name in self._shown:
                if name in figures:
                    self._history.setdefault(name, collections.deque(maxlen=TREND)).append(figures[name])
            console.detail(line)
        else:
            console.say(line)

    def alert(self, line: str) -> None:
        self._alerts += 1
        console.warn(line)

    # ---- drawing, by rich's thread ----

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
            ProgressBar(total=max(self._total, 1), completed=self._step, width=min(BAR, self._console.width // 3)),
            Text(f"{self._step:,}/{self._total:,}", no_wrap=True),
            Text(f"{share:.0%}", style="dim"),
        )
        return grid

    def _speed(self) -> str:
        """`0.158 s/step   12,987 tokens/s   15 min 30 s left   41 min 2 s so far`."""
        figures = self._newest.get(TRAIN, (0, {}))[1]
        seconds = figures.get("step_seconds")
        parts = []
        if seconds is None and self._step > self._start:
            seconds = (time.monotonic() - self._training_since) / (self._step - self._start)
        if seconds is not None:
            parts.append(f"{seconds:.3f} s/step")
            if "tokens_per_second" in figures:
                parts.append(f"{figures['tokens_per_second']:,.0f} tokens/s")
            if "model_flops_utilization" in figures:
                parts.append(f"MFU {figures['model_flops_utilization']:.1%}")
            if self._step < self._total:
                parts.append(f"{step_timer.format_duration((self._total - self._step) * seconds)} left")
        parts.append(f"{step_timer.format_duration(time.monotonic() - self._began)} so far")
        return "   ".join(parts)

    def _table(self) -> RenderableType:
        trends = self._unicode and self._console.width >= WIDE
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("")
        for split, (step, _) in self._newest.items():
            table.add_column(f"{split} at {step:,}", justify="right")
        if trends:
            table.add_column(f"{TRAIN}, the last {TREND}")
        for name in self._shown:
            found = [figures.get(name) for _, figures in self._newest.values()]
            if any(value is not None for value in found):
                trend = [trend_of(list(self._history.get(name, ())))] if trends else []
                table.add_row(name, *("" if value is None else f"{value:.4g}" for value in found), *trend)
        return table


def trend_of(values: Sequence[float]) -> str:
    """The values as bars of eight heights, from the least of them to the greatest."""
    finite = [value for value in values if abs(value) < float("inf")]
    if len(finite) < 2:
        return ""
    low, span = min(finite), (max(finite) - min(finite)) or 1.0
    return "".join(LEVELS[int((value - low) / span * (len(LEVELS) - 1) + 0.5)] for value in finite)


@contextlib.contextmanager
def training_display(title: str, start: int, total: int, shown: Sequence[str]) -> Iterator[TrainingDisplay]:
    """Yields a `TrainingDisplay`: a live panel on a terminal, a line an interval in a log.

    Args:
      title: what is trained.
      start: steps done before.
      total: of the run.
      shown: names of the figures that the panel shows, in this order, where an entry has them.
    """
    if not console.is_live():
        yield TrainingDisplay()
        return
    with LiveDisplay(title, start, total, shown).drawn() as live:
        yield live
