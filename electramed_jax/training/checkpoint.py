"""Checkpoints: the train state and the clock in one orbax save.

    workdir/checkpoints/<step>/{state,clock}
    workdir/checkpoints/<step>.damaged    could not be read when a run went on; kept, and not looked at again

orbax writes asynchronously and makes a step visible only when it is whole; the newest whole one that can be read
wins. A state is read back to the bit or not at all: its fingerprint is saved with it. See workdir.py for the files
beside the checkpoints.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Callable
from typing import Any, Self

import jax
import orbax.checkpoint as ocp
from etils import epath
from jax.sharding import Mesh

from electramed_jax.common.errors import UserError, first_line
from electramed_jax.common.processes import distributed
from electramed_jax.common.processes.main_console import log_main, warn_main
from electramed_jax.common.storage import files
from electramed_jax.training import fingerprint, orbax_logging
from electramed_jax.training.starts import CHECKPOINTS
from electramed_jax.training.state import TrainState

RunCounters = dict[str, Any]  # what a run counts, ready for JSON

ITEMS = ("state", "clock")

# A save that fails is tried again after so long, then twice as long, ...
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 2.0, 300.0
SAVE_SECONDS = 600  # after which a save has failed, also where it waits for a process that could not write its share
MAX_FAILURE_SECONDS = 1800.0  # for which storage may fail before a run stops
# Storage that fails in these ways will not mend itself.
PERMANENT_ERRORS = (
    "No space left",
    "Disk quota exceeded",
    "Read-only file system",
    "ermission denied",
    "PERMISSION_DENIED",
)
# Reading that fails in these ways says nothing about the checkpoint.
TRANSIENT_ERRORS = (
    "UNAVAILABLE",
    "DEADLINE_EXCEEDED",
    "RESOURCE_EXHAUSTED",
    "ABORTED",
    "Connection",
    "imed out",
    "Stale file",
)
READ_WAITS_SECONDS = (1.0, 5.0, 15.0, None)  # before the next try; None: no more


AbstractState = Callable[[Mesh], TrainState]  # shapes, dtypes and shardings of what the checkpoints hold, on a mesh


class CheckpointManager:
    """The checkpoints of one folder, open for writing. A context manager: leaving it waits for the last save."""

    def __init__(self, workdir: str, abstract_state: AbstractState, *, max_to_keep: int, keep_period: int = 0):
        """Opens workdir/checkpoints, and removes there what interrupted saves have left.

        Args:
          max_to_keep: how many of the newest stay.
          keep_period: steps; those of its multiples stay for good; 0: none.
        """
        orbax_logging.quiet_orbax()
        self._abstract_state, self._workdir = abstract_state, workdir
        self._manager = _writer(workdir, max_to_keep, keep_period)
        self._pending: int | None = None  # the step that is being written
        self._failing_since: float | None = None
        self._wait_seconds, self._next_try = FIRST_WAIT_SECONDS, 0.0

    def restore(self, mesh: Mesh) -> tuple[TrainState, RunCounters] | None:
        """The newest state that can be read, placed on this mesh whatever mesh wrote it, and the clock saved with it.

        Newer ones that cannot be read are said, and renamed out of the way. None where there is no checkpoint.

        Raises:
          UserError: none of those there are can be read; nothing was renamed.
        """
        with _reader(self._workdir) as reader:
            found, damaged = _newest_readable(reader, self._abstract_state(mesh), mesh, self._workdir)
        if damaged:
            if distributed.is_main():
                for step in damaged:
                    warn_main(f"{self._path(step)}: moved to {_move_aside(self._path(step))}")
            distributed.barrier("damaged checkpoints are out of the way")
            self._manager.reload()
        return found

    def save(self, step: int, state: TrainState, clock: RunCounters, *, last: bool = False) -> None:
        """Starts saving, once the save before has ended; a step saved already stays as it is.

        Args:
          last: return when the state is on disk, and try again until it is. Otherwise `retry_due` tells.

        Raises:
          UserError: a number in the state is not finite, or storage has failed for good, here or the last time.
        """
        words, finite = fingerprint.state_checksum(state, state.step.sharding.mesh)
        if not finite:
            raise UserError(
                f"a parameter or a moment of the optimizer is not finite after step {step}; stopped, the last "
                "checkpoint is from before it; lower config.optimizer.learning_rate or lengthen its warmup_steps, then "
                "run the same command again"
            )
        clock = clock | {"fingerprint": words}
        self._settle()
        self._start(step, state, clock)
        while last and not self._settle():
            time.sleep(max(0.0, self._next_try - time.monotonic()))
            self._start(step, state, clock)

    def retry_due(self) -> bool:
        """True, in every process alike, where the last save failed and it is time for another."""
        if self._pending is not None:
            if any(distributed.allgather(int(self._manager.is_saving_in_progress()))):
                return False
            self._settle()
        if self._failing_since is None:
            return False
        return bool(distributed.broadcast_from_main(int(time.monotonic() >= self._next_try)))

    def _start(self, step: int, state: TrainState, clock: RunCounters) -> None:
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), clock=ocp.args.JsonSave(clock))
        try:
            self._manager.save(step, args=args)
        except Exception as error:
            if jax.process_count() > 1:  # the others may be inside, waiting for this one
                _raise_unless_storage(error)
                raise self._given_up(error) from error
            self._failed(step, error)
        else:
            self._pending = step

    def _settle(self) -> bool:
        """Waits for the save that was started, if any; whether, in every process, the last one went well."""
        if self._pending is None:
            return self._failing_since is None
        step, self._pending = self._pending, None
        error = None
        try:
            self._manager.wait_until_finished()
        except Exception as raised:
            error = raised
            distributed.say_on_worker(f"step {step}: {_reason(error)}")
        failed = distributed.allgather(int(error is not None))
        if any(failed):
            self._failed(step, error or OSError(f"by process {failed.index(1)}, which says why"))
            return False
        if self._failing_since is not None:
            log_main(f"storage works again: saved step {step:,}")
            if distributed.is_main():
                _remove_remains(_folder(self._workdir))
        self._failing_since, self._wait_seconds = None, FIRST_WAIT_SECONDS
        return True

    def _failed(self, step: int, error: Exception) -> None:
        """Takes note, in every process alike; raises where there is no hope."""
        _raise_unless_storage(error)
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
        lasting = (
            any(sign in str(error) for sign in PERMANENT_ERRORS) or now - self._failing_since > MAX_FAILURE_SECONDS
        )
        if any(distributed.allgather(int(lasting))):
            raise self._given_up(error) from error
        warn_main(
            f"step {step:,} could not be saved ({_reason(error)}); the checkpoint before it is whole; trying again "
            f"within {self._wait_seconds:g} s"
        )
        self._next_try = now + self._wait_seconds
        self._wait_seconds = min(2 * self._wait_seconds, LONGEST_WAIT_SECONDS)
        with contextlib.suppress(OSError):
            self._manager.reload()  # it has forgotten the steps that it was going to remove

    def _given_up(self, error: Exception) -> UserError:
        full = "No space left on device"
        return UserError(
            f"{self._workdir}: the checkpoint could not be written "
            f"({full if full in str(error) else _reason(error)}); the one before it is whole; "
            "free space or mend the storage, then run the same command again"
        )

    def _path(self, step: int) -> str:
        return files.join(_folder(self._workdir), str(step))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if error is None:
            if not self._settle():
                raise self._given_up(OSError("see above"))
            self._manager.close()
            return
        if jax.process_count() > 1 and distributed.is_peer_failure(error):
            return  # a save that is under way would wait for a process that is gone
        closing = threading.Thread(target=self._close_quietly, daemon=True)
        closing.start()
        closing.join(distributed.HEARTBEAT_SECONDS if jax.process_count() > 1 else None)

    def _close_quietly(self) -> None:
        with contextlib.suppress(Exception):  # what is under way tells the user more
            self._manager.close()


def load_state(workdir: str, abstract_state: AbstractState, mesh: Mesh, step: int | None = None) -> TrainState:
    """The state that workdir/checkpoints holds at `step` (None: the newest readable one), for evaluation and export.

    Raises:
      UserError: no checkpoint, or none of that step (the message lists those there are), or damaged.
    """
    orbax_logging.quiet_orbax()
    with _reader(workdir) as reader:
        steps = sorted(reader.all_steps())
        if not steps:
            raise UserError(f"{workdir}: no complete checkpoint yet; wait for the first save")
        if step is None:
            return _newest_readable(reader, abstract_state(mesh), mesh, workdir)[0][0]
        if step not in steps:
            raise UserError(f"{workdir}: no checkpoint of step {step}; there are {', '.join(map(str, steps))}")
        try:
            return _read(reader, abstract_state(mesh), mesh, step)[0]
        except CorruptCheckpointError as error:
            others = [str(other) for other in steps if other != step]
            raise UserError(
                f"{files.join(workdir, CHECKPOINTS, str(step))}: cannot be read ({error}); "
                f"there are also {', '.join(others) or 'no others'}"
            ) from error


class _Manager(ocp.CheckpointManager):
    """orbax's, but not asking whether to stop.

    It asks with the number of the step it saves, and from a thread, when others are already further. jax compares
    with the last number it was asked with: see `preemption.Preemption.reached`.
    """

    def reached_preemption(self, step: int) -> bool:
        return False


def _writer(workdir: str, max_to_keep: int, keep_period: int) -> ocp.CheckpointManager:
    """Removes what interrupted saves have left."""
    policies = ocp.checkpoint_managers
    kept = [policies.LatestN(max_to_keep)]
    if keep_period:
        kept.append(policies.EveryNSteps(keep_period))
    options = ocp.CheckpointManagerOptions(
        create=True,
        cleanup_tmp_directories=True,
        preservation_policy=policies.AnyPreservationPolicy(kept),
        single_host_load_and_broadcast=True,
        async_options=ocp.AsyncOptions(timeout_secs=SAVE_SECONDS),
    )
    return _Manager(_folder(workdir), options=options, item_names=ITEMS)


def _reader(workdir: str) -> ocp.CheckpointManager:
    """Creates and removes nothing, and reads without waiting for the other processes, of which some may fail."""
    here = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=here, active_processes={here}, barrier_sync_key_prefix=f"process-{here}"
    )
    options = ocp.CheckpointManagerOptions(create=False, multiprocessing_options=alone)
    return _Manager(_folder(workdir), options=options, item_names=ITEMS)


def _folder(workdir: str) -> str:
    local = files.local_path(workdir)
    if local is not None:
        return files.join(os.path.abspath(local), CHECKPOINTS)
    os.environ.setdefault("EPATH_USE_TF", "0")  # orbax's paths go through fsspec, as ours do, not through TensorFlow
    return files.join(workdir, CHECKPOINTS)


class CorruptCheckpointError(Exception):
    """Says why in one line."""


def _newest_readable(
    reader: ocp.CheckpointManager, abstract_state: TrainState, mesh: Mesh, workdir: str
) -> tuple[tuple[TrainState, RunCounters] | None, list[int]]:
    """The newest that every process could read, and the newer steps that one could not; says those."""
    steps, damaged, reason = reader.all_steps(), [], ""
    while True:
        older = [step for step in steps if not damaged or step < damaged[-1]]
        step = distributed.broadcast_from_main(max(older, default=-1))
        if step < 0:
            break
        try:
            return _read(reader, abstract_state, mesh, step), damaged
        except CorruptCheckpointError as error:
            reason = str(error)
            damaged.append(step)
            warn_main(
                f"{files.join(workdir, CHECKPOINTS, str(step))}: cannot be read ({reason}); trying the one before it"
            )
    if damaged:
        raise UserError(
            f"{files.join(workdir, CHECKPOINTS)}: none of {', '.join(map(str, damaged))} can be read (the last: "
            f"{reason}); nothing was changed; bring one back from a copy, or start anew with another --workdir"
        )
    return None, []


def _read(
    reader: ocp.CheckpointManager, abstract_state: TrainState, mesh: Mesh, step: int
) -> tuple[TrainState, RunCounters]:
    """Raises _Unreadable, in every process alike, where one of them cannot read its part, or bits have changed."""
    restored, reason = None, ""
    try:
        restored = _read_here(reader, abstract_state, step)
    except CorruptCheckpointError as error:
        reason = str(error)
        distributed.say_on_worker(f"step {step}: {reason}")
    failed = distributed.allgather(int(bool(reason)))
    if any(failed):
        raise CorruptCheckpointError(reason or f"by process {failed.index(1)}, which says why")
    state, clock = restored["state"], restored["clock"]
    saved = clock.pop("fingerprint", None)  # earlier versions saved none
    if (saved is not None and saved != fingerprint.state_checksum(state, mesh)[0]) or clock.get("step", step) != step:
        raise CorruptCheckpointError("its numbers are not those that were saved")
    return state, clock


def _read_here(reader: ocp.CheckpointManager, abstract_state: TrainState, step: int) -> ocp.args.Composite:
    """This process's part; storage that does not answer is asked again. Raises _Unreadable."""
    args = ocp.args.Composite(
        state=ocp.args.StandardRestore(abstract_state),
        clock=ocp.args.JsonRestore(),
    )
    for wait in READ_WAITS_SECONDS:
        try:
            return reader.restore(step, args=args)
        except Exception as error:  # orbax raises bare ones, too
            _raise_unless_storage(error)
            reason = _reason(_root(error))
            if wait is None or not any(sign in reason for sign in TRANSIENT_ERRORS):
                raise CorruptCheckpointError(reason) from error
            time.sleep(wait)
    raise AssertionError("the last wait is None")


def _move_aside(path: str) -> str:
    """Renames a checkpoint to a free name that is no step's."""
    tries = (f"{path}.damaged{suffix}" for suffix in ("", *(f"-{n}" for n in range(2, 1000))))
    try:
        target = next(name for name in tries if not epath.Path(name).exists())
        epath.Path(path).rename(target)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read, and not be renamed either ({error.strerror}); move it away, then run the same "
            "command again"
        ) from error
    return target


def _remove_remains(folder: str) -> None:
    """Of saves that failed, while none is under way; what cannot be removed now, the next start removes."""
    with contextlib.suppress(OSError):
        for remains in epath.Path(folder).glob("*.orbax-checkpoint-tmp*"):
            remains.rmtree()


def _raise_unless_storage(error: Exception) -> None:
    """Raises what is no failure of storage: jax's errors, and our own mistakes."""
    ours = (UserError, jax.errors.JaxRuntimeError, TypeError, AssertionError, AttributeError)
    if isinstance(error, ours) or (jax.process_count() > 1 and distributed.is_peer_failure(error)):
        raise error


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _reason(error: BaseException) -> str:
    """What the operating system said, where tensorstore quotes it after a long tale; else the first line."""
    system_message = re.search(r"([^:]+) \[os_error_code", str(error))
    return system_message.group(1).strip()[:200] if system_message else first_line(error)
