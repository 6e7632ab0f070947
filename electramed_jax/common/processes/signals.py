"""SIGTERM while nobody listens yet: kept until somebody does. Imports nothing that takes its time."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def held() -> Iterator[None]:
    """For the length of the block, or until `release`, SIGTERM waits instead of ending the process."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def release() -> None:
    """One that waits arrives now."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
