"""Keeps orbax from telling a failure at length: it is raised to us, and the user reads it in one line.

Otherwise every array's task and every thread of a failed save prints a traceback, to the loggers of absl
and asyncio or, once its event loop is closed, to `sys.unraisablehook`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

from electramed_jax.common import console


def quiet_orbax() -> None:
    """From here on, for the whole process; with --verbose all of it is told."""
    logging.getLogger("absl").addFilter(_not_of_orbax)
    logging.getLogger("asyncio").addFilter(_not_left_behind)
    if not isinstance(sys.unraisablehook, _UnraisableHook):
        sys.unraisablehook = _UnraisableHook(sys.unraisablehook)


def _not_of_orbax(record: logging.LogRecord) -> bool:
    return "orbax" not in record.pathname or console.level() == console.VERBOSE


def _not_left_behind(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    return "exception was never retrieved" not in message and "was destroyed but it is pending" not in message


class _UnraisableHook:
    def __init__(self, otherwise: Callable[[Any], None]):
        self._otherwise = otherwise

    def __call__(self, unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            self._otherwise(unraisable)
