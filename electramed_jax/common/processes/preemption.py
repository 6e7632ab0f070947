"""Preemption: detects SIGTERM, and agrees with the other processes on the step after which the run stops."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils

from electramed_jax.common.console import warn
from electramed_jax.common.processes import distributed, signals


class Preemption:
    """Converts SIGTERM to a flag that the training loop polls. A second SIGTERM does not interrupt the save."""

    def __init__(self, grace_seconds: float):
        """`grace_seconds`: time that the platform leaves between SIGTERM and SIGKILL; its end is logged."""
        self._grace_seconds = grace_seconds
        self._received, self._finished = threading.Event(), threading.Event()
        self._polls = 0

    @contextlib.contextmanager
    def listen(self) -> Iterator[Preemption]:
        """Listens for SIGTERM during the block.

        A single process installs a handler. With several processes, jax's preemption service has its own handler and
        agrees on a step.
        """
        watcher = threading.Thread(target=self._watch, daemon=True)
        watcher.start()
        single = jax.process_count() == 1
        before = signal.signal(signal.SIGTERM, lambda _number, _frame: self._received.set()) if single else None
        signals.unblock_sigterm()
        try:
            with self._note_signals() if single else contextlib.nullcontext():
                yield self
        finally:
            if single:  # after a SIGTERM the process is about to exit: another one must not change its exit code
                signal.signal(signal.SIGTERM, signal.SIG_IGN if self._received.is_set() else before)
            self._finished.set()
            self._received.set()
            watcher.join()

    def reached(self) -> bool:
        """Returns True in every process at the same call, once any of them has received SIGTERM, and from then on.

        Every process must call this equally often. With several processes, jax counts the calls and picks a number that
        no process has reached yet. The step cannot be that number: processes that have not called yet count as 0, and a
        resumed run never passes 1.
        """
        if jax.process_count() > 1 and not self._received.is_set():
            self._polls += 1
            if multihost_utils.reached_preemption_sync_point(self._polls):
                self._received.set()
        return self._received.is_set()

    @contextlib.contextmanager
    def _note_signals(self) -> Iterator[None]:
        """Notifies the watchdog of SIGTERM during the block, even while the main thread waits and runs no handler."""
        reader, writer = socket.socketpair()
        writer.setblocking(False)

        def read() -> None:
            while numbers := reader.recv(16):
                if signal.SIGTERM in numbers:
                    distributed.get_watchdog().note_sigterm()
                    self._received.set()

        before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        with reader, writer:
            thread = threading.Thread(target=read, daemon=True)
            thread.start()
            try:
                yield
            finally:
                signal.set_wakeup_fd(before)
                writer.shutdown(socket.SHUT_WR)
                thread.join()

    def _watch(self) -> None:
        self._received.wait()
        if self._finished.is_set() or not distributed.is_main():
            return
        warn("received SIGTERM: saving a checkpoint, then stopping")
        if not self._finished.wait(self._grace_seconds):
            warn(
                f"the grace period of {self._grace_seconds:g} s ended before the checkpoint was saved; the save "
                "continues, but if this process is killed now, the run resumes from the previous checkpoint; raise the "
                "grace period of the platform, and config.preemption_grace_seconds with it"
            )
