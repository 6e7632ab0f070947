"""HTTP client with retries and exponential backoff that obeys Retry-After and resumes interrupted downloads.

Built on `requests`, a dependency of tensorflow-datasets: it verifies certificates, keeps connections open and uses the
proxies, certificate bundles and `.netrc` of the user's environment.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import requests
import urllib3

from electramed_jax.common.console import say
from electramed_jax.common.errors import UserError
from electramed_jax.common.step_timer import format_duration

OVERLOADED = {408, 425, 429, 500, 502, 503, 504}  # HTTP status codes after which the same request may succeed later
RANGE_NOT_SATISFIABLE = 416
_CHUNK_BYTES = 1 << 18
_MAX_PAGE_BYTES = 1 << 26
Result = TypeVar("Result")


class UnreachableError(UserError):
    """The server could not be reached, or closed the connection, in every attempt."""


class RejectedError(UserError):
    """The server rejected the request, and a retry would not change that (404, 403, ...)."""


class CancelledError(Exception):
    """The request was cancelled by `Client.stop`."""


@dataclasses.dataclass(frozen=True)
class RetryPolicy:
    """Retries and waiting times of a `Client`.

    Attributes:
      max_retries: number of consecutive failures after which the next one is final; received bytes reset the count.
      timeout_seconds: time without any byte after which a connection counts as broken.
      initial_backoff_seconds: wait before the first retry; doubles with each further one. A random part of up to half
        of the wait is subtracted.
      max_backoff_seconds: upper limit of the doubled wait.
      max_retry_after_seconds: longest Retry-After that is obeyed; the request fails if the server requests more.
    """

    max_retries: int = 8
    timeout_seconds: float = 60.0
    initial_backoff_seconds: float = 1.0
    max_backoff_seconds: float = 60.0
    max_retry_after_seconds: float = 600.0


class Client:
    """HTTP client for several threads. A Retry-After of the server delays the requests of all of them.

    Attributes:
      retry_count: number of requests that were repeated so far.
    """

    def __init__(self, user_agent: str, retry_policy: RetryPolicy = RetryPolicy(), *, allow_http: bool = False):
        """Creates a client without open connections.

        Args:
          user_agent: User-Agent header.
          retry_policy: retries and waiting times.
          allow_http: allows http:// URLs; otherwise even a redirect to one is rejected.
        """
        self.retry_count = 0
        self._headers = {"User-Agent": user_agent, "Accept-Encoding": "identity"}
        self._retry_policy = retry_policy
        self._allow_http = allow_http
        self._thread_local = threading.local()  # requests.Session is not documented as thread-safe
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._not_before = 0.0

    def stop(self) -> None:
        """Makes the calls in all threads raise `CancelledError` soon."""
        self._stopped.set()

    def read(self, url: str) -> bytes:
        """Returns the content of a page of at most 64 MiB.

        Raises:
          UnreachableError: every attempt failed.
          RejectedError: the server rejected the request, or the page is too large.
          CancelledError: `stop` was called.
        """

        def attempt() -> bytes:
            with self._open(url, {}) as response:
                content = response.raw.read(_MAX_PAGE_BYTES + 1, decode_content=True)
            if len(content) > _MAX_PAGE_BYTES:
                raise RejectedError(f"{url}: got more than {_MAX_PAGE_BYTES:,} bytes, wanted a page; check the address")
            return content

        return self._with_retries(url, attempt, progress=lambda: 0)

    def fetch(self, url: str, path: str, advance: Callable[[int], None]) -> None:
        """Downloads a file, resuming after the bytes that the local file already has.

        Received bytes are written before more are read, so that a killed process loses none. If the server cannot
        resume, or has another version by now, the download starts from the beginning. The caller must verify the
        content.

        Args:
          url: address of the file.
          path: local file, created if it is missing.
          advance: called with the number of bytes received since the last call.

        Raises:
          UnreachableError: every attempt failed.
          RejectedError: the server rejected the request.
          CancelledError: `stop` was called.
          OSError: the local file cannot be written.
        """
        version: str | None = None

        def attempt() -> None:
            nonlocal version
            offset = _size(path)
            headers = {"Range": f"bytes={offset}-"} if offset else {}
            if offset and version:
                headers["If-Range"] = version
            with self._open(url, headers) as response:
                resumes = response.status_code == requests.codes.partial_content
                if response.status_code == RANGE_NOT_SATISFIABLE or (resumes and _first_byte(response) != offset):
                    with contextlib.suppress(FileNotFoundError):
                        os.remove(path)
                    raise TransientError(f"cannot resume at byte {offset:,}")
                version = _version(response)
                with open(path, "ab" if resumes else "wb") as file:
                    # read1 returns the received bytes without waiting for more. Not decoded: some servers declare a .gz
                    # file as plain text with Content-Encoding gzip.
                    while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=False):
                        file.write(chunk)
                        file.flush()
                        advance(len(chunk))
                        if self._stopped.is_set():
                            raise CancelledError

        self._with_retries(url, attempt, progress=lambda: _size(path))

    def _with_retries(self, url: str, attempt: Callable[[], Result], progress: Callable[[], int]) -> Result:
        policy = self._retry_policy
        failures, furthest = 0, progress()
        while True:
            self._wait(self._not_before - time.monotonic())
            try:
                return attempt()
            except TransientError as error:
                reached = progress()
                failures = 1 if reached > furthest else failures + 1
                furthest = max(furthest, reached)
                retry_after = error.retry_after_seconds or 0.0
                if retry_after > policy.max_retry_after_seconds:
                    raise UnreachableError(
                        f"{url}: {error}; the server requests a wait of {format_duration(retry_after)}; "
                        "run it again after that"
                    ) from error
                if failures > policy.max_retries:
                    raise UnreachableError(
                        f"{url}: {error} (consecutive failures: {failures}); run it again later"
                    ) from error
                seconds = max(retry_after, self._backoff(failures))
                say(f"{url}: {error}; again in {seconds:.1f} s (retry {failures} of {policy.max_retries})")
                with self._lock:
                    self.retry_count += 1
                    self._not_before = max(self._not_before, time.monotonic() + retry_after)
                self._wait(seconds)

    def _backoff(self, failures: int) -> float:
        """Returns the seconds to wait after a number of consecutive failures."""
        policy = self._retry_policy
        longest = min(policy.initial_backoff_seconds * 2 ** min(failures - 1, 30), policy.max_backoff_seconds)
        return longest * random.uniform(0.5, 1.0)

    def _wait(self, seconds: float) -> None:
        if self._stopped.wait(max(0.0, seconds)):
            raise CancelledError

    @contextlib.contextmanager
    def _open(self, url: str, headers: dict[str, str]) -> Iterator[requests.Response]:
        """Yields a response to read from; raises TransientError for errors of the connection, also inside the block."""
        timeout = self._retry_policy.timeout_seconds
        try:
            with self._session().get(url, headers=headers, stream=True, timeout=timeout) as response:
                status = f"HTTP {response.status_code} {response.reason}"
                if response.status_code in OVERLOADED:
                    raise TransientError(status, _retry_after_seconds(response))
                if not response.ok and response.status_code != RANGE_NOT_SATISFIABLE:
                    raise RejectedError(f"{url}: {status}; check that the server has it")
                yield response
        except requests.exceptions.InvalidSchema as error:
            raise RejectedError(
                f"{url}: not followed ({error}); a redirect from https:// to http:// is not allowed, and a SOCKS proxy "
                "needs the package PySocks"
            ) from error
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise RejectedError(
                    f"{url}: {_cause(error)}; behind an inspecting proxy, set REQUESTS_CA_BUNDLE to its certificates"
                ) from error
            if isinstance(error, (requests.Timeout, urllib3.exceptions.TimeoutError)):
                raise TransientError(f"no data for {timeout:g} s") from error
            raise TransientError(_cause(error)) from error

    def _session(self) -> requests.Session:
        if not hasattr(self._thread_local, "session"):
            session = requests.Session()
            session.headers.update(self._headers)
            if not self._allow_http:
                del session.adapters["http://"]
            self._thread_local.session = session
        return self._thread_local.session


class TransientError(Exception):
    """A failure after which a retry may succeed; `retry_after_seconds` is the server's Retry-After."""

    def __init__(self, message: str, retry_after_seconds: float | None = None):
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


def _size(path: str) -> int:
    return os.path.getsize(path) if os.path.exists(path) else 0


def _first_byte(response: requests.Response) -> int | None:
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(match.group(1)) if match else None


def _version(response: requests.Response) -> str | None:
    """Returns the value for If-Range: a strong ETag, else the modification date."""
    tag = response.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")


def _retry_after_seconds(response: requests.Response) -> float | None:
    try:
        return urllib3.util.Retry().get_retry_after(response.raw)
    except urllib3.exceptions.InvalidHeader:
        return None


def _cause(error: BaseException) -> str:
    """Returns the message of the innermost exception, from the operating system or the TLS library."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    if "IncompleteRead" in type(error).__name__:  # of urllib3 or of http.client
        return "the connection was closed early"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
