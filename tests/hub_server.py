"""A Hub on loopback with one model, which can fail on purpose.

It answers what ``huggingface_hub`` asks for (1.31 to 2.4): the model's info, its tree, and
``resolve``, which sends on to another host (another port, here) for files that git-lfs holds.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import urlsplit

from checkpoints import COMMIT

MODEL = "someone/ocr"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    method: str
    path: str
    range: str | None
    token: str | None


@dataclass(slots=True, kw_only=True)
class Hub:
    """What it holds, what it was asked, and how it fails."""

    files: dict[str, bytes]
    url: str = ""
    cdn_url: str = ""
    requests: list[Request] = field(default_factory=list)
    status: int = 200
    """Of every answer to what begins with ``status_for``."""
    status_for: str = "/"
    error_code: str = ""
    tampered: dict[str, bytes] = field(default_factory=dict)
    """Sent in place of a file."""
    claimed_bytes: dict[str, int] = field(default_factory=dict)
    """Listed in place of a file's size."""
    cuts_after_bytes: list[int] = field(default_factory=list)
    """After how many bytes of a file the connection is cut; one entry is used up each time."""
    stalls_after_bytes: int | None = None
    released: threading.Event = field(default_factory=threading.Event)

    def fetched(self, name: str) -> list[Request]:
        """Return the requests for a file's content."""
        digest = hashlib.sha256(self.files[name]).hexdigest()
        ends = (f"/resolve/{COMMIT}/{name}", f"/cdn/{digest}")
        return [
            request
            for request in self.requests
            if request.method == "GET" and request.path.endswith(ends)
        ]


def is_lfs(name: str) -> bool:
    return name.endswith(".safetensors")


def etag(name: str, content: bytes) -> str:
    if is_lfs(name):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


@contextmanager
def serving(files: Mapping[str, bytes]) -> Iterator[Hub]:
    hub = Hub(files=dict(files))
    handler = type("Handler", (_Handler,), {"hub": hub})
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), handler) for _ in range(2)]
    hub_port, cdn_port = (server.server_address[1] for server in servers)
    # Two names, for the library takes another port of the same host for the Hub.
    hub.url, hub.cdn_url = f"http://127.0.0.1:{hub_port}", f"http://localhost:{cdn_port}"
    threads = [threading.Thread(target=server.serve_forever, args=(0.02,)) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        hub.released.set()
        for server in servers:
            server.shutdown()
            server.server_close()
        for thread in threads:
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: ClassVar[Hub]

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = urlsplit(self.path).path
        headers = self.headers
        self.hub.requests.append(
            Request(
                method=self.command,
                path=path,
                range=headers.get("Range"),
                token=headers.get("Authorization"),
            )
        )
        if self.hub.status != 200 and path.startswith(self.hub.status_for):
            self._send(self.hub.status, b"{}", {"X-Error-Code": self.hub.error_code})
        elif path.startswith("/cdn/"):
            self._send_file(self._by_digest(path.removeprefix("/cdn/")), {})
        elif path.startswith(f"/api/models/{MODEL}/revision/"):
            self._send(200, json.dumps(self._info()).encode(), {})
        elif path.startswith(f"/api/models/{MODEL}/tree/"):
            self._send(200, json.dumps(self._tree()).encode(), {})
        elif path.startswith(f"/{MODEL}/resolve/{COMMIT}/"):
            self._resolve(path.rpartition("/")[2])
        else:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def _resolve(self, name: str) -> None:
        content = self.hub.files[name]
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{etag(name, content)}"'}
        if not is_lfs(name):
            self._send_file(name, headers)
            return
        digest = etag(name, content)
        linked = {"X-Linked-Size": str(len(content)), "X-Linked-ETag": f'"{digest}"'}
        self._send(302, b"", {**headers, **linked, "Location": f"{self.hub.cdn_url}/cdn/{digest}"})

    def _by_digest(self, digest: str) -> str:
        return next(
            name for name, content in self.hub.files.items() if etag(name, content) == digest
        )

    def _send_file(self, name: str, headers: dict[str, str]) -> None:
        content = self.hub.tampered.get(name, self.hub.files[name])
        first = 0
        if (wanted := self.headers.get("Range")) is not None:
            first = int(wanted.removeprefix("bytes=").removesuffix("-"))
            headers = {
                **headers,
                "Content-Range": f"bytes {first}-{len(content) - 1}/{len(content)}",
            }
        self._send(206 if wanted else 200, content[first:], headers)

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.hub.cuts_after_bytes and len(body) > self.hub.cuts_after_bytes[0]:
            self.wfile.write(body[: self.hub.cuts_after_bytes.pop(0)])
            self.close_connection = True
        elif self.hub.stalls_after_bytes is not None and len(body) > self.hub.stalls_after_bytes:
            self.wfile.write(body[: self.hub.stalls_after_bytes])
            self.wfile.flush()
            self.hub.released.wait(30)
            self.close_connection = True
        else:
            self.wfile.write(body)

    def _info(self) -> dict[str, object]:
        siblings = []
        for name, content in self.hub.files.items():
            size = self.hub.claimed_bytes.get(name, len(content))
            sibling = {"rfilename": name, "size": size, "blobId": etag("", content)}
            if is_lfs(name):
                sibling["lfs"] = {"sha256": etag(name, content), "size": size, "pointerSize": 135}
            siblings.append(sibling)
        return {"id": MODEL, "modelId": MODEL, "sha": COMMIT, "siblings": siblings}

    def _tree(self) -> list[dict[str, object]]:
        entries = []
        for name, content in self.hub.files.items():
            size = len(content)
            entry = {"type": "file", "path": name, "size": size, "oid": etag("", content)}
            if is_lfs(name):
                entry["lfs"] = {"oid": etag(name, content), "size": size, "pointerSize": 135}
            entries.append(entry)
        return entries
