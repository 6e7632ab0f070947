"""Processes: starting together, knowing who writes, and stopping when told to."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils

from electramed_jax.common.errors import UserError


def initialize() -> None:
    """Joins the other processes where there are any; a lone process goes on alone.

    Plain processes say so by `JAX_COORDINATOR_ADDRESS=host:port`, `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`.
    On Cloud TPU pods, GKE and SLURM jax finds the others by itself.
    """
    if "JAX_COORDINATOR_ADDRESS" in os.environ:
        missing = [v for v in ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID") if v not in os.environ]
        if missing:
            raise UserError(
                f"JAX_COORDINATOR_ADDRESS is set but not {' and '.join(missing)}; set them for every process"
            )
        jax.distributed.initialize(
            os.environ["JAX_COORDINATOR_ADDRESS"],
            int(os.environ["JAX_NUM_PROCESSES"]),
            int(os.environ["JAX_PROCESS_ID"]),
        )
    elif "," in os.environ.get("TPU_WORKER_HOSTNAMES", "") or int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        jax.distributed.initialize()


def is_main() -> bool:
    """True in the one process that prints and writes logs."""
    return jax.process_index() == 0


class Preemption:
    """Turns SIGTERM ("this machine is going away") into a question the loop can ask."""

    def __init__(self) -> None:
        self._told = threading.Event()

    @contextlib.contextmanager
    def watched(self) -> Iterator[Preemption]:
        """Listens for SIGTERM in a lone process; with several, jax's own service listens and agrees on a step."""
        if jax.process_count() > 1:
            yield self
            return
        before = signal.signal(signal.SIGTERM, lambda number, frame: self._told.set())
        try:
            yield self
        finally:
            signal.signal(signal.SIGTERM, before)

    def reached(self, step: int) -> bool:
        """True, in every process at the same step, once any of them was told to stop."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._told.is_set()
