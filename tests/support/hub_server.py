"""Imitates the Hugging Face Hub, as far as it creates repositories and receives folders."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator

import pytest
from huggingface_hub import constants

TOKEN = "hf_test_token"


@dataclasses.dataclass
class Hub:
    """Requests that the server received.

    Attributes:
      address: URL of the server.
      files: committed content by "USER/NAME/path".
      private: whether a repository is private, by "USER/NAME".
      tokens: Authorization headers of all requests.
      refusal_status: HTTP status of the response to every request; 0: requests are served.
      cards: Markdown with front matter of validation requests.
      tags: the commit of each tag, by "USER/NAME@TAG".
    """

    address: str = ""
    files: dict[str, bytes] = dataclasses.field(default_factory=dict)
    private: dict[str, bool] = dataclasses.field(default_factory=dict)
    tokens: set[str] = dataclasses.field(default_factory=set)
    refusal_status: int = 0
    cards: list[str] = dataclasses.field(default_factory=list)
    tags: dict[str, str] = dataclasses.field(default_factory=dict)


class _Handler(http.server.BaseHTTPRequestHandler):
    """Serves the endpoints that huggingface_hub calls. Each server has a subclass with its `hub` and `uploads`."""

    protocol_version = "HTTP/1.1"
    hub: Hub
    uploads: dict[str, bytes]  # large files by oid

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

    def _respond(self, value: object, status: int = 200) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_PUT(self) -> None:
        self.uploads[self.path.rsplit("/", 1)[-1]] = self._body()
        self._respond({})

    def do_GET(self) -> None:
        self.hub.tokens.add(self.headers.get("Authorization", ""))
        if self.hub.refusal_status:
            return self._respond({"error": "no"}, self.hub.refusal_status)
        if match := re.fullmatch(r"/api/models/(.+)/refs(\?.*)?", self.path):
            return self._respond({"branches": [], "converts": [], "tags": self._tags_of(match[1])})
        return self._respond({"id": self.path, "siblings": []})

    def _tags_of(self, repository: str) -> list[dict[str, str]]:
        named = ((name.partition("@"), commit) for name, commit in self.hub.tags.items())
        return [
            {"name": tag, "ref": f"refs/tags/{tag}", "targetCommit": commit}
            for (owner, _, tag), commit in named
            if owner == repository
        ]

    def do_POST(self) -> None:
        body = self._body()
        self.hub.tokens.add(self.headers.get("Authorization", ""))
        if self.hub.refusal_status:
            return self._respond({"error": "no"}, self.hub.refusal_status)
        if self.path == "/api/repos/create":
            return self._create_repository(json.loads(body))
        if self.path == "/api/validate-yaml":
            self.hub.cards.append(json.loads(body)["content"])
            return self._respond({"errors": [], "warnings": []})
        if re.fullmatch(r"/api/models/(.+)/preupload/main", self.path):
            return self._choose_upload_modes([one["path"] for one in json.loads(body)["files"]])
        if self.path.endswith(".git/info/lfs/objects/batch"):
            objects = [
                one | {"actions": {"upload": {"href": f"{self.hub.address}/upload/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            return self._respond({"transfer": "basic", "objects": objects})
        if match := re.fullmatch(r"/api/models/(.+)/commit/main", self.path):
            return self._commit(match[1], body)
        if match := re.fullmatch(r"/api/models/(.+)/tag/([0-9a-f]{40})", self.path):
            self.hub.tags[f"{match[1]}@{json.loads(body)['tag']}"] = match[2]
            return self._respond({})
        return self._respond({"error": self.path}, 404)

    def _create_repository(self, wanted: dict) -> None:
        name = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
        self.hub.private[name] = bool(wanted.get("private")) or wanted.get("visibility") == "private"
        self._respond({"url": f"{self.hub.address}/{name}", "name": name})

    def _choose_upload_modes(self, paths: list[str]) -> None:
        modes = ["lfs" if path.endswith(".safetensors") else "regular" for path in paths]
        answers = [
            {"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in zip(paths, modes, strict=True)
        ]
        self._respond({"files": answers})

    def _commit(self, repository: str, body: bytes) -> None:
        for line in body.decode().splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                self.hub.files[f"{repository}/{value['path']}"] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                self.hub.files[f"{repository}/{value['path']}"] = self.uploads[value["oid"]]
        oid = hashlib.sha1(body).hexdigest()
        self._respond({"commitUrl": f"{self.hub.address}/{repository}/commit/{oid}", "commitOid": oid})


@contextlib.contextmanager
def running(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Yields a running server; huggingface_hub uses it with `TOKEN`."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub, "uploads": {}})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # this server implements only LFS uploads
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_ENDPOINT", hub.address)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
