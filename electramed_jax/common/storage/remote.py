"""Operations on remote storage through fsspec, with retries. Other modules use them through `files`."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

from electramed_jax.common.console import say
from electramed_jax.common.errors import UserError

# Pauses before the retries. With gcsfs's own retries, storage may be unavailable for about five minutes.
PAUSE_SECONDS = (1, 2, 4, 8, 16, 32, 60, 60)
_LOGGED_FROM = 4  # seconds; shorter pauses are not logged
_RETRY_STATUS = (408, 425, 429)  # HTTP: request timeout, too early, too many requests; in addition to 500 and above
# An error of these packages without an HTTP status is a connection that failed or broke.
_NETWORK_PACKAGES = {"aiohttp", "requests", "urllib3", "gcsfs", "google"}

ABSENT = "0"  # version of an object that does not exist

T = TypeVar("T")


def call(path: str | os.PathLike, operation: Callable[[Any, str], T], *, retry: bool = True) -> T:
    """Returns `operation(file_system, name)` for the fsspec file system of a URL; retries transient errors for minutes.

    Args:
      path: URL, such as gs://bucket/name.
      operation: called with the file system and the name of the URL in it; must be idempotent.
      retry: False tries once, for a caller that continues without the result and tries again later.

    Raises:
      UserError: the storage is unknown, its package is missing, it rejects the request, or it stays unavailable.
      OSError: an error of the file system that a retry would not change, such as FileNotFoundError.
      Exception: any error of the file system's library, if `retry` is False.
    """
    storage, name = open_storage(path)
    for pause in (*(PAUSE_SECONDS if retry else ()), None):
        try:
            return operation(storage, name)
        except Exception as error:
            if not retry:
                raise
            if not is_transient(error):
                if _is_rejection(error):
                    raise UserError(
                        f"{path}: rejected by the storage ({_describe(error)}); check the name and your credentials"
                    ) from error
                raise
            if pause is None:
                raise UserError(
                    f"{path}: storage does not answer ({_describe(error)}), tried {len(PAUSE_SECONDS) + 1} times over "
                    f"{sum(PAUSE_SECONDS) / 60:.0f} minutes; check the network and the service, then run it again"
                ) from error
            if pause >= _LOGGED_FROM:
                say(f"{path}: {_describe(error)}; trying again in {pause} s")
        # Random, so that hosts that failed at the same time do not retry at the same time.
        time.sleep(pause * random.uniform(0.75, 1.25))
    raise AssertionError("unreachable")


def open_storage(path: str | os.PathLike) -> tuple[Any, str]:
    """Returns the fsspec file system of a URL, and the name of the URL in it."""
    import fsspec  # slow to import; local files do not need it

    # gcsfs logs each failed request with a traceback; `call` logs one line.
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
    try:
        # No cache of listings: other processes write into the same folders.
        return fsspec.core.url_to_fs(os.fspath(path), use_listings_cache=False)
    except ImportError as error:
        raise UserError(
            f"{path}: this storage needs a package that is missing ({error}); for gs:// install electramed_jax[gcs]"
        ) from error
    except ValueError as error:  # unknown protocol
        raise UserError(f"{path}: {error}; wanted a local path or gs://") from error


def info(storage: Any, name: str) -> dict[str, Any] | None:
    """Returns fsspec's description of a file or folder, or None if it does not exist. An operation for `call`.

    `exists` and `isdir` of a file system return False after some errors.
    """
    try:
        return storage.info(name)
    except FileNotFoundError:
        return None


def remove(storage: Any, name: str) -> None:
    """Removes a file, or a folder with its contents, if it exists. An operation for `call`."""
    with contextlib.suppress(FileNotFoundError):
        storage.rm(name, recursive=True)


def read_version(storage: Any, name: str) -> tuple[bytes, str]:
    """Returns the content of a file and its version, (b"", ABSENT) if it does not exist. An operation for `call`.

    The version is the generation in Google Cloud Storage, elsewhere a hash of the content.
    """
    try:
        if not _has_generations(storage):
            content = storage.cat_file(name)
            return content, _hash(content)
        generation = str(storage.info(name)["generation"])
        return storage.cat_file(name), generation
    except FileNotFoundError:
        return b"", ABSENT


def write_version(storage: Any, name: str, content: bytes, version: str) -> str | None:
    """Writes a small file if its version is still `version`; returns the new version, or None. An operation for `call`.

    In Google Cloud Storage the service compares the version. Elsewhere another process may write between the
    comparison and the write.
    """
    if not _has_generations(storage):
        if read_version(storage, name)[1] != version:
            return None
        storage.pipe_file(name, content)
        return _hash(content)
    bucket, key, _ = storage.split_path(name)
    try:
        stored = storage.call(
            "POST",
            f"{storage.base.replace('/storage/', '/upload/storage/')}b/{bucket}/o",
            uploadType="media",
            name=key,
            ifGenerationMatch=version,
            data=content,
            json_out=True,
        )
    except FileExistsError:  # status 412, precondition failed
        return None
    return str(stored["generation"])


def _has_generations(storage: Any) -> bool:
    return "gs" in (storage.protocol if isinstance(storage.protocol, tuple) else (storage.protocol,))


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def is_transient(error: BaseException) -> bool:
    """Returns whether a retry may succeed: after a broken connection, a timeout, or an overloaded or failing server."""
    status = getattr(error, "status", None) or getattr(error, "code", None)
    if status is not None and str(status).isdigit():
        return int(status) in _RETRY_STATUS or int(status) >= 500
    if isinstance(error, (ConnectionError, TimeoutError)):
        return True
    if isinstance(error, ValueError) or getattr(error, "retryable", True) is False:  # attribute of google.auth's errors
        return False
    return _is_network_error(error)


def _is_rejection(error: Exception) -> bool:
    """Returns whether the storage service, rather than the operating system, rejected the request.

    gcsfs raises a plain OSError for a forbidden request, and a plain ValueError for a bad one.
    """
    return _is_network_error(error) or type(error) is ValueError or (type(error) is OSError and error.errno is None)


def _is_network_error(error: BaseException) -> bool:
    return not _NETWORK_PACKAGES.isdisjoint(kind.__module__.partition(".")[0] for kind in type(error).__mro__)


def _describe(error: BaseException) -> str:
    """Returns "ConnectionError: reset by peer": the type and up to 200 characters of all lines of the text."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
