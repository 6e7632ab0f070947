"""Ownership of an output folder by the processes of a run: the main process holds the lock for all of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from electramed_jax.common.processes import distributed
from electramed_jax.common.storage.folder_lock import FolderLock, lock_folder


class FolderOwner:
    """The ownership of a folder, in every process of the run that owns it."""

    def __init__(self, lock: FolderLock | None):
        """Takes the lock of the main process; None in the other processes."""
        self._lock = lock

    def check(self) -> None:
        """Raises a UserError in the main process if another run has taken the folder over."""
        if self._lock is not None:
            self._lock.check()


@contextlib.contextmanager
def own_folder(folder: str, *, takeover: bool = False) -> Iterator[FolderOwner]:
    """Holds the lock of a folder for the duration of the block; see `lock_folder`. A collective.

    Raises:
      UserError: in every process, if another run owns the folder.
    """
    with contextlib.ExitStack() as stack:
        locks: list[FolderLock] = []

        def lock() -> None:
            if distributed.is_main():
                locks.append(stack.enter_context(lock_folder(folder, takeover=takeover)))

        distributed.call_together(lock, f"locking {folder}")
        yield FolderOwner(locks[0] if locks else None)
