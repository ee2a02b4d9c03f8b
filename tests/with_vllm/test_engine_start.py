"""Starts of the engine, good and bad, each with a vLLM of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from command import wait_until
from dsocr_batch.engines.base import Engine, EngineLostError, Reading
from dsocr_batch.engines.vllm.process import MODULE as HOST
from dsocr_batch.errors import EngineUnusable, UsageError
from dsocr_batch.records import FinishReason
from with_vllm.altered import mute, with_few_words, with_head_of_another_width
from with_vllm.asking import Page, are_gone, new_engine, processes_below, state_in

pytestmark = pytest.mark.timeout(600)  # a crowded machine loads a model in minutes

WORDS = ("<td>", "</td>")
MAX_TOKENS = 3000


@pytest.fixture(scope="module", autouse=True)
def _state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with state_in(tmp_path_factory.mktemp("state")):
        yield


@pytest.fixture(scope="module")
def stammering(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_few_words(checkpoint, tmp_path_factory.mktemp("weights") / "stammering", WORDS)


def start(engine: Engine) -> None:
    async def run() -> None:
        await engine.start()
        await engine.close()

    asyncio.run(run())


@pytest.mark.newest
def test_a_page_that_loops_is_cut_and_a_host_that_is_killed_takes_all_with_it(
    stammering: Path, caplog: pytest.LogCaptureFixture
) -> None:
    never = {"ngram_size": MAX_TOKENS, "ngram_window": MAX_TOKENS}
    engine = new_engine(stammering, max_tokens=MAX_TOKENS, **never)

    async def read_then_kill() -> Reading:
        await engine.start()
        reading = await engine.read(Page(1).request)
        doomed = asyncio.create_task(engine.read(Page(2).request))
        await asyncio.sleep(0.2)
        (host,) = [p for p in processes_below() if HOST in p.cmdline()]
        vllm = host.children(recursive=True)
        assert len(vllm) >= 3, "watch, engine core, worker"
        host.kill()
        with pytest.raises(EngineLostError, match="host process killed by SIGKILL"):
            await doomed
        wait_until(lambda: are_gone(vllm), timeout_s=10)
        await engine.close()
        return reading

    with caplog.at_level(logging.INFO):
        reading = asyncio.run(read_then_kill())
    assert reading.finish_reason is FinishReason.LOOP
    assert reading.output_tokens < MAX_TOKENS
    assert 0 < len(reading.text) < 5 * reading.output_tokens, "its beginning is kept"
    for stage in ("importing vLLM", "Loading weights took", "init engine", "pages at once"):
        assert stage in caplog.text


@pytest.mark.newest
def test_the_ngram_guard_reaches_the_model(stammering: Path) -> None:
    guard = {"ngram_size": 2, "ngram_window": MAX_TOKENS, "ngram_whitelist": ()}
    engine = new_engine(stammering, max_tokens=200, **guard)

    async def read() -> Reading:
        await engine.start()
        try:
            return await engine.read(Page(1).request)
        finally:
            await engine.close()

    reading = asyncio.run(read())
    assert set(reading.text.replace("<td>", "").replace("</td>", "")), "it had to find other words"


@pytest.mark.newest
def test_an_argument_that_vllm_does_not_know_is_told_with_its_like(checkpoint: Path) -> None:
    engine = new_engine(checkpoint, engine_arg=("enforce_eagre=true",))
    with pytest.raises(UsageError, match=r"enforce_eagre.*did you mean enforce_eager"):
        start(engine)
    assert not processes_below()


@pytest.mark.newest
def test_weights_that_do_not_fit_are_told_by_their_cause_and_the_log(
    checkpoint: Path, tmp_path: Path
) -> None:
    engine = new_engine(with_head_of_another_width(checkpoint, tmp_path / "broken"))
    with pytest.raises(EngineUnusable, match=r"Error.*Its log is .*vllm-\d+\.log") as caught:
        start(engine)
    assert "Engine core initialization failed" not in str(caught.value)
    assert not processes_below()


@pytest.mark.newest
def test_a_model_that_writes_nothing_is_unusable(checkpoint: Path, tmp_path: Path) -> None:
    engine = new_engine(mute(checkpoint, tmp_path / "mute"))
    with pytest.raises(EngineUnusable, match="writes nothing"):
        start(engine)
    assert not processes_below()
