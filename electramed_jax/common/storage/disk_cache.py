"""Parts of remote files on a local disk, so that the next epoch, or the next run, needn't fetch them again."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from electramed_jax.common.console import warn
from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files

_SUFFIX = ".part"
_RECOUNT_BYTES = 256 << 20  # other processes write here too: count anew after writing so much


class DiskCache:
    """Byte ranges of files known by their SHA-256, in one folder, within a limit. Several processes may share it.

    A file's copy is sparse: it fills up in place, and what was never written reads as zeros. Nothing says which
    ranges are there, and a crash may leave half of one: the caller tells good bytes by their checksums and fetches
    the others. Where room is needed, copies that this process hasn't used go first, those unused for longest ahead;
    where that isn't enough, or the disk is full, what is there stays and nothing more is kept.

    Args:
      directory: on a local disk; made where it is missing.
      limit_bytes: that all copies together may take on disk.

    Raises:
      UserError: the folder can't be made or written to.
    """

    def __init__(self, directory: str, limit_bytes: int) -> None:
        local = files.local_path(directory)
        if local is None:
            raise UserError(f"{directory}: no place for a cache (in remote storage itself); name a local folder")
        self._directory, self._limit = local, limit_bytes
        self._lock = threading.Lock()
        self._used: set[str] = set()  # paths of the copies that this process has asked for
        self._keeps = True
        try:
            os.makedirs(self._directory, exist_ok=True)
            self._count()
        except OSError as error:
            raise UserError(f"{directory}: no place for a cache ({error.strerror}); name a local folder") from error
        if not os.access(self._directory, os.W_OK):
            raise UserError(f"{directory}: no place for a cache (may not be written to); name a local folder")

    def read(self, sha256: str, offset: int, into: np.ndarray) -> int:
        """Fills a buffer with what is kept of a range, zeros where nothing is; fewer bytes at the end of what is."""
        path = self._path(sha256)
        try:
            if path not in self._used:
                self._used.add(path)
                os.utime(path)
            with open(path, "rb", buffering=0) as file:
                return os.preadv(file.fileno(), [into.data], offset)
        except OSError:
            return 0

    def write(self, sha256: str, offset: int, data: np.ndarray) -> None:
        """Keeps a range if there is room; a disk that fails is told in a line, once, and is no error."""
        path = self._path(sha256)
        with self._lock:
            if not (self._keeps and self._has_room(data.nbytes)):
                return
            self._used.add(path)
            self._bytes += data.nbytes
            self._uncounted += data.nbytes
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
            try:
                os.pwrite(descriptor, data.data, offset)
            finally:
                os.close(descriptor)
        except OSError as error:
            self._stop(error.strerror or str(error))

    def _has_room(self, length: int) -> bool:
        if self._bytes + length > self._limit or self._uncounted > _RECOUNT_BYTES:
            self._count()
        if self._bytes + length <= self._limit:
            return True
        for copy in sorted(self._copies(), key=lambda copy: copy.last_used):
            if copy.path not in self._used:
                with contextlib.suppress(OSError):
                    os.remove(copy.path)
                self._bytes -= copy.bytes
                if self._bytes + length <= self._limit:
                    return True
        self._stop(f"full ({self._bytes / 1e9:,.1f} GB)")
        return False

    def _stop(self, why: str) -> None:
        if self._keeps:
            self._keeps = False
            warn(f"{self._directory}: {why}; what is kept is used, the rest comes from remote storage each time")

    def _count(self) -> None:
        self._bytes, self._uncounted = sum(copy.bytes for copy in self._copies()), 0

    def _copies(self) -> Iterator[_Copy]:
        with os.scandir(self._directory) as entries:
            for entry in entries:
                if entry.name.endswith(_SUFFIX):
                    with contextlib.suppress(FileNotFoundError):  # another process removed it
                        status = entry.stat()
                        yield _Copy(entry.path, status.st_blocks * 512, status.st_mtime)

    def _path(self, sha256: str) -> str:
        return os.path.join(self._directory, sha256 + _SUFFIX)


class _Copy(NamedTuple):
    path: str
    bytes: int  # on disk; holes take none
    last_used: float
