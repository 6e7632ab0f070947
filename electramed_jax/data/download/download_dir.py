"""The folder that PubMed files are downloaded to: complete files, partial files, download.json, and a lock.

A file is downloaded to `.NAME.MD5.part` in the same folder and renamed when it is complete. The MD5 in the name of the
partial file identifies one version of the file: if the server has a newer version, a new partial file is started.
`download.json` records the verified files. Remote storage cannot append: its partial files are in a local temporary
folder, which is deleted at the end of the process, and a complete file is uploaded at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from typing import TypedDict

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files, json_values
from electramed_jax.data.download.mirror_listing import ListedFile

RECORD = "download.json"
PARTIAL_SUFFIX = ".part"
FORMAT_VERSION = 1
_CHUNK_BYTES = 1 << 20
_SAVE_INTERVAL_SECONDS = 5.0
_ADVICE = "remove it (the files are then verified again), or choose another --output"


class RecordedFile(TypedDict):
    """A verified file: MD5, bytes, modification time (None in remote storage), date and size in the listing."""

    md5: str
    bytes: int
    mtime_ns: int | None
    listed: str


class DownloadRecord(TypedDict):
    """Content of download.json."""

    format_version: int
    files: dict[str, RecordedFile]


class DownloadDir:
    """A local or remote download folder. It may be changed only inside `lock`.

    Attributes:
      path: the folder.
    """

    def __init__(self, path: str):
        self._local = files.local_path(path)
        self.path = path if self._local is None else self._local
        self._scratch = self.path
        self._recorded = self._read_record()
        self._uploaded = frozenset(self.names()) if self._local is None else frozenset()
        self._saved = time.monotonic()

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Creates the folder, locks out other processes of this command, and saves download.json at the end.

        Raises:
          UserError: another process has the lock.
        """
        files.make_dirs(self.path)
        with contextlib.ExitStack() as stack:
            if self._local is None:
                self._scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="electramed-download-"))
            else:
                stack.enter_context(_locked(self._local))
            try:
                yield
            except BaseException:
                with contextlib.suppress(UserError):  # keep the first exception
                    self._save()
                raise
            self._save()

    def names(self) -> list[str]:
        """Returns the names of all files in the folder."""
        return files.list_dir(self.path) if files.is_dir(self.path) else []

    def free_bytes(self) -> int | None:
        """Returns the free bytes of the disk; None for remote storage."""
        if self._local is None:
            return None
        existing = os.path.abspath(self._local)
        while not os.path.isdir(existing):
            existing = os.path.dirname(existing)
        return shutil.disk_usage(existing).free

    def has(self, file: ListedFile) -> bool:
        """Returns whether the file was verified, and has not changed since, here or in the listing of the server."""
        entry = self._recorded.get(file.name)
        if entry is None or entry["listed"] != file.details:
            return False
        if self._local is None:
            return file.name in self._uploaded  # one request for all files; remote objects are immutable
        path = self._file_path(file.name)
        return os.path.isfile(path) and _size_and_mtime(path) == (entry["bytes"], entry["mtime_ns"])

    def recorded_bytes(self, name: str) -> int:
        """Returns the size in bytes of a verified file."""
        return self._recorded[name]["bytes"]

    def md5(self, name: str) -> str | None:
        """Returns the MD5 of the file with this name; None if there is none."""
        return file_md5(self._file_path(name))

    def partial_path(self, name: str, md5: str, existing: str | None) -> str:
        """Returns the local path for a download of the version with this MD5; removes other partial files.

        Args:
          name: of the file.
          md5: wanted.
          existing: MD5 of the file with this name, if there is one. A file that was never verified is an incomplete
            download of another program, and becomes the partial file.
        """
        partial = os.path.join(self._scratch, f".{name}.{md5}{PARTIAL_SUFFIX}")
        for other in os.listdir(self._scratch):
            if other.startswith(f".{name}.") and other.endswith(PARTIAL_SUFFIX) and other != os.path.basename(partial):
                os.remove(os.path.join(self._scratch, other))
        recorded = self._recorded.get(name)
        if existing and (recorded is None or recorded["md5"] != existing):
            if self._local is None:
                files.remove(self._file_path(name))
            else:
                os.replace(self._file_path(name), partial)
        return partial

    def put(self, partial: str, name: str) -> None:
        """Moves a complete partial file to its name, or uploads it."""
        with open(partial, "rb") as source:
            if self._local is not None:
                os.fsync(source.fileno())
                os.replace(partial, self._file_path(name))
                return
            with files.atomic_write(self._file_path(name)) as target:
                shutil.copyfileobj(source, target, _CHUNK_BYTES)
        os.remove(partial)

    def record(self, file: ListedFile, md5: str) -> None:
        """Records a file as verified; download.json is saved every few seconds."""
        path = self._file_path(file.name)
        size, mtime_ns = (files.size(path), None) if self._local is None else _size_and_mtime(path)
        self._recorded[file.name] = {"md5": md5, "bytes": size, "mtime_ns": mtime_ns, "listed": file.details}
        if time.monotonic() - self._saved > _SAVE_INTERVAL_SECONDS:
            self._save()

    def _file_path(self, name: str) -> str:
        return files.join(self.path, name)

    def _read_record(self) -> dict[str, RecordedFile]:
        path = self._file_path(RECORD)
        if not files.exists(path):
            return {}
        record = files.read_json(path, advice=_ADVICE)
        if not isinstance(record, dict) or record.get("format_version") != FORMAT_VERSION:
            raise UserError(f"{path}: not a download record with format_version {FORMAT_VERSION}; {_ADVICE}")
        return json_values.convert(record, DownloadRecord, path, advice=_ADVICE)["files"]

    def _save(self) -> None:
        ordered = {name: self._recorded[name] for name in sorted(self._recorded)}
        files.write_json(self._file_path(RECORD), {"format_version": FORMAT_VERSION, "files": ordered})
        self._saved = time.monotonic()


def _size_and_mtime(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


def file_md5(path: str) -> str | None:
    """Returns the hexadecimal MD5 of a file; None if it does not exist."""
    if not files.exists(path):
        return None
    digest = hashlib.md5(usedforsecurity=False)
    with files.open_read(path) as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


@contextlib.contextmanager
def _locked(folder: str) -> Iterator[None]:
    import fcntl  # missing on some platforms

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{folder}: another electramed download is running in it; wait for its end, or choose another --output"
            ) from error
        except OSError:
            pass  # a network file system without locks
        yield
    finally:
        os.close(descriptor)  # the lock is also released when the process is killed
