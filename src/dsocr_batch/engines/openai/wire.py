"""What goes to the server and comes back: chat completions in JSON, alone or as a stream."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import msgspec

from dsocr_batch.prepare.image import ImageForm
from dsocr_batch.profiles import IMAGE_TOKEN

T = TypeVar("T")

MAX_LINE_BYTES = 512 << 10
"""Of a stream: far more than an event with the text that fits a model's context."""
_MIME = {ImageForm.JPEG: b"image/jpeg", ImageForm.PNG: b"image/png"}


class WireError(Exception):
    """What came is not what this API sends; the message says how."""


class Text(msgspec.Struct):
    """A message, or the next piece of one."""

    content: str | None = None


class Choice(msgspec.Struct):
    """An answer; we ask for one."""

    delta: Text | None = None
    message: Text | None = None
    finish_reason: str | None = None
    token_ids: list[int] | None = None


class Usage(msgspec.Struct):
    """How many tokens a request took."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class ErrorInfo(msgspec.Struct):
    """What a server says of its failure."""

    message: str = ""
    code: int | str | None = None


class Completion(msgspec.Struct):
    """A whole answer, or an event of its stream."""

    choices: list[Choice] = []
    usage: Usage | None = None
    model: str | None = None
    error: ErrorInfo | str | None = None


class Model(msgspec.Struct):
    """A model that a server has."""

    id: str
    owned_by: str | None = None
    root: str | None = None
    max_model_len: int | None = None


class ModelList(msgspec.Struct):
    """Answer to ``GET /models``."""

    data: list[Model]


class Tokens(msgspec.Struct):
    """Answer to vLLM's ``POST /tokenize``."""

    tokens: list[int]


def decode(data: bytes | memoryview, type_: type[T]) -> T:
    """Return JSON as a record; unknown fields are skipped.

    Raises:
        WireError: it is not JSON, or not of that type.
    """
    try:
        return msgspec.json.decode(data, type=type_)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise WireError(f"{error}: {bytes(data[:80])!r}") from error


def error_words(error: ErrorInfo | str | None) -> str:
    """Return what an error of this API says."""
    return error.message if isinstance(error, ErrorInfo) else error or ""


def spoken(prompt: str) -> str:
    """Return a prompt without its marker for the image, which the server puts there itself."""
    return prompt.removeprefix(IMAGE_TOKEN).removeprefix("\n")


def page_body(
    image: memoryview | bytes,
    form: ImageForm,
    prompt: str,
    parameters: Mapping[str, Any],
    *,
    text_first: bool = False,
) -> bytes:
    """Return the JSON body of a request that reads a page.

    The image, by far the largest part, is encoded once and copied once.

    Args:
        image: an encoded file.
        form: JPEG or PNG.
        prompt: as for the model itself.
        parameters: the other fields of the body; not empty.
        text_first: send the text before the image; else after it.
    """
    picture = [
        b'{"type":"image_url","image_url":{"url":"data:',
        _MIME[form],
        b";base64,",
        b64encode(image),
        b'"}}',
    ]
    text = [msgspec.json.encode({"type": "text", "text": spoken(prompt)})]
    first, second = (text, picture) if text_first else (picture, text)
    return b"".join(
        [
            b'{"messages":[{"role":"user","content":[',
            *first,
            b",",
            *second,
            b"]}],",
            msgspec.json.encode(parameters)[1:],
        ]
    )


class EventStream:
    """Takes a stream apart into its events, however it was cut on its way.

    Server-sent events as all these servers use them: one line of data each; comments, which
    keep a connection alive, and other fields are skipped.
    """

    def __init__(self) -> None:
        self.is_done = False
        """True once the stream has said so."""
        self._rest = b""

    def feed(self, piece: bytes) -> Iterator[Completion]:
        """Yield the events that are complete now; to be gone through before the next piece.

        Args:
            piece: of the stream; empty at its end.

        Raises:
            WireError: a line of data is no event, or does not come to an end.
        """
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if not piece:
            lines.append(self._rest)
        for line in lines:
            if line.startswith(b"data:"):
                data = line[5:].strip()
                if data == b"[DONE]":
                    self.is_done = True
                    return
                yield decode(data, Completion)
            elif not line.startswith((b":", b"event:", b"id:", b"retry:")) and line.strip():
                raise WireError(f"not an event: {line[:80]!r}")
        if len(self._rest) > MAX_LINE_BYTES:
            raise WireError(f"a line has more than {MAX_LINE_BYTES >> 10} KiB")
