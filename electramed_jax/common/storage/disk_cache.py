"""Cache of parts of remote files on a local disk, so that the next epoch or run does not download them again."""

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
_RECOUNT_BYTES = 256 << 20  # bytes written after which the folder is measured again: other processes write to it too


class DiskCache:
    """Stores byte ranges of files, identified by their SHA-256, in one folder of limited size.

    Several processes may share the folder. A cached file is sparse: ranges are written in place, and a range that was
    never written reads as zeros. There is no index of the ranges, and a crash may leave half of one. The caller must
    verify the bytes by their checksums, and fetch damaged or missing ones again.

    If space is needed, files that this process has not used are removed, least recently used first. If that is not
    enough, or the disk is full, the cache stops storing new ranges.
    """

    def __init__(self, directory: str, limit_bytes: int) -> None:
        """Creates the folder if it is missing.

        Args:
          directory: folder on a local disk.
          limit_bytes: limit of the disk space that all cached files use together.

        Raises:
          UserError: the folder cannot be created or written to.
        """
        local = files.local_path(directory)
        if local is None:
            raise UserError(f"{directory}: cannot be used as a cache (is remote storage); name a local folder")
        self._directory, self._limit = local, limit_bytes
        self._lock = threading.Lock()
        self._used: set[str] = set()  # paths of the cached files that this process has read or written
        self._writable = True
        try:
            os.makedirs(self._directory, exist_ok=True)
            self._measure()
        except OSError as error:
            raise UserError(
                f"{directory}: cannot be used as a cache ({error.strerror}); name a local folder"
            ) from error
        if not os.access(self._directory, os.W_OK):
            raise UserError(f"{directory}: cannot be used as a cache (no write permission); name a local folder")

    def read(self, sha256: str, offset: int, into: np.ndarray) -> int:
        """Fills a buffer from a cached file and returns the number of bytes read; ranges not stored read as zeros."""
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
        """Stores a range if there is space. An error of the disk is logged once and is not raised."""
        path = self._path(sha256)
        with self._lock:
            if not (self._writable and self._has_space(data.nbytes)):
                return
            self._used.add(path)
            self._bytes += data.nbytes
            self._bytes_since_measured += data.nbytes
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
            try:
                os.pwrite(descriptor, data.data, offset)
            finally:
                os.close(descriptor)
        except OSError as error:
            self._stop(error.strerror or str(error))

    def _has_space(self, length: int) -> bool:
        if self._bytes + length > self._limit or self._bytes_since_measured > _RECOUNT_BYTES:
            self._measure()
        if self._bytes + length <= self._limit:
            return True
        for cached in sorted(self._cached_files(), key=lambda cached: cached.last_used):
            if cached.path not in self._used:
                with contextlib.suppress(OSError):
                    os.remove(cached.path)
                self._bytes -= cached.bytes
                if self._bytes + length <= self._limit:
                    return True
        self._stop(f"full ({self._bytes / 1e9:,.1f} GB)")
        return False

    def _stop(self, reason: str) -> None:
        if self._writable:
            self._writable = False
            warn(
                f"{self._directory}: {reason}; nothing more is cached: other data is read from remote storage each time"
            )

    def _measure(self) -> None:
        self._bytes, self._bytes_since_measured = sum(cached.bytes for cached in self._cached_files()), 0

    def _cached_files(self) -> Iterator[_CachedFile]:
        with os.scandir(self._directory) as entries:
            for entry in entries:
                if entry.name.endswith(_SUFFIX):
                    with contextlib.suppress(FileNotFoundError):  # another process removed it
                        status = entry.stat()
                        yield _CachedFile(entry.path, status.st_blocks * 512, status.st_mtime)

    def _path(self, sha256: str) -> str:
        return os.path.join(self._directory, sha256 + _SUFFIX)


class _CachedFile(NamedTuple):
    path: str
    bytes: int  # on disk, without the holes of a sparse file
    last_used: float  # modification time, seconds since 1970
