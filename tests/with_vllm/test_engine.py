"""The engine as the pipeline uses it: a host process with a real vLLM, asked from here."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dsocr_batch.engines.base import Engine, EngineLostError, PageReadError, Reading
from dsocr_batch.profiles import VisionMode
from dsocr_batch.records import FailureClass, FinishReason
from with_vllm.altered import without_end
from with_vllm.asking import PROMPT, Page, new_engine, processes_below, state_in

pytestmark = pytest.mark.timeout(600)  # a crowded machine loads a model in minutes

MAX_TOKENS = 600


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[asyncio.Runner]:
    """One event loop for all tests, as the engine lives on one."""
    with state_in(tmp_path_factory.mktemp("state")), asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def engine(
    runner: asyncio.Runner, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    """An engine for two pages at once, of which each goes on to the token limit."""
    model = without_end(checkpoint, tmp_path_factory.mktemp("weights") / "endless")
    engine = new_engine(model, max_tokens=MAX_TOKENS, batch_pages=2)
    runner.run(engine.start())
    yield engine
    runner.run(engine.close())


async def read_all(engine: Engine, pages: list[Page]) -> list[Reading]:
    return await asyncio.gather(*(engine.read(page.request) for page in pages))


def test_pages_of_several_modes_at_once_read_as_each_reads_alone(
    runner: asyncio.Runner, engine: Engine
) -> None:
    modes = (VisionMode.TINY, VisionMode.LARGE, VisionMode.GUNDAM, VisionMode.TINY)
    pages = [Page(number, mode) for number, mode in enumerate(modes)]
    at_once = runner.run(read_all(engine, pages))
    alone = [runner.run(engine.read(page.request)) for page in pages]
    assert at_once == alone
    assert len({reading.text for reading in alone}) == len(pages)


def test_the_memory_of_a_page_is_free_as_soon_as_it_is_released(
    runner: asyncio.Runner, engine: Engine
) -> None:
    page = Page(2)
    expected = runner.run(engine.read(page.request))
    fd = os.memfd_create("slot")
    os.pwrite(fd, page.request.image.data, 0)

    def overwrite() -> None:
        os.pwrite(fd, bytes(page.request.image.data.nbytes), 0)

    image = replace(page.request.image, fd=fd)
    lent = replace(page.request, image=image, release_image=overwrite)
    assert runner.run(engine.read(lent)) == expected
    assert runner.run(engine.read(replace(lent, release_image=lambda: None))) != expected
    os.close(fd)


def test_a_long_page_gives_signs_of_life_and_ends_at_its_token_limit(
    runner: asyncio.Runner, engine: Engine
) -> None:
    pages = [Page(number) for number in range(4)]
    readings = runner.run(read_all(engine, pages))
    assert {reading.finish_reason for reading in readings} == {FinishReason.LENGTH}
    assert {reading.output_tokens for reading in readings} == {MAX_TOKENS}
    assert [page.times_released for page in pages] == [1] * 4
    assert sum(page.signs_of_life for page in pages) > 0


def test_a_cancelled_page_gives_its_place_to_the_next(
    runner: asyncio.Runner, engine: Engine
) -> None:
    async def cancel_one_of_three() -> tuple[float, float]:
        began = time.monotonic()

        async def read(number: int) -> float:
            await engine.read(Page(number).request)
            return time.monotonic() - began

        first, second, third = (asyncio.create_task(read(number)) for number in (1, 2, 3))
        await asyncio.sleep(0.3)
        first.cancel()
        return await second, await third

    second_s, third_s = runner.run(cancel_one_of_three())
    assert third_s < 1.7 * second_s, "it did not wait for the end of a page before it"


def test_a_page_that_vllm_refuses_is_an_error_of_that_page_alone(
    runner: asyncio.Runner, engine: Engine
) -> None:
    too_long = replace(Page(1).request, prompt=PROMPT + " x" * 9000)
    with pytest.raises(PageReadError, match="8192") as caught:
        runner.run(engine.read(too_long))
    assert caught.value.failure_class is FailureClass.INPUT, caught.value
    assert runner.run(engine.read(Page(1).request)).text


def test_an_engine_process_that_is_killed_is_told_by_every_page_and_nothing_is_left(
    runner: asyncio.Runner, engine: Engine
) -> None:
    processes = processes_below()
    (engine_core,) = [p for p in processes if "VLLM::EngineCore" in " ".join(p.cmdline())]
    assert len(processes) >= 4, "host, watch, engine core, worker"

    async def kill_while_reading() -> list[Reading | BaseException]:
        pages = [Page(number) for number in (1, 2, 3)]
        reading = asyncio.gather(
            *(engine.read(page.request) for page in pages), return_exceptions=True
        )
        await asyncio.sleep(0.3)
        engine_core.kill()
        return await reading

    ends = runner.run(kill_while_reading())
    assert [type(end) for end in ends] == [EngineLostError] * 3
    assert "engine process died" in str(ends[0])
    runner.run(engine.close())
    assert not processes_below()
    with pytest.raises(EngineLostError):
        runner.run(engine.read(Page(1).request))
