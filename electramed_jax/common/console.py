"""What a person reads while a command runs: lines and progress, on standard error.

Standard output is kept for results, so that `electramed ... --json | jq` works.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

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
