"""The one door to storage: local paths, gs:// and memory:// behave alike.

Local files go through the operating system, everything else through fsspec (`common/remote.py`, which tries again
where storage fails for a while). A failure the user can mend (no such file, no permission, full disk, missing
gcsfs) is a UserError that names the path. Nothing half-written is ever visible under its final name.
"""

from __future__ import annotations

import contextlib
import errno
import glob as local_glob
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import remote

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
TEMPORARY_SUFFIX = ".tmp"
_CHUNK_BYTES = 1 << 20
_REMOTE_READ_BYTES = 4 << 20


def join(base: str | os.PathLike, *parts: str) -> str:
    """`base/parts[0]/...`, for local paths and URLs alike."""
    path = os.fspath(base)
    for part in parts:
        path = f"{path.rstrip('/')}/{part}" if path not in ("", "/") else f"{path}{part}"
    return path


def local_path(path: str | os.PathLike) -> str | None:
    """The operating system's name for `path` (`~` expanded), or None for a remote URL."""
    path = os.fspath(path)
    if path.startswith("file://"):
        path = path[len("file://") :]
    return None if "://" in path else os.path.expanduser(path)


def exists(path: str | os.PathLike) -> bool:
    """Whether a file or a folder of that name is there."""
    if (local := local_path(path)) is not None:
        return os.path.exists(local)
    with _readable_errors(path):
        return remote.call(path, remote.info) is not None


def is_dir(path: str | os.PathLike) -> bool:
    """Whether `path` is a folder."""
    if (local := local_path(path)) is not None:
        return os.path.isdir(local)
    with _readable_errors(path):
        return (remote.call(path, remote.info) or {}).get("type") == "directory"


def size(path: str | os.PathLike) -> int:
    """Size of a file in bytes."""
    with _readable_errors(path):
        if (local := local_path(path)) is not None:
            return os.stat(local).st_size
        return int(remote.call(path, lambda storage, name: storage.size(name)))


def modified(path: str | os.PathLike) -> float:
    """When a file was last written, in seconds since 1970, by the clock of whoever stores it."""
    with _readable_errors(path):
        if (local := local_path(path)) is not None:
            return os.stat(local).st_mtime
        return remote.call(path, lambda storage, name: storage.modified(name)).timestamp()


def make_dirs(path: str | os.PathLike) -> None:
    """Makes the folder and its parents; one that exists already is fine."""
    with _readable_errors(path):
        if (local := local_path(path)) is not None:
            os.makedirs(local, exist_ok=True)
        else:
            remote.call(path, lambda storage, name: storage.makedirs(name, exist_ok=True))


def remove(path: str | os.PathLike) -> None:
    """Removes a file, or a folder with all that is in it; one that is not there is fine."""
    with _readable_errors(path):
        if (local := local_path(path)) is not None:
            if os.path.isdir(local) and not os.path.islink(local):
                shutil.rmtree(local)
            elif os.path.lexists(local):
                os.remove(local)
        else:
            remote.call(path, remote.remove)


def move(source: str | os.PathLike, target: str | os.PathLike) -> None:
    """Renames a file within one storage system, replacing `target`."""
    with _readable_errors(source):
        if (local := local_path(source)) is not None:
            os.replace(local, local_path(target))
        else:
            # Copied, then removed: either can be done again when its answer was lost.
            remote.call(source, lambda storage, name: storage.cp_file(name, remote.open_storage(target)[1]))
            remote.call(source, remote.remove)


def list_dir(path: str | os.PathLike) -> list[str]:
    """Sorted names (not paths) of what is in a folder, hidden ones included."""
    with _readable_errors(path):
        if (local := local_path(path)) is not None:
            return sorted(os.listdir(local))
        found = remote.call(path, lambda storage, name: storage.ls(name, detail=False))
        return sorted(name.rstrip("/").rsplit("/", 1)[-1] for name in found)


def sizes(path: str | os.PathLike) -> dict[str, int]:
    """Name and size in bytes of each file in a folder, sorted by name; remotely it is one listing."""
    with _readable_errors(path):
        if (local := local_path(path)) is not None:
            found = {entry.name: entry.stat().st_size for entry in os.scandir(local) if entry.is_file()}
        else:
            entries = remote.call(path, lambda storage, name: storage.ls(name, detail=True))
            found = {e["name"].rsplit("/", 1)[-1]: int(e["size"]) for e in entries if e["type"] == "file"}
        return dict(sorted(found.items()))


def glob(patterns: Iterable[str]) -> list[str]:
    """The files that match any of the patterns, sorted and each once.

    Raises:
      UserError: a pattern that matches no file, or one that names a folder.
    """
    found: set[str] = set()
    for pattern in patterns:
        if is_dir(pattern):
            raise UserError(
                f"{pattern}: is a folder; wanted files; give a quoted pattern such as '{join(pattern, '*.xml.gz')}'"
            )
        matches = _matches(pattern)
        if not matches:
            raise UserError(f"{pattern}: no such file and no match; check the path or pattern")
        found.update(matches)
    return sorted(found)


def open_read(path: str | os.PathLike) -> BinaryIO:
    """Opens a file for reading bytes, at any place of it; a remote one is read some megabytes at a time."""
    with _readable_errors(path):
        if (local := local_path(path)) is not None:
            return open(local, "rb")
    return io.BufferedReader(_RemoteFile(path), _REMOTE_READ_BYTES)


def read_bytes(path: str | os.PathLike) -> bytes:
    """The whole file."""
    with _readable_errors(path):
        if (local := local_path(path)) is None:
            return remote.call(path, lambda storage, name: storage.cat_file(name))
        with open(local, "rb") as file:
            return file.read()


def read_text(path: str | os.PathLike) -> str:
    """The whole file as UTF-8 text.

    Raises:
      UserError: not UTF-8; names the byte.
    """
    try:
        return read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start}); convert it, e.g. with iconv -t utf-8") from error


def read_range(path: str | os.PathLike, offset: int, length: int) -> bytes:
    """`length` bytes from `offset` on; fewer only at the end of the file."""
    with _readable_errors(path):
        if local_path(path) is None:
            return remote.call(path, lambda storage, name: storage.cat_file(name, start=offset, end=offset + length))
    with open_read(path) as file, _readable_errors(path):
        file.seek(offset)
        return file.read(length)


def read_into(path: str | os.PathLike, offset: int, buffer: Any) -> int:
    """As `read_range`, into a writable buffer without gaps; returns how many bytes the file had for it."""
    view = memoryview(buffer).cast("B")
    if local_path(path) is None:
        data = read_range(path, offset, len(view))
        view[: len(data)] = data
        return len(data)
    with open_read(path) as file, _readable_errors(path):
        file.seek(offset)
        return file.readinto(view)


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike, *, retry: bool = True) -> Iterator[BinaryIO]:
    """Yields a binary file that appears as `path` when the block ends well, and never otherwise.

    A local file is written beside its final place, synced and renamed. A remote one is spooled to
    a local temporary file and uploaded whole, since object stores show an upload when it is done.
    The folder is made where it is missing. `retry=False`: an upload that fails is not tried again.
    """
    local = local_path(path)
    if local is None:
        with tempfile.NamedTemporaryFile() as spool:
            with _full_disk_errors(spool.name, spool):
                yield spool
                spool.flush()
            with _readable_errors(path):
                remote.call(path, lambda storage, name: storage.put_file(spool.name, name), retry=retry)
        return
    folder = os.path.dirname(local) or "."
    make_dirs(folder)
    name = f".{os.path.basename(local)}.{os.getpid()}-{os.urandom(4).hex()}{TEMPORARY_SUFFIX}"
    temporary = os.path.join(folder, name)
    with _readable_errors(path):
        file = open(temporary, "xb")
    try:
        with _full_disk_errors(path, file):
            yield file
            file.flush()
            os.fsync(file.fileno())
            file.close()
        with _readable_errors(path):
            os.replace(temporary, local)
            _sync_folder(folder)
    except BaseException:
        with contextlib.suppress(OSError):
            file.close()
        with contextlib.suppress(OSError):
            os.remove(temporary)
        raise


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes UTF-8 text, atomically."""
    with atomic_write(path) as file:
        file.write(text.encode("utf-8"))


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes JSON for people: two spaces, insertion order, one newline at the end."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: str | os.PathLike) -> Any:
    """Reads a JSON file.

    Raises:
      UserError: not JSON; names file, line and column.
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}, line {error.lineno}, column {error.colno}: not valid JSON ({error.msg}); "
            "mend the file or write it anew"
        ) from error


def sha256(path: str | os.PathLike) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open_read(path) as file, _readable_errors(path):
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _matches(pattern: str) -> list[str]:
    local = local_path(pattern)
    if local is not None:
        if os.path.exists(local):  # also a name that looks like a pattern
            return [local]
        return [name for name in local_glob.glob(local, recursive=True) if os.path.isfile(name)]
    with _readable_errors(pattern):
        return remote.call(pattern, _remote_matches)


def _remote_matches(storage: Any, name: str) -> list[str]:
    found = storage.glob(name, detail=True)
    return [storage.unstrip_protocol(path) for path, entry in found.items() if entry["type"] == "file"]


class _RemoteFile(io.RawIOBase):
    """Bytes of a remote file by range reads, each of which is tried again where storage fails for a while."""

    def __init__(self, path: str | os.PathLike):
        self._path, self._size, self._at = path, size(path), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        data = self._read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        return self._read(self._size)

    def _read(self, length: int) -> bytes:
        length = min(length, self._size - self._at)
        data = read_range(self._path, self._at, length) if length > 0 else b""
        if len(data) < length:
            raise UserError(f"{self._path}: changed while it was read; run the same command again")
        self._at += length
        return data


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _readable_errors(path: str | os.PathLike) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file or folder; check the path") from error
    except PermissionError as error:
        raise UserError(f"{path}: permission denied; check its owner and mode") from error
    except IsADirectoryError as error:
        raise UserError(f"{path}: is a folder; wanted a file") from error
    except (NotADirectoryError, FileExistsError) as error:
        raise UserError(f"{path}: a file stands where a folder is wanted; move it away") from error
    except OSError as error:
        if error.errno in FULL_DISK:
            raise UserError(f"{path}: disk full; free some space and run it again") from error
        raise


@contextlib.contextmanager
def _full_disk_errors(path: str | os.PathLike, file: BinaryIO) -> Iterator[None]:
    """Other errors of the block are its own; a full disk is ours to explain."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        raise UserError(
            f"{path}: disk full after {file.tell():,} bytes; nothing half-written remains; "
            "free some space and run it again"
        ) from error
