"""Filters for the logs of orbax; this package reports its failures to the user in one line.

Without them each array's task and each thread of a failed save prints a traceback to the loggers of absl and asyncio
or, after its event loop is closed, to `sys.unraisablehook`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

from electramed_jax.common import console


def quiet_orbax() -> None:
    """Installs the filters for the whole process. With --verbose orbax's own records are logged."""
    logging.getLogger("absl").addFilter(_keep_unless_orbax)
    logging.getLogger("asyncio").addFilter(_keep_unless_abandoned_task)
    if not isinstance(sys.unraisablehook, _UnraisableHook):
        sys.unraisablehook = _UnraisableHook(sys.unraisablehook)


def _keep_unless_orbax(record: logging.LogRecord) -> bool:
    return "orbax" not in record.pathname or console.level() == console.VERBOSE


def _keep_unless_abandoned_task(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    return "exception was never retrieved" not in message and "was destroyed but it is pending" not in message


class _UnraisableHook:
    def __init__(self, previous_hook: Callable[[Any], None]):
        self._previous_hook = previous_hook

    def __call__(self, unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            self._previous_hook(unraisable)
