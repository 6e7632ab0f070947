"""Checkpoints: the train state and the run's counters in one orbax save.

    workdir/checkpoints/<step>/{state,clock}
    workdir/checkpoints/<step>.damaged    unreadable when a run resumed; kept, never read again

orbax writes asynchronously and makes a step visible only when it is complete. Restoring takes the newest complete
checkpoint that can be read. A state is restored bit for bit or not at all: its checksum is saved with it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import threading
import time
from collections.abc import Callable
from typing import Any, NotRequired, Self, TypedDict

import jax
import orbax.checkpoint as ocp
from etils import epath
from jax.sharding import Mesh, NamedSharding

from electramed_jax.common.errors import UserError, first_line
from electramed_jax.common.processes import distributed
from electramed_jax.common.processes.main_console import log_main, warn_main
from electramed_jax.common.storage import files, json_values
from electramed_jax.training import fingerprint, orbax_logging
from electramed_jax.training.starts import CHECKPOINTS
from electramed_jax.training.state import TrainState

RunCounters = dict[str, Any]  # counters of a run, serializable as JSON; to be resumed it has those of `ResumedCounters`
# Sums that every step has; `pending_sums` holds them, and others, or nothing.
COMMON_SUMS = ("loss_sum", "gradient_norm_sum", "token_count", "step_count")


class Counters(TypedDict):
    """Content of the item "clock".

    Attributes:
      step: completed steps, the name of the checkpoint.
      fingerprint: checksum of the state; missing in checkpoints of early versions.
    """

    step: int
    fingerprint: NotRequired[int]


@dataclasses.dataclass(frozen=True)
class ResumedCounters:
    """The counters that a run needs to resume: those of `StepTimer` and `StepMetrics`, and dev scores in fine-tuning.

    Attributes:
      untold: name of `pending_sums` in early versions.
      history: dev scores of fine-tuning, each with "step" and "epoch".
    """

    step: int
    train_seconds: float
    tokens: float
    fingerprint: int = 0
    pending_sums: dict[str, float] = dataclasses.field(default_factory=dict)
    untold: dict[str, float] = dataclasses.field(default_factory=dict)
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)


ITEMS = ("state", "clock")

# A failed save is retried after INITIAL_BACKOFF_SECONDS, then after twice as long each time.
INITIAL_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS = 2.0, 300.0
SAVE_TIMEOUT_SECONDS = 600  # includes waiting for a process that could not write its shards
MAX_FAILURE_SECONDS = 1800.0  # a run stops when saves have failed for this long
# Errors of storage that no retry repairs.
PERMANENT_ERRORS = (
    "No space left",
    "Disk quota exceeded",
    "Read-only file system",
    "ermission denied",
    "PERMISSION_DENIED",
)
# Errors of a read after which the checkpoint may still be good.
TRANSIENT_ERRORS = (
    "UNAVAILABLE",
    "DEADLINE_EXCEEDED",
    "RESOURCE_EXHAUSTED",
    "ABORTED",
    "Connection",
    "imed out",
    "Stale file",
)
READ_BACKOFFS_SECONDS = (1.0, 5.0, 15.0, None)  # before the next attempt; None: no further attempt

AbstractState = Callable[[Mesh], TrainState]  # returns shapes, dtypes and shardings of the saved state on a mesh


class CheckpointManager:
    """Saves and restores the checkpoints of one workdir. A context manager: leaving it waits for the pending save."""

    def __init__(self, workdir: str, abstract_state: AbstractState, *, max_to_keep: int, keep_period: int = 0):
        """Opens workdir/checkpoints and removes the temporary folders of interrupted saves.

        Args:
          workdir: local or remote folder of the run.
          abstract_state: shapes, dtypes and shardings of the state on a mesh.
          max_to_keep: number of newest checkpoints that are kept.
          keep_period: checkpoints of steps that are a multiple of it are kept permanently; 0: none.
        """
        orbax_logging.quiet_orbax()
        self._abstract_state, self._workdir = abstract_state, workdir
        self._manager = _writer(workdir, max_to_keep, keep_period)
        self._pending: int | None = None  # the step of the save in progress
        self._failing_since: float | None = None
        self._backoff_seconds, self._next_attempt = INITIAL_BACKOFF_SECONDS, 0.0

    def restore(self, mesh: Mesh) -> tuple[TrainState, RunCounters] | None:
        """Returns the newest readable state, placed on `mesh` (any mesh may have saved it), and its counters.

        Newer checkpoints that cannot be read, or lack counters, are reported and renamed. Returns None if there is no
        checkpoint.

        Raises:
          UserError: no checkpoint can be read; none was renamed.
        """
        with _reader(self._workdir) as reader:
            restored, damaged = _restore_newest(reader, self._abstract_state(mesh), mesh, self._workdir, to_resume=True)
        if damaged:
            if distributed.is_main():
                for step in damaged:
                    warn_main(f"{self._path(step)}: moved to {_move_aside(self._path(step))}")
            distributed.barrier("damaged checkpoints are renamed")
            self._manager.reload()
        return restored

    def save(self, step: int, state: TrainState, counters: RunCounters, *, wait: bool = False) -> None:
        """Starts an asynchronous save after the previous one has ended. A step that is already saved is not rewritten.

        Args:
          step: number of completed steps.
          state: the train state.
          counters: saved with the state as JSON.
          wait: return when the state is on disk, and retry until it is. Otherwise see `retry_due`.

        Raises:
          UserError: replicas differ, a number in the state is not finite, or storage failed permanently, in this save
            or the previous.
        """
        assert isinstance(state.step.sharding, NamedSharding) and isinstance(state.step.sharding.mesh, Mesh)
        checksum = fingerprint.state_checksum(state, state.step.sharding.mesh)
        fingerprint.check_replicas(checksum, step)
        if not checksum.finite:
            raise UserError(
                f"a parameter or a moment of the optimizer is not finite after step {step}; stopped, the last "
                "checkpoint is from before it; lower config.optimizer.learning_rate or lengthen its warmup_steps, then "
                "run the same command again"
            )
        counters = counters | {"fingerprint": checksum.value}
        self._finish_pending()
        self._start(step, state, counters)
        while wait and not self._finish_pending():
            time.sleep(max(0.0, self._next_attempt - time.monotonic()))
            self._start(step, state, counters)

    def retry_due(self) -> bool:
        """Returns, in every process alike, whether the last save failed and its backoff has passed. A collective."""
        if self._pending is not None:
            if any(distributed.allgather(int(self._manager.is_saving_in_progress()))):
                return False
            self._finish_pending()
        if self._failing_since is None:
            return False
        return bool(distributed.broadcast_from_main(int(time.monotonic() >= self._next_attempt)))

    def _start(self, step: int, state: TrainState, counters: RunCounters) -> None:
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), clock=ocp.args.JsonSave(counters))
        try:
            self._manager.save(step, args=args)
        except Exception as error:
            if jax.process_count() > 1:  # other processes may wait for this one inside the save
                _raise_unless_storage(error)
                raise self._permanent_failure(error) from error
            self._record_failure(step, error)
        else:
            self._pending = step

    def _finish_pending(self) -> bool:
        """Waits for the save in progress, if any. Returns whether the last save succeeded in every process."""
        if self._pending is None:
            return self._failing_since is None
        step, self._pending = self._pending, None
        error = None
        try:
            self._manager.wait_until_finished()
        except Exception as raised:  # noqa: BLE001 - recorded or raised below
            error = raised
            distributed.say_on_worker(f"step {step}: {_reason(error)}")
        failed = distributed.allgather(int(error is not None))
        if any(failed):
            self._record_failure(step, error or OSError(f"in process {failed.index(1)}; its log has the reason"))
            return False
        if self._failing_since is not None:
            log_main(f"storage works again: saved step {step:,}")
            if distributed.is_main():
                _remove_temporary_folders(_folder(self._workdir))
        self._failing_since, self._backoff_seconds = None, INITIAL_BACKOFF_SECONDS
        return True

    def _record_failure(self, step: int, error: Exception) -> None:
        """Schedules a retry, in every process alike. Raises if the failure is permanent."""
        _raise_unless_storage(error)
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
        permanent = (
            any(pattern in str(error) for pattern in PERMANENT_ERRORS)
            or now - self._failing_since > MAX_FAILURE_SECONDS
        )
        if any(distributed.allgather(int(permanent))):
            raise self._permanent_failure(error) from error
        warn_main(
            f"step {step:,} could not be saved ({_reason(error)}); the checkpoint before it is whole; trying again "
            f"within {self._backoff_seconds:g} s"
        )
        self._next_attempt = now + self._backoff_seconds
        self._backoff_seconds = min(2 * self._backoff_seconds, MAX_BACKOFF_SECONDS)
        with contextlib.suppress(OSError):
            self._manager.reload()  # orbax has lost its list of steps to delete

    def _permanent_failure(self, error: Exception) -> UserError:
        full = "No space left on device"
        return UserError(
            f"{self._workdir}: the checkpoint could not be written "
            f"({full if full in str(error) else _reason(error)}); the one before it is whole; "
            "free space or repair the storage, then run the same command again"
        )

    def _path(self, step: int) -> str:
        return files.join(_folder(self._workdir), str(step))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if error is None:
            if not self._finish_pending():
                raise self._permanent_failure(OSError("see the warnings above"))
            self._manager.close()
            return
        if jax.process_count() > 1 and distributed.is_peer_failure(error):
            return  # a save in progress would wait for the lost process
        closing = threading.Thread(target=self._close_quietly, daemon=True)
        closing.start()
        closing.join(distributed.HEARTBEAT_SECONDS if jax.process_count() > 1 else None)

    def _close_quietly(self) -> None:
        with contextlib.suppress(Exception):  # the error that ends the run is more important
            self._manager.close()


def load_state(workdir: str, abstract_state: AbstractState, mesh: Mesh, step: int | None = None) -> TrainState:
    """Returns the state of workdir/checkpoints at `step` (None: the newest readable one), for evaluation and export.

    Raises:
      UserError: there is no checkpoint, none of that step (the message lists the steps), or it is damaged.
    """
    orbax_logging.quiet_orbax()
    with _reader(workdir) as reader:
        steps = sorted(reader.all_steps())
        if not steps:
            raise UserError(f"{workdir}: no complete checkpoint yet; wait for the first save")
        if step is None:
            restored, _ = _restore_newest(reader, abstract_state(mesh), mesh, workdir)
            assert restored is not None, "there are steps"
            return restored[0]
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
    """orbax's manager without its preemption check.

    orbax checks with the number of the step that it saves, and from a thread, when other processes may be further. jax
    compares with the number of the last check: see `preemption.Preemption.reached`.
    """

    def reached_preemption(self, step: int) -> bool:  # noqa: ARG002 - orbax's signature
        """Returns False."""
        return False


def _writer(workdir: str, max_to_keep: int, keep_period: int) -> ocp.CheckpointManager:
    """Returns a manager for writing. Removes the temporary folders of interrupted saves."""
    policies = ocp.checkpoint_managers
    preserved: list[Any] = [policies.LatestN(max_to_keep)]
    if keep_period:
        preserved.append(policies.EveryNSteps(keep_period))
    options = ocp.CheckpointManagerOptions(
        create=True,
        cleanup_tmp_directories=True,
        preservation_policy=policies.AnyPreservationPolicy(preserved),
        single_host_load_and_broadcast=True,
        async_options=ocp.AsyncOptions(timeout_secs=SAVE_TIMEOUT_SECONDS),
    )
    return _Manager(_folder(workdir), options=options, item_names=ITEMS)


def _reader(workdir: str) -> ocp.CheckpointManager:
    """Returns a manager that writes nothing and does not wait for other processes, which may fail to read."""
    process = jax.process_index()
    single_process = ocp.options.MultiprocessingOptions(
        primary_host=process, active_processes={process}, barrier_sync_key_prefix=f"process-{process}"
    )
    options = ocp.CheckpointManagerOptions(create=False, multiprocessing_options=single_process)
    return _Manager(_folder(workdir), options=options, item_names=ITEMS)


def _folder(workdir: str) -> str:
    local = files.local_path(workdir)
    if local is not None:
        return files.join(os.path.abspath(local), CHECKPOINTS)
    os.environ.setdefault("EPATH_USE_TF", "0")  # orbax then uses fsspec, like this project, and not TensorFlow
    return files.join(workdir, CHECKPOINTS)


class CorruptCheckpointError(Exception):
    """A checkpoint cannot be read, or its contents changed. The message is one line."""


def _restore_newest(
    reader: ocp.CheckpointManager, abstract_state: TrainState, mesh: Mesh, workdir: str, *, to_resume: bool = False
) -> tuple[tuple[TrainState, RunCounters] | None, list[int]]:
    """Returns the newest checkpoint that every process can read, and the newer steps that some process cannot.

    Warns about each of the latter.
    """
    steps, reason = reader.all_steps(), ""
    damaged: list[int] = []
    while True:
        older = [step for step in steps if not damaged or step < damaged[-1]]
        step = distributed.broadcast_from_main(max(older, default=-1))
        if step < 0:
            break
        try:
            return _read(reader, abstract_state, mesh, step, to_resume), damaged
        except CorruptCheckpointError as error:
            reason = str(error)
            damaged.append(step)
            warn_main(
                f"{files.join(workdir, CHECKPOINTS, str(step))}: cannot be read ({reason}); trying the one before it"
            )
    if damaged:
        raise UserError(
            f"{files.join(workdir, CHECKPOINTS)}: none of {', '.join(map(str, damaged))} can be read (the last: "
            f"{reason}); nothing was changed; restore one from a backup, or start again with another --workdir"
        )
    return None, []


def _read(
    reader: ocp.CheckpointManager, abstract_state: TrainState, mesh: Mesh, step: int, to_resume: bool = False
) -> tuple[TrainState, RunCounters]:
    """Returns the state and counters of a step; `to_resume`: the counters must be those that a run needs.

    Raises:
      CorruptCheckpointError: in every process alike, if one cannot read its shards, if counters are missing or wrong,
        or if bits have changed.
    """
    restored, reason = None, ""
    try:
        restored = _read_shards(reader, abstract_state, step)
        check_counters(restored["clock"], step, to_resume=to_resume)
    except CorruptCheckpointError as error:
        reason = str(error)
        distributed.say_on_worker(f"step {step}: {reason}")
    failed = distributed.allgather(int(bool(reason)))
    if any(failed):
        raise CorruptCheckpointError(reason or f"in process {failed.index(1)}; its log has the reason")
    assert restored is not None
    state, counters = restored["state"], restored["clock"]
    saved = counters.pop("fingerprint", None)  # earlier versions saved none
    if saved is not None and saved != fingerprint.state_checksum(state, mesh).value:
        raise CorruptCheckpointError("its contents differ from those that were saved")
    return state, counters


def check_counters(counters: Any, step: int, *, to_resume: bool) -> None:
    """Raises CorruptCheckpointError unless the counters are those of the step, and enough `to_resume` a run."""
    try:
        json_values.convert(counters, ResumedCounters if to_resume else Counters, "its item clock", advice="damaged")
    except UserError as error:
        raise CorruptCheckpointError(str(error)) from error
    if counters["step"] != step:
        raise CorruptCheckpointError(f"its item clock is that of step {counters['step']}")
    if not to_resume:
        return
    sums = counters.get("pending_sums") or dict.fromkeys(COMMON_SUMS)
    if missing := [name for name in COMMON_SUMS if name not in sums]:
        raise CorruptCheckpointError(f"its item clock lacks {missing[0]!r} among the sums not logged yet")
    if not all({"step", "epoch"} <= scores.keys() for scores in counters.get("history", ())):
        raise CorruptCheckpointError("its item clock has dev scores without step or epoch")


def _read_shards(reader: ocp.CheckpointManager, abstract_state: TrainState, step: int) -> ocp.args.Composite:
    """Returns this process's shards. Retries transient errors.

    Raises:
      CorruptCheckpointError: the shards cannot be read.
    """
    args = ocp.args.Composite(
        state=ocp.args.StandardRestore(abstract_state),
        clock=ocp.args.JsonRestore(),
    )
    for backoff in READ_BACKOFFS_SECONDS:
        try:
            return reader.restore(step, args=args)
        except Exception as error:  # orbax raises bare exceptions, too
            _raise_unless_storage(error)
            reason = _reason(_root_cause(error))
            if backoff is None or not any(pattern in reason for pattern in TRANSIENT_ERRORS):
                raise CorruptCheckpointError(reason) from error
            time.sleep(backoff)
    raise AssertionError("the last backoff is None")


def _move_aside(path: str) -> str:
    """Renames a checkpoint to an unused name that is not a step. Returns the new path."""
    candidates = (f"{path}.damaged{suffix}" for suffix in ("", *(f"-{n}" for n in range(2, 1000))))
    try:
        target = next(name for name in candidates if not epath.Path(name).exists())
        epath.Path(path).rename(target)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read and cannot be renamed ({error.strerror}); move it away, then run the same "
            "command again"
        ) from error
    return target


def _remove_temporary_folders(folder: str) -> None:
    """Removes the temporary folders of failed saves. No save may be in progress. The next start removes the rest."""
    with contextlib.suppress(OSError):
        for path in epath.Path(folder).glob("*.orbax-checkpoint-tmp*"):
            path.rmtree()


def _raise_unless_storage(error: Exception) -> None:
    """Re-raises an error that is not a failure of storage: one of jax's, or a programming error."""
    not_storage = (UserError, jax.errors.JaxRuntimeError, TypeError, AssertionError, AttributeError)
    if isinstance(error, not_storage) or (jax.process_count() > 1 and distributed.is_peer_failure(error)):
        raise error


def _root_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _reason(error: BaseException) -> str:
    """Returns the operating system's message, if tensorstore quotes one, else the first line of the error."""
    system_message = re.search(r"([^:]+) \[os_error_code", str(error))
    return system_message.group(1).strip()[:200] if system_message else first_line(error)
