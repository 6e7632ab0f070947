"""Start, agreement and shutdown of the processes of a run, on top of `jax.distributed`."""

from __future__ import annotations

import atexit
import contextlib
import errno
import functools
import os
import random
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import jax
import numpy as np
from jax._src import distributed as jax_distributed  # the client and its callback are not public
from jax.experimental import multihost_utils

from electramed_jax.common.console import say, warn
from electramed_jax.common.errors import EXIT_INTERRUPTED, PeerLostError, UserError, first_line
from electramed_jax.common.processes import signals
from electramed_jax.common.processes.memory import keep_freed_memory
from electramed_jax.common.processes.watchdog import RESTART, Watchdog, set_terminate_handler
from electramed_jax.common.storage import files

# jax's own limit is a fallback: the watchdog reacts within a minute and names the process, jax ends all with a trace.
HEARTBEAT_SECONDS = 100
END_SECONDS = 24 * 3600  # timeout of the first process that has finished and waits for the last
START_SECONDS = 300  # timeout of the first process that waits for the last; jax's default
WAITING_SECONDS = 20  # delay at the start after which a process logs that it waits for the others

MAX_TEXT_BYTES = 256  # of a text that processes exchange

COORDINATOR_ADDRESS, NUM_PROCESSES, PROCESS_ID = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"

# In the errors that collectives (ValueError, too) and jax's coordination service raise after a peer has ended.
PEER_FAILURE_PATTERNS = re.compile("gloo|nccl|coordination|heartbeat|barrier", re.IGNORECASE)
PEER_STATUS = re.compile("UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|CANCELLED")


@contextlib.contextmanager
def distributed_context() -> Iterator[None]:
    """Joins the other processes of the run, if there are any, for the duration of the block.

    A process that fails exits without jax's shutdown barrier, in which all processes wait for each other. The watchdog
    ends the others within a minute, with one line and `EXIT_PREEMPTED`; see `watchdog`.

    Raises:
      PeerLostError: a collective failed because another process ended or its machine died.
      UserError: the other processes cannot be found; or a UserError of the block, prefixed with the process number.
    """
    keep_freed_memory()  # every training run passes here, before jax starts its threads
    initialize()
    count = jax.process_count() if jax.distributed.is_initialized() else 1
    if count == 1:
        yield
        return
    global _watchdog  # noqa: PLW0603 one per process
    address = jax_distributed.global_state.coordinator_address or ""
    _watchdog = Watchdog(coordination_client(), jax.process_index(), count, address)
    set_terminate_handler(_watchdog.on_connection_lost)
    _watchdog.start()
    try:
        yield
        coordination_client().wait_at_barrier("electramed/end", END_SECONDS * 1000)
        _watchdog.stop()
        jax.distributed.shutdown()
    except BaseException as error:  # noqa: BLE001 _fail raises it again
        _fail(error, count)


_watchdog = Watchdog()


def get_watchdog() -> Watchdog:
    """Returns the watchdog of this process."""
    return _watchdog


def coordination_client() -> Any:
    """Returns the client of jax's coordination service, which needs no device and no equal programs."""
    return jax_distributed.global_state.client


def initialize() -> None:
    """Calls `jax.distributed.initialize` if there are other processes; a single process continues alone.

    Plain processes are described by the environment variables `JAX_COORDINATOR_ADDRESS=host:port`, `JAX_NUM_PROCESSES`
    and `JAX_PROCESS_ID`. On Cloud TPU VMs, GKE, SLURM and under Open MPI, jax detects the others. `JAX_NUM_PROCESSES=1`
    runs a process alone in any environment.

    Raises:
      UserError: a variable is missing or not a number, jax cannot interpret the environment, or the port is in use.
    """
    address, count, number = os.environ.get(COORDINATOR_ADDRESS), _read_number(NUM_PROCESSES), _read_number(PROCESS_ID)
    if count == 1 or jax.distributed.is_initialized():
        return
    if None in (address, count, number):
        address, count, number = _detect_cluster(address, count, number)
    if address is None and count is None:
        return
    variables = {COORDINATOR_ADDRESS: address, NUM_PROCESSES: count, PROCESS_ID: number}
    if missing := [name for name, value in variables.items() if value is None]:
        present = " and ".join(name for name in variables if name not in missing)
        raise UserError(f"{present} is set but not {' and '.join(missing)}; set them for every process")
    assert address is not None and count is not None and number is not None
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
        [f"process {number} of {count}: waiting for the other processes at {address}, at most {START_SECONDS} s"],
    )
    waiting.daemon = True
    waiting.start()
    with _connection_callback(lambda *_: _watchdog.on_connection_lost()):
        jax.distributed.initialize(
            address,
            count,
            number,
            initialization_timeout=START_SECONDS,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    waiting.cancel()
    signals.unblock_sigterm()  # jax's preemption service handles it from here on


@contextlib.contextmanager
def _connection_callback(callback: Callable[..., Any]) -> Iterator[None]:
    """Gives the client that jax creates in the block a callback in place of jax's own, which ends the process."""
    library = jax_distributed._jax
    create = library.get_distributed_runtime_client
    library.get_distributed_runtime_client = functools.partial(create, missed_heartbeat_callback=callback)
    try:
        yield
    finally:
        library.get_distributed_runtime_client = create


def is_main() -> bool:
    """Returns True in process 0, the one that prints and writes logs."""
    return jax.process_index() == 0


def is_peer_failure(error: BaseException) -> bool:
    """Returns whether an error was caused by the end of another process."""
    if isinstance(error, PeerLostError):
        return True
    if isinstance(error, UserError) or not isinstance(error, (RuntimeError, ValueError)):
        return False
    has_peer_status = isinstance(error, jax.errors.JaxRuntimeError) and PEER_STATUS.match(str(error))
    return bool(has_peer_status or PEER_FAILURE_PATTERNS.search(str(error)))


def say_on_worker(line: str) -> None:
    """Prints a line with the process number, except in the main process, which prints its own messages."""
    if not is_main():
        warn(f"[process {jax.process_index()} of {jax.process_count()}] {line}")


def barrier(name: str) -> None:
    """Blocks until every process has reached the barrier of this name."""
    multihost_utils.sync_global_devices(name)


def broadcast_from_main(value: int) -> int:
    """Returns the main process's value (int32) in every process."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def allgather(value: int) -> list[int]:
    """Returns the values (int32) of all processes, in the order of the process numbers."""
    if jax.process_count() == 1:
        return [value]
    return multihost_utils.process_allgather(np.int32(value)).reshape(-1).tolist()


def call_together(function: Callable[[], None], what: str) -> None:
    """Calls a function in every process, and raises in every process if it raises a UserError in one. A collective.

    Args:
      function: raises a UserError if something is wrong in this process.
      what: what the function does, for the message of the processes in which it succeeded.
    """
    error: UserError | None = None
    try:
        function()
    except UserError as raised:
        error = raised
    failed = allgather(int(error is not None))
    if error is not None:
        raise error
    if any(failed):
        raise UserError(f"{what} failed in process {failed.index(1)}; its log has the reason")


def allgather_text(value: str) -> list[str]:
    """Returns the texts of all processes, in the order of the process numbers; each is cut after MAX_TEXT_BYTES."""
    if jax.process_count() == 1:
        return [value]
    buffer = np.zeros(MAX_TEXT_BYTES, np.uint8)
    data = np.frombuffer(value.encode()[:MAX_TEXT_BYTES], np.uint8)
    buffer[: len(data)] = data
    gathered = multihost_utils.process_allgather(buffer).reshape(-1, MAX_TEXT_BYTES)
    return [bytes(row).rstrip(b"\0").decode(errors="ignore") for row in gathered]


def check_shared(folder: str) -> None:
    """Raises a UserError in every process unless all processes see the folder of the main process.

    Otherwise each host would store its own part of a checkpoint on its own disk.
    """
    if jax.process_count() == 1:
        return
    path = files.join(folder, f".seen-by-all-{broadcast_from_main(random.getrandbits(31))}")
    if is_main():
        files.write_text(path, "")
    barrier("the file is written")
    visible = allgather(int(files.exists(path)))
    if is_main():
        files.remove(path)
    if not all(visible):
        raise UserError(
            f"{folder}: process {visible.index(0)} does not see the file that process 0 wrote there; wanted a folder "
            "that all hosts share; use gs://... or a network file system"
        )


def _read_number(name: str) -> int | None:
    value = os.environ.get(name, "")
    if value and not value.isdecimal():
        raise UserError(f"{name}={value!r} is not a number; set it for every process")
    return int(value) if value else None


def _detect_cluster(
    address: str | None, count: int | None, number: int | None
) -> tuple[str | None, int | None, int | None]:
    """Fills in missing values from jax's cluster detection; a value that it does not find stays None.

    `jax.distributed.initialize` runs the same detection, but cannot report that there are no other processes.
    """
    from jax._src import clusters

    detect = clusters.ClusterEnv.auto_detect_unset_distributed_params
    try:
        return detect(address, count, number, None, None, START_SECONDS)[:3]
    except Exception as error:  # from requests, the kubernetes client, or parsing of the environment
        raise UserError(
            f"the other processes cannot be found ({type(error).__name__}: {first_line(error)}); fix the cause, set "
            f"{COORDINATOR_ADDRESS}, {NUM_PROCESSES} and {PROCESS_ID}, or set {NUM_PROCESSES}=1 to run this process "
            "alone"
        ) from error


def _check_port(address: str) -> None:
    """Raises a UserError if the coordinator's port is in use; jax's coordinator would abort the process."""
    port = address.rpartition(":")[2]
    if not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UserError(f"{COORDINATOR_ADDRESS}={address!r} is not an address; wanted host:port")
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    try:
        socket.create_server(("", int(port)), family=family, dualstack_ipv6=dual).close()
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            return
        raise UserError(
            f"{address}: the port is in use, perhaps by an earlier run that has not ended; end it or choose another"
        ) from error


def _fail(error: BaseException, count: int) -> NoReturn:
    """Raises the error that `distributed_context` documents, and skips jax's shutdown barrier at exit."""
    number = jax.process_index()
    reported: BaseException
    lost = ""
    if is_peer_failure(error):
        lost = _watchdog.find_lost()
        reported = PeerLostError(f"[process {number} of {count}] {lost} ({first_line(error)}); {RESTART}")
    elif isinstance(error, UserError) and number:
        reported = type(error)(f"[process {number} of {count}] {error}")
    else:
        reported = error
    code = reported.exit_code if isinstance(reported, UserError) else 1
    if isinstance(error, KeyboardInterrupt):
        code = EXIT_INTERRUPTED
    _watchdog.end(lost or first_line(error))
    atexit.register(_exit, code)  # runs before jax's shutdown, which was registered earlier
    if reported is error:
        raise error
    raise reported from error


def _exit(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
