"""HTTP to one server. Every failure comes out as a ``ServerError`` that says what helps.

aiohttp, for its CPU time a streamed page (NOTES.md, "OpenAI-compatible servers").
"""

from __future__ import annotations

import asyncio
import io
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import aiohttp
import msgspec
from aiohttp.http_exceptions import HttpProcessingError

from dsocr_batch import __version__
from dsocr_batch.engines.openai.address import Address
from dsocr_batch.engines.openai.failures import (
    BrokenReplyError,
    MisconfiguredError,
    UnavailableError,
    failure,
    retry_after_s,
)
from dsocr_batch.engines.openai.transcript import Transcript
from dsocr_batch.engines.openai.wire import (
    Completion,
    ErrorInfo,
    EventStream,
    WireError,
    decode,
    error_words,
)
from dsocr_batch.names import display_text

T = TypeVar("T")

CONNECT_TIMEOUT_S = 10.0
KEEP_ALIVE_S = 4.0
"""Below the 5 s after which uvicorn, under vLLM, closes an idle connection: a request must not
meet its end."""
LAST_BYTES_TIMEOUT_S = 1.0
MAX_BODY_BYTES = 4 << 20
"""Of an answer that is not streamed: far more than the text that fits a model's context."""
_PILE_UP = 0.04
"""Of an answer's age: how long its text may wait to be taken in."""
_MAX_PILE_UP_S = 0.25
_RUSH_BYTES = 64 << 10
"""A piece so large has more behind it, which is not to wait."""
_MAX_WORDS_BYTES = 8192
MAX_WORDS_CHARS = 300


class Client:
    """One server's API. Made, used and closed on one event loop."""

    def __init__(self, address: Address, *, connections: int) -> None:
        self._address = address
        headers = {
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
            "User-Agent": f"dsocr-batch/{__version__}",
        }
        if address.key is not None:
            headers["Authorization"] = f"Bearer {address.key}"
        self._session = aiohttp.ClientSession(
            headers=headers,
            connector=aiohttp.TCPConnector(limit=connections, keepalive_timeout=KEEP_ALIVE_S),
            # No limit on the whole of a request: a page may take minutes. Callers watch silence.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
            auto_decompress=False,  # identity was asked for; a bomb stays what it is
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        """Close all connections, which ends their requests on the server."""
        await self._session.close()

    async def models(self, type_: type[T], *, timeout_s: float) -> T:
        """Return what ``GET /models`` says.

        Raises:
            ServerError: as the classes say.
        """
        return await self._exchange("GET", f"{self._address.url}/models", None, type_, timeout_s)

    async def tokenize(self, body: Mapping[str, Any], type_: type[T], *, timeout_s: float) -> T:
        """Return what vLLM's ``POST /tokenize``, which is not under ``/v1``, says.

        Raises:
            ServerError: as the classes say.
        """
        data = msgspec.json.encode(body)
        url = f"{self._address.root}/tokenize"
        return await self._exchange("POST", url, data, type_, timeout_s)

    async def complete(self, body: bytes, type_: type[T], *, timeout_s: float) -> T:
        """Return the answer to a chat completion that is not streamed.

        Raises:
            ServerError: as the classes say.
        """
        return await self._exchange("POST", self._completions, body, type_, timeout_s)

    async def answer(
        self,
        body: bytes,
        transcript: Transcript,
        *,
        on_text: Callable[[], None],
        first_token_s: float,
        next_token_s: float,
    ) -> None:
        """Take down the answer to a chat completion, as it comes, into ``transcript``.

        Leaving early, as when cancelled, closes the connection, at which vLLM stops writing.

        Args:
            body: of the request; whether it asks for a stream or not.
            transcript: empty.
            on_text: called when text has come, of many tokens perhaps.
            first_token_s: how long the first text may take.
            next_token_s: how long each further one may take.

        Raises:
            ServerError: as the classes say.
        """
        loop = asyncio.get_running_loop()
        timeout_s = first_token_s
        try:
            async with (
                asyncio.timeout(timeout_s) as limit,
                self._request("POST", self._completions, body) as response,
            ):
                async for events in _events(response):
                    has_text = False
                    for event in events:
                        has_text |= transcript.add(event)
                        if transcript.is_lost:
                            return
                    if has_text:
                        on_text()
                        timeout_s = next_token_s
                        limit.reschedule(loop.time() + timeout_s)
                await _end(response)
        except TimeoutError as error:
            raise UnavailableError(f"no text for {timeout_s:.0f} s") from error

    @property
    def _completions(self) -> str:
        return f"{self._address.url}/chat/completions"

    async def _exchange(
        self, method: str, url: str, body: bytes | None, type_: type[T], timeout_s: float
    ) -> T:
        try:
            async with asyncio.timeout(timeout_s), self._request(method, url, body) as response:
                return decode(await _whole_body(response), type_)
        except TimeoutError as error:
            raise UnavailableError(f"no answer within {timeout_s:.0f} s") from error

    @asynccontextmanager
    async def _request(
        self, method: str, url: str, body: bytes | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        # A stream, for aiohttp warns of large bodies in one piece.
        data = None if body is None else io.BytesIO(body)
        try:
            async with self._session.request(
                method, url, data=data, allow_redirects=False
            ) as response:
                await self._refuse_failure(response)
                yield response
        except WireError as error:
            raise BrokenReplyError(self._shown(str(error))) from error
        except (aiohttp.ClientSSLError, aiohttp.InvalidURL) as error:
            raise MisconfiguredError(self._shown(str(error))) from error
        except aiohttp.ClientConnectorError as error:
            raise UnavailableError(f"cannot connect: {_os_reason(error.os_error)}") from error
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
            reason = self._shown(str(error)) or type(error).__name__
            raise UnavailableError(f"the connection broke: {reason}") from error
        except (aiohttp.ClientError, HttpProcessingError) as error:
            raise BrokenReplyError(f"not HTTP: {self._shown(str(error))}") from error

    async def _refuse_failure(self, response: aiohttp.ClientResponse) -> None:
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise BrokenReplyError("the answer is compressed, which was not asked for")
        if response.status == 200:
            return
        location = response.headers.get("Location")
        words = f"it points to {location}" if location else await _words(response)
        raise failure(
            response.status,
            self._shown(words),
            retry_after_s(response.headers.get("Retry-After"), time.time()),
        )

    def _shown(self, words: str) -> str:
        """Return a server's words as one line of bounded length, without our key."""
        if self._address.key is not None:
            words = words.replace(self._address.key, "***")
        line = " ".join(words[: 2 * MAX_WORDS_CHARS].split())
        return display_text(line[:MAX_WORDS_CHARS])


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[Iterable[Completion]]:
    """Yield the events of a stream; an answer in one piece, where a server does not stream."""
    match response.content_type:
        case "text/event-stream":
            stream = EventStream()
            async for piece in _pieces(response):
                yield stream.feed(piece)
                if stream.is_done:
                    return
        case "application/json":
            yield [decode(await _whole_body(response), Completion)]
        case other:
            raise WireError(f"the answer is {other}, neither a stream nor JSON")


async def _pieces(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Yield a body as it comes, and an empty piece at its end.

    Every packet brings one token, and taking in each by itself costs more than all else that is
    done with a page's text. So they pile up in the socket, the longer the page has taken: its end,
    which nobody can foresee, is then noticed a fiftieth later on average. Over TLS they pile up
    behind it, decrypted one by one, which spares less.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    while piece := await response.content.readany():
        yield piece
        socket = response.connection.transport if response.connection is not None else None
        if socket is None or len(piece) > _RUSH_BYTES:
            continue
        # asyncio's transport for TLS can be asked nothing once it has closed.
        if not socket.is_closing():
            socket.pause_reading()
        await asyncio.sleep(min(_PILE_UP * (loop.time() - began), _MAX_PILE_UP_S))
        if not socket.is_closing():
            socket.resume_reading()
    yield piece


async def _end(response: aiohttp.ClientResponse) -> None:
    """Wait a moment for the end of a stream that is done: then its connection can be used again."""
    with suppress(aiohttp.ClientError, TimeoutError):
        async with asyncio.timeout(LAST_BYTES_TIMEOUT_S):
            while await response.content.readany():
                pass


async def _whole_body(response: aiohttp.ClientResponse) -> bytes:
    """Return a body that is not streamed.

    Raises:
        WireError: it is far too large.
    """
    data = await _at_most(response, MAX_BODY_BYTES + 1)
    if len(data) > MAX_BODY_BYTES:
        raise WireError(f"the answer has more than {MAX_BODY_BYTES >> 20} MiB")
    return data


async def _at_most(response: aiohttp.ClientResponse, size: int) -> bytes:
    data = b""
    while len(data) < size and (piece := await response.content.read(size - len(data))):
        data += piece
    return data


async def _words(response: aiohttp.ClientResponse) -> str:
    """Return what a server says of a failure: OpenAI's form, FastAPI's, or plain text."""
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            data = await _at_most(response, _MAX_WORDS_BYTES)
    except (aiohttp.ClientError, TimeoutError):
        return ""
    try:
        said = decode(data, _Said)
    except WireError:
        return data.decode("utf-8", "replace")
    return error_words(said.error) or said.message or str(said.detail or "")


class _Said(msgspec.Struct):
    error: ErrorInfo | str | None = None
    message: str | None = None
    detail: Any = None


def _os_reason(error: OSError) -> str:
    """Return "Connection refused"; asyncio's own words repeat the address."""
    if error.errno is not None and error.errno > 0:  # below 0 it is the name service's
        return os.strerror(error.errno)
    return error.strerror or "no route"
