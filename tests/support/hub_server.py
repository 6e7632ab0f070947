"""A stand-in for the Hugging Face Hub, as far as making repositories and uploading folders goes."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import http.server
import json
import re
import threading
from collections.abc import Iterator

import pytest
from huggingface_hub import constants

TOKEN = "hf_of_nobody"


@dataclasses.dataclass
class Hub:
    """What it was told.

    Attributes:
      address: of the server.
      files: content by "USER/NAME/path", as committed.
      private: by repository.
      tokens: every Authorization header that came.
      refuses: HTTP status that every request gets; 0: they are served.
      cards: Markdown whose front matter was handed in to be checked.
    """

    address: str = ""
    files: dict[str, bytes] = dataclasses.field(default_factory=dict)
    private: dict[str, bool] = dataclasses.field(default_factory=dict)
    tokens: set[str] = dataclasses.field(default_factory=set)
    refuses: int = 0
    cards: list[str] = dataclasses.field(default_factory=list)


@contextlib.contextmanager
def running(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Also what sends huggingface_hub here, as someone who has logged in."""
    hub, uploads = Hub(), {}

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def _answer(self, value: object, status: int = 200) -> None:
            content = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_PUT(self) -> None:
            uploads[self.path.rsplit("/", 1)[-1]] = self._body()
            self._answer({})

        def do_GET(self) -> None:
            hub.tokens.add(self.headers.get("Authorization", ""))
            if hub.refuses:
                return self._answer({"error": "no"}, hub.refuses)
            return self._answer({"id": self.path, "siblings": []})

        def do_POST(self) -> None:
            body = self._body()
            hub.tokens.add(self.headers.get("Authorization", ""))
            if hub.refuses:
                return self._answer({"error": "no"}, hub.refuses)
            if self.path == "/api/repos/create":
                wanted = json.loads(body)
                name = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
                hub.private[name] = bool(wanted.get("private")) or wanted.get("visibility") == "private"
                return self._answer({"url": f"{hub.address}/{name}", "name": name})
            if self.path == "/api/validate-yaml":
                hub.cards.append(json.loads(body)["content"])
                return self._answer({"errors": [], "warnings": []})
            if match := re.fullmatch(r"/api/models/(.+)/preupload/main", self.path):
                paths = [one["path"] for one in json.loads(body)["files"]]
                modes = ["lfs" if path.endswith(".safetensors") else "regular" for path in paths]
                answers = [
                    {"path": path, "uploadMode": mode, "shouldIgnore": False}
                    for path, mode in zip(paths, modes, strict=True)
                ]
                return self._answer({"files": answers})
            if self.path.endswith(".git/info/lfs/objects/batch"):
                objects = [
                    one | {"actions": {"upload": {"href": f"{hub.address}/upload/{one['oid']}"}}}
                    for one in json.loads(body)["objects"]
                ]
                return self._answer({"transfer": "basic", "objects": objects})
            if match := re.fullmatch(r"/api/models/(.+)/commit/main", self.path):
                for line in body.decode().splitlines():
                    entry = json.loads(line)
                    value = entry["value"]
                    if entry["key"] == "file":
                        hub.files[f"{match[1]}/{value['path']}"] = base64.b64decode(value["content"])
                    elif entry["key"] == "lfsFile":
                        hub.files[f"{match[1]}/{value['path']}"] = uploads[value["oid"]]
                oid = "0" * 40
                return self._answer({"commitUrl": f"{hub.address}/{match[1]}/commit/{oid}", "commitOid": oid})
            return self._answer({"error": self.path}, 404)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the stand-in knows the older way
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_ENDPOINT", hub.address)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
