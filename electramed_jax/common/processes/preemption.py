"""Being told to stop, by SIGTERM ("this machine is going away"), and agreeing with the other processes on when."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils

from electramed_jax.common.console import warn
from electramed_jax.common.processes import distributed, signals


class Preemption:
    """Turns SIGTERM into a question the loop can ask. A second one changes nothing: the save goes on."""

    def __init__(self, grace_seconds: float):
        """`grace_seconds`: what the platform leaves between SIGTERM and the end; when it is over, that is said."""
        self._grace_seconds = grace_seconds
        self._told, self._over = threading.Event(), threading.Event()
        self._asked = 0

    @contextlib.contextmanager
    def listen(self) -> Iterator[Preemption]:
        """Listens for SIGTERM in a lone process; with several, jax's own service listens and agrees on a step."""
        watcher = threading.Thread(target=self._watch, daemon=True)
        watcher.start()
        alone = jax.process_count() == 1
        before = signal.signal(signal.SIGTERM, lambda number, frame: self._told.set()) if alone else None
        signals.unblock_sigterm()
        try:
            yield self
        finally:
            if alone:  # who was told is about to end; being told again is not to change its exit code
                signal.signal(signal.SIGTERM, signal.SIG_IGN if self._told.is_set() else before)
            self._over.set()
            self._told.set()
            watcher.join()

    def reached(self) -> bool:
        """True, in every process at the same call, once any of them was told to stop; true from then on.

        Every process has to ask equally often: with several, jax counts the calls, and names one that none has
        made yet. Steps would not do: those who have not asked yet count as 0, and a resumed run never asks for 1.
        """
        if jax.process_count() > 1 and not self._told.is_set():
            self._asked += 1
            if multihost_utils.reached_preemption_sync_point(self._asked):
                self._told.set()
        return self._told.is_set()

    def _watch(self) -> None:
        self._told.wait()
        if self._over.is_set() or not distributed.is_main():
            return
        warn("told to stop (SIGTERM): saving, then stopping")
        if not self._over.wait(self._grace_seconds):
            warn(
                f"the grace period of {self._grace_seconds:g} s is over before the save is: it goes on, but if this "
                "process is killed now, the next goes on from the checkpoint before; raise the platform's grace "
                "period, and config.preemption_grace_seconds with it"
            )
