"""Tests of remote storage: transient errors are retried; rejected requests and lasting failures are one line."""

from __future__ import annotations

import errno
import uuid
from typing import Any, ClassVar

import aiohttp
import fsspec
import gcsfs.retry
import google.auth.exceptions
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files, remote


class FailingFileSystem(MemoryFileSystem):
    """fsspec's memory file system that raises the next of `errors` at each operation, and counts the operations.

    `only`, if set, is the one operation that fails. An operation that writes takes effect before it fails.
    """

    protocol = "failing"
    errors: ClassVar[list[Exception]] = []
    only = ""
    operations = 0

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.removeprefix("failing://"))

    def _count(self, operation: str) -> None:
        type(self).operations += 1
        if self.errors and self.only in ("", operation):
            raise self.errors.pop(0)

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        self._count("info")
        return super().info(path, **kwargs)

    def cat_file(self, path: str, **kwargs: Any) -> bytes:
        self._count("cat_file")
        return super().cat_file(path, **kwargs)

    def ls(self, path: str, **kwargs: Any) -> list[Any]:
        self._count("ls")
        return super().ls(path, **kwargs)

    def put_file(self, lpath: str, rpath: str, **kwargs: Any) -> None:
        super().put_file(lpath, rpath, **kwargs)
        self._count("put_file")

    def cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        super().cp_file(path1, path2, **kwargs)
        self._count("cp_file")

    def rm(self, path: str, **kwargs: Any) -> None:
        super().rm(path, **kwargs)
        self._count("rm")


@pytest.fixture
def failing(monkeypatch):
    """Returns the class of the failing file system, and the URL of a folder in it."""
    fsspec.register_implementation("failing", FailingFileSystem, clobber=True)
    monkeypatch.setattr(FailingFileSystem, "errors", [])
    monkeypatch.setattr(FailingFileSystem, "only", "")
    monkeypatch.setattr(FailingFileSystem, "operations", 0)
    return FailingFileSystem, f"failing://{uuid.uuid4().hex}"


@pytest.fixture
def pauses(monkeypatch) -> list[float]:
    """Records the seconds of `time.sleep` instead of sleeping."""
    slept: list[float] = []
    monkeypatch.setattr(remote.time, "sleep", slept.append)
    return slept


def http_error(status: int) -> Exception:
    request = aiohttp.RequestInfo(url="http://storage", method="GET", headers={}, real_url="http://storage")
    return aiohttp.ClientResponseError(request, (), status=status, message="from the server")


TRANSIENT = [
    ConnectionResetError("reset by peer"),
    TimeoutError(),
    fsspec.exceptions.FSTimeoutError(),
    OSError(errno.ETIMEDOUT, "timed out"),
    aiohttp.ServerDisconnectedError(),
    aiohttp.ClientPayloadError("Response payload is not completed"),
    http_error(503),
    http_error(429),
    gcsfs.retry.HttpError({"code": 502, "message": "bad gateway"}),
    gcsfs.retry.HttpError({"code": "500"}),
    gcsfs.retry.ChecksumError("md5 differs"),
]
PERMANENT = [
    (http_error(403), "rejected by the storage .*403.*; check the name and your credentials"),
    (gcsfs.retry.HttpError({"code": 401, "message": "Invalid Credentials"}), "rejected by the storage .*Invalid Cred"),
    (
        OSError("Forbidden: b/x\nno storage.objects.get access"),
        "rejected by the storage .*no storage.objects.get access",
    ),
    (ValueError("Bad Request: invalid bucket name"), "rejected by the storage .*invalid bucket name"),
    (google.auth.exceptions.RefreshError("sign in again"), "rejected by the storage .*sign in again"),
    (PermissionError("denied"), "permission denied"),
    (FileNotFoundError("gone"), "no such file"),
]


@pytest.mark.parametrize("error", TRANSIENT, ids=lambda error: type(error).__name__)
def test_a_transient_error_is_retried(failing, pauses, error):
    kind, folder = failing
    path = files.join(folder, "file")
    files.write_text(path, "content")
    kind.errors += [error, error]
    assert files.read_text(path) == "content"
    assert len(pauses) == 2 and kind.errors == []


@pytest.mark.parametrize(("error", "message"), PERMANENT, ids=lambda value: type(value).__name__)
def test_a_permanent_error_is_raised_at_once(failing, pauses, error, message):
    kind, folder = failing
    path = files.join(folder, "file")
    files.write_text(path, "content")
    kind.errors.append(error)
    with pytest.raises(UserError, match=f"^{path}: {message}"):
        files.read_text(path)
    assert pauses == []


def test_pauses_grow_to_a_minute_and_unavailable_storage_is_one_line(failing, pauses, capsys):
    kind, folder = failing
    path = files.join(folder, "file")
    kind.errors += [http_error(503)] * 100
    with pytest.raises(UserError, match=r"file: storage does not answer \(ClientResponseError: 503.*tried 9 times"):
        files.read_range(path, 0, 10)
    assert kind.operations == 9
    wanted = (1, 2, 4, 8, 16, 32, 60, 60)
    assert all(0.7 * pause <= slept <= 1.3 * pause for slept, pause in zip(pauses, wanted, strict=True))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 6 and "trying again in 60 s" in lines[-1] and path in lines[-1]


def test_a_failed_request_does_not_mean_that_the_file_is_missing(failing, pauses):
    kind, folder = failing
    files.write_text(files.join(folder, "file"), "content")
    for request in (lambda: files.exists(files.join(folder, "file")), lambda: files.is_dir(folder)):
        kind.errors.append(ConnectionResetError("reset by peer"))
        assert request()
    assert not files.exists(files.join(folder, "other"))
    kind.errors += [http_error(403)]
    with pytest.raises(UserError, match="rejected"):
        files.exists(files.join(folder, "file"))


@pytest.mark.parametrize("lost", ["put_file", "cp_file", "rm"])
def test_repeating_an_operation_after_a_lost_response_has_no_further_effect(failing, pauses, lost):
    kind, folder = failing
    first, second = files.join(folder, "first"), files.join(folder, "second")
    kind.only, kind.errors = lost, [http_error(503)]
    files.write_text(first, "content")
    files.move(first, second)
    assert files.list_dir(folder) == ["second"] and files.read_text(second) == "content"
    files.write_text(first, "more")
    files.remove(first)
    files.remove(first)
    assert files.list_dir(folder) == ["second"] and kind.errors == []


def test_reading_in_blocks_continues_after_a_failed_request(failing, pauses, monkeypatch):
    monkeypatch.setattr(files, "_REMOTE_READ_BYTES", 1000)
    kind, folder = failing
    content = bytes(range(256)) * 40
    with files.atomic_write(files.join(folder, "file")) as file:
        file.write(content)
    with files.open_read(files.join(folder, "file")) as file:
        begin = file.read(1500)
        kind.errors.append(aiohttp.ClientPayloadError("cut short"))
        rest = file.read()
        assert begin + rest == content and file.read(1) == b""
        file.seek(-10, 2)
        assert file.read() == content[-10:]
    assert len(pauses) == 1
