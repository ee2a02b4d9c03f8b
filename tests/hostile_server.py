"""A stand-in for an OpenAI-compatible server that does, page by page, what it is told.

It speaks HTTP by hand, so that it can break it. The text of a page is made from the picture that
arrived, so a page that is lost, doubled or mixed up shows in the output.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import ssl
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

VISION_TOKENS = 903
TINY_TOKENS = 73
PROBE_TOKENS = 16
"""Requests for so few tokens are the engine's own, before work."""


@dataclass(frozen=True, kw_only=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def picture(self) -> bytes:
        url = next(part["image_url"]["url"] for part in self.parts if "image_url" in part)
        return base64.b64decode(url.partition(";base64,")[2], validate=True)

    @property
    def parts(self) -> list[dict[str, Any]]:
        content: list[dict[str, Any]] = self.body["messages"][0]["content"]
        return content

    @property
    def is_page(self) -> bool:
        return bool(self.body.get("max_tokens", 0) > PROBE_TOKENS)

    @property
    def text(self) -> str:
        return f"The picture is {hashlib.sha256(self.picture).hexdigest()[:16]}, word for word.\n"


def chunked(data: bytes) -> bytes:
    """A piece of a body as HTTP/1.1 sends it."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def event_line(content: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(content).encode() + b"\n\n"


class Reply:
    """The way back to one client."""

    def __init__(self, server: HostileServer, writer: asyncio.StreamWriter) -> None:
        self.server = server
        self.writer = writer

    async def raw(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self, status: int, content_type: str, *headers: str) -> None:
        lines = [f"HTTP/1.1 {status} X", f"Content-Type: {content_type}", *headers]
        await self.raw("\r\n".join([*lines, "", ""]).encode())

    async def json(self, content: Any, status: int = 200, *headers: str) -> None:
        await self.plain(json.dumps(content).encode(), status, *headers)

    async def plain(
        self, data: bytes, status: int = 200, *headers: str, content_type: str = "application/json"
    ) -> None:
        await self.head(status, content_type, f"Content-Length: {len(data)}", *headers)
        await self.raw(data)

    async def begin_stream(self) -> None:
        await self.head(200, "text/event-stream", "Transfer-Encoding: chunked")

    async def chunk(self, data: bytes) -> None:
        await self.raw(chunked(data))

    async def event(self, content: dict[str, Any]) -> None:
        await self.chunk(event_line(content))

    async def delta(self, text: str, finish_reason: str | None = None) -> None:
        choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}
        await self.event({"model": self.server.says_model, "choices": [choice]})

    async def usage(self, completion_tokens: Any, prompt_tokens: int = VISION_TOKENS) -> None:
        usage = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
        await self.event({"model": self.server.says_model, "choices": [], "usage": usage})

    async def end_stream(self) -> None:
        await self.chunk(b"data: [DONE]\n\n")
        await self.raw(b"0\r\n\r\n")

    def drop(self) -> None:
        self.writer.transport.abort()


Behaviour = Callable[[Request, Reply], Awaitable[None]]


def pieces(text: str) -> list[str]:
    return [text[start : start + 4] for start in range(0, len(text), 4)]


async def reads(request: Request, reply: Reply) -> None:
    """Do as one should."""
    await writes(request.text)(request, reply)


def writes(text: str, finish_reason: str | None = "stop", tokens: Any = None) -> Behaviour:
    async def behave(_: Request, reply: Reply) -> None:
        await reply.begin_stream()
        for piece in pieces(text):
            await reply.delta(piece)
        await reply.delta("", finish_reason)
        await reply.usage(len(pieces(text)) if tokens is None else tokens)
        await reply.end_stream()

    return behave


def says(status: int, words: str, *headers: str) -> Behaviour:
    async def behave(_: Request, reply: Reply) -> None:
        await reply.json({"error": {"message": words, "code": status}}, status, *headers)

    return behave


def drops_after(count: int) -> Behaviour:
    async def behave(request: Request, reply: Reply) -> None:
        if count:
            await reply.begin_stream()
        for piece in pieces(request.text)[:count]:
            await reply.delta(piece)
        reply.drop()

    return behave


def waits(seconds: float, then: Behaviour = reads) -> Behaviour:
    async def behave(request: Request, reply: Reply) -> None:
        await asyncio.sleep(seconds)
        await then(request, reply)

    return behave


@dataclass
class HostileServer:
    """Serves in a thread of its own; use it as a context manager."""

    plan: dict[int, Behaviour] = field(default_factory=dict)
    """What to do at the nth request for a page, counting from 0."""
    otherwise: Behaviour = reads
    """What to do with all others."""
    models: Any = None
    owned_by: str = "stand-in"
    says_model: str = "dsocr"
    root: str = "weights"
    has_guard: bool = True
    """If it is vLLM."""
    shows_tokenizer: bool = True
    """If it is vLLM; a gateway may hide it."""
    has_modes: bool = False
    key: str | None = None
    max_model_len: int | None = None
    tls: ssl.SSLContext | None = None
    probed: Behaviour = reads
    """What to do with the engine's first page."""
    requests: list[Request] = field(default_factory=list)
    read: list[str] = field(default_factory=list)
    """Texts of the pages that were begun to be answered, in order of arrival."""
    port: int = 0

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.listen()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.vanish()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}"

    @property
    def pages(self) -> list[Request]:
        return [request for request in self.requests if request.is_page]

    def listen(self) -> None:
        """Begin to serve, on the same port if there was one."""
        self._call(self._listen())

    def vanish(self) -> None:
        """Be gone at once, with every connection, like a process that was killed."""
        self._call(self._vanish())

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        future: Future[None] = asyncio.run_coroutine_threadsafe(work, self._loop)
        future.result(30)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _vanish(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            while not writer.transport.is_closing():
                await self._answer(await _request(reader), Reply(self, writer))
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._writers.discard(writer)
            self._tasks.discard(task)
            writer.transport.abort()

    async def _answer(self, request: Request, reply: Reply) -> None:
        self.requests.append(request)
        if self.key is not None and request.headers.get("authorization") != f"Bearer {self.key}":
            await says(401, f"the key {request.headers.get('authorization')} is wrong")(
                request, reply
            )
        elif request.path == "/v1/models":
            await reply.json(self._model_list())
        elif request.path == "/tokenize" and self.shows_tokenizer:
            await reply.json({"tokens": _tokens(request.body["prompt"])})
        elif request.path != "/v1/chat/completions":
            await says(404, "no such path")(request, reply)
        elif "logit_bias" in request.body:
            await self._be_probed_for_guard(request, reply)
        elif not request.body.get("stream"):
            await self._be_probed_for_modes(request, reply)
        elif not request.is_page:
            await self.probed(request, reply)
        else:
            number = len(self.pages) - 1
            self.read.append(request.text)
            await self.plan.get(number, self.otherwise)(request, reply)

    def _model_list(self) -> Any:
        model: dict[str, Any] = {"id": "dsocr", "owned_by": self.owned_by, "root": self.root}
        if self.max_model_len is not None:
            model |= {"max_model_len": self.max_model_len}
        return {"data": [model]} if self.models is None else self.models

    async def _be_probed_for_guard(self, request: Request, reply: Reply) -> None:
        (favourite,) = map(int, request.body["logit_bias"])
        last = 7 if self.has_guard and "vllm_xargs" in request.body else favourite
        await reply.json({"choices": [{"token_ids": [favourite, favourite, last]}]})

    async def _be_probed_for_modes(self, request: Request, reply: Reply) -> None:
        tiny = self.has_modes and request.body["mm_processor_kwargs"] == {"vision_mode": "tiny"}
        usage = {"prompt_tokens": 9 + (TINY_TOKENS if tiny else VISION_TOKENS)}
        await reply.json({"choices": [], "usage": usage})


def _tokens(text: str) -> list[int]:
    known = {"a": [67], "<td>": [128821], "</td>": [128822]}
    return known.get(text, [1] * len(text))


async def _request(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path, _ = head[0].split(" ")
    headers = {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])
    }
    data = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(method=method, path=path, headers=headers, body=json.loads(data) if data else {})
