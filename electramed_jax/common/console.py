"""Messages and progress on standard error while a command runs.

Standard output is for results only, so that `electramed ... --json | jq` works. All messages go through this module, so
that --quiet and --verbose apply everywhere. Colours are used on a terminal, unless NO_COLOR is set. Texts may come from
articles and file names: control characters in them are shown as escapes and never reach the terminal.
"""

from __future__ import annotations

import collections
import contextlib
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator

from electramed_jax.common import step_timer

SECONDS_BETWEEN_LINES = 10.0
BAR_WIDTH = 24  # columns
# The remaining time follows from the rate of the last minute, so that work done before the start does not distort it.
RATE_SECONDS = 60.0

# Level of output: warnings and errors only; messages and progress too; details too.
QUIET, NORMAL, VERBOSE = "quiet", "normal", "verbose"
YELLOW, RED = "33", "31"

# Control characters except tab and line feed, marks that change the direction of the text after them, and halves of
# surrogate pairs, which no encoding has.
_UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

_level = NORMAL


@contextlib.contextmanager
def at_level(level: str) -> Iterator[None]:
    """Sets the level to QUIET, NORMAL or VERBOSE during the block."""
    global _level  # noqa: PLW0603 one level per process
    before, _level = _level, level
    try:
        yield
    finally:
        _level = before


def set_level(level: str) -> None:
    """Sets the level of this process, such as a worker."""
    global _level  # noqa: PLW0603 one level per process
    _level = level


def level() -> str:
    """Returns the current level."""
    return _level


def say(line: str) -> None:
    """Prints a line to standard error, unless the level is QUIET."""
    if _level != QUIET:
        _print(line)


def warn(line: str) -> None:
    """Prints a warning, at every level."""
    _print(line, YELLOW)


def fail(line: str) -> None:
    """Prints the error that ended a command in one line, at every level."""
    _print(line.replace("\n", "\\n"), RED)


def printable(text: str) -> str:
    r"""Returns the text with escapes such as `\\x1b` in place of the characters that would control a terminal."""
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def detail(line: str) -> None:
    """Prints a line at the level VERBOSE."""
    if _level == VERBOSE:
        _print(line)


def is_live() -> bool:
    """Returns whether standard error is a terminal that can draw a live display, and the level is not QUIET."""
    return _level != QUIET and sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")


def _print(line: str, colour: str = "") -> None:
    line = printable(line)
    if colour and sys.stderr.isatty() and not os.environ.get("NO_COLOR"):
        line = f"\033[{colour}m{line}\033[0m"
    print(line, file=sys.stderr, flush=True)  # noqa: T201 the only place that prints messages


@contextlib.contextmanager
def progress(total: int | None, unit: str, description: str, rate_unit: str = "") -> Iterator[Callable[..., None]]:
    """Yields `advance(n=1, m=0, total=None)`: a live bar on a terminal, a line every 10 seconds in a log.

    Both show the rate and, if the total is known, the remaining time.

    Args:
      total: number of units; None if it is not known, or is passed to `advance` later.
      unit: plural of the unit that is counted ("files").
      description: activity ("reading").
      rate_unit: plural of what the units contain ("documents"). If given, the rate is shown in these, and `advance` is
        called with their number m in addition to the number n of units.
    """
    meter = _RateMeter(total, unit, rate_unit)
    if is_live():
        with _live_bar(meter, description) as advance_bar:
            yield advance_bar
        return
    last_line = meter.started

    def advance(n: int = 1, m: int = 0, total: int | None = None) -> None:
        nonlocal last_line
        meter.advance(n, m, total)
        now = time.monotonic()
        if now - last_line >= SECONDS_BETWEEN_LINES:
            last_line = now
            of_total = f" of {meter.total:,}" if meter.total is not None else ""
            say(f"{description}: {meter.units:,}{of_total} {unit}, {meter.format_rate()}")

    yield advance
    seconds = time.monotonic() - meter.started
    contents = f", {meter.contents:,} {rate_unit}" if rate_unit else ""
    say(f"{description}: {meter.units:,} {unit}{contents} in {seconds:.1f} s")


class _RateMeter:
    """Counts units and their contents, and measures the rate of the last RATE_SECONDS."""

    def __init__(self, total: int | None, unit: str, rate_unit: str):
        self.total, self.unit, self.rate_unit = total, unit, rate_unit
        self.units, self.contents = 0, 0
        self.started = time.monotonic()
        self._marks = collections.deque([(self.started, 0, 0)])

    def advance(self, n: int, m: int, total: int | None = None) -> None:
        self.units, self.contents = self.units + n, self.contents + m
        self.total = self.total if total is None else total
        now = time.monotonic()
        self._marks.append((now, self.units, self.contents))
        while len(self._marks) > 2 and self._marks[1][0] < now - RATE_SECONDS:
            self._marks.popleft()

    def format_count(self) -> str:
        """Returns `1,024/28,879 documents`."""
        of_total = f"/{self.total:,}" if self.total is not None else ""
        return f"{self.units:,}{of_total} {self.unit}"

    def format_rate(self) -> str:
        """Returns `3.1 files/s, 10 min 20 s left`."""
        since, units, contents = self._marks[0]
        seconds = max(time.monotonic() - since, 1e-9)
        rate = (self.units - units) / seconds
        digits = 1 if rate < 100 else 0
        text = f"{rate:,.{digits}f} {self.unit}/s"
        if self.rate_unit:
            text = f"{(self.contents - contents) / seconds:,.0f} {self.rate_unit}/s"
        if self.total is None or not rate or self.units == self.total:
            return text
        return f"{text}, {step_timer.format_duration((self.total - self.units) / rate)} left"


@contextlib.contextmanager
def _live_bar(meter: _RateMeter, description: str) -> Iterator[Callable[..., None]]:
    from rich import console  # not imported at start-up
    from rich import progress as bars

    with bars.Progress(
        bars.TextColumn("{task.description}"),
        bars.BarColumn(BAR_WIDTH),
        bars.TextColumn("{task.fields[count]}"),
        bars.TimeElapsedColumn(),
        bars.TextColumn("{task.fields[rate]}"),
        console=console.Console(stderr=True),
    ) as bar:
        task = bar.add_task(description, total=meter.total, rate="", count=meter.format_count())

        def advance(n: int = 1, m: int = 0, total: int | None = None) -> None:
            meter.advance(n, m, total)
            bar.update(task, advance=n, total=meter.total, rate=meter.format_rate(), count=meter.format_count())

        yield advance


class TransferProgress:
    """Counts received files and bytes, and shows them. Thread-safe.

    Attributes:
      files: number of files to receive.
      total_bytes: estimate of their bytes, corrected with each complete file.
      files_done: complete files.
      bytes_done: received bytes.
    """

    def __init__(self, files: int, total_bytes: int, description: str):
        """See `transfer_progress`."""
        self.files, self.total_bytes, self._description = files, total_bytes, description
        self.files_done, self.bytes_done = 0, 0
        self.started = self._last_line = time.monotonic()
        self._lock = threading.Lock()

    def advance(self, n: int) -> None:
        """Counts `n` received bytes."""
        with self._lock:
            self.bytes_done += n
            self._show()

    def file_done(self, expected_bytes: int, arrived_bytes: int) -> None:
        """Counts a complete file, and corrects the total by the difference between its expected and its real bytes."""
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
        from rich import console  # not imported at start-up
        from rich import progress as bars

        super().__init__(files, total_bytes, description)
        self.bars = bars.Progress(
            bars.TextColumn("{task.description}"),
            bars.BarColumn(BAR_WIDTH),
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
    """Yields a `TransferProgress`: a live bar on a terminal, a line every 10 seconds in a log.

    Args:
      files: number of files to receive.
      total_bytes: estimate of their bytes.
      description: activity ("downloading").
    """
    if is_live():
        live = _LiveTransferProgress(files, total_bytes, description)
        with live.bars:
            yield live
    else:
        yield TransferProgress(files, total_bytes, description)
