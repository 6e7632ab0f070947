"""Lock of an output folder: one process at a time writes into it.

The lock is the file `.electramed.lock` in the folder. It holds the host, process id, start time and command of its
owner as JSON, and a counter that the owner increases every `RENEW_SECONDS`. The owner removes it when it ends.

  * On a local disk the owner also holds an operating system lock (flock) on the file. The system drops it when the
    process ends, however it ends, so that the next start on the same host takes over at once.
  * In remote storage, and for an owner on another host, the counter decides: an owner that does not renew it for
    `EXPIRY_SECONDS` has ended. The next start waits for so long; with `takeover` it does not wait.
  * In Google Cloud Storage each write requires the generation of the object that was read before (a precondition of
    the service), so that only one of several starts at the same moment succeeds. Other remote storage compares the
    content instead, which leaves a gap of one request.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import errno
import fcntl
import getpass
import json
import os
import shlex
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, Protocol

from electramed_jax.common.console import say
from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files, remote

LOCK_FILE = ".electramed.lock"
RENEW_SECONDS = 20.0
EXPIRY_SECONDS = 75.0  # three renewals and a slow request
POLL_SECONDS = 5.0
# The file system has no locks, such as some network and FUSE file systems; the counter then decides alone.
_NO_FLOCK = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


@dataclasses.dataclass(frozen=True)
class Owner:
    """The process that holds a lock, as in its file.

    Attributes:
      host: host name.
      machine: boot id and process namespace of the host, within which a process id is unique; "" if unknown.
      pid: process id.
      user: name of the user.
      started: time of the start, ISO 8601 with time zone.
      command: command line.
      renewals: how often the lock was renewed; a change shows that the owner runs.
    """

    host: str
    machine: str
    pid: int
    user: str
    started: str
    command: str
    renewals: int = 0

    def __str__(self) -> str:
        return f"process {self.pid} of {self.user} on {self.host}, started {self.started}: {self.command}"


def current_owner() -> Owner:
    """Returns the description of this process."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in some containers
        user = f"user {os.getuid()}"
    command = shlex.join(
        ["electramed" if sys.argv[0].endswith(("cli.py", "electramed")) else sys.argv[0], *sys.argv[1:]]
    )
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return Owner(socket.gethostname(), _machine(), os.getpid(), user, started, command)


class FolderLock:
    """A held lock. A thread renews it."""

    def __init__(self, folder: str, place: _Place, owner: Owner):
        self._folder, self._place, self._owner = folder, place, owner
        self._lost_to: str | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew_until_released, name="folder-lock", daemon=True)
        self._thread.start()

    @property
    def is_lost(self) -> bool:
        """Whether another process has taken the lock over."""
        return self._lost_to is not None

    def check(self) -> None:
        """Raises a UserError if another process has taken the lock over; to be called before each write that counts."""
        if self._lost_to is not None:
            raise UserError(
                f"{self._folder}: taken over by {self._lost_to}; this process stops without writing; nothing is lost "
                "that was saved before"
            )

    def release(self) -> None:
        """Stops the renewals and removes the file, unless another process has taken it over."""
        self._stop.set()
        self._thread.join(timeout=RENEW_SECONDS)
        self._place.release(remove=not self.is_lost)

    def _renew_until_released(self) -> None:
        while not self._stop.wait(RENEW_SECONDS):
            renewed = dataclasses.replace(self._owner, renewals=self._owner.renewals + 1)
            try:
                if not self._place.write(renewed):
                    self._lost_to = str(self._place.read() or "another process")
                    return
                self._owner = renewed
            except Exception:  # noqa: BLE001 storage that fails for a moment; the next renewal tries again
                continue


_held: dict[str, FolderLock] = {}  # locks of this process by folder


@contextlib.contextmanager
def lock_folder(folder: str | os.PathLike, *, takeover: bool = False) -> Iterator[FolderLock]:
    """Holds the lock of an output folder for the duration of the block. The folder is created if it is missing.

    A block inside a block of the same process for the same folder uses the lock of the outer one. A folder that was
    created here and is empty at the end is removed.

    Args:
      folder: local path or URL.
      takeover: take over a lock of an owner on another host, or in remote storage, without waiting for its expiry.

    Raises:
      UserError: another process holds the lock (names it), or the lock cannot be written.
    """
    folder = os.fspath(folder)
    local = files.local_path(folder)
    key = os.path.realpath(local) if local is not None else folder.rstrip("/")
    if key in _held:
        yield _held[key]
        return
    is_new = not files.exists(folder)
    place: _Place = _LocalFile(local) if local is not None else _RemoteObject(files.join(folder, LOCK_FILE))
    owner = current_owner()
    try:
        _acquire(folder, place, owner, takeover)
        lock = _held[key] = FolderLock(folder, place, owner)
        try:
            yield lock
        finally:
            del _held[key]
            with contextlib.suppress(UserError, OSError):  # the error of the block is more important
                lock.release()
    finally:
        if is_new and local is not None:
            with contextlib.suppress(OSError):
                os.rmdir(local)


def _acquire(folder: str, place: _Place, owner: Owner, takeover: bool) -> None:
    """Writes `owner` into the lock file, once no other process holds it.

    Raises:
      UserError: another process holds the lock.
    """
    while True:
        found = place.open()
        if found is not None and not place.is_surely_stale(found):
            if place.is_surely_held(found):
                place.release(remove=False)
                raise _held_error(folder, found, "stop it first")
            if not takeover:
                _wait_for_expiry(folder, place, found)
        elif found is not None:
            say(f"{folder}: taking over the lock of {found}; it ended without removing it")
        try:
            if place.write(owner):
                return
        except OSError:  # a full disk; an empty lock file would keep the folder locked
            place.release(remove=True)
            raise
        place.release(remove=False)  # another process was faster


def _wait_for_expiry(folder: str, place: _Place, found: Owner) -> None:
    """Returns when the owner has not renewed its lock for EXPIRY_SECONDS.

    Raises:
      UserError: it has renewed it.
    """
    say(f"{folder}: locked by {found}; waiting at most {EXPIRY_SECONDS:.0f} s to see whether it still runs")
    end = time.monotonic() + EXPIRY_SECONDS
    while time.monotonic() < end:
        time.sleep(min(POLL_SECONDS, EXPIRY_SECONDS / 4))
        now = place.read()
        if now is None:
            return
        if now != found:
            place.release(remove=False)
            raise _held_error(folder, now, "stop it first, or, if it cannot be reached, add --takeover")
    say(f"{folder}: taking over the lock; its owner has not renewed it")


def _held_error(folder: str, owner: Owner, next_step: str) -> UserError:
    return UserError(
        f"{folder}: in use by {owner}; one process at a time writes into a folder; {next_step}, or choose another"
    )


class _Place(Protocol):
    """Where a lock is stored."""

    def open(self) -> Owner | None:
        """Prepares for `write`; returns the owner in the file, or None if there is none."""
        ...

    def read(self) -> Owner | None:
        """Returns the owner that is in the file now."""
        ...

    def write(self, owner: Owner) -> bool:
        """Writes an owner. Returns False if another process has written since the last `open` or `write`."""
        ...

    def is_surely_held(self, found: Owner) -> bool:
        """Returns whether the owner found by `open` is known to run."""
        ...

    def is_surely_stale(self, found: Owner) -> bool:
        """Returns whether the owner found by `open` is known to have ended."""
        ...

    def release(self, *, remove: bool) -> None:
        """Gives up what `open` has taken; `remove` also removes the file."""
        ...


class _LocalFile:
    """A lock file on a local or network file system, with flock where the file system has it."""

    def __init__(self, folder: str):
        self._folder, self._path = folder, os.path.join(folder, LOCK_FILE)
        self._descriptor = -1
        self._has_flock = self._is_held = False

    def open(self) -> Owner | None:
        files.make_dirs(self._folder)
        while True:
            try:
                self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
                self._is_held, self._has_flock = False, True
                try:
                    fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    self._is_held = True
                except OSError as error:
                    if error.errno not in _NO_FLOCK:
                        raise
                    self._has_flock = False
            except OSError as error:
                raise UserError(f"{self._path}: cannot be written ({error.strerror}); check the folder") from error
            if self._is_ours():
                return self.read() or (_unknown_owner("") if self._is_held else None)
            os.close(self._descriptor)  # its owner removed it before it was locked here

    def read(self) -> Owner | None:
        try:
            with open(self._path, "rb") as file:  # opened again: a network file system then reads from its server
                return _parse(file.read())
        except FileNotFoundError:
            return None

    def write(self, owner: Owner) -> bool:
        if not self._is_ours():
            return False
        content = _render(owner)
        try:
            os.pwrite(self._descriptor, content, 0)
            os.ftruncate(self._descriptor, len(content))
            os.fsync(self._descriptor)
        except OSError as error:
            raise OSError(error.errno, error.strerror, self._path) from error
        return True

    def is_surely_held(self, found: Owner) -> bool:
        return self._is_held or (not self._has_flock and _is_here(found) and not _has_ended(found))

    def is_surely_stale(self, found: Owner) -> bool:
        return not self._is_held and _is_here(found) and (self._has_flock or _has_ended(found))

    def release(self, *, remove: bool) -> None:
        if self._descriptor < 0:
            return
        if remove and self._is_ours():
            os.unlink(self._path)
        if self._has_flock and not self._is_held:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)  # also for forked processes, which share it
        os.close(self._descriptor)
        self._descriptor = -1

    def _is_ours(self) -> bool:
        """Returns whether the path still leads to the open file."""
        try:
            there, here = os.stat(self._path), os.fstat(self._descriptor)
        except OSError:
            return False
        return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)


class _RemoteObject:
    """A lock object in remote storage."""

    def __init__(self, path: str):
        self._path, self._version, self._content = path, remote.ABSENT, b""

    def open(self) -> Owner | None:
        content, self._version = remote.call(self._path, remote.read_version)
        return None if self._version == remote.ABSENT else _parse(content)

    def read(self) -> Owner | None:
        content, version = remote.call(self._path, remote.read_version)
        return None if version == remote.ABSENT else _parse(content)

    def write(self, owner: Owner) -> bool:
        content = _render(owner)
        version = remote.call(
            self._path, lambda storage, name: remote.write_version(storage, name, content, self._version)
        )
        if version is None:
            # The response to a write that succeeded may have been lost before the request was repeated.
            there, version = remote.call(self._path, remote.read_version)
            if there != content:
                return False
        self._version = version
        return True

    def is_surely_held(self, found: Owner) -> bool:  # noqa: ARG002 protocol
        return False

    def is_surely_stale(self, found: Owner) -> bool:
        return _is_here(found) and _has_ended(found)

    def release(self, *, remove: bool) -> None:
        if remove:
            files.remove(self._path)


def _render(owner: Owner) -> bytes:
    return json.dumps(dataclasses.asdict(owner)).encode() + b"\n"


def _parse(content: bytes) -> Owner | None:
    """Returns the owner in a lock file; None if it is empty, or an unknown owner if it cannot be read."""
    if not content.strip():
        return None
    try:
        values: Any = json.loads(content)
        return Owner(**values)
    except (ValueError, TypeError, RecursionError):
        return _unknown_owner(repr(content[:80]))


def _unknown_owner(content: str) -> Owner:
    return Owner("an unknown host", "", 0, "an unknown user", "at an unknown time", content)


def _machine() -> str:
    """Returns the boot id and the process namespace; "" where the system has no such files."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _is_here(owner: Owner) -> bool:
    """Returns whether the owner is, or was, a process that this process could see."""
    return owner.host == socket.gethostname() and bool(owner.machine) and owner.machine == _machine()


def _has_ended(owner: Owner) -> bool:
    """Returns whether no process has the owner's id any more, or only this one, which is another process."""
    if owner.pid == os.getpid():
        return True
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False
