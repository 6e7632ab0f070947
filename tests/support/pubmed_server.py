"""A local PubMed server that can inject faults.

`from pubmed_server import PubMedServer`. The server supports HTTP/1.1 with Range, If-Range and ETag, lists its folders
like Apache, and records the requests.
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import http.server
import random
import re
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator

NAME = "pubmed26n{:04d}.xml.gz"
Fault = Callable[["_Handler", bytes], None]


def content(number: int, size: int = 50_000) -> bytes:
    """Returns invented bytes of file `number`; the same at each call."""
    return random.Random(number).randbytes(size)


class PubMedServer:
    """A server in a thread of this process.

    Attributes:
      url: for --mirror.
      files: path -> bytes of each file; may be changed while the server runs.
      faults: path -> faults of the next responses, one each.
      requests: (path, headers) of all requests.
    """

    def __init__(self, numbers: Iterable[int] = (1, 2, 3), *, updates: Iterable[int] = (), size: int = 50_000):
        self.files: dict[str, bytes] = {"/baseline/README.txt": b"Invented terms.\n"}
        self.faults: dict[str, list[Fault]] = collections.defaultdict(list)
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.ended = threading.Event()
        for folder, folder_numbers in (("baseline", numbers), ("updatefiles", updates)):
            for number in folder_numbers:
                self.put(f"/{folder}/{NAME.format(number)}", content(number, size))

    def put(self, path: str, data: bytes) -> None:
        """Publishes a file with its .md5."""
        self.files[path] = data
        self.files[f"{path}.md5"] = f"MD5({path.rsplit('/', 1)[-1]})= {hashlib.md5(data).hexdigest()}\n".encode()

    def request_headers(self, path: str) -> list[dict[str, str]]:
        """Returns the headers of each request for a path."""
        return [headers for requested, headers in self.requests if requested == path]

    def index(self, folder: str) -> bytes:
        """Returns the page of a folder in the format of Apache's mod_autoindex."""
        lines = [
            '<!DOCTYPE HTML PUBLIC "-//W3C//DTD HTML 3.2 Final//EN">',
            f"<html>\n <head>\n  <title>Index of /pubmed{folder}</title>\n </head>\n <body>",
            f"<h1>Index of /pubmed{folder}</h1>",
            '<pre>Name                    <a href="?C=M;O=A">Last modified</a>      <a href="?C=S;O=A">Size</a>  <hr>'
            '<a href="/pubmed/">Parent Directory</a>                             -   ',
        ]
        for path, data in sorted(self.files.items()):
            if path.startswith(folder):
                name = path.removeprefix(folder)
                size = f"{len(data) / 1024:.0f}K" if len(data) >= 1024 else f"{len(data)} "
                lines.append(f'<a href="{name}">{name}</a>{" " * (28 - len(name))}2026-01-15 14:48  {size:>4}  ')
        return "\n".join([*lines, "<hr></pre>\n</body></html>\n"]).encode()

    @contextlib.contextmanager
    def running(self, certificate: Callable[[ssl.SSLContext], None] | None = None) -> Iterator[PubMedServer]:
        """Serves until the block ends, with https if `certificate` configures a context."""
        handler = type("Handler", (_Handler,), {"pubmed": self})
        listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        scheme = "http"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            certificate(context)
            listener.socket = context.wrap_socket(listener.socket, server_side=True)
            scheme = "https"
        self.url = f"{scheme}://127.0.0.1:{listener.server_port}"
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.ended.set()
            listener.shutdown()
            listener.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    pubmed: PubMedServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.pubmed.requests.append((self.path, dict(self.headers)))
        data = self.pubmed.index(self.path) if self.path.endswith("/") else self.pubmed.files.get(self.path)
        with contextlib.suppress(ConnectionError):
            if data is None:
                self.head(404, 0)
            elif faults := self.pubmed.faults.get(self.path):
                faults.pop(0)(self, data)
            else:
                self.whole_or_range(data)

    def whole_or_range(self, data: bytes, ignore_range: bool = False) -> None:
        tag = f'"{hashlib.sha1(data).hexdigest()}"'
        requested = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if requested and not ignore_range and self.headers.get("If-Range", tag) == tag:
            first = int(requested[1])
            if first >= len(data):
                self.head(416, 0, {"Content-Range": f"bytes */{len(data)}"})
                return
            self.head(
                206, len(data) - first, {"ETag": tag, "Content-Range": f"bytes {first}-{len(data) - 1}/{len(data)}"}
            )
            self.wfile.write(data[first:])
        else:
            self.head(200, len(data), {"ETag": tag})
            self.wfile.write(data)

    def head(self, status: int, length: int | None, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def close_after(size: int) -> Fault:
    """Returns a fault that closes the connection after `size` bytes."""

    def fault(handler: _Handler, data: bytes) -> None:
        handler.head(200, len(data), {"ETag": f'"{hashlib.sha1(data).hexdigest()}"'})
        handler.wfile.write(data[:size])
        handler.close_connection = True

    return fault


def stall_after(size: int) -> Fault:
    """Returns a fault that sends `size` bytes and keeps the connection open."""

    def fault(handler: _Handler, data: bytes) -> None:
        handler.head(200, len(data))
        handler.wfile.write(data[:size])
        handler.pubmed.ended.wait()
        handler.close_connection = True

    return fault


def corrupt(handler: _Handler, data: bytes) -> None:
    """Sends the file with its last byte changed."""
    handler.whole_or_range(data[:-1] + bytes([data[-1] ^ 1]))


def ignore_range(handler: _Handler, data: bytes) -> None:
    """Sends the whole file."""
    handler.whole_or_range(data, ignore_range=True)


def respond(status: int, **headers: str) -> Fault:
    """Returns a fault that responds with a status and headers, and without a body."""

    def fault(handler: _Handler, data: bytes) -> None:
        handler.head(status, 0, {name.replace("_", "-"): value for name, value in headers.items()})

    return fault
