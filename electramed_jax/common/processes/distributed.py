"""Processes: starting together, knowing who writes, agreeing, and ending together."""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import random
import re
import socket
import sys
import threading
from collections.abc import Iterator
from typing import NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from electramed_jax.common.console import say, warn
from electramed_jax.common.errors import EXIT_INTERRUPTED, PeerLostError, UserError, first_line
from electramed_jax.common.processes import signals
from electramed_jax.common.storage import files

HEARTBEAT_SECONDS = 40  # of silence, and a process is dead; jax's own 100 are more than the minute we promise
START_SECONDS = 300  # for which the first process waits for the last; jax's own
WAITING_SECONDS = 20  # of silence at the start, after which a process says whom it waits for

COORDINATOR_ADDRESS, NUM_PROCESSES, PROCESS_ID = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"

# In errors of collectives (raised as ValueError, too) and of jax's coordination service, when the other end is gone.
PEER_FAILURE_PATTERNS = re.compile("gloo|nccl|coordination|heartbeat|barrier", re.IGNORECASE)
PEER_STATUS = re.compile("UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|CANCELLED")


@contextlib.contextmanager
def distributed_context() -> Iterator[None]:
    """Together with the other processes of the run, where there are any, for the length of the block.

    A process that fails ends at once, without jax's farewell, in which all wait for all: the others then
    notice within a minute, and end too.

    Raises:
      PeerLost: another process ended or its machine died, noticed by a collective that failed. Where it is noticed
        by missing heartbeats alone, jax itself ends this process, with the line "Terminating process because the JAX
        distributed service detected fatal errors. This most likely indicates that another task died".
      UserError: the others cannot be found; or any of the block, now saying whose it is.
    """
    initialize()
    count = jax.process_count() if jax.distributed.is_initialized() else 1
    if count == 1:
        yield
        return
    try:
        yield
        jax.distributed.shutdown()
    except BaseException as error:
        _fail(error, count)


def initialize() -> None:
    """Joins the other processes where there are any; a lone process goes on alone.

    Plain processes say so by `JAX_COORDINATOR_ADDRESS=host:port`, `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`.
    On Cloud TPU VMs, GKE, SLURM and under Open MPI, jax finds the others by itself. `JAX_NUM_PROCESSES=1` keeps
    a process alone wherever it runs.

    Raises:
      UserError: settings that are missing or not numbers, an environment that jax cannot make sense of, a port in use.
    """
    address, count, number = os.environ.get(COORDINATOR_ADDRESS), _number(NUM_PROCESSES), _number(PROCESS_ID)
    if count == 1 or jax.distributed.is_initialized():
        return
    if None in (address, count, number):
        address, count, number = _detected(address, count, number)
    if address is None and count is None:
        return
    known = {COORDINATOR_ADDRESS: address, NUM_PROCESSES: count, PROCESS_ID: number}
    if missing := [name for name, value in known.items() if value is None]:
        set_ones = " and ".join(name for name in known if name not in missing)
        raise UserError(f"{set_ones} is set but not {' and '.join(missing)}; set them for every process")
    if count == 1:
        return
    if not 0 <= number < count:
        raise UserError(
            f"{PROCESS_ID}={number} is out of range; wanted 0 to {count - 1}, one for each of {NUM_PROCESSES}={count}"
        )
    if number == 0:
        _check_port(address)
    waiting = threading.Timer(
        WAITING_SECONDS,
        say,
        [f"process {number} of {count}: waiting for the others at {address}, for {START_SECONDS} s at most"],
    )
    waiting.daemon = True
    waiting.start()
    jax.distributed.initialize(
        address,
        count,
        number,
        initialization_timeout=START_SECONDS,
        heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
    )
    waiting.cancel()
    signals.unblock_sigterm()  # from here on jax's service listens


def is_main() -> bool:
    """True in the one process that prints and writes logs."""
    return jax.process_index() == 0


def is_peer_failure(error: BaseException) -> bool:
    """Whether the error comes of another process's end."""
    if isinstance(error, PeerLostError):
        return True
    if isinstance(error, UserError) or not isinstance(error, (RuntimeError, ValueError)):
        return False
    of_jax = isinstance(error, jax.errors.JaxRuntimeError) and PEER_STATUS.match(str(error))
    return bool(of_jax or PEER_FAILURE_PATTERNS.search(str(error)))


def say_on_worker(line: str) -> None:
    """Says what is this process's alone to tell; the main one tells everything in its own way."""
    if not is_main():
        warn(f"[process {jax.process_index()} of {jax.process_count()}] {line}")


def barrier(name: str) -> None:
    """Returns once every process is here."""
    multihost_utils.sync_global_devices(name)


def broadcast_from_main(value: int) -> int:
    """The main process's value, in every process: what only it can know, or has to decide. 32 bits, signed."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def allgather(value: int) -> list[int]:
    """Every process's value, in the order of the processes. 32 bits, signed."""
    if jax.process_count() == 1:
        return [value]
    return multihost_utils.process_allgather(np.int32(value)).reshape(-1).tolist()


def check_shared(folder: str) -> None:
    """Raises UserError, in every process, unless all of them see the folder that the main process sees.

    Each would otherwise keep its share of a checkpoint to itself.
    """
    if jax.process_count() == 1:
        return
    path = files.join(folder, f".seen-by-all-{broadcast_from_main(random.getrandbits(31))}")
    if is_main():
        files.write_text(path, "")
    barrier("the file is written")
    seen = allgather(int(files.exists(path)))
    if is_main():
        files.remove(path)
    if not all(seen):
        raise UserError(
            f"{folder}: process {seen.index(0)} does not see what process 0 wrote there; wanted a folder that "
            "all hosts share: give gs://... or a network file system"
        )


def _number(name: str) -> int | None:
    value = os.environ.get(name, "")
    if value and not value.isdecimal():
        raise UserError(f"{name}={value!r} is not a number; set it for every process")
    return int(value) if value else None


def _detected(address: str | None, count: int | None, number: int | None) -> tuple[str | None, int | None, int | None]:
    """What is not known yet, by jax's own detection of clusters; None stays where it finds none.

    `jax.distributed.initialize` asks the same, but has no way to say that there is nobody to wait for.
    """
    from jax._src import clusters

    detect = clusters.ClusterEnv.auto_detect_unset_distributed_params
    try:
        return detect(address, count, number, None, None, START_SECONDS)[:3]
    except Exception as error:  # of requests, the kubernetes client, and whatever the environment leads to
        raise UserError(
            f"the other processes cannot be found ({type(error).__name__}: {first_line(error)}); mend that, set "
            f"{COORDINATOR_ADDRESS}, {NUM_PROCESSES} and {PROCESS_ID}, or set {NUM_PROCESSES}=1 to run this process alone"
        ) from error


def _check_port(address: str) -> None:
    """jax's coordinator would not survive a port in use, and would say so in its own way."""
    port = address.rpartition(":")[2]
    if not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UserError(f"{COORDINATOR_ADDRESS}={address!r} is no address; wanted host:port")
    ipv6 = {"family": socket.AF_INET6, "dualstack_ipv6": True} if socket.has_dualstack_ipv6() else {}
    try:
        socket.create_server(("", int(port)), **ipv6).close()
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            return
        raise UserError(
            f"{address}: that port is in use, perhaps by an earlier run that is still going; end it or choose another"
        ) from error


def _fail(error: BaseException, count: int) -> NoReturn:
    """Raises what `distributed_context` promises, and sees to it that the process does not wait for anybody when it ends."""
    number = jax.process_index()
    if is_peer_failure(error):
        reported = PeerLostError(
            f"[process {number} of {count}] another process ended or its machine died ({first_line(error)}); its own "
            "last lines say why; whole checkpoints are safe: start all processes again"
        )
    elif isinstance(error, UserError) and number:
        reported = type(error)(f"[process {number} of {count}] {error}")
    else:
        reported = error
    code = reported.exit_code if isinstance(reported, UserError) else 1
    if isinstance(error, KeyboardInterrupt):
        code = EXIT_INTERRUPTED
    atexit.register(_leave, code)  # runs before jax's own farewell, which was registered earlier
    if reported is error:
        raise error
    raise reported from error


def _leave(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
