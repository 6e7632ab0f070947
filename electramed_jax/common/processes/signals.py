"""Handling of SIGTERM and SIGINT before and during a command.

SIGTERM is blocked until a run installs its handler. The first Ctrl-C raises KeyboardInterrupt, the second one ends the
process at once. This module is imported at start-up and imports nothing slow.
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
TERMINAL_FLUSH_SECONDS = 0.1  # a terminal discards what is written right after it sends the signal


@contextlib.contextmanager
def block_sigterm() -> Iterator[None]:
    """Keeps SIGTERM pending instead of ending the process, during the block or until `unblock_sigterm`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def unblock_sigterm() -> None:
    """Delivers a pending SIGTERM, and every later one."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def handle_sigint() -> None:
    """Installs the handlers of the first and the second Ctrl-C.

    Does nothing if SIGINT is ignored, as under nohup or in the background of a shell.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _on_first_sigint)


def exit_now() -> NoReturn:
    """Ends the process without the finalization of the interpreter, which crashes while XLA compiles.

    The effect on files is that of a kill: none appears half-written under its final name. The cursor of the terminal is
    shown again.
    """
    with contextlib.suppress(Exception):  # standard output may be closed, or in use by another thread
        sys.stdout.flush()
    if os.isatty(2):
        os.write(2, SHOW_CURSOR.encode())
    os._exit(EXIT_INTERRUPTED)


def _on_first_sigint(_number: int, _frame: FrameType | None) -> NoReturn:
    signal.signal(signal.SIGINT, _on_second_sigint)
    time.sleep(TERMINAL_FLUSH_SECONDS)
    raise KeyboardInterrupt


def _on_second_sigint(_number: int, _frame: FrameType | None) -> NoReturn:
    time.sleep(TERMINAL_FLUSH_SECONDS)
    os.write(2, b"\ninterrupted again: exiting at once\n")
    exit_now()
