"""What a person reads while a command runs: lines and progress, on standard error.

Standard output is kept for results, so that `electramed ... --json | jq` works.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator

from electramed_jax.common.chrono import duration

SECONDS_BETWEEN_LINES = 10.0


def say(line: str) -> None:
    """Prints one line to standard error at once."""
    print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def progress(total: int | None, unit: str, description: str) -> Iterator[Callable[[int], None]]:
    """Yields `advance(n)`: a live bar on a terminal, a plain line every few seconds in a log.

    Args:
      total: how many units there are, or None where that is not known.
      unit: what is counted, in the plural ("files").
      description: what is being done ("reading").
    """
    if sys.stderr.isatty():
        with _live_bar(total, unit, description) as advance:
            yield advance
        return
    done, started = 0, time.monotonic()
    last_line = started

    def advance(n: int = 1) -> None:
        nonlocal done, last_line
        done += n
        now = time.monotonic()
        if now - last_line >= SECONDS_BETWEEN_LINES:
            last_line = now
            of_total = f" of {total:,}" if total is not None else ""
            say(f"{description}: {done:,}{of_total} {unit}, {done / (now - started):,.1f} {unit}/s")

    yield advance
    seconds = time.monotonic() - started
    say(f"{description}: {done:,} {unit} in {seconds:.1f} s")


@contextlib.contextmanager
def _live_bar(total: int | None, unit: str, description: str) -> Iterator[Callable[[int], None]]:
    from rich import console  # kept off the start-up path
    from rich import progress as bars

    with bars.Progress(
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TextColumn(unit),
        bars.TimeElapsedColumn(),
        bars.TimeRemainingColumn(),
        console=console.Console(stderr=True),
    ) as bar:
        task = bar.add_task(description, total=total)
        yield lambda n=1: bar.advance(task, n)


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
            left = duration(max(0.0, self.total_bytes - self.bytes_done) / rate) if rate else "unknown"
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
