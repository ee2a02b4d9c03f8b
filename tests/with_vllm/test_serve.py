"""Pages through a real ``vllm serve``: ours, and the stock one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from dsocr_batch.engines.base import PageRequest, Reading
from dsocr_batch.engines.openai.address import Address
from dsocr_batch.engines.openai.client import Client
from dsocr_batch.engines.openai.engine import OpenAIEngine, connect
from dsocr_batch.engines.openai.retry import Timing
from dsocr_batch.engines.openai.wire import Completion, page_body
from dsocr_batch.engines.vllm.plugin import ARCHITECTURE
from dsocr_batch.engines.vllm.plugin.guard import LOGITS_PROCESSOR
from dsocr_batch.errors import UsageError
from dsocr_batch.options import EngineOptions
from dsocr_batch.prepare.encode import encode_jpeg
from dsocr_batch.prepare.image import ImageForm, PageImage
from dsocr_batch.profiles import PROFILES, VisionMode

SAMPLES = Path(__file__).resolve().parents[2] / "scripts" / "demo" / "samples"
START_TIMEOUT_S = 300
TRUST = ["--trust-request-mm-kwargs"] if version("vllm") >= "0.31" else []
"""Older ones trust every request."""
PROMPT = "<image>\n<|grounding|>Convert the document to markdown."
MAX_TOKENS = 24

pytestmark = [
    pytest.mark.timeout(400),  # the first of each server waits for its start
    pytest.mark.newest,  # two servers take a minute and a half to start
]


@contextmanager
def serving(checkpoint: Path, log: Path, *options: str) -> Iterator[str]:
    """Start ``vllm serve`` and yield its address; it ends with all its processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(checkpoint)),
        *("--host", "127.0.0.1", "--port", str(port), "--served-model-name", "dsocr"),
        *("--dtype", "float32", "--max-model-len", "4096", "--max-num-seqs", "4"),
        *("--enforce-eager", "--no-enable-prefix-caching", "--mm-processor-cache-gb", "0"),
        *("--limit-mm-per-prompt", '{"image": 1}', *options),
    ]
    with log.open("wb") as output:
        server = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env={**os.environ, "VLLM_USE_V2_MODEL_RUNNER": "0"},
        )
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _answers(f"{url}/health"):
            assert server.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.5)
        yield url
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):  # noqa: S310 (our own server)
            return True
    except OSError:
        return False


@pytest.fixture(scope="module")
def ours(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serves with our vision modes and the n-gram guard."""
    overrides = json.dumps({"architectures": [ARCHITECTURE]})
    options = ["--hf-overrides", overrides, "--logits-processors", LOGITS_PROCESSOR, *TRUST]
    log = tmp_path_factory.mktemp("ours") / "serve.log"
    with serving(checkpoint, log, *options) as url:
        yield url


@pytest.fixture(scope="module")
def stock(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serves as anybody would who has read nothing."""
    log = tmp_path_factory.mktemp("stock") / "serve.log"
    with serving(checkpoint, log) as url:
        yield url


def engine_for(url: str, **options: Any) -> OpenAIEngine:
    settings = EngineOptions(base_url=url, **{"max_tokens": MAX_TOKENS, **options})
    return connect(settings, {}, Timing())


def picture(seed: int = 1, width: int = 827, height: int = 1169) -> PageImage:
    page = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(page)
    for line in range(30):
        draw.text((60, 60 + line * 30), f"page {seed} line {line} the quick fox", fill="black")
    draw.rectangle((0, 100 * seed, width // 2, 100 * seed + 200), fill="black")
    data = encode_jpeg(page.tobytes(), width, height, dpi=100)
    return PageImage(form=ImageForm.JPEG, width_px=width, height_px=height, data=memoryview(data))


def request_for(page: PageImage, vision_mode: VisionMode | None = None) -> PageRequest:
    return PageRequest(
        page_id="paper.pdf#1",
        image=page,
        prompt=PROMPT,
        vision_mode=vision_mode,
        temperature=0.0,
        release_image=lambda: None,
        on_progress=lambda: None,
    )


def read(engine: OpenAIEngine, *requests: PageRequest) -> list[Reading]:
    async def work() -> list[Reading]:
        await engine.start()
        try:
            return await asyncio.gather(*map(engine.read, requests))
        finally:
            await engine.close()

    return asyncio.run(work())


def run(url: str, output: Path, *options: str) -> tuple[int, str]:
    command = [
        *(sys.executable, "-m", "dsocr_batch", "run", "--input-dir", str(SAMPLES)),
        *("--output-dir", str(output), "--engine", "openai", "--base-url", url),
        *("--max-tokens", str(MAX_TOKENS), *options),
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=150)
    return done.returncode, done.stderr


def records(output: Path) -> list[dict[str, Any]]:
    return [
        json.loads(path.read_bytes())
        for path in sorted(output.rglob("*.json"))
        if ".dsocr" not in path.parts
    ]


def test_a_run_over_vllm_serve_ends_with_every_page_in_its_record(
    ours: str, tmp_path: Path
) -> None:
    status, errors = run(ours, tmp_path / "out", "--vision-mode", "tiny", "--mode", "grounded")
    assert status in (0, 3), errors  # the weights are random: pages are cut off
    documents = records(tmp_path / "out")
    assert len(documents) == len(list(SAMPLES.glob("*.pdf")))
    for document in documents:
        assert (document["engine"], document["model"]) == ("openai", "dsocr")
        assert len(document["pages"]) == document["page_count"]
        for page in document["pages"]:
            assert page["state"] in ("ok", "blank", "truncated"), page
            if page["state"] == "truncated":
                assert page["attempts"][-1]["output_tokens"] == MAX_TOKENS
    again, errors = run(ours, tmp_path / "out", "--vision-mode", "tiny", "--mode", "grounded")
    assert again == status, errors
    assert records(tmp_path / "out") == documents


def test_each_request_is_read_in_its_own_vision_mode(ours: str) -> None:
    page = picture()

    async def prompt_tokens(mode: VisionMode) -> int:
        client = Client(Address(url=f"{ours}/v1"), connections=1)
        parameters = {
            "model": "dsocr",
            "max_tokens": 1,
            "mm_processor_kwargs": {"vision_mode": mode.value},
        }
        body = page_body(page.data, page.form, PROMPT, parameters)
        try:
            completion = await client.complete(body, Completion, timeout_s=60)
        finally:
            await client.close()
        assert completion.usage is not None
        return completion.usage.prompt_tokens

    async def all_modes() -> list[int]:
        return await asyncio.gather(*map(prompt_tokens, VisionMode))

    taken = dict(zip(VisionMode, asyncio.run(all_modes()), strict=True))
    text_tokens = {
        taken[mode] - PROFILES[mode].tokens(page.width_px, page.height_px) for mode in VisionMode
    }
    assert len(text_tokens) == 1, taken


def test_a_page_can_be_read_again_in_large(ours: str) -> None:
    engine = engine_for(ours, retry_large=True)
    page = picture()
    gundam, large, again = read(
        engine,
        request_for(page, engine.vision_mode),
        request_for(page, VisionMode.LARGE),
        request_for(page, engine.vision_mode),
    )
    assert engine.vision_mode is VisionMode.GUNDAM
    assert gundam.text != large.text
    assert gundam.text == again.text


def test_the_ngram_guard_is_found_and_sent(ours: str) -> None:
    settings = engine_for(ours).identity.settings
    assert (settings["ngram_size"], settings["ngram_window"]) == (30, 90)
    assert settings["ngram_whitelist"]


def test_a_page_that_is_given_up_is_aborted_in_vllm(ours: str) -> None:
    engine = engine_for(ours, max_tokens=2000)

    async def work() -> None:
        await engine.start()
        # By chance, or the page soon begins to loop and is given up before it is seen.
        request = replace(request_for(picture()), temperature=1.0)
        page = asyncio.create_task(engine.read(request))
        await _until(lambda: _running(ours) == 1)
        page.cancel()
        await asyncio.wait({page})
        await _until(lambda: _running(ours) == 0)
        await engine.close()

    asyncio.run(work())


async def _until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not await asyncio.to_thread(true):  # noqa: ASYNC110 (another process brings it about)
            await asyncio.sleep(0.05)


def _running(url: str) -> int:
    """Return how many requests vLLM works on."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as response:  # noqa: S310
        lines = response.read().decode().splitlines()
    counts = [line for line in lines if line.startswith("vllm:num_requests_running")]
    return round(sum(float(line.rpartition(" ")[2]) for line in counts))


def test_the_stock_server_reads_pages_in_the_mode_that_it_has(stock: str) -> None:
    engine = engine_for(stock)
    one, other = read(engine, request_for(picture(1)), request_for(picture(2)))
    assert engine.vision_mode is None
    assert one.output_tokens == other.output_tokens == MAX_TOKENS
    assert one.text != other.text


def test_a_vision_mode_is_refused_before_work_where_the_server_is_stock(
    stock: str, tmp_path: Path
) -> None:
    status, errors = run(stock, tmp_path / "out", "--vision-mode", "large")
    assert status == 2
    assert ("--trust-request-mm-kwargs" if TRUST else "same vision mode") in errors
    assert not (tmp_path / "out").exists()


def test_an_ngram_guard_that_the_server_would_ignore_is_refused(stock: str) -> None:
    with pytest.raises(UsageError, match="--logits-processors"):
        engine_for(stock, ngram_size=20)
    assert engine_for(stock).identity.settings["ngram_size"] is None


def test_a_token_for_the_whitelist_is_looked_up_on_the_server(ours: str) -> None:
    with pytest.raises(UsageError, match="--ngram-whitelist 'the quick fox'"):
        engine_for(ours, ngram_whitelist=("the quick fox",))
