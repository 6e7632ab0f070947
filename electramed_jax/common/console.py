"""What a person reads while a command runs: lines and progress, on standard error.

Standard output is kept for results, so that `electramed ... --json | jq` works. Everything that is said goes through
here, so that --quiet and --verbose hold everywhere; colours are for terminals, and NO_COLOR does without them.
"""

from __future__ import annotations

import collections
import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator

from electramed_jax.common import step_timer

SECONDS_BETWEEN_LINES = 10.0
BAR = 24  # columns of a bar
RATE_SECONDS = 60.0  # what is left is told from the speed of the last minute, not of work found done at the start

# How much is said: warnings and mistakes alone; progress too; and what is behind it.
QUIET, NORMAL, VERBOSE = "quiet", "normal", "verbose"
YELLOW, RED = "33", "31"

_level = NORMAL


@contextlib.contextmanager
def at_level(level: str) -> Iterator[None]:
    """How much is said inside, of QUIET, NORMAL and VERBOSE."""
    global _level
    before, _level = _level, level
    try:
        yield
    finally:
        _level = before


def set_level(level: str) -> None:
    """The same from here on, in a process of its own."""
    global _level
    _level = level


def level() -> str:
    """How much is said."""
    return _level


def say(line: str) -> None:
    """Prints one line to standard error at once, unless quiet."""
    if _level != QUIET:
        _print(line)


def warn(line: str) -> None:
    """The same of what a person should know, quiet or not."""
    _print(line, YELLOW)


def fail(line: str) -> None:
    """The same of what ended a command."""
    _print(line, RED)


def detail(line: str) -> None:
    """The same of what is of interest where something is looked for: with --verbose."""
    if _level == VERBOSE:
        _print(line)


def is_live() -> bool:
    """Whether something that moves may be drawn: on a terminal that can, unless quiet."""
    return _level != QUIET and sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")


def _print(line: str, colour: str = "") -> None:
    if colour and sys.stderr.isatty() and not os.environ.get("NO_COLOR"):
        line = f"\033[{colour}m{line}\033[0m"
    print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def progress(total: int | None, unit: str, description: str, inside: str = "") -> Iterator[Callable[..., None]]:
    """Yields `advance(n, m, total=None)`: a live bar on a terminal, a plain line every few seconds in a log.

    Both tell how fast the work goes and, where the total is known, how long it will still take.

    Args:
      total: how many units there are, or None where that is not known; `advance` may be told of it later.
      unit: what is counted, in the plural ("files").
      description: what is being done ("reading").
      inside: what the units hold, in the plural ("documents"): the rate is told in these, and
        `advance` is given their number m beside that of the units n.
    """
    pace = _RateMeter(total, unit, inside)
    if is_live():
        with _live_bar(pace, description) as advance:
            yield advance
        return
    last_line = pace.started

    def advance(n: int = 1, m: int = 0, total: int | None = None) -> None:
        nonlocal last_line
        pace.advance(n, m, total)
        now = time.monotonic()
        if now - last_line >= SECONDS_BETWEEN_LINES:
            last_line = now
            of_total = f" of {pace.total:,}" if pace.total is not None else ""
            say(f"{description}: {pace.done:,}{of_total} {unit}, {pace.told()}")

    yield advance
    seconds = time.monotonic() - pace.started
    held = f", {pace.held:,} {inside}" if inside else ""
    say(f"{description}: {pace.done:,} {unit}{held} in {seconds:.1f} s")


class _RateMeter:
    """How far and how fast, over the last RATE_SECONDS."""

    def __init__(self, total: int | None, unit: str, inside: str):
        self.total, self.unit, self.inside = total, unit, inside
        self.done, self.held = 0, 0
        self.started = time.monotonic()
        self._marks = collections.deque([(self.started, 0, 0)])

    def advance(self, n: int, m: int, total: int | None = None) -> None:
        self.done, self.held = self.done + n, self.held + m
        self.total = self.total if total is None else total
        now = time.monotonic()
        self._marks.append((now, self.done, self.held))
        while len(self._marks) > 2 and self._marks[1][0] < now - RATE_SECONDS:
            self._marks.popleft()

    def counted(self) -> str:
        """`1,024/28,879 documents`."""
        of_total = f"/{self.total:,}" if self.total is not None else ""
        return f"{self.done:,}{of_total} {self.unit}"

    def told(self) -> str:
        """`3.1 files/s, 10 min 20 s left`."""
        then, done, held = self._marks[0]
        seconds = max(time.monotonic() - then, 1e-9)
        rate = (self.done - done) / seconds
        digits = 1 if rate < 100 else 0
        shown = f"{rate:,.{digits}f} {self.unit}/s"
        if self.inside:
            shown = f"{(self.held - held) / seconds:,.0f} {self.inside}/s"
        if self.total is None or not rate or self.done == self.total:
            return shown
        return f"{shown}, {step_timer.format_duration((self.total - self.done) / rate)} left"


@contextlib.contextmanager
def _live_bar(pace: _RateMeter, description: str) -> Iterator[Callable[..., None]]:
    from rich import console  # kept off the start-up path
    from rich import progress as bars

    with bars.Progress(
        bars.TextColumn("{task.description}"),
        bars.BarColumn(BAR),
        bars.TextColumn("{task.fields[count]}"),
        bars.TimeElapsedColumn(),
        bars.TextColumn("{task.fields[told]}"),
        console=console.Console(stderr=True),
    ) as bar:
        task = bar.add_task(description, total=pace.total, told="", count=pace.counted())

        def advance(n: int = 1, m: int = 0, total: int | None = None) -> None:
            pace.advance(n, m, total)
            bar.update(task, advance=n, total=pace.total, told=pace.told(), count=pace.counted())

        yield advance


class TransferProgress:
    """Files and bytes that arrive; safe to call from several threads."""

    def __init__(self, files: int, total_bytes: int, description: str):
        self.files, self.total_bytes, self._description = files, total_bytes, description
        self.files_done, self.bytes_done = 0, 0
        self.started = self._last_line = time.monotonic()
        self._lock = threading.Lock()

    def advance(self, n: int) -> None:
        """So many more bytes are here."""
        with self._lock:
            self.bytes_done += n
            self._show()

    def file_done(self, expected_bytes: int, arrived_bytes: int) -> None:
        """One more file; the total is mended by how far it was from what was expected of this one."""
        with self._lock:
            self.files_done += 1
            self.total_bytes += arrived_bytes - expected_bytes
            self._show()

    def _show(self) -> None:
        now = time.monotonic()
        if now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            rate = self.bytes_done / (now - self.started)
            left = (
                step_timer.format_duration(max(0.0, self.total_bytes - self.bytes_done) / rate) if rate else "unknown"
            )
            say(
                f"{self._description}: {self.files_done:,} of {self.files:,} files, {self.bytes_done / 1e6:,.1f} of "
                f"{max(self.total_bytes, self.bytes_done) / 1e6:,.1f} MB, {rate / 1e6:,.1f} MB/s, {left} left"
            )


class _LiveTransferProgress(TransferProgress):
    def __init__(self, files: int, total_bytes: int, description: str):
        from rich import console  # kept off the start-up path
        from rich import progress as bars

        super().__init__(files, total_bytes, description)
        self.bars = bars.Progress(
            bars.TextColumn("{task.description}"),
            bars.BarColumn(BAR),
            bars.TextColumn("{task.fields[files]} files"),
            bars.DownloadColumn(),
            bars.TransferSpeedColumn(),
            bars.TimeRemainingColumn(),
            console=console.Console(stderr=True),
        )
        self._task = self.bars.add_task(description, total=total_bytes, files=f"0/{files:,}")

    def _show(self) -> None:
        self.bars.update(
            self._task,
            completed=self.bytes_done,
            total=max(self.total_bytes, self.bytes_done),
            files=f"{self.files_done:,}/{self.files:,}",
        )


@contextlib.contextmanager
def transfer_progress(files: int, total_bytes: int, description: str) -> Iterator[TransferProgress]:
    """Yields a `TransferProgress`: a live bar on a terminal, a plain line every few seconds in a log.

    Args:
      files: how many will arrive.
      total_bytes: about how many bytes they have.
      description: what is being done ("downloading").
    """
    if is_live():
        live = _LiveTransferProgress(files, total_bytes, description)
        with live.bars:
            yield live
    else:
        yield TransferProgress(files, total_bytes, description)
