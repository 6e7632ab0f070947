"""Limits of a server: bytes of a request, and predictions that wait in a queue."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from typing import TypeVar

import anyio.to_thread
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MIB = 2**20
_BYTES_PER_CHARACTER = 12  # of a form: four bytes of UTF-8, each as %XX
_OVERHEAD = 64 * 1024  # bytes of a request besides its text
Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of the requests of a client.

    Attributes:
      max_text: characters of the text of a request.
      max_upload: bytes of a file.
      max_pending: predictions that run or wait; further ones are refused with status 503.
    """

    max_text: int = 100_000
    max_upload: int = 32 * MIB
    max_pending: int = 8

    def max_body(self, path: str) -> int:
        """Returns the bytes of a request to this path."""
        return (self.max_upload if path == "/api/files" else _BYTES_PER_CHARACTER * self.max_text) + _OVERHEAD


class BusyError(Exception):
    """Too many predictions wait."""


class RequestQueue:
    """Runs one function at a time in a thread, in the order of arrival: the model is on one device."""

    def __init__(self, max_pending: int):
        self._lock = asyncio.Lock()
        self._max_pending, self._pending = max_pending, 0

    async def run(self, function: Callable[[], Result], *, is_continued: bool = False) -> Result:
        """Returns the result of the function.

        Args:
          is_continued: part of a request that was accepted before.

        Raises:
          BusyError: `max_pending` calls run or wait.
        """
        if self._pending >= self._max_pending and not is_continued:
            raise BusyError
        self._pending += 1
        try:
            async with self._lock:
                return await anyio.to_thread.run_sync(function)
        finally:
            self._pending -= 1


class BodyLimit:
    """ASGI middleware: refuses the body of a request that is too large, before or while it is read."""

    def __init__(self, app: ASGIApp, limits: Limits):
        self._app, self._limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers the request, or refuses it with status 413."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limits.max_body(scope["path"])
        length = Headers(scope=scope).get("content-length", "")
        if length.isdecimal() and int(length) > limit:
            await _refuse(limit)(scope, receive, send)
            return
        received, started = 0, False

        async def count() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise _TooLargeError
            return message

        async def watch(message: Message) -> None:
            nonlocal started
            if received > limit and not started:  # the application answers its own exception with another status
                raise _TooLargeError
            started = True
            await send(message)

        try:
            await self._app(scope, count, watch)
        except _TooLargeError:
            if not started:
                await _refuse(limit)(scope, receive, send)


class _TooLargeError(Exception):
    pass


def _refuse(limit: int) -> JSONResponse:
    return JSONResponse(
        {"detail": f"the request has more than {limit:,} bytes; send less, or start the server with higher limits"},
        413,
        {"Connection": "close"},
    )
