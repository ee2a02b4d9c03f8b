from __future__ import annotations

import asyncio
import base64
import logging
import secrets
import threading
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image, ImageDraw

from dsocr_batch.engines.base import EngineLostError, PageReadError, PageRequest, Reading
from dsocr_batch.engines.openai.address import parse_address
from dsocr_batch.engines.openai.engine import OpenAIEngine, connect
from dsocr_batch.engines.openai.retry import Patience, Timing
from dsocr_batch.engines.resolve import engine_names, load_engine
from dsocr_batch.errors import EngineUnusable, UsageError
from dsocr_batch.options import EngineOptions
from dsocr_batch.prepare.encode import encode_jpeg
from dsocr_batch.prepare.image import ImageForm, PageImage
from dsocr_batch.profiles import VisionMode
from dsocr_batch.records import FailureClass, FinishReason
from hostile_server import (
    Behaviour,
    HostileServer,
    Reply,
    Request,
    drops_after,
    pieces,
    reads,
    says,
    waits,
    writes,
)

SOON = Patience(tries=3, limit_s=2.0, first_pause_s=0.01, max_pause_s=0.05)
QUICK = Timing(
    first_token_s=20,
    next_token_s=20,
    survey=Patience(tries=1, limit_s=0.2, first_pause_s=0.01),
    start=Patience(tries=None, limit_s=2.0, first_pause_s=0.05, max_pause_s=0.1),
    page=SOON,
)

Outcome = Reading | PageReadError | EngineLostError


def engine_for(server: HostileServer, timing: Timing = QUICK, **options: Any) -> OpenAIEngine:
    return connect(EngineOptions(base_url=server.url, **options), {}, timing)


def picture(number: int) -> PageImage:
    page = Image.new("RGB", (120, 160), "white")
    ImageDraw.Draw(page).text((10, 10), f"page {number}", "black")
    data = encode_jpeg(page.tobytes(), *page.size, dpi=72)
    width, height = page.size
    return PageImage(form=ImageForm.JPEG, width_px=width, height_px=height, data=memoryview(data))


def request_for(number: int, **changes: Any) -> PageRequest:
    fields: dict[str, Any] = {
        "page_id": f"paper.pdf#{number}",
        "image": picture(number),
        "prompt": "<image>\nFree OCR.",
        "vision_mode": None,
        "temperature": 0.0,
        "release_image": lambda: None,
        "on_progress": lambda: None,
    }
    return PageRequest(**{**fields, **changes})


def read(engine: OpenAIEngine, *requests: PageRequest, at_once: bool = False) -> list[Outcome]:
    """Start the engine and read pages, one after the other or all at once."""

    async def outcome(request: PageRequest) -> Outcome:
        try:
            return await engine.read(request)
        except (PageReadError, EngineLostError) as error:
            return error

    async def work() -> list[Outcome]:
        try:
            await engine.start()
            if at_once:
                return await asyncio.gather(*map(outcome, requests))
            return [await outcome(request) for request in requests]
        finally:
            await engine.close()

    return asyncio.run(work())


def read_one(server: HostileServer, **options: Any) -> Outcome:
    return read(engine_for(server, **options), request_for(1))[0]


def reading(outcome: Outcome) -> Reading:
    assert isinstance(outcome, Reading), outcome
    return outcome


# ---- a page ------------------------------------------------------------------------------------


def test_a_page_is_read_with_one_request_that_holds_its_picture_before_the_prompt() -> None:
    with HostileServer() as server:
        outcome = reading(read_one(server))
        (page,) = server.pages
    assert outcome.text == page.text
    assert outcome.finish_reason is FinishReason.STOP
    assert outcome.output_tokens == len(pieces(page.text))
    assert page.picture == bytes(picture(1).data)
    assert page.parts[0]["image_url"]["url"].startswith("data:image/jpeg;base64,")
    assert page.parts[1] == {"type": "text", "text": "Free OCR."}
    assert page.body["model"] == "dsocr"
    assert page.body["max_tokens"] > 6000
    assert page.body["temperature"] == 0
    assert page.body["skip_special_tokens"] is False


def test_a_server_is_told_nothing_that_only_vllm_knows() -> None:
    with HostileServer() as server:
        read_one(server)
        (page,) = server.pages
    assert not {"vllm_xargs", "mm_processor_kwargs"} & set(page.body)


def test_deepseek_ocr_rs_gets_the_prompt_first_for_it_puts_parts_together_backwards() -> None:
    with HostileServer(owned_by="deepseek-ocr") as server:
        read_one(server)
        (page,) = server.pages
    assert [part["type"] for part in page.parts] == ["text", "image_url"]


def test_the_picture_is_given_back_before_the_server_answers() -> None:
    events: list[str] = []
    with HostileServer(otherwise=waits(0.1)) as server:
        page = request_for(
            1,
            release_image=lambda: events.append("released"),
            on_progress=lambda: events.append("text"),
        )
        read(engine_for(server), page)
    assert events[0] == "released"
    assert set(events[1:]) == {"text"}


def test_a_token_that_came_alone_is_taken_in_with_those_that_follow_it() -> None:
    signs: list[str] = []

    async def writes_evenly(_: Request, reply: Reply) -> None:
        await reply.begin_stream()
        for number in range(400):
            await reply.delta(f"{number} ")
            await asyncio.sleep(0.003)
        await reply.delta("", "stop")
        await reply.end_stream()

    with HostileServer(otherwise=writes_evenly) as server:
        page = request_for(1, on_progress=lambda: signs.append("text"))
        (reading,) = read(engine_for(server), page)
    assert isinstance(reading, Reading)
    assert reading.text == "".join(f"{number} " for number in range(400))
    assert 2 < len(signs) < 200


def test_many_pages_at_once_each_get_their_own_text() -> None:
    with HostileServer() as server:
        engine = engine_for(server, batch_pages=8)
        outcomes = read(engine, *map(request_for, range(40)), at_once=True)
    texts = [reading(outcome).text for outcome in outcomes]
    wanted = [
        Request(method="", path="", headers={}, body=_body_of(number)).text for number in range(40)
    ]
    assert texts == wanted


def _body_of(number: int) -> dict[str, Any]:
    url = "data:image/jpeg;base64," + base64.b64encode(picture(number).data).decode()
    return {"messages": [{"content": [{"image_url": {"url": url}}]}]}


def test_no_more_connections_are_opened_than_pages_may_be_in_flight() -> None:
    most = 0

    async def counts(request: Request, reply: Reply) -> None:
        nonlocal most
        most = max(most, len(reply.server._writers))
        await waits(0.02)(request, reply)

    with HostileServer(otherwise=counts) as server:
        read(engine_for(server, batch_pages=3), *map(request_for, range(12)), at_once=True)
    assert most == 3


def test_a_connection_is_used_again_for_the_next_page() -> None:
    seen: set[int] = set()

    async def remembers(request: Request, reply: Reply) -> None:
        seen.add(id(reply.writer))
        await reads(request, reply)

    with HostileServer(otherwise=remembers) as server:
        read(engine_for(server), *map(request_for, range(5)))
    assert len(seen) == 1


def test_a_server_that_does_not_stream_is_understood() -> None:
    async def answers_at_once(request: Request, reply: Reply) -> None:
        choice = {"message": {"content": request.text}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 903, "completion_tokens": 12}
        await reply.json({"model": "dsocr", "choices": [choice], "usage": usage})

    with HostileServer(otherwise=answers_at_once, probed=answers_at_once) as server:
        outcome = reading(read_one(server))
    assert (outcome.text, outcome.output_tokens) == (server.read[0], 12)


def test_a_page_without_any_text_is_a_reading() -> None:
    with HostileServer(otherwise=writes("")) as server:
        outcome = reading(read_one(server))
    assert (outcome.text, outcome.finish_reason) == ("", FinishReason.STOP)


@pytest.mark.parametrize(
    "finish_reason, tokens", [("length", 5), ("stop", 100)], ids=["says so", "does not"]
)
def test_a_page_that_was_cut_off_at_the_limit_is_told_as_cut(
    finish_reason: str, tokens: int
) -> None:
    with HostileServer(otherwise=writes("so far", finish_reason, tokens)) as server:
        outcome = reading(read_one(server, max_tokens=100))
    assert outcome.finish_reason is FinishReason.LENGTH
    assert outcome.text == "so far"


@pytest.mark.parametrize("tokens", [-1, 10**15, True, "many", 1.5, None])
def test_a_nonsensical_count_of_tokens_does_no_harm(tokens: Any) -> None:
    with HostileServer(otherwise=writes("four by four", tokens=tokens)) as server:
        outcome = read_one(server)
    if isinstance(outcome, Reading):
        assert outcome.output_tokens == 3
    else:
        assert isinstance(outcome, PageReadError)


ROWS = "".join(f"<tr><td>{number}</td></tr>" for number in range(2000))


def test_a_page_that_loops_is_aborted_and_keeps_its_good_part() -> None:
    is_aborted = threading.Event()

    async def counts_for_ever(request: Request, reply: Reply) -> None:
        try:
            await writes("# A page with a table\n\n" + ROWS)(request, reply)
        except ConnectionError:
            is_aborted.set()
            raise

    with HostileServer(plan={0: counts_for_ever}) as server:
        lost, good = read(engine_for(server), request_for(1), request_for(2))
        assert is_aborted.wait(5)
    outcome = reading(lost)
    assert outcome.finish_reason is FinishReason.LOOP
    assert outcome.text.startswith("# A page with a table")
    assert len(outcome.text) < len(ROWS) / 4
    assert 0 < outcome.output_tokens < 6000
    assert isinstance(good, Reading)


def test_a_page_that_looped_into_the_limit_is_told_as_looping() -> None:
    with HostileServer(otherwise=writes("words " + "□" * 700, "length")) as server:
        outcome = reading(read_one(server))
    assert outcome.finish_reason is FinishReason.LOOP
    assert len(outcome.text) < 20


# ---- trouble with one page ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "trouble",
    [
        says(500, "out of luck"),
        says(502, "<html>bad gateway</html>"),
        says(429, "too fast", "Retry-After: 0"),
        says(503, "loading"),
        drops_after(0),
        drops_after(1),
        drops_after(6),
        writes("no reason to stop", finish_reason=None),
    ],
    ids=["500", "502", "429", "503", "no answer", "cut early", "cut late", "no end"],
)
def test_a_page_that_met_a_passing_trouble_is_read_again_whole(trouble: Behaviour) -> None:
    with HostileServer(plan={1: trouble}) as server:
        outcomes = read(engine_for(server), *map(request_for, range(3)))
    assert [reading(outcome).text for outcome in outcomes] == [
        server.read[0],
        server.read[2],
        server.read[3],
    ]
    assert server.read[1] == server.read[2]  # the page that was asked for twice


async def _falls_silent(_: Request, reply: Reply) -> None:
    await reply.begin_stream()
    await reply.delta("so far")
    await asyncio.sleep(60)


async def _keeps_alive_but_says_nothing(_: Request, reply: Reply) -> None:
    await reply.begin_stream()
    while True:
        await reply.chunk(b": ping\n\n")
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("silence", [waits(60), _falls_silent, _keeps_alive_but_says_nothing])
def test_a_page_on_which_the_server_falls_silent_is_read_again(silence: Behaviour) -> None:
    soon = replace(QUICK, first_token_s=1.0, next_token_s=1.0)
    with HostileServer(plan={0: silence}) as server:
        outcome = read(engine_for(server, soon), request_for(1))[0]
        assert len(server.pages) > 1
    assert reading(outcome).text == server.read[0]


async def _garbage(_: Request, reply: Reply) -> None:
    await reply.begin_stream()
    await reply.delta("so far so ")
    await reply.chunk(b'data: {"choices": [{"delta"\n\n')
    await reply.end_stream()


async def _html(_: Request, reply: Reply) -> None:
    await reply.plain(b"<html>please log in</html>", content_type="text/html")


async def _huge_line(_: Request, reply: Reply) -> None:
    await reply.begin_stream()
    for _line in range(64):
        await reply.chunk(b"data: " + b"x" * 65536)


async def _huge_body(_: Request, reply: Reply) -> None:
    await reply.head(200, "application/json", f"Content-Length: {1 << 40}")
    for _megabyte in range(200):
        await reply.raw(b" " * 65536)


async def _endless(_: Request, reply: Reply) -> None:
    await reply.begin_stream()
    while True:
        await reply.delta("more ")


async def _endless_piece(_: Request, reply: Reply) -> None:
    await reply.begin_stream()
    while True:
        await reply.delta(secrets.token_hex(10_000))


async def _zipped(_: Request, reply: Reply) -> None:
    await reply.plain(b"\x1f\x8b\x08 a bomb", 200, "Content-Encoding: gzip")


async def _not_utf8(_: Request, reply: Reply) -> None:
    await reply.begin_stream()
    await reply.chunk(b'data: {"choices": [{"delta": {"content": "\xff\xfe"}}]}\n\n')
    await reply.end_stream()


async def _not_a_number(_: Request, reply: Reply) -> None:
    await reply.plain(b'{"choices": [], "usage": {"completion_tokens": NaN}}')


async def _nested(_: Request, reply: Reply) -> None:
    await reply.plain(b'{"choices":' + b"[" * 200_000)


async def _wrong_types(_: Request, reply: Reply) -> None:
    await reply.json({"choices": {"delta": "no list"}})


async def _no_events(_: Request, reply: Reply) -> None:
    await reply.begin_stream()
    await reply.chunk(b"once upon a time\n\n")
    await reply.end_stream()


async def _empty_status(_: Request, reply: Reply) -> None:
    await reply.head(204, "text/plain", "Content-Length: 0")


async def _not_http(_: Request, reply: Reply) -> None:
    await reply.raw(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")


@pytest.mark.parametrize(
    "answer",
    [
        _garbage,
        _html,
        _huge_line,
        _huge_body,
        _endless,
        _endless_piece,
        _zipped,
        _not_utf8,
        _not_a_number,
        _nested,
        _wrong_types,
        _no_events,
        _empty_status,
        _not_http,
        writes("forbidden words", "content_filter"),
    ],
)
def test_an_answer_that_cannot_be_used_costs_its_page_and_no_other(answer: Behaviour) -> None:
    with HostileServer(plan={0: answer}) as server:
        bad, good = read(engine_for(server, max_tokens=200), request_for(1), request_for(2))
    assert isinstance(bad, PageReadError)
    assert bad.failure_class is FailureClass.TRANSIENT
    assert bad.reason.isprintable()
    assert len(bad.reason) < 500
    assert reading(good).text == server.read[1]


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_a_page_that_the_server_refuses_fails_with_its_words_and_is_not_tried_again(
    status: int,
) -> None:
    with HostileServer(plan={0: says(status, "too\nlong \x1b[31m")}) as server:
        bad, good = read(engine_for(server), request_for(1), request_for(2))
    assert isinstance(bad, PageReadError)
    assert bad.failure_class is FailureClass.INPUT
    assert f"status {status}: too long \\x1b[31m" in bad.reason
    assert reading(good).text == server.read[1]
    assert len(server.pages) == 2


def test_an_error_in_the_middle_of_a_stream_is_told_by_its_code() -> None:
    async def fails(_: Request, reply: Reply) -> None:
        await reply.begin_stream()
        await reply.delta("so far")
        await reply.event({"error": {"message": "the image is broken", "code": 400}})
        await reply.end_stream()

    with HostileServer(plan={0: fails}) as server:
        bad = read_one(server)
    assert isinstance(bad, PageReadError)
    assert bad.failure_class is FailureClass.INPUT
    assert "the image is broken" in bad.reason


def test_a_page_that_always_fails_where_another_can_be_read_is_failed_alone() -> None:
    poison = bytes(picture(0).data)

    async def chokes(request: Request, reply: Reply) -> None:
        await (drops_after(2) if request.picture == poison else reads)(request, reply)

    with HostileServer(otherwise=chokes) as server:
        outcomes = read(engine_for(server), *map(request_for, range(9)), at_once=True)
    assert isinstance(outcomes[0], PageReadError)
    assert outcomes[0].failure_class is FailureClass.TRANSIENT
    assert all(isinstance(outcome, Reading) for outcome in outcomes[1:])
    assert sum(page.picture == poison for page in server.pages) == 3 + 1


def test_a_server_may_be_busy_for_longer_than_it_may_fail() -> None:
    alive: list[None] = []
    busy = says(429, "later", "Retry-After: 0")
    with HostileServer(plan=dict.fromkeys(range(10), busy), otherwise=writes("x")) as server:
        page = request_for(1, on_progress=lambda: alive.append(None))
        outcome = read(engine_for(server), page)[0]
    assert reading(outcome).text == "x"
    assert len(alive) == 11


def test_a_server_is_left_alone_for_as_long_as_it_asks() -> None:
    times: list[float] = []

    async def notes(request: Request, reply: Reply) -> None:
        times.append(asyncio.get_running_loop().time())
        await (says(503, "later", "Retry-After: 1") if len(times) == 1 else reads)(request, reply)

    with HostileServer(otherwise=notes) as server:
        reading(read_one(server))
    assert times[1] - times[0] > 0.95


# ---- trouble with the server -------------------------------------------------------------------


def test_a_server_that_fails_every_page_is_lost() -> None:
    with HostileServer() as server:

        async def dies(request: Request, reply: Reply) -> None:
            server.probed = says(500, "engine dead")
            await server.probed(request, reply)

        server.otherwise = dies
        outcomes = read(engine_for(server), *map(request_for, range(3)), at_once=True)
    assert all(isinstance(outcome, EngineLostError) for outcome in outcomes)
    assert "engine dead" in str(outcomes[0])


@pytest.mark.parametrize("status", [301, 307, 401, 403, 404, 405])
def test_a_server_that_turns_away_everything_is_lost_at_the_first_try(status: int) -> None:
    answer = says(status, "go away", "Location: http://127.0.0.1:1/elsewhere")
    with HostileServer(otherwise=answer) as server:
        outcome = read_one(server)
    assert isinstance(outcome, EngineLostError)
    assert len(server.pages) == 1


def test_a_server_that_answers_as_another_model_in_mid_run_is_lost() -> None:
    with HostileServer() as server:

        async def changes(request: Request, reply: Reply) -> None:
            server.says_model = "another"
            await reads(request, reply)

        server.plan = {1: changes}
        good, lost = read(engine_for(server), request_for(1), request_for(2))
    assert isinstance(good, Reading)
    assert isinstance(lost, EngineLostError)
    assert "another" in str(lost)


def test_a_server_that_comes_back_is_used_again() -> None:
    with HostileServer() as server:
        engine = engine_for(server)

        async def work() -> tuple[Reading, Reading]:
            await engine.start()
            first = await engine.read(request_for(1))
            await asyncio.to_thread(server.vanish)
            with pytest.raises(EngineLostError):
                await engine.read(request_for(2))
            await engine.close()
            asyncio.get_running_loop().call_later(
                0.3, lambda: asyncio.get_running_loop().run_in_executor(None, server.listen)
            )
            await engine.start()
            second = await engine.read(request_for(2))
            await engine.close()
            return first, second

        assert [outcome.text for outcome in asyncio.run(work())] == server.read


def test_a_server_that_does_not_come_back_makes_the_engine_unusable() -> None:
    with HostileServer() as server:
        engine = engine_for(server)
        server.vanish()
        with pytest.raises(EngineUnusable, match=r"cannot be used.*Is it started"):
            read(engine)


def test_a_server_that_came_back_as_another_is_not_used() -> None:
    with HostileServer() as server:
        engine = engine_for(server)
        server.max_model_len = 4096
        with pytest.raises(EngineUnusable, match="no longer what it was"):
            read(engine)


def test_a_server_that_came_back_without_the_model_is_not_used() -> None:
    with HostileServer() as server:
        engine = engine_for(server, model="dsocr")
        server.models = {"data": [{"id": "another"}]}
        with pytest.raises(EngineUnusable, match="no longer honours"):
            read(engine)


def test_cancelling_a_page_ends_the_work_on_the_server() -> None:
    gone = asyncio.Event()

    async def notices(_: Request, reply: Reply) -> None:
        await reply.begin_stream()
        try:
            while True:
                await reply.delta("more ")
                await asyncio.sleep(0.01)
        finally:
            gone.set()

    async def work() -> None:
        await engine.start()
        page = asyncio.create_task(engine.read(request_for(1)))
        await asyncio.sleep(0.2)
        page.cancel()
        with pytest.raises(asyncio.CancelledError):
            await page
        await asyncio.sleep(0.2)
        assert gone.is_set()
        assert len(server.pages) == 1
        await engine.close()

    with HostileServer(otherwise=notices) as server:
        engine = engine_for(server)
        asyncio.run(work())


# ---- before work -------------------------------------------------------------------------------


def test_the_engine_is_found_by_its_name_and_only_then_is_aiohttp_loaded() -> None:
    assert "openai" in engine_names()
    with pytest.raises(UsageError, match="needs --base-url"):
        load_engine("openai")(EngineOptions())


@pytest.mark.parametrize(
    "url, api",
    [
        ("http://host:8000", "http://host:8000/v1"),
        ("http://host:8000/", "http://host:8000/v1"),
        ("http://host:8000/v1", "http://host:8000/v1"),
        ("https://host/v1/", "https://host/v1"),
        ("https://host/api/openai", "https://host/api/openai"),
        ("http://[::1]:8000/v1/chat/completions", "http://[::1]:8000/v1"),
    ],
)
def test_an_address_is_taken_with_or_without_its_path(url: str, api: str) -> None:
    assert parse_address(url, {}).url == api


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8000",
        "ftp://host/v1",
        "http://",
        "http://host:99999",
        "http://host:0",
        "http://[::1",
        "http://ho st",
        "http://host/\n",
        "http://host/v1?key=1",
        "http://höst",
        "file:///etc/passwd",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="--base-url"):
        connect(EngineOptions(base_url=url), {}, QUICK)


def test_a_password_in_the_address_is_refused_and_not_quoted() -> None:
    with pytest.raises(UsageError, match="DSOCR_API_KEY") as refusal:
        connect(EngineOptions(base_url="http://me:geheim@host/v1"), {}, QUICK)
    assert "geheim" not in str(refusal.value)


@pytest.mark.parametrize(
    "option",
    [
        {"dtype": "bfloat16"},
        {"gpu_memory_utilization": 0.9},
        {"tensor_parallel_size": 2},
        {"enable_fp8_weights": True},
        {"engine_arg": ("a=b",)},
    ],
)
def test_an_option_of_an_engine_of_ones_own_is_refused(option: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="has no meaning"):
        connect(EngineOptions(base_url="http://localhost:1", **option), {}, QUICK)


def test_a_server_that_does_not_answer_is_told_at_once() -> None:
    with HostileServer() as server:
        pass
    with pytest.raises(EngineUnusable, match=r"cannot be used.*curl http://127\.0\.0\.1"):
        engine_for(server)


def test_a_server_whose_context_is_too_small_for_a_page_is_unusable() -> None:
    with (
        HostileServer(max_model_len=1024) as server,
        pytest.raises(EngineUnusable, match=r"leaves 0 beside a page.*--max-model-len"),
    ):
        engine_for(server)


KEY = "sk-very-secret"


def test_the_key_is_sent_and_never_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    environ = {"OPENAI_API_KEY": "of another", "DSOCR_API_KEY": KEY}
    with HostileServer(key=KEY, plan={0: says(500, f"bad luck with {KEY}")}) as server:
        engine = connect(EngineOptions(base_url=server.url), environ, QUICK)
        reading(read(engine, request_for(1))[0])
    with HostileServer(key="changed") as server, pytest.raises(EngineUnusable) as refusal:
        connect(EngineOptions(base_url=server.url), environ, QUICK)
    assert "DSOCR_API_KEY" in str(refusal.value)
    assert "is wrong" in str(refusal.value)
    for told in (str(refusal.value), caplog.text, repr(engine.identity), repr(vars(engine))):
        assert KEY not in told


def test_a_key_that_cannot_be_one_is_refused_without_being_shown() -> None:
    with pytest.raises(UsageError, match="DSOCR_API_KEY") as refusal:
        connect(EngineOptions(base_url="http://host"), {"DSOCR_API_KEY": "a\nb: c"}, QUICK)
    assert "b: c" not in str(refusal.value)


def test_the_only_model_of_a_server_is_taken() -> None:
    with HostileServer() as server:
        assert engine_for(server).identity.model == "dsocr"


@pytest.mark.parametrize("wanted", [None, "third"])
def test_where_there_is_a_choice_of_models_or_none_the_message_names_them(
    wanted: str | None,
) -> None:
    models = {"data": [{"id": "first"}, {"id": "sec\nond"}]}
    with HostileServer(models=models) as server:
        with pytest.raises(UsageError, match=r"first, sec\\x0aond"):
            engine_for(server, model=wanted)
        assert engine_for(server, model="first").identity.model == "first"


@pytest.mark.parametrize(
    "models", [[], {"data": "none"}, {"data": [{"id": 7}]}, {}, "hello", {"data": [{}] * 3}]
)
def test_a_list_of_models_that_is_none_is_no_server_for_us(models: Any) -> None:
    with HostileServer(models=models) as server, pytest.raises(EngineUnusable):
        engine_for(server)


def test_a_prompt_with_its_image_elsewhere_is_refused() -> None:
    with HostileServer() as server, pytest.raises(UsageError, match="<image> may only be"):
        engine_for(server, prompt="Read <image> aloud.")


def test_a_prompt_that_is_not_utf8_is_refused() -> None:
    with HostileServer() as server, pytest.raises(UsageError, match="not UTF-8"):
        engine_for(server, prompt="Read \udcff.")


def test_a_model_that_reads_nothing_on_a_page_of_plain_text_is_unusable() -> None:
    with (
        HostileServer(probed=writes("  \n")) as server,
        pytest.raises(EngineUnusable, match="reads nothing on a page with plain text"),
    ):
        read_one(server)


def test_a_start_waits_for_a_server_that_is_still_loading() -> None:
    tried: list[None] = []

    async def loads(request: Request, reply: Reply) -> None:
        tried.append(None)
        await (says(503, "loading") if len(tried) < 3 else reads)(request, reply)

    with HostileServer(probed=loads) as server:
        reading(read_one(server))
    assert len(tried) == 3


# ---- what only vLLM can ------------------------------------------------------------------------


def test_a_vllm_with_an_ngram_guard_is_given_it_with_every_page() -> None:
    with HostileServer(owned_by="vllm") as server:
        engine = engine_for(server, ngram_size=20, ngram_window=50)
        read(engine, request_for(1))
        (page,) = server.pages
    assert page.body["vllm_xargs"] == {
        "ngram_size": 20,
        "window_size": 50,
        "whitelist_token_ids": [128822, 128821],
    }
    assert engine.identity.settings["ngram_size"] == 20


@pytest.mark.parametrize("lack", [{"has_guard": False}, {"shows_tokenizer": False}])
def test_a_vllm_that_ignores_the_guard_or_hides_it_is_found_out(lack: dict[str, Any]) -> None:
    with HostileServer(owned_by="vllm", **lack) as server:
        engine = engine_for(server)
        read(engine, request_for(1))
        assert "vllm_xargs" not in server.pages[0].body
        assert engine.identity.settings["ngram_size"] is None
        with pytest.raises(UsageError, match="--logits-processors"):
            engine_for(server, ngram_size=20)


@pytest.mark.parametrize(
    "option", [{"ngram_size": 20}, {"ngram_window": 50}, {"ngram_whitelist": ("<td>",)}]
)
def test_an_ngram_option_is_refused_where_the_server_is_not_vllm(option: dict[str, Any]) -> None:
    with HostileServer() as server, pytest.raises(UsageError, match="no n-gram guard"):
        engine_for(server, **option)


def test_an_ngram_of_one_token_is_refused_for_vllm_does_nothing_then() -> None:
    with HostileServer(owned_by="vllm") as server, pytest.raises(UsageError, match="below 2"):
        engine_for(server, ngram_size=1)


def test_a_text_that_is_no_token_cannot_be_on_the_whitelist() -> None:
    with HostileServer(owned_by="vllm") as server, pytest.raises(UsageError, match="'<table>'"):
        engine_for(server, ngram_whitelist=("<table>",))


def test_each_page_says_its_vision_mode_to_a_server_that_has_modes() -> None:
    with HostileServer(owned_by="vllm", has_modes=True) as server:
        engine = engine_for(server, vision_mode=VisionMode.BASE)
        assert engine.vision_mode is VisionMode.BASE
        read(engine, request_for(1, vision_mode=VisionMode.LARGE))
        (page,) = server.pages
    assert page.body["mm_processor_kwargs"] == {"vision_mode": "large"}
    assert engine.identity.settings["vision_mode"] == "base"


def test_retries_in_large_need_a_server_with_modes_and_begin_in_gundam() -> None:
    with HostileServer(owned_by="vllm", has_modes=True) as server:
        assert engine_for(server, retry_large=True).vision_mode is VisionMode.GUNDAM


@pytest.mark.parametrize("option", [{"vision_mode": VisionMode.TINY}, {"retry_large": True}])
def test_a_vision_mode_that_the_server_would_ignore_is_refused(option: dict[str, Any]) -> None:
    with HostileServer(owned_by="vllm") as server, pytest.raises(UsageError, match="same vision"):
        engine_for(server, **option)


def test_the_server_chooses_the_vision_mode_where_none_is_asked_for() -> None:
    with HostileServer() as server:
        engine = engine_for(server)
    assert engine.vision_mode is None
    assert engine.image_spec(None).vision_mode is VisionMode.GUNDAM
    assert engine.identity.settings["vision_mode"] == "the server's"


@pytest.mark.parametrize("context, fits", [(None, 6800), (4096, 2700)])
def test_a_page_may_be_as_long_as_fits_the_servers_context(context: int | None, fits: int) -> None:
    with HostileServer(max_model_len=context) as server:
        tokens = engine_for(server).identity.settings["max_tokens"]
        assert isinstance(tokens, int)
        assert fits <= tokens < fits + 200
        with pytest.raises(UsageError, match="--max-tokens 9000"):
            engine_for(server, max_tokens=9000)
