"""Runs the application until SIGINT or SIGTERM; requests that were accepted are answered first."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from electramed_jax.common.errors import UserError, first_line
from electramed_jax.common.processes import signals

MAX_CONNECTIONS = 64
GRACE_SECONDS = 30  # for requests that run when the server is stopped


class _Server(uvicorn.Server):
    """A server that returns after a signal. uvicorn's raises the signal again, which would end the command."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stops the server at SIGINT and SIGTERM, and restores their handlers afterwards."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        signals.unblock_sigterm()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def bind(host: str, port: int) -> socket.socket:
    """Returns a listening socket; port 0 takes a free one.

    Raises:
      UserError: the address is in use or not one of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise UserError(
            f"{host}:{port}: {first_line(error)}; choose another --port (0: a free one) or --host"
        ) from error


def make_server(app: ASGIApp, *, verbose: bool = False) -> uvicorn.Server:
    """Returns a server of the application; `run(sockets=[...])` runs it."""
    return _Server(
        uvicorn.Config(
            app,
            log_level="info" if verbose else "warning",
            access_log=verbose,
            server_header=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=GRACE_SECONDS,
            lifespan="off",
            ws="none",
        )
    )
