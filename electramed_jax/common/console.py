"""What a person reads while a command runs: lines and progress, on standard error.

Standard output is kept for results, so that `electramed ... --json | jq` works.
"""

from __future__ import annotations

import collections
import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator

from electramed_jax.common import chrono

SECONDS_BETWEEN_LINES = 10.0
RATE_SECONDS = 60.0  # what is left is told from the speed of the last minute, not of work found done at the start


def say(line: str) -> None:
    """Prints one line to standard error at once."""
    print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def progress(total: int | None, unit: str, description: str, inside: str = "") -> Iterator[Callable[..., None]]:
    """Yields `advance(n, m)`: a live bar on a terminal, a plain line every few seconds in a log.

    Both tell how fast the work goes and, where the total is known, how long it will still take.

    Args:
      total: how many units there are, or None where that is not known.
      unit: what is counted, in the plural ("files").
      description: what is being done ("reading").
      inside: what the units hold, in the plural ("documents"): the rate is told in these, and
        `advance` is given their number m beside that of the units n.
    """
    pace = _Pace(total, unit, inside)
    if sys.stderr.isatty():
        with _live_bar(pace, description) as advance:
            yield advance
        return
    last_line = pace.started

    def advance(n: int = 1, m: int = 0) -> None:
        nonlocal last_line
        pace.advance(n, m)
        now = time.monotonic()
        if now - last_line >= SECONDS_BETWEEN_LINES:
            last_line = now
            of_total = f" of {total:,}" if total is not None else ""
            say(f"{description}: {pace.done:,}{of_total} {unit}, {pace.told()}")

    yield advance
    seconds = time.monotonic() - pace.started
    held = f", {pace.held:,} {inside}" if inside else ""
    say(f"{description}: {pace.done:,} {unit}{held} in {seconds:.1f} s")


class _Pace:
    """How far and how fast, over the last RATE_SECONDS."""

    def __init__(self, total: int | None, unit: str, inside: str):
        self.total, self.unit, self.inside = total, unit, inside
        self.done, self.held = 0, 0
        self.started = time.monotonic()
        self._marks = collections.deque([(self.started, 0, 0)])

    def advance(self, n: int, m: int) -> None:
        self.done, self.held = self.done + n, self.held + m
        now = time.monotonic()
        self._marks.append((now, self.done, self.held))
        while len(self._marks) > 2 and self._marks[1][0] < now - RATE_SECONDS:
            self._marks.popleft()

    def told(self) -> str:
        """`3.1 files/s, 10 min 20 s left`."""
        then, done, held = self._marks[0]
        seconds = max(time.monotonic() - then, 1e-9)
        rate = (self.done - done) / seconds
        shown = f"{(self.held - held) / seconds:,.0f} {self.inside}/s" if self.inside else f"{rate:,.1f} {self.unit}/s"
        if self.total is None or not rate:
            return shown
        return f"{shown}, {chrono.duration((self.total - self.done) / rate)} left"


@contextlib.contextmanager
def _live_bar(pace: _Pace, description: str) -> Iterator[Callable[..., None]]:
    from rich import console  # kept off the start-up path
    from rich import progress as bars

    with bars.Progress(
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TextColumn(pace.unit),
        bars.TimeElapsedColumn(),
        bars.TextColumn("{task.fields[told]}"),
        console=console.Console(stderr=True),
    ) as bar:
        task = bar.add_task(description, total=pace.total, told="")

        def advance(n: int = 1, m: int = 0) -> None:
            pace.advance(n, m)
            bar.update(task, advance=n, told=pace.told())

        yield advance


class Transfer:
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
            left = chrono.duration(max(0.0, self.total_bytes - self.bytes_done) / rate) if rate else "unknown"
            say(
                f"{self._description}: {self.files_done:,} of {self.files:,} files, {self.bytes_done / 1e6:,.1f} of "
                f"{max(self.total_bytes, self.bytes_done) / 1e6:,.1f} MB, {rate / 1e6:,.1f} MB/s, {left} left"
            )


class _LiveTransfer(Transfer):
    def __init__(self, files: int, total_bytes: int, description: str):
        from rich import console  # kept off the start-up path
        from rich import progress as bars

        super().__init__(files, total_bytes, description)
        self.bars = bars.Progress(
            bars.TextColumn("{task.description}"),
            bars.BarColumn(),
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
def transfer(files: int, total_bytes: int, description: str) -> Iterator[Transfer]:
    """Yields a `Transfer`: a live bar on a terminal, a plain line every few seconds in a log.

    Args:
      files: how many will arrive.
      total_bytes: about how many bytes they have.
      description: what is being done ("downloading").
    """
    if sys.stderr.isatty():
        live = _LiveTransfer(files, total_bytes, description)
        with live.bars:
            yield live
    else:
        yield Transfer(files, total_bytes, description)
