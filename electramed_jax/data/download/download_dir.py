"""The folder that PubMed files are downloaded to: what is whole in it, what is begun, who may write to it.

A file is fetched into `.NAME.MD5.part` beside its place and renamed once it is whole. The digest in the partial's
name ties it to one version of the file: when the server has another by now, another partial is begun. `download.json`
records what was verified. Remote storage knows no appending: there partials lie in a temporary folder of this machine
and end with the process, and a whole file is uploaded in one piece.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.data.download.mirror_listing import Listed

RECORD = "download.json"
PARTIAL_SUFFIX = ".part"
FORMAT_VERSION = 1
_CHUNK_BYTES = 1 << 20
_SECONDS_BETWEEN_SAVES = 5.0


class Folder:
    """`path`: local or remote. Only `opened` changes anything."""

    def __init__(self, path: str):
        self._local = files.local_path(path)
        self.path = path if self._local is None else self._local
        self._scratch = self.path
        self._recorded = self._read_record()
        self._uploaded = frozenset(self.names()) if self._local is None else frozenset()
        self._saved = time.monotonic()

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Makes the folder, keeps other processes of this command out, saves the record at the end.

        Raises:
          UserError: another process has it open.
        """
        files.make_dirs(self.path)
        with contextlib.ExitStack() as stack:
            if self._local is None:
                self._scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="electramed-download-"))
            else:
                stack.enter_context(_alone_in(self._local))
            try:
                yield
            except BaseException:
                with contextlib.suppress(UserError):  # what stopped us is the news, not that this fails too
                    self._save()
                raise
            self._save()

    def names(self) -> list[str]:
        """Of everything in it."""
        return files.list_dir(self.path) if files.is_dir(self.path) else []

    def free_bytes(self) -> int | None:
        """Of its disk; None where that means nothing."""
        if self._local is None:
            return None
        place = os.path.abspath(self._local)
        while not os.path.isdir(place):
            place = os.path.dirname(place)
        return shutil.disk_usage(place).free

    def has(self, file: Listed) -> bool:
        """Whether the file was verified, and has changed neither here nor in the server's list since."""
        entry = self._recorded.get(file.name)
        if entry is None or entry["listed"] != file.details:
            return False
        if self._local is None:
            return file.name in self._uploaded  # one request for all; an object is never changed in part
        path = self._place(file.name)
        return os.path.isfile(path) and _bytes_and_time(path) == (entry["bytes"], entry["mtime_ns"])

    def recorded_bytes(self, name: str) -> int:
        """Size of a file that was verified."""
        return self._recorded[name]["bytes"]

    def md5(self, name: str) -> str | None:
        """Of the bytes that stand under the file's name now; None if there are none."""
        return md5_of(self._place(name))

    def partial(self, name: str, md5: str, there: str | None) -> str:
        """The local path at which to fetch the version of a file that has this MD5; older versions' partials go.

        Args:
          there: MD5 of what stands under the name now. Unless that was whole once it is the beginning of a file,
            such as another program leaves, and becomes the partial.
        """
        partial = os.path.join(self._scratch, f".{name}.{md5}{PARTIAL_SUFFIX}")
        for other in os.listdir(self._scratch):
            if other.startswith(f".{name}.") and other.endswith(PARTIAL_SUFFIX) and other != os.path.basename(partial):
                os.remove(os.path.join(self._scratch, other))
        if there and self._recorded.get(name, {}).get("md5") != there:
            if self._local is None:
                files.remove(self._place(name))
            else:
                os.replace(self._place(name), partial)
        return partial

    def put(self, partial: str, name: str) -> None:
        """Puts a whole file in its place."""
        with open(partial, "rb") as whole:
            if self._local is not None:
                os.fsync(whole.fileno())
                os.replace(partial, self._place(name))
                return
            with files.atomic_write(self._place(name)) as target:
                shutil.copyfileobj(whole, target, _CHUNK_BYTES)
        os.remove(partial)

    def record(self, file: Listed, md5: str) -> None:
        """The file is there and has the MD5. Kept at once, saved every few seconds."""
        path = self._place(file.name)
        size, mtime_ns = (files.size(path), None) if self._local is None else _bytes_and_time(path)
        self._recorded[file.name] = {"md5": md5, "bytes": size, "mtime_ns": mtime_ns, "listed": file.details}
        if time.monotonic() - self._saved > _SECONDS_BETWEEN_SAVES:
            self._save()

    def _place(self, name: str) -> str:
        return files.join(self.path, name)

    def _read_record(self) -> dict[str, dict]:
        path = self._place(RECORD)
        if not files.exists(path):
            return {}
        record = files.read_json(path)
        if not isinstance(record, dict) or record.get("format_version") != FORMAT_VERSION:
            raise UserError(
                f"{path}: got no record of format {FORMAT_VERSION}, as this program writes it; remove it (the files "
                "are then read again to verify them), or choose another --output"
            )
        return record["files"]

    def _save(self) -> None:
        ordered = {name: self._recorded[name] for name in sorted(self._recorded)}
        files.write_json(self._place(RECORD), {"format_version": FORMAT_VERSION, "files": ordered})
        self._saved = time.monotonic()


def _bytes_and_time(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


def md5_of(path: str) -> str | None:
    """Hexadecimal MD5 of a file; None if there is none."""
    if not files.exists(path):
        return None
    digest = hashlib.md5(usedforsecurity=False)
    with files.open_read(path) as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


@contextlib.contextmanager
def _alone_in(folder: str) -> Iterator[None]:
    import fcntl  # not everywhere, and only needed here

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{folder}: another electramed download is at work in it; wait for its end, or choose another --output"
            ) from error
        except OSError:
            pass  # a network file system without locks
        yield
    finally:
        os.close(descriptor)  # a killed process lets go too
