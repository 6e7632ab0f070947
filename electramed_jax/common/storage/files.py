"""File access for local paths and for URLs of any storage that fsspec supports, such as gs:// and memory://.

Local files use the operating system. Remote files use `remote`, which retries transient errors. An error that the user
can fix (no such file, no permission, full disk, missing gcsfs) is a UserError that names the path. A partly written
file is never visible under its final name.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import glob as local_glob
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, TypeVar, cast, overload

from electramed_jax.common import console
from electramed_jax.common.errors import UserError, first_line
from electramed_jax.common.storage import json_values, remote

T = TypeVar("T")

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
_WRITE_ERRORS = (*FULL_DISK, errno.EROFS, errno.EIO, errno.EFBIG, errno.ESTALE)
# What is wrong and what to do next, by the number of an operating system error.
_OS_ERRORS = {
    errno.ENOSPC: "disk full; free some space and run it again",
    errno.EDQUOT: "the disk quota is used up; free some space or raise the quota, and run it again",
    errno.EROFS: "read-only file system; choose a folder on another one",
    errno.ELOOP: "its symbolic links form a circle; repair the links",
    errno.ENAMETOOLONG: "the name is too long for this file system; choose a shorter one",
    errno.EIO: "the disk or network storage fails (input/output error); check it, and run it again",
    errno.ENODEV: "not a file or a folder; choose another path",
    errno.ENXIO: "not a file or a folder; choose another path",
    errno.EBUSY: "in use by the system or by another program; choose another path, or run it again later",
    errno.ETXTBSY: "in use by another program; run it again later",
    errno.EMFILE: "too many open files; raise the limit (ulimit -n) and run it again",
    errno.ENFILE: "too many open files on this machine; run it again later",
    errno.ESTALE: "the network file system has lost the file; run it again",
    errno.EFBIG: "the file would be larger than this file system or ulimit -f allows; choose another folder",
    errno.ENOTEMPTY: "the folder is not empty; move its content away",
    errno.EXDEV: "on another file system; choose a path on the same one",
}
TEMPORARY_SUFFIX = ".tmp"
_CHUNK_BYTES = 1 << 20
_REMOTE_READ_BYTES = 4 << 20


def join(base: str | os.PathLike, *parts: str) -> str:
    """Joins the parts of a local path or URL with slashes."""
    path = os.fspath(base)
    for part in parts:
        path = f"{path.rstrip('/')}/{part}" if path not in ("", "/") else f"{path}{part}"
    return path


def local_path(path: str | os.PathLike) -> str | None:
    """Returns the local path (`~` expanded) of a path or file:// URL, or None for a remote URL."""
    path = os.fspath(path).removeprefix("file://")
    return None if "://" in path else os.path.expanduser(path)


def exists(path: str | os.PathLike) -> bool:
    """Returns whether a file or folder exists."""
    if (local := local_path(path)) is not None:
        return os.path.exists(local)
    with _readable_errors(path):
        return remote.call(path, remote.info) is not None


def is_dir(path: str | os.PathLike) -> bool:
    """Returns whether `path` is a folder."""
    if (local := local_path(path)) is not None:
        return os.path.isdir(local)
    with _readable_errors(path):
        return (remote.call(path, remote.info) or {}).get("type") == "directory"


def size(path: str | os.PathLike) -> int:
    """Returns the size of a file in bytes."""
    with _readable_errors(path):
        if (local := local_path(path)) is not None:
            return os.stat(local).st_size
        return int(remote.call(path, lambda storage, name: storage.size(name)))


def modified(path: str | os.PathLike) -> float:
    """Returns when a file was last written, in seconds since 1970, by the clock of the storage."""
    with _readable_errors(path):
        if (local := local_path(path)) is not None:
            return os.stat(local).st_mtime
        return remote.call(path, lambda storage, name: storage.modified(name)).timestamp()


def make_dirs(path: str | os.PathLike) -> None:
    """Creates a folder and its parents, unless it exists."""
    with _readable_errors(path):
        if (local := local_path(path)) is not None:
            os.makedirs(local, exist_ok=True)
        else:
            remote.call(path, lambda storage, name: storage.makedirs(name, exist_ok=True))


def remove(path: str | os.PathLike) -> None:
    """Removes a file, or a folder with its contents, if it exists."""
    with _readable_errors(path):
        if (local := local_path(path)) is not None:
            if os.path.isdir(local) and not os.path.islink(local):
                shutil.rmtree(local)
            elif os.path.lexists(local):
                os.remove(local)
        else:
            remote.call(path, remote.remove)


def move(source: str | os.PathLike, target: str | os.PathLike) -> None:
    """Renames a file within one storage system; replaces `target` if it exists."""
    with _readable_errors(source):
        if (local := local_path(source)) is not None:
            local_target = local_path(target)
            assert local_target is not None, f"{source} is local, {target} is not"
            os.replace(local, local_target)
        else:
            # A copy and a removal, since each of them can be repeated after its response was lost.
            remote.call(source, lambda storage, name: storage.cp_file(name, remote.open_storage(target)[1]))
            remote.call(source, remote.remove)


def list_dir(path: str | os.PathLike) -> list[str]:
    """Returns the sorted names (not paths) of the files and folders in a folder, with hidden ones."""
    with _readable_errors(path):
        if (local := local_path(path)) is not None:
            return sorted(os.listdir(local))
        names = remote.call(path, lambda storage, name: storage.ls(name, detail=False))
        return sorted(name.rstrip("/").rsplit("/", 1)[-1] for name in names)


def sizes(path: str | os.PathLike) -> dict[str, int]:
    """Returns {name: bytes} of the files in a folder, sorted by name; one request to remote storage."""
    with _readable_errors(path):
        if (local := local_path(path)) is not None:
            by_name = {entry.name: entry.stat().st_size for entry in os.scandir(local) if entry.is_file()}
        else:
            entries = remote.call(path, lambda storage, name: storage.ls(name, detail=True))
            by_name = {e["name"].rsplit("/", 1)[-1]: int(e["size"]) for e in entries if e["type"] == "file"}
        return dict(sorted(by_name.items()))


def versions(path: str | os.PathLike) -> dict[str, str]:
    """Returns {name: version} of the files in a folder; a version changes when the file is replaced or written.

    Local: size, time of the last write and inode. Remote: size and generation, or what the storage has instead.
    """
    with _readable_errors(path):
        if (local := local_path(path)) is not None:
            stats = {entry.name: entry.stat() for entry in os.scandir(local) if entry.is_file()}
            return {name: f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ino}" for name, stat in sorted(stats.items())}
        entries = [
            e for e in remote.call(path, lambda storage, name: storage.ls(name, detail=True)) if e["type"] == "file"
        ]
        keys = ("generation", "ETag", "etag", "created", "mtime")
        return {
            e["name"].rsplit("/", 1)[-1]: " ".join([str(e["size"]), *(str(e[key]) for key in keys if key in e)][:2])
            for e in sorted(entries, key=lambda e: e["name"])
        }


def check_space(folder: str | os.PathLike, num_bytes: int, what: str) -> None:
    """Checks that a local folder has room for `num_bytes`: free space and quota. Remote storage is not checked.

    Args:
      folder: an existing folder.
      num_bytes: bytes that are to be written.
      what: what is to be written, for the message.

    Raises:
      UserError: there is less room.
    """
    local = local_path(folder)
    if local is None:
        return
    free = shutil.disk_usage(local).free
    if free < num_bytes:
        raise UserError(
            f"{folder}: {free / 1e6:,.1f} MB free; {what} needs {num_bytes / 1e6:,.1f} MB; free some space or choose "
            "another folder"
        )
    with _readable_errors(folder), tempfile.TemporaryFile(dir=local) as file:
        # A quota is not part of the free space. fallocate reserves blocks without writing them, or is not supported.
        libc = ctypes.CDLL(None, use_errno=True)
        failed = libc.fallocate(file.fileno(), 0, ctypes.c_long(0), ctypes.c_long(num_bytes))
        if failed and ctypes.get_errno() in FULL_DISK:
            raise UserError(
                f"{folder}: {os.strerror(ctypes.get_errno())}; {what} needs {num_bytes / 1e6:,.1f} MB; free some "
                "space, raise the quota or choose another folder"
            )


def glob(patterns: Iterable[str]) -> list[str]:
    """Returns the paths of the files that match any of the patterns, sorted and without duplicates.

    Raises:
      UserError: a pattern that matches no file, or one that names a folder; a match that is a link without a target,
        or one with a name that is not UTF-8.
    """
    paths: set[str] = set()
    for pattern in patterns:
        if is_dir(pattern):
            raise UserError(
                f"{pattern}: is a folder; wanted files; use a quoted pattern such as '{join(pattern, '*.xml.gz')}'"
            )
        matches = _matches(pattern)
        if not matches:
            raise UserError(f"{_printable(pattern)}: no such file and no match; check the path or pattern")
        if invalid := [path for path in matches if _printable(path) != path]:
            raise UserError(f"{_printable(invalid[0])}: the name of the file is not UTF-8; rename the file")
        paths.update(matches)
    return sorted(paths)


def open_read(path: str | os.PathLike) -> BinaryIO:
    """Opens a seekable file for reading bytes; a remote file is read in blocks of 4 MiB."""
    with _readable_errors(path):
        if (local := local_path(path)) is not None:
            return open(local, "rb")
    return io.BufferedReader(_RemoteFile(path), _REMOTE_READ_BYTES)


def read_bytes(path: str | os.PathLike) -> bytes:
    """Returns the content of a file."""
    with _readable_errors(path):
        if (local := local_path(path)) is None:
            return remote.call(path, lambda storage, name: storage.cat_file(name))
        with open(local, "rb") as file:
            return file.read()


def read_text(path: str | os.PathLike) -> str:
    """Returns the content of a UTF-8 text file.

    Raises:
      UserError: the file is not UTF-8; names the first wrong byte.
    """
    try:
        return read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start}); convert it, e.g. with iconv -t utf-8") from error


def read_range(path: str | os.PathLike, offset: int, length: int) -> bytes:
    """Returns `length` bytes from `offset`; fewer only at the end of the file."""
    with _readable_errors(path):
        if local_path(path) is None:
            return remote.call(path, lambda storage, name: storage.cat_file(name, start=offset, end=offset + length))
    with open_read(path) as file, _readable_errors(path):
        file.seek(offset)
        return file.read(length)


def read_into(path: str | os.PathLike, offset: int, buffer: Any) -> int:
    """Fills a writable contiguous buffer from `offset`; returns the bytes read, fewer only at the end of the file."""
    view = memoryview(buffer).cast("B")
    if (local := local_path(path)) is None:
        data = read_range(path, offset, len(view))
        view[: len(data)] = data
        return len(data)
    with _readable_errors(path), open(local, "rb") as file:
        file.seek(offset)
        return file.readinto(view)


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike, *, retry: bool = True) -> Iterator[BinaryIO]:
    """Yields a writable binary file that appears as `path` if the block raises no exception.

    A local file is written next to its final path, synced and renamed. A remote file is written to a local temporary
    file and uploaded whole; an object store shows an upload only when it is complete. Missing folders are created.

    Args:
      path: final path or URL.
      retry: whether a failed upload is retried.
    """
    local = local_path(path)
    if local is None:
        with tempfile.NamedTemporaryFile() as temporary_file:
            with _write_errors(temporary_file.name, temporary_file):
                yield cast(BinaryIO, temporary_file)
                temporary_file.flush()
            with _readable_errors(path):
                remote.call(path, lambda storage, name: storage.put_file(temporary_file.name, name), retry=retry)
        return
    folder = os.path.dirname(local) or "."
    make_dirs(folder)
    name = f".{os.path.basename(local)}.{os.getpid()}-{os.urandom(4).hex()}{TEMPORARY_SUFFIX}"
    temporary = os.path.join(folder, name)
    with _readable_errors(path):
        file = open(temporary, "xb")  # noqa: SIM115 closed below, before it is renamed
    try:
        with _write_errors(path, file):
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
    """Writes UTF-8 text, atomically.

    Raises:
      UserError: the text holds bytes of a name that is not UTF-8, which Python keeps as halves of surrogate pairs.
    """
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError as error:
        shown = text[max(0, error.start - 30) : error.end + 10]
        raise UserError(
            f"{path}: cannot hold {shown!r}, which is not valid Unicode, such as the name of a file that is not UTF-8; "
            "rename that file, or remove the characters"
        ) from error
    with atomic_write(path) as file:
        file.write(data)


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes JSON with an indent of two spaces, keys in insertion order and a newline at the end, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def append_line(path: str | os.PathLike, line: str) -> None:
    """Appends a line of UTF-8 text to a file, and syncs it. A last line that was cut short is ended first.

    An object store cannot append: there the whole file is written again.
    """
    data = line.encode("utf-8") + b"\n"
    if (local := local_path(path)) is None:
        content = read_bytes(path) if exists(path) else b""
        with atomic_write(path) as file:
            file.write(content + _line_end(content) + data)
        return
    make_dirs(os.path.dirname(local) or ".")
    with _readable_errors(path), open(local, "a+b") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
        file.write(_line_end(file.read()) + data)
        file.flush()
        os.fsync(file.fileno())


def _line_end(content: bytes) -> bytes:
    """Returns the newline that `content` lacks at its end."""
    return b"\n" if content and not content.endswith(b"\n") else b""


@overload
def read_json(path: str | os.PathLike, *, finite: bool = True, advice: str = json_values.ADVICE) -> Any: ...


@overload
def read_json(
    path: str | os.PathLike, wanted: type[T], *, finite: bool = True, advice: str = json_values.ADVICE
) -> T: ...


def read_json(
    path: str | os.PathLike, wanted: Any = Any, *, finite: bool = True, advice: str = json_values.ADVICE
) -> Any:
    """Reads a JSON file and converts it to the wanted type; see `json_values`.

    Args:
      path: local path or URL.
      wanted: the type, as in a type hint: a TypedDict, a dataclass, `list[str]`, ...
      finite: reject NaN and infinite numbers.
      advice: what to do about a damaged file; end of the messages.

    Raises:
      UserError: the file cannot be read, is not valid JSON, or holds something else; names the line or the key.
    """
    return json_values.parse_json(read_bytes(path), os.fspath(path), wanted, finite=finite, advice=advice)


def sha256(path: str | os.PathLike) -> str:
    """Returns the hexadecimal SHA-256 of the content of a file."""
    digest = hashlib.sha256()
    with open_read(path) as file, _readable_errors(path):
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _matches(pattern: str) -> list[str]:
    local = local_path(pattern)
    if local is not None:
        if os.path.lexists(local):  # a file name may contain characters of patterns
            return [_resolve(local)]
        names = local_glob.glob(local, recursive=True)
        folders = [name for name in names if os.path.isdir(name)]
        if folders and "**" not in local:
            found = (
                "only folders"
                if len(folders) == len(names)
                else f"also {len(folders):,} folder{'s' * (len(folders) > 1)}"
            )
            deeper = join(os.path.dirname(local) or ".", "**", os.path.basename(local))
            advice = f"the files in {_printable(folders[0])} are not read; for all subfolders use '{deeper}'"
            if len(folders) == len(names):
                raise UserError(f"{pattern}: matches {found}; {advice}")
            console.warn(f"{pattern}: matches {found}; {advice}")
        return [_resolve(name) for name in names if os.path.isfile(name) or not os.path.exists(name)]
    with _readable_errors(pattern):
        return remote.call(pattern, _remote_matches)


def _resolve(path: str) -> str:
    """Returns the path; raises UserError if it is a link without a target."""
    if not os.path.exists(path):
        raise UserError(
            f"{_printable(path)}: a link to {_printable(os.readlink(path))}, which does not exist; restore the file, "
            "or remove the link"
        )
    return path


def _printable(path: str) -> str:
    r"""Returns a path with the bytes of its name that are not UTF-8 as `\xe9`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _remote_matches(storage: Any, name: str) -> list[str]:
    entries = storage.glob(name, detail=True)
    return [storage.unstrip_protocol(path) for path, entry in entries.items() if entry["type"] == "file"]


class _RemoteFile(io.RawIOBase):
    """Seekable remote file; every read is a range request with retries."""

    def __init__(self, path: str | os.PathLike):
        self._path, self._size, self._position = path, size(path), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        return self._position

    def readinto(self, buffer: Any) -> int:
        data = self._read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        return self._read(self._size)

    def _read(self, length: int) -> bytes:
        length = min(length, self._size - self._position)
        data = read_range(self._path, self._position, length) if length > 0 else b""
        if len(data) < length:
            raise UserError(f"{self._path}: the file changed while it was read; run the same command again")
        self._position += length
        return data


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _readable_errors(path: str | os.PathLike) -> Iterator[None]:
    """Raises a UserError in place of the errors of the operating system, which a user can fix."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file or folder; check the path") from error
    except PermissionError as error:
        raise UserError(f"{path}: permission denied; check its owner and mode") from error
    except IsADirectoryError as error:
        raise UserError(f"{path}: is a folder; wanted a file") from error
    except (NotADirectoryError, FileExistsError) as error:
        raise UserError(f"{path}: a file is in the place of a folder; move it away") from error
    except OSError as error:
        if error.errno is None:  # an error of a library for remote storage
            raise
        raise UserError(f"{path}: {describe_os_error(error)}") from error
    except ValueError as error:
        if "null byte" not in str(error):
            raise
        raise UserError(f"{path!r}: the name holds a NUL character; check the path") from error


def describe_os_error(error: OSError) -> str:
    """Returns what is wrong and what to do next, without the path."""
    reason = error.strerror or first_line(error)
    return _OS_ERRORS.get(error.errno or 0, f"{reason}; check the path and the storage, and run it again")


@contextlib.contextmanager
def _write_errors(path: str | os.PathLike, file: BinaryIO | tempfile._TemporaryFileWrapper) -> Iterator[None]:
    """Raises a UserError in place of an error of writing, such as a full disk; others of the block pass unchanged."""
    try:
        yield
    except OSError as error:
        if error.errno not in _WRITE_ERRORS:
            raise
        what, _, next_step = describe_os_error(error).partition("; ")
        raise UserError(f"{path}: {what} after {file.tell():,} bytes; no partial file is left; {next_step}") from error
