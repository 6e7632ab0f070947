"""SIGTERM and SIGINT before and during a command.

SIGTERM is blocked until a run installs its handler. The first Ctrl-C ends a command in order, a second one at once.
This module is imported at start-up and imports nothing slow.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

from electramed_jax.common.errors import EXIT_INTERRUPTED

SHOW_CURSOR = "\033[?25h"
TERMINAL_SECONDS = 0.1  # a terminal sends the signal first, and then drops what has been written since


@contextlib.contextmanager
def block_sigterm() -> Iterator[None]:
    """For the length of the block, or until `unblock_sigterm`, SIGTERM waits instead of ending the process."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def unblock_sigterm() -> None:
    """One that waits arrives now."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def handle_sigint() -> None:
    """From here on, in a process of its own; where Ctrl-C is ignored (nohup, a shell's background) it stays so."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _first)


def exit_now() -> NoReturn:
    """Ends the process without the interpreter's farewell, which crashes where XLA was compiling.

    As after a kill, nothing half-written is taken for whole; and the terminal gets its cursor back.
    """
    with contextlib.suppress(Exception):  # standard output may be gone, or be written to just now
        sys.stdout.flush()
    if os.isatty(2):
        os.write(2, SHOW_CURSOR.encode())
    os._exit(EXIT_INTERRUPTED)


def _first(number: int, frame: FrameType | None) -> NoReturn:
    signal.signal(signal.SIGINT, _second)
    time.sleep(TERMINAL_SECONDS)
    raise KeyboardInterrupt


def _second(number: int, frame: FrameType | None) -> NoReturn:
    time.sleep(TERMINAL_SECONDS)
    os.write(2, b"\ninterrupted again: ended at once\n")
    exit_now()
