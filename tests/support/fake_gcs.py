"""A fake Google Cloud Storage on this machine: the requests of gcsfs to the JSON API, over HTTP, in memory.

It records the requests, and fails on demand like real storage: status 503, connections that close in the middle of a
response, responses that never begin, and damaged bytes.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import datetime
import hashlib
import http.server
import json
import os
import re
import threading
import time
import urllib.parse
from collections.abc import Iterator

import fsspec
import google_crc32c
import pytest

# Otherwise gcsfs queries the type of a bucket from a second service, over gRPC. It reads the variable when imported.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"


@dataclasses.dataclass(frozen=True)
class Request:
    """A request that was answered, or failed on demand.

    Attributes:
      method: "GET", "POST" or "DELETE".
      name: "bucket/name" of the object.
      range: first byte and end of the requested content; None for other requests.
      sent: bytes of the response's body.
      status: HTTP status; 500 for a failure without a response.
    """

    method: str
    name: str
    range: tuple[int, int] | None
    sent: int
    status: int


class Storage:
    """State of the server.

    Attributes:
      objects: {"bucket/name": content}.
      generations: {"bucket/name": number of times it was written or removed}.
      requests: requests in the order of their arrival.
      failures: (part of a name, kind) pairs, each used once: the next request whose name contains the part fails as
        "503", "break" (half of the content), "silence" (no response) or "flip" (one wrong bit).
      delay: seconds before content is sent, as latency of a distant service.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.generations: dict[str, int] = {}
        self.requests: list[Request] = []
        self.failures: list[tuple[str, str]] = []
        self.delay = 0.0
        self.url = ""
        self._uploads: dict[str, tuple[str, bytearray]] = {}
        self._lock = threading.Lock()

    def clear(self) -> None:
        """Removes all objects, requests and failures."""
        for collection in (self.objects, self.generations, self.requests, self.failures):
            collection.clear()

    def fail(self, name: str, *kinds: str) -> None:
        """Makes the next requests with `name` in their name fail, one for each kind."""
        self.failures += [(name, kind) for kind in kinds]

    def downloads(self, name: str = "") -> list[Request]:
        """Returns the answered requests for the content of objects with `name` in their name."""
        return [r for r in self.requests if r.method == "GET" and r.range and name in r.name and r.status < 400]

    def next_failure(self, name: str) -> str | None:
        """Returns and removes the next failure for a name."""
        with self._lock:
            for number, (part, kind) in enumerate(self.failures):
                if part in name:
                    del self.failures[number]
                    return kind
        return None


@contextlib.contextmanager
def running() -> Iterator[Storage]:
    """Runs the server, and redirects gcsfs of this process and of its child processes to it."""
    storage = Storage()
    handler = type("Handler", (_Handler,), {"storage": storage})
    server = _Server(("127.0.0.1", 0), handler)
    storage.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("STORAGE_EMULATOR_HOST", storage.url)
            patch.setenv("FSSPEC_GS_TOKEN", "anon")  # for child processes; this one has read it already
            patch.setitem(fsspec.config.conf, "gs", {"token": "anon", "endpoint_url": storage.url})
            yield storage
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *_: object) -> None:
        """Ignores errors: gcsfs sends two requests at once and closes the connection of the slower one."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # sends head and body in one packet: a second one would wait for the acknowledgement
    disable_nagle_algorithm = True
    storage: Storage

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path, query = self._address()
        if match := re.fullmatch(r"(?:/download)?/storage/v1/b/([^/]+)/o/(.+)", path):
            name = f"{match[1]}/{urllib.parse.unquote(match[2])}"
            if name not in self.storage.objects:
                self._answer(404, {"error": {"code": 404, "message": "No such object"}}, name)
            elif query.get("alt") == "media":
                self._send_content(name)
            else:
                self._answer(200, self._resource(name), name)
        elif match := re.fullmatch(r"/storage/v1/b/([^/]+)/o", path):
            self._list(match[1], query)
        elif match := re.fullmatch(r"/storage/v1/b/([^/]+)", path):
            self._answer(200, {"kind": "storage#bucket", "name": match[1]}, match[1])
        else:
            self._answer(404, {}, path)

    def do_POST(self) -> None:
        path, query = self._address()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if match := re.fullmatch(r"/upload/storage/v1/b/([^/]+)/o", path):
            self._upload(match[1], query, body)
        elif match := re.fullmatch(r"/storage/v1/b/([^/]+)/o/(.+)/rewriteTo/b/([^/]+)/o/(.+)", path):
            bucket, source, to_bucket, target = map(urllib.parse.unquote, match.groups())
            content = self.storage.objects.get(f"{bucket}/{source}")
            name = f"{to_bucket}/{target}"
            if content is None:
                self._answer(404, {"error": {"code": 404, "message": "No such object"}}, name)
            else:
                self._store(name, content, {"done": True})
        else:
            self._answer(404, {}, path)

    def do_DELETE(self) -> None:
        path, _ = self._address()
        match = re.fullmatch(r"/storage/v1/b/([^/]+)/o/(.+)", path)
        name = f"{match[1]}/{urllib.parse.unquote(match[2])}"
        if not self._fails(name):
            removed = self.storage.objects.pop(name, None)
            self.storage.generations[name] = self.storage.generations.get(name, 0) + 1
            error = {"error": {"code": 404, "message": f"No such object: {name}"}}
            self._answer(
                204 if removed is not None else 404, {} if removed is not None else error, name, may_fail=False
            )

    def _address(self) -> tuple[str, dict[str, str]]:
        address = urllib.parse.urlsplit(self.path)
        return address.path, dict(urllib.parse.parse_qsl(address.query))

    def _resource(self, name: str) -> dict[str, object]:
        content = self.storage.objects[name]
        bucket, _, key = name.partition("/")
        crc = google_crc32c.value(content).to_bytes(4, "big")
        return {
            "kind": "storage#object",
            "bucket": bucket,
            "name": key,
            "size": str(len(content)),
            "generation": str(self.storage.generations.get(name, 1)),
            "updated": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%S.%fZ}",  # the time of upload is not stored
            "md5Hash": base64.b64encode(hashlib.md5(content).digest()).decode(),
            "crc32c": base64.b64encode(crc).decode(),
        }

    def _list(self, bucket: str, query: dict[str, str]) -> None:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        items, prefixes = [], set()
        for name in sorted(self.storage.objects):
            if not name.startswith(f"{bucket}/{prefix}"):
                continue
            rest = name[len(bucket) + 1 + len(prefix) :]
            if delimiter and delimiter in rest:
                prefixes.add(prefix + rest.partition(delimiter)[0] + delimiter)
            else:
                items.append(self._resource(name))
        listing = {"kind": "storage#objects", "items": items, "prefixes": sorted(prefixes)}
        self._answer(200, listing, f"{bucket}/{prefix}")

    def _send_content(self, name: str) -> None:
        content = self.storage.objects[name]
        first, last = 0, len(content) - 1
        if match := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):
            first, last = int(match[1]), min(int(match[2]), last)
        time.sleep(self.storage.delay)
        failure = self._fails(name, also=("break", "flip"))
        if failure is True:
            return
        part = bytearray(content[first : last + 1])
        if failure == "flip":
            part[len(part) // 2] ^= 1
        self.storage.requests.append(
            Request("GET", name, (first, last + 1), len(part), 500 if failure == "break" else 206)
        )
        self.send_response(206)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.end_headers()
        self.wfile.write(part[: len(part) // 2] if failure == "break" else part)
        if failure == "break":
            self.close_connection = True

    def _upload(self, bucket: str, query: dict[str, str], body: bytes) -> None:
        kind = query["uploadType"]
        if kind == "media":
            name = f"{bucket}/{query['name']}"
            exists, wanted = name in self.storage.objects, query.get("ifGenerationMatch")
            current = str(self.storage.generations.get(name, 1)) if exists else "0"
            if wanted not in (None, current):
                message = "At least one of the pre-conditions you specified did not hold."
                self._answer(412, {"error": {"code": 412, "message": message}}, name)
            else:
                self._store(name, body, {})
        elif kind == "multipart":
            head = f"Content-Type: {self.headers['Content-Type']}\n\n".encode()
            marker = re.search(rb'boundary="([^"]+)"', head)[1]
            header, content = body.split(b"--" + marker)[1:3]
            metadata = json.loads(header.partition(b"\n\n")[2])
            self._store(f"{bucket}/{metadata['name']}", content.partition(b"\n\n")[2][:-1], {})
        elif "upload_id" not in query:
            name = f"{bucket}/{json.loads(body)['name']}"
            if not self._fails(name):
                number = str(len(self.storage._uploads))
                self.storage._uploads[number] = name, bytearray()
                where = f"{self.storage.url}/upload/storage/v1/b/{bucket}/o?uploadType=resumable&upload_id={number}"
                self._answer(200, {}, name, may_fail=False, headers={"Location": where})
        else:
            name, content = self.storage._uploads[query["upload_id"]]
            first, last, size = map(int, re.findall(r"\d+", self.headers["Content-Range"]))
            if self._fails(name):
                return
            content[first:] = body
            if last + 1 == size:
                self._store(name, bytes(content), {}, may_fail=False)
            else:
                self._answer(308, {}, name, may_fail=False, headers={"Range": f"bytes=0-{last}"})

    def _store(self, name: str, content: bytes, more: dict[str, object], *, may_fail: bool = True) -> None:
        if not (may_fail and self._fails(name)):
            self.storage.objects[name] = content
            self.storage.generations[name] = self.storage.generations.get(name, 0) + 1
            self._answer(200, self._resource(name) | more, name, may_fail=False)

    def _fails(self, name: str, also: tuple[str, ...] = ()) -> bool | str:
        """Returns whether the request was answered with a failure, or a kind in `also` that the caller has to apply."""
        failure = self.storage.next_failure(name)
        if failure is None:
            return False
        if failure in also:
            return failure
        if failure == "silence":
            self.storage.requests.append(Request(self.command, name, None, 0, 500))
            self.close_connection = True
        else:
            self._answer(
                503, {"error": {"code": 503, "message": "We encountered an internal error"}}, name, may_fail=False
            )
        return True

    def _answer(
        self,
        status: int,
        value: dict[str, object],
        name: str,
        *,
        may_fail: bool = True,
        headers: dict[str, str] | None = None,
    ) -> None:
        if may_fail and self._fails(name):
            return
        data = b"" if status == 204 else json.dumps(value).encode()
        self.storage.requests.append(Request(self.command, name, None, len(data), status))
        self.send_response(status)
        for key, text in (headers or {}).items():
            self.send_header(key, text)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
