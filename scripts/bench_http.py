"""Measure what a page costs over HTTP: a whole run against a server that writes token by token.

    scripts/bench_http.py                300 pages, 16 in flight, 6 pages/s, 1,000 events a page
    scripts/bench_http.py --events 125   as if vLLM had been started with --stream-interval 8

The server is a stand-in in this process, whose own time does not count. Each event has the fields
that vLLM's have and comes in a packet of its own, and the pages say what the model wrote on real
ones, where those are at hand. The run is ``dsocr-batch bench engine``; beside it stands a client
that does nothing but read the lines of as many answers with aiohttp.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from itertools import cycle, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp

from bench_finish import as_read
from bench_post import corpus_pages
from dsocr_batch.bench.corpus import write_corpus

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

from hostile_server import Behaviour, HostileServer, Reply, Request, chunked, event_line

PAGES_PER_S = 6.0
IN_FLIGHT = 16
USUAL_CHARS = range(2500, 6500)
BARE = "--bare"


def writes_slowly(texts: list[str], events: int) -> Behaviour:
    """Return a server's behaviour: one text after the other, in equal pieces at an even pace."""
    # Encoded beforehand, for what the server takes of the machine is not there for the run.
    answers = cycle([_chunks(text, events) for text in texts])
    pause_s = IN_FLIGHT / PAGES_PER_S / events

    async def behave(_: Request, reply: Reply) -> None:
        due = time.monotonic()
        await reply.begin_stream()
        for chunk in next(answers):
            reply.writer.write(chunk)
            due += pause_s
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        await reply.delta("", "stop")
        await reply.usage(events)
        await reply.end_stream()

    return behave


def _chunks(text: str, events: int) -> list[bytes]:
    """Return a text as the chunks of a streamed answer."""
    cuts = pairwise(len(text) * number // events for number in range(events + 1))
    return [chunked(event_line(_event(text[start:end]))) for start, end in cuts]


def _event(text: str) -> dict[str, object]:
    delta = {"content": text, "reasoning": None}
    choice = {
        "index": 0,
        "delta": delta,
        "finish_reason": None,
        "logprobs": None,
        "token_ids": None,
    }
    return {
        "id": "chatcmpl-0123456789abcdef0123456789abcdef",
        "object": "chat.completion.chunk",
        "created": 1_800_000_000,
        "model": "dsocr",
        "choices": [choice],
    }


def run(url: str, folder: Path) -> dict[str, float]:
    """Read the PDFs of a folder and return what ``bench engine`` tells of it."""
    command = [
        *(sys.executable, "-m", "dsocr_batch", "bench", "engine", "--engine", "openai"),
        *("--base-url", url, "--input-dir", str(folder), "--batch-pages", str(IN_FLIGHT), "--json"),
    ]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    (result,) = json.loads(done.stdout)
    return dict(result)


async def read_lines(url: str, pages: int) -> float:
    """Read as many answers, do nothing with them, and return the CPU seconds a page."""
    connector = aiohttp.TCPConnector(limit=IN_FLIGHT)
    began = time.process_time()
    async with aiohttp.ClientSession(connector=connector) as session:

        async def read() -> None:
            picture = {"type": "image_url", "image_url": {"url": "data:;base64,"}}
            body = {"stream": True, "messages": [{"content": [picture]}], "max_tokens": 8192}
            async with session.post(f"{url}/v1/chat/completions", json=body) as response:
                response.raise_for_status()
                async for _ in response.content:
                    pass

        await asyncio.gather(*(read() for _ in range(pages)))
    return (time.process_time() - began) / pages


def main() -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--pages", type=int, default=300)
    parser.add_argument("--events", type=int, default=1000, help="of a page")
    parser.add_argument(BARE, metavar="URL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare:
        print(asyncio.run(read_lines(options.bare, options.pages)))
        return 0
    pages = [text for page in corpus_pages() if len(text := as_read(page)) in USUAL_CHARS]
    with (
        TemporaryDirectory() as folder,
        HostileServer(otherwise=writes_slowly(pages or corpus_pages(), options.events)) as server,
    ):
        write_corpus(Path(folder), options.pages, documents=max(1, options.pages // 10))
        result = run(server.url, Path(folder))
        client = [sys.executable, __file__, BARE, server.url, "--pages", str(options.pages)]
        bare_s = float(subprocess.run(client, check=True, stdout=subprocess.PIPE).stdout)
    print(
        f"{result['pages_read']} pages read, {result['pages_per_s']:.2f} a second: "
        f"{1000 * result['cpu_s_per_page']:.0f} ms CPU a page; reading the lines of as many "
        f"answers, and nothing else: {1000 * bare_s:.0f}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
