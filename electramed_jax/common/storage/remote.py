"""Remote storage through fsspec, with the patience that networks need. `common/files.py` is the door to it."""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

from electramed_jax.common.console import say
from electramed_jax.common.errors import UserError

# Pauses before another try. With the tries that gcsfs makes by itself, storage may be away for some five minutes.
PAUSE_SECONDS = (1, 2, 4, 8, 16, 32, 60, 60)
_SAID_FROM = 4  # shorter pauses are not worth a line
_LATER = (408, 425, 429)  # HTTP: request timeout, too early, too many requests; beside 500 and above
# Errors of these packages that carry no HTTP status are of the connection: it broke, or never was.
_NETWORK_PACKAGES = {"aiohttp", "requests", "urllib3", "gcsfs", "google"}

T = TypeVar("T")


def call(path: str | os.PathLike, operation: Callable[[Any, str], T], *, retry: bool = True) -> T:
    """`operation(file system, name in it)` of a URL, tried again for some minutes where storage fails for a while.

    Args:
      operation: harmless to do twice.
      retry: False tries once, for a caller who has better to do than to wait and will come again.

    Raises:
      UserError: the storage is unknown or its package missing, it refuses, or it didn't come back in time.
      OSError: what the file system said that another try won't change, such as FileNotFoundError.
      Exception: whatever the file system's library raised, if not `retry`.
    """
    storage, name = open_storage(path)
    for pause in (*(PAUSE_SECONDS if retry else ()), None):
        try:
            return operation(storage, name)
        except Exception as error:
            if not retry:
                raise
            if not is_transient(error):
                if _refuses(error):
                    raise UserError(
                        f"{path}: refused by its storage ({_one_line(error)}); check the name and your credentials"
                    ) from error
                raise
            if pause is None:
                raise UserError(
                    f"{path}: storage does not answer ({_one_line(error)}), tried {len(PAUSE_SECONDS) + 1} times over "
                    f"{sum(PAUSE_SECONDS) / 60:.0f} minutes; check the network and the service, then run it again"
                ) from error
            if pause >= _SAID_FROM:
                say(f"{path}: {_one_line(error)}; trying again in {pause} s")
        # Hosts that failed together should not come back together.
        time.sleep(pause * random.uniform(0.75, 1.25))
    raise AssertionError("unreachable")


def open_storage(path: str | os.PathLike) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the name that the URL has in it."""
    import fsspec  # kept off the start-up path; local work never needs it

    # gcsfs tells each failed try at length; ours are told in one line.
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
    try:
        # Listings are never kept: other processes write into the folders that this one looks at.
        return fsspec.core.url_to_fs(os.fspath(path), use_listings_cache=False)
    except ImportError as error:
        raise UserError(
            f"{path}: this storage needs a package that is missing ({error}); for gs:// install electramed_jax[gcs]"
        ) from error
    except ValueError as error:  # unknown protocol
        raise UserError(f"{path}: {error}; wanted a local path or gs://") from error


def info(storage: Any, name: str) -> dict[str, Any] | None:
    """An operation for `call`: what is known of a file or folder, or None where it is not there.

    `exists` and `isdir` of a file system take some failures for an absence.
    """
    try:
        return storage.info(name)
    except FileNotFoundError:
        return None


def remove(storage: Any, name: str) -> None:
    """An operation for `call`: a file, or a folder with all that is in it; one that is not there is fine."""
    try:
        storage.rm(name, recursive=True)
    except FileNotFoundError:
        pass


def is_transient(error: BaseException) -> bool:
    """Whether an error of storage may be gone in a while: a broken connection, a timeout, a busy or ailing server."""
    status = getattr(error, "status", None) or getattr(error, "code", None)
    if status is not None and str(status).isdigit():
        return int(status) in _LATER or int(status) >= 500
    if isinstance(error, (ConnectionError, TimeoutError)):
        return True
    if isinstance(error, ValueError) or getattr(error, "retryable", True) is False:  # google.auth's word
        return False
    return _is_of_network(error)


def _refuses(error: Exception) -> bool:
    """Whether an error that stays says no in the storage's own words, and not in those of the operating system.

    gcsfs tells a forbidden request as a plain OSError, and a bad one as a plain ValueError.
    """
    return _is_of_network(error) or type(error) is ValueError or (type(error) is OSError and error.errno is None)


def _is_of_network(error: BaseException) -> bool:
    return not _NETWORK_PACKAGES.isdisjoint(kind.__module__.partition(".")[0] for kind in type(error).__mro__)


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
