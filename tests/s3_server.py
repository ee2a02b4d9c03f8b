"""A real S3 server on loopback (moto's), and a proxy before it that makes faults on order.

The program is given the proxy's address. Tests put and look at objects behind its back.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote, urlsplit

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.s3.models import S3Backend, s3_backends
from moto.server import ThreadedMotoServer

BUCKET = "corpus"
_HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    method: str
    key: str
    """Empty for what is asked of the bucket: listings, deletions of many."""
    query: str
    headers: dict[str, str]


@dataclass(slots=True, kw_only=True)
class Fault:
    """What happens to the next ``times`` requests that it is for."""

    method: str = "GET"
    key: str = ".*"
    """A regular expression for all of the key."""
    times: int = 1
    status: int | None = None
    """Answered in place of the server."""
    cut_after_bytes: int | None = None
    """Of the body, then the connection is closed."""
    bytes_per_s: float | None = None
    """How fast the body comes."""
    lose_answer: bool = False
    """The server does what it is asked, and the connection is closed."""
    before: Callable[[], None] | None = None
    """Called before the server is asked."""
    met: int = 0

    def is_for(self, request: Request) -> bool:
        return request.method == self.method and re.fullmatch(self.key, request.key) is not None


@dataclass(slots=True, kw_only=True)
class S3Server:
    """One bucket, what was asked of it, and the faults that wait."""

    url: str = ""
    faults: list[Fault] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    is_away: bool = False
    """Every connection is closed without an answer."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def env(self) -> dict[str, str]:
        """What the program is to have in its environment."""
        return {
            "AWS_ACCESS_KEY_ID": "AKIDTEST",
            "AWS_SECRET_ACCESS_KEY": "not-to-be-seen",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.url,
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def fault(self, fault: Fault) -> Fault:
        self.faults.append(fault)
        return fault

    def put(self, key: str, data: bytes, *, modified: datetime | None = None) -> None:
        put = _backend().put_object(BUCKET, key, data)
        if modified is not None:
            put.last_modified = modified.astimezone(UTC).replace(tzinfo=None)

    def put_tree(self, folder: Path, prefix: str) -> None:
        """Put every file of a folder below a prefix."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put(f"{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes())

    def get(self, key: str) -> bytes:
        value = _backend().get_object(BUCKET, key)
        assert value is not None, f"no object {key}"
        data: bytes = value.value
        return data

    def keys(self, prefix: str = "") -> list[str]:
        return sorted(key for key in _backend().buckets[BUCKET].keys if key.startswith(prefix))

    def delete(self, key: str) -> None:
        _backend().delete_object(BUCKET, key)

    def asked(self, method: str, key: str = ".*") -> list[Request]:
        """Return the requests of a kind, in their order."""
        with self._lock:
            return [
                request
                for request in self.requests
                if request.method == method and re.fullmatch(key, request.key)
            ]

    def take_fault(self, request: Request) -> Fault | None:
        with self._lock:
            self.requests.append(request)
            for fault in self.faults:
                if fault.met < fault.times and fault.is_for(request):
                    fault.met += 1
                    return fault
        return None


def _backend() -> S3Backend:
    backend: S3Backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
    return backend


@contextmanager
def moto_serving() -> Iterator[int]:
    """Serve what moto holds, which is one for the process, at the port that is given."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    moto.start()
    try:
        yield moto.get_host_and_port()[1]
    finally:
        moto.stop()
        if moto._server is not None:
            moto._server.server_close()


@contextmanager
def bucket_serving(moto_port: int) -> Iterator[S3Server]:
    """Serve one empty bucket, ``BUCKET``, before a server of moto's, which then has no other."""
    _backend().reset()
    _backend().create_bucket(BUCKET, "us-east-1")
    server = S3Server()
    handler = type("Handler", (_Handler,), {"server_state": server, "moto_port": moto_port})
    proxy = _Proxy(("127.0.0.1", 0), handler)
    server.url = f"http://127.0.0.1:{proxy.server_address[1]}"
    thread = threading.Thread(target=proxy.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.is_away = True  # nothing that comes late is for the next bucket
        proxy.shutdown()
        proxy.server_close()
        thread.join()


@contextmanager
def s3_serving() -> Iterator[S3Server]:
    """Serve one empty bucket, ``BUCKET``."""
    with moto_serving() as port, bucket_serving(port) as server:
        yield server


class _Proxy(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # clients that are killed leave their connections


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 30
    server_state: ClassVar[S3Server]
    moto_port: ClassVar[int]

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = self._request()
        fault = self.server_state.take_fault(request)
        if self.server_state.is_away:
            self.close_connection = True
            return
        if fault is not None and fault.before is not None:
            fault.before()
        if fault is not None and fault.status is not None:
            self._answer(fault.status, {}, _error_body(fault.status), None)
            return
        upstream = HTTPConnection("127.0.0.1", self.moto_port, timeout=30)
        try:
            upstream.request(self.command, self.path, body, dict(self.headers))
            reply = upstream.getresponse()
            data = reply.read()
        finally:
            upstream.close()
        if fault is not None and fault.lose_answer:
            self.close_connection = True
            return
        self._answer(reply.status, _end_to_end(reply), data, fault)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any  # noqa: N815

    def _request(self) -> Request:
        parts = urlsplit(self.path)
        _, _, key = parts.path.lstrip("/").partition("/")
        return Request(
            method=self.command,
            key=unquote(key),
            query=parts.query,
            headers={name.lower(): value for name, value in self.headers.items()},
        )

    def _answer(
        self, status: int, headers: dict[str, str], data: bytes, fault: Fault | None
    ) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if self.command == "HEAD":
            self.send_header("Content-Length", headers.get("x-length", "0"))
            self.end_headers()
            return
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if fault is not None and fault.cut_after_bytes is not None:
            self.wfile.write(data[: fault.cut_after_bytes])
            self.close_connection = True
        elif fault is not None and fault.bytes_per_s is not None:
            for begin in range(0, len(data), 4096):
                self.wfile.write(data[begin : begin + 4096])
                time.sleep(4096 / fault.bytes_per_s)
        else:
            self.wfile.write(data)


def _end_to_end(reply: HTTPResponse) -> dict[str, str]:
    headers = {name: value for name, value in reply.getheaders() if name.lower() not in _HOP_BY_HOP}
    if (length := reply.getheader("Content-Length")) is not None:
        headers["x-length"] = length
    return headers


def _error_body(status: int) -> bytes:
    codes = {403: "AccessDenied", 503: "SlowDown", 500: "InternalError", 404: "NoSuchKey"}
    return f"<Error><Code>{codes.get(status, 'Error')}</Code></Error>".encode()
