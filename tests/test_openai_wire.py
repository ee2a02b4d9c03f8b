from __future__ import annotations

import base64
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsocr_batch.engines.openai.failures import (
    BrokenReplyError,
    MisconfiguredError,
    RefusedError,
    ServerError,
    UnavailableError,
    failure,
    retry_after_s,
)
from dsocr_batch.engines.openai.retry import Patience
from dsocr_batch.engines.openai.transcript import Transcript
from dsocr_batch.engines.openai.wire import (
    MAX_LINE_BYTES,
    EventStream,
    WireError,
    decode,
    page_body,
)
from dsocr_batch.engines.openai.wire import Completion as Event
from dsocr_batch.prepare.image import ImageForm

NOW_S = 1_795_000_000.0

STREAM = (
    b"".join(
        b"data: " + json.dumps(event).encode() + b"\n\n"
        for event in [
            {"model": "dsocr", "choices": [{"index": 0, "delta": {"role": "assistant"}}]},
            {"model": "dsocr", "choices": [{"index": 0, "delta": {"content": "Ein Wörtchen "}}]},
            {"choices": [{"delta": {"content": "nur"}, "finish_reason": "stop"}]},
            {"choices": [], "usage": {"prompt_tokens": 903, "completion_tokens": 4}},
        ]
    )
    + b"data: [DONE]\n\n"
)


def transcript_of(data: bytes, piece_bytes: int = 1000) -> Transcript:
    transcript, stream = Transcript(max_tokens=100), EventStream()
    for start in range(0, len(data) + piece_bytes, piece_bytes):
        for event in stream.feed(data[start : start + piece_bytes]):
            transcript.add(event)
    return transcript


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_a_stream_is_the_sum_of_its_events(line_end: bytes) -> None:
    noise = b": ping\n\nevent: message\nid: 7\nretry: 3\n"
    stream = (noise + STREAM.replace(b"data: ", b"data:", 1)).replace(b"\n", line_end)
    transcript = transcript_of(stream)
    reading = transcript.reading()
    assert (reading.text, reading.output_tokens) == ("Ein Wörtchen nur", 4)
    assert transcript.model == "dsocr"


@given(st.integers(1, len(STREAM)))
def test_a_stream_is_the_same_however_it_is_cut_on_its_way(piece_bytes: int) -> None:
    reading = transcript_of(STREAM, piece_bytes).reading()
    assert (reading.text, reading.output_tokens) == ("Ein Wörtchen nur", 4)


def test_a_line_without_end_is_refused() -> None:
    with pytest.raises(WireError, match="512 KiB"):
        transcript_of(b"data: " + b"x" * (MAX_LINE_BYTES + 1000))


def test_an_error_before_a_line_without_end_is_told() -> None:
    error = b'data: {"error": {"message": "out of memory", "code": 500}}\n\n'
    with pytest.raises(UnavailableError, match="out of memory"):
        transcript_of(error + b"x" * (MAX_LINE_BYTES + 1000), MAX_LINE_BYTES * 2)


@pytest.mark.parametrize("cut", range(0, STREAM.index(b'"finish_reason"'), 7))
def test_a_stream_that_is_cut_before_its_end_is_no_page(cut: int) -> None:
    with pytest.raises((UnavailableError, WireError)):
        transcript_of(STREAM[:cut]).reading()


@given(
    st.lists(st.tuples(st.integers(0, len(STREAM)), st.integers(0, 3), st.binary(max_size=4))),
)
def test_a_damaged_stream_is_an_error_of_the_server_or_a_page(
    damages: list[tuple[int, int, bytes]],
) -> None:
    stream = bytearray(STREAM)
    for at, length, instead in damages:
        stream[at : at + length] = instead
    try:
        transcript_of(bytes(stream)).reading()
    except (ServerError, WireError) as error:
        assert str(error)  # noqa: PT017 (either is right)


@given(st.binary())
def test_any_bytes_are_an_answer_or_refused(data: bytes) -> None:
    try:
        decode(data, Event)
    except WireError as error:
        assert len(str(error)) < 1000  # noqa: PT017


@given(st.binary(), st.text(), st.booleans())
def test_a_body_is_json_whatever_the_prompt(image: bytes, prompt: str, text_first: bool) -> None:
    prompt = prompt.encode("utf-8", "replace").decode()
    data = page_body(
        memoryview(image), ImageForm.PNG, "<image>\n" + prompt, {"a": 1}, text_first=text_first
    )
    body = json.loads(data)
    parts = body["messages"][0]["content"]
    text, picture = parts if text_first else reversed(parts)
    assert body["a"] == 1
    assert text == {"type": "text", "text": prompt}
    assert picture["image_url"]["url"] == (
        "data:image/png;base64," + base64.b64encode(image).decode()
    )


@pytest.mark.parametrize(
    "status, meaning",
    [
        (204, BrokenReplyError),
        (302, MisconfiguredError),
        (400, RefusedError),
        (401, MisconfiguredError),
        (404, MisconfiguredError),
        (408, UnavailableError),
        (413, RefusedError),
        (422, RefusedError),
        (429, UnavailableError),
        (500, UnavailableError),
        (529, UnavailableError),
    ],
)
def test_a_status_says_what_helps(status: int, meaning: type[ServerError]) -> None:
    assert type(failure(status, "words")) is meaning


@pytest.mark.parametrize(
    "header, seconds",
    [
        (None, 0),
        ("0", 0),
        ("120", 120),
        ("Wed, 18 Nov 2026 11:06:50 GMT", 10),
        ("Wed, 18 Nov 2020 23:06:50 GMT", 0),
        ("soon", 0),
        ("-5", 0),
        ("1e9", 0),
        ("٣", 0),
        ("9" * 400, 999_999_999),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, seconds: float) -> None:
    assert retry_after_s(header, NOW_S) == seconds


@given(st.text())
def test_no_retry_after_is_too_strange(header: str) -> None:
    assert 0 <= retry_after_s(header, NOW_S) < math.inf


@given(st.integers(1, 10_000))
def test_pauses_grow_to_a_bound_and_are_never_longer(failures: int) -> None:
    patience = Patience(tries=None, limit_s=1, first_pause_s=1.0, max_pause_s=15.0)
    assert 0 <= patience.pause_s(failures) <= min(15.0, 2.0 ** min(failures - 1, 10))
