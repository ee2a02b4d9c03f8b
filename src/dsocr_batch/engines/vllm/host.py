"""The host process: it owns vLLM, and reads pages for its parent over a channel.

Runs as ``python -m dsocr_batch.engines.vllm.host``. Loading blocks this process alone, and what
vLLM prints goes to the log file that is our stdout.

Requests:

    {"do": "load", "args": {…}, "ngram": {…}}        first and once
    {"do": "read", "id": 7, "bytes": …, "grid": [2, 3], "prompt", "vision_mode", "temperature",
     "max_tokens"}                                   with the descriptor of the views
    {"do": "cancel", "id": 7}

Events:

    {"event": "stage", "text"}                       how far loading has come
    {"event": "loaded", "version"}, or {"event": "refused", "reason"}: an argument, or
    {"event": "failed", "reason"}: all else
    {"event": "taken", "id": 7}                      the views are copied
    {"event": "progress", "ids": [7, …]}             who got tokens in the last second
    {"event": "read", "id": 7, "text", "finish_reason", "output_tokens"}
    {"event": "page_error", "id": 7, "reason", "failure_class"}
    {"event": "dead"}                                the last one

The process ends with its parent, or with vLLM's engine process.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import socket
from typing import TYPE_CHECKING

from dsocr_batch.child import Message, join_parent
from dsocr_batch.engines.vllm.channel import Channel
from dsocr_batch.engines.vllm.group import start_watch
from dsocr_batch.engines.vllm.plugin.inputs import page_prompt
from dsocr_batch.errors import UsageError
from dsocr_batch.profiles import TileGrid, VisionMode
from dsocr_batch.records import FailureClass

if TYPE_CHECKING:
    from dsocr_batch.engines.vllm.llm import Llm

PROGRESS_S = 1.0
STATISTICS_S = 10.0
"""How often vLLM logs its throughput and what fills its cache."""


class Host:
    """The process's state; make it on a running event loop."""

    def __init__(self, sock: socket.socket) -> None:
        self._channel = Channel(sock, on_message=self._obey, on_lost=self._end)
        self._over = asyncio.Event()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._with_news: set[int] = set()
        self._llm: Llm | None = None

    async def run(self) -> None:
        """Work until there is nobody left to work for, or nothing to work with."""
        tickers = [asyncio.create_task(self._tell_progress()), asyncio.create_task(self._log())]
        await self._over.wait()
        for task in tickers:
            task.cancel()

    def _obey(self, message: Message, fd: int | None) -> None:
        match message["do"]:
            case "load":
                self._load(message)
            case "read" if fd is not None:
                self._take(message, fd)
            case "cancel":
                if task := self._tasks.get(message["id"]):
                    task.cancel()
            case other:
                raise ValueError(f"unknown request {other!r}")

    def _load(self, message: Message) -> None:
        """Load the model; the event loop stands still meanwhile, and loses nothing by it."""
        self._send("stage", text="importing vLLM")
        try:
            from dsocr_batch.engines.vllm.llm import VERSION, Llm  # noqa: PLC0415 (takes 15 s)

            self._send("stage", text=f"starting vLLM {VERSION}")
            self._llm = Llm(message["args"], message["ngram"])
        except UsageError as error:
            self._send("refused", reason=str(error))
        except Exception as error:  # noqa: BLE001 (whatever it is, vLLM does not start)
            self._send("failed", reason=f"{type(error).__name__}: {error}")
        else:
            self._send("loaded", version=VERSION)

    def _take(self, message: Message, fd: int) -> None:
        """Begin with a page: copy its views and let go of them."""
        page_id = message["id"]
        try:
            prompt = _prompt(message, fd)
        except ValueError as error:
            self._give_up(page_id, error, FailureClass.TRANSIENT)
            return
        self._send("taken", id=page_id)
        self._tasks[page_id] = asyncio.create_task(self._read(page_id, prompt, message))
        self._tasks[page_id].add_done_callback(lambda _: self._tasks.pop(page_id))

    async def _read(self, page_id: int, prompt: Message, message: Message) -> None:
        from dsocr_batch.engines.vllm.llm import (  # noqa: PLC0415
            EngineDeadError,
            cause_of,
            is_refusal,
        )

        if self._llm is None:
            raise AssertionError("a page came before the model")
        try:
            reading = await self._llm.read(
                str(page_id),
                prompt,
                temperature=message["temperature"],
                max_tokens=message["max_tokens"],
                on_tokens=lambda: self._with_news.add(page_id),
            )
        except EngineDeadError:
            self._send("dead")
            self._end()
        except Exception as error:  # noqa: BLE001 (the border of a page)
            # What vLLM refuses it would refuse again; all else may go well another time.
            cause = cause_of(error)
            whose = FailureClass.INPUT if is_refusal(cause) else FailureClass.TRANSIENT
            self._give_up(page_id, cause, whose)
        else:
            self._send("read", id=page_id, **reading)

    def _give_up(self, page_id: int, error: Exception, whose: FailureClass) -> None:
        reason = f"{type(error).__name__}: {error}"
        self._send("page_error", id=page_id, reason=reason, failure_class=whose)

    async def _tell_progress(self) -> None:
        """Tell of hundreds of pages at once, lest their signs of life fill the channel."""
        while True:
            await asyncio.sleep(PROGRESS_S)
            if news := sorted(self._with_news):
                self._send("progress", ids=news)
                self._with_news.clear()

    async def _log(self) -> None:
        while True:
            await asyncio.sleep(STATISTICS_S)
            if self._llm is not None and self._tasks:
                await self._llm.log_statistics()

    def _send(self, event: str, **values: object) -> None:
        self._channel.send({"event": event, **values})

    def _end(self) -> None:
        self._over.set()


def _prompt(message: Message, fd: int) -> Message:
    """Return what vLLM is given for a page, with a copy of the views in a file; close the file.

    Raises:
        ValueError: the views have the wrong size.
    """
    columns, rows = message["grid"]
    try:
        with (
            mmap.mmap(fd, message["bytes"], access=mmap.ACCESS_READ) as shared,
            memoryview(shared) as views,
        ):
            return page_prompt(
                message["prompt"],
                views,
                VisionMode(message["vision_mode"]),
                TileGrid(columns=columns, rows=rows),
            )
    finally:
        os.close(fd)


async def _serve(sock: socket.socket) -> None:
    await Host(sock).run()


def main() -> None:
    """Serve the parent until it is gone; then all of the process group ends at once."""
    sock, _ = join_parent()
    start_watch()
    asyncio.run(_serve(sock))
    os._exit(0)  # vLLM's own farewell takes 5 s, and nobody waits for it


if __name__ == "__main__":
    main()
