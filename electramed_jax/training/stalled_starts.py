"""stalled_starts.json of a workdir: counts starts in succession that were killed before they saved.

The launchers start a run again whenever it exits with 42, so a run that hangs or loses a process at the same place
every time would occupy its machines for ever. This count ends it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from electramed_jax.common.errors import PeerLostError, UserError
from electramed_jax.common.processes import distributed
from electramed_jax.common.storage import files

STALLED_STARTS_FILE = "stalled_starts.json"


@contextlib.contextmanager
def limit_stalled_starts(workdir: str, step: int, limit: int) -> Iterator[None]:
    """Counts this start until it ends by itself: a finished run, a preemption or the user's error removes the count.

    Other errors keep it: a collective raises one of jax's own types if another process was lost.

    A start from another step than the one before counts as the first. A collective: all processes enter the block.

    Args:
      workdir: folder of the run.
      step: number of completed steps of the checkpoint that it starts from.
      limit: largest number of starts; 0: no limit.

    Raises:
      UserError: `limit` starts in succession began at `step` and were killed before they saved.
    """
    path = files.join(workdir, STALLED_STARTS_FILE)
    count = distributed.broadcast_from_main(_read_count(path, step) if distributed.is_main() else 0)
    if limit and count >= limit:
        raise UserError(
            f"{workdir}: the last {count} starts all began at step {step:,} and ended before they saved, without an "
            f"error of their own (wanted: fewer than {limit}, config.max_stalled_starts); look for the cause in the "
            f"last lines of their logs, then delete {path} and start again"
        )
    if distributed.is_main():
        files.write_json(path, {"step": step, "starts": count + 1})
    try:
        yield
    except (UserError, KeyboardInterrupt) as error:
        if not isinstance(error, PeerLostError):
            _remove(path)
        raise
    _remove(path)


def _read_count(path: str, step: int) -> int:
    """Returns the number of starts from `step` that are recorded; 0 if the file is missing or damaged: it informs."""
    with contextlib.suppress(UserError, OSError):
        record = files.read_json(path)
        if isinstance(record, dict) and record.get("step") == step and type(count := record.get("starts")) is int:
            return count if 0 <= count < 2**31 else 0
    return 0


def _remove(path: str) -> None:
    if distributed.is_main():
        with contextlib.suppress(UserError, OSError):
            files.remove(path)
