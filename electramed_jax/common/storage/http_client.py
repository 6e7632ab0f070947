"""A polite HTTP client: retries with back-off, waits when told to, takes a broken download up where it ended.

On `requests`, which tensorflow-datasets brings along anyway: it verifies certificates, keeps connections open and
respects the proxies, certificate bundles and `.netrc` of the person's environment.
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

OVERLOADED = {408, 425, 429, 500, 502, 503, 504}  # the same request may do later
RANGE_REFUSED = 416
_CHUNK_BYTES = 1 << 18
_LONGEST_PAGE_BYTES = 1 << 26
Result = TypeVar("Result")


class UnreachableError(UserError):
    """The server could not be reached, or broke off, in every try."""


class RejectedError(UserError):
    """The server answered, and will answer the same another time (404, 403, ...)."""


class CancelledError(Exception):
    """`Client.stop` was called."""


@dataclasses.dataclass(frozen=True)
class RetryPolicy:
    """How a server is treated.

    Attributes:
      max_retries: failures in a row, without a byte more in between, after which a URL is given up at the next.
      timeout_seconds: without a byte, after which a connection counts as broken.
      initial_backoff_seconds: before the first retry; doubled before each further one, less a random part of up to half.
      max_backoff_seconds: where the doubling ends.
      max_retry_after_seconds: the longest Retry-After that is waited for; beyond it the URL is given up.
    """

    max_retries: int = 8
    timeout_seconds: float = 60.0
    initial_backoff_seconds: float = 1.0
    max_backoff_seconds: float = 60.0
    max_retry_after_seconds: float = 600.0


class Client:
    """For use from several threads. A server's Retry-After holds all of them back.

    Attributes:
      retry_count: requests that were repeated so far.
    """

    def __init__(self, user_agent: str, retry_policy: RetryPolicy = RetryPolicy(), *, allow_http: bool = False):
        """`allow_http`: allow http:// URLs; otherwise even a redirect to one is refused."""
        self.retry_count = 0
        self._headers = {"User-Agent": user_agent, "Accept-Encoding": "identity"}
        self._retry_policy = retry_policy
        self._allow_http = allow_http
        self._of_thread = threading.local()  # a requests.Session is not promised to bear several
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._not_before = 0.0

    def stop(self) -> None:
        """Makes every call, in whatever thread, end soon with `CancelledError`."""
        self._stopped.set()

    def read(self, url: str) -> bytes:
        """The whole of a small resource.

        Raises:
          NoAnswer, Refused, Stopped.
        """

        def attempt() -> bytes:
            with self._answer(url, {}) as response:
                content = response.raw.read(_LONGEST_PAGE_BYTES + 1, decode_content=True)
            if len(content) > _LONGEST_PAGE_BYTES:
                raise RejectedError(
                    f"{url}: got more than {_LONGEST_PAGE_BYTES:,} bytes, wanted a page; check the address"
                )
            return content

        return self._with_retries(url, attempt, progress=lambda: 0)

    def fetch(self, url: str, path: str, advance: Callable[[int], None]) -> None:
        """Completes the local file `path`, whose bytes so far are the beginning of what `url` has.

        Every byte is on its way to the disk before the next is asked for: a killed process loses nothing. Where the
        server cannot go on from there, or has another version by now, the file is begun anew. That the bytes were
        the right ones is the caller's to verify.

        Args:
          advance: called with the number of bytes that arrived.

        Raises:
          NoAnswer, Refused, Stopped; OSError of the local file.
        """
        version: str | None = None

        def attempt() -> None:
            nonlocal version
            there = _size(path)
            headers = {"Range": f"bytes={there}-"} if there else {}
            if there and version:
                headers["If-Range"] = version
            with self._answer(url, headers) as response:
                goes_on = response.status_code == requests.codes.partial_content
                if response.status_code == RANGE_REFUSED or (goes_on and _first_byte(response) != there):
                    with contextlib.suppress(FileNotFoundError):
                        os.remove(path)
                    raise TransientError(f"cannot go on from byte {there:,}")
                version = _version(response)
                with open(path, "ab" if goes_on else "wb") as file:
                    # read1: what has come, without waiting for more. Not decoded: some servers call a .gz file
                    # plain text that was gzip-encoded for the way.
                    while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=False):
                        file.write(chunk)
                        file.flush()
                        advance(len(chunk))
                        if self._stopped.is_set():
                            raise CancelledError

        self._with_retries(url, attempt, progress=lambda: _size(path))

    def _with_retries(self, url: str, attempt: Callable[[], Result], progress: Callable[[], int]) -> Result:
        failures, furthest = 0, progress()
        while True:
            self._wait(self._not_before - time.monotonic())
            try:
                return attempt()
            except TransientError as error:
                reached = progress()
                failures = 1 if reached > furthest else failures + 1
                furthest = max(furthest, reached)
                told = error.retry_after_seconds or 0.0
                if told > self._retry_policy.max_retry_after_seconds:
                    raise UnreachableError(
                        f"{url}: {error}; asks to wait {format_duration(told)}; run it again then"
                    ) from error
                if failures > self._retry_policy.max_retries:
                    raise UnreachableError(
                        f"{url}: {error} (tries in a row: {failures}); run it again later"
                    ) from error
                seconds = max(told, self._back_off(failures))
                say(f"{url}: {error}; again in {seconds:.1f} s (retry {failures} of {self._retry_policy.max_retries})")
                with self._lock:
                    self.retry_count += 1
                    self._not_before = max(self._not_before, time.monotonic() + told)
                self._wait(seconds)

    def _back_off(self, failures: int) -> float:
        longest = self._retry_policy.initial_backoff_seconds * 2 ** min(failures - 1, 30)
        return min(longest, self._retry_policy.max_backoff_seconds) * random.uniform(0.5, 1.0)

    def _wait(self, seconds: float) -> None:
        if self._stopped.wait(max(0.0, seconds)):
            raise CancelledError

    @contextlib.contextmanager
    def _answer(self, url: str, headers: dict[str, str]) -> Iterator[requests.Response]:
        """Yields an answer to read from; what goes wrong with the connection, in the block too, is `TransientError`."""
        timeout = self._retry_policy.timeout_seconds
        try:
            with self._session().get(url, headers=headers, stream=True, timeout=timeout) as response:
                status = f"HTTP {response.status_code} {response.reason}"
                if response.status_code in OVERLOADED:
                    raise TransientError(status, _retry_after_seconds(response))
                if not response.ok and response.status_code != RANGE_REFUSED:
                    raise RejectedError(f"{url}: {status}; check that the server has it")
                yield response
        except requests.exceptions.InvalidSchema as error:
            raise RejectedError(
                f"{url}: not followed ({error}); from https:// no way may lead to http://, and a SOCKS proxy needs the "
                "package PySocks"
            ) from error
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise RejectedError(
                    f"{url}: {_cause(error)}; behind an inspecting proxy, name its certificates in REQUESTS_CA_BUNDLE"
                ) from error
            if isinstance(error, (requests.Timeout, urllib3.exceptions.TimeoutError)):
                raise TransientError(f"nothing came for {timeout:g} s") from error
            raise TransientError(_cause(error)) from error

    def _session(self) -> requests.Session:
        if not hasattr(self._of_thread, "session"):
            session = requests.Session()
            session.headers.update(self._headers)
            if not self._allow_http:
                del session.adapters["http://"]
            self._of_thread.session = session
        return self._of_thread.session


class TransientError(Exception):
    """May go better another time; `retry_after_seconds`: the server's Retry-After."""

    def __init__(self, message: str, retry_after_seconds: float | None = None):
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


def _size(path: str) -> int:
    return os.path.getsize(path) if os.path.exists(path) else 0


def _first_byte(response: requests.Response) -> int | None:
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(match.group(1)) if match else None


def _version(response: requests.Response) -> str | None:
    """What If-Range takes: a strong ETag, else the date."""
    tag = response.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")


def _retry_after_seconds(response: requests.Response) -> float | None:
    try:
        return urllib3.util.Retry().get_retry_after(response.raw)
    except urllib3.exceptions.InvalidHeader:
        return None


def _cause(error: BaseException) -> str:
    """What the operating system or the TLS library said, out of the exceptions wrapped around it."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    if "IncompleteRead" in type(error).__name__:  # of urllib3 or of http.client
        return "the connection broke off"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
