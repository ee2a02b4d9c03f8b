"""The host process as its parent sees it: started, loaded, asked for pages, killed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

from dsocr_batch.child import Message, describe_end, start_module
from dsocr_batch.engines.base import EngineLostError
from dsocr_batch.engines.vllm.channel import Channel
from dsocr_batch.engines.vllm.group import kill_group
from dsocr_batch.engines.vllm.hostlog import milestones, open_log, read_new, root_error
from dsocr_batch.engines.vllm.settings import VllmSettings
from dsocr_batch.errors import EngineUnusable, UsageError
from dsocr_batch.names import display_path, display_text
from dsocr_batch.prepare.image import PageImage

log = logging.getLogger(__name__)

MODULE = "dsocr_batch.engines.vllm.host"

ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",  # the model is always a folder here
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_USE_V2_MODEL_RUNNER": "0",  # it refuses the n-gram guard
}

_LOOK_S = 1.0
_NEWS_S = 30.0
"""While loading, something is logged at least so often."""
_FAREWELL_S = 2.0
_LAST_WORDS_BYTES = 1 << 15
"""In so much of the log's end the cause of a death is looked for; earlier errors were others'."""

_ADVICE = {
    "OutOfMemoryError": "Leave it less with --gpu-memory-utilization or --batch-pages, or stop "
    "what else is on the GPU (nvidia-smi shows it). ",
    "OSError": "See whether the files of the model can be read. ",
}
"""What to do, by the class of the error in vLLM's log."""


@dataclass(frozen=True, slots=True)
class _Page:
    reply: asyncio.Future[Message]
    on_taken: Callable[[], None]
    on_progress: Callable[[], None]


class HostProcess:
    """One host process, from its start to its end. Use from one event loop."""

    def __init__(self) -> None:
        """Start the process, which loads nothing yet.

        Call it from the main thread: Linux ends the child when the thread that made it ends.

        Raises:
            EngineUnusable: the system cannot start a process now.
        """
        self._ids = itertools.count(1)
        self._pages: dict[int, _Page] = {}
        self._loaded: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._loaded.add_done_callback(_look_at)
        self._last_words: asyncio.Task[None] | None = None
        self._log_path, output = open_log()
        with output:
            self._log_offset = os.fstat(output.fileno()).st_size
            try:
                self._process, sock = start_module(MODULE, output=(output, output), env=ENVIRONMENT)
            except OSError as error:
                raise EngineUnusable(f"the process for vLLM cannot be started: {error}") from error
        self._channel = Channel(sock, on_message=self._hear, on_lost=self._lose)

    async def load(self, settings: VllmSettings) -> str:
        """Load the model and return vLLM's version; the log tells how far it has come.

        Raises:
            UsageError: vLLM does not know some ``--engine-arg``.
            EngineUnusable: it does not start; the message says why.
        """
        log.info("loading the model into vLLM; its own log is %s", self._shown_log)
        message = {"do": "load", "args": settings.engine_args, "ngram": asdict(settings.ngram)}
        self._channel.send(message)
        began = told_at = time.monotonic()
        offset = self._log_offset
        while not self._loaded.done():
            await asyncio.wait({self._loaded}, timeout=_LOOK_S)
            lines, offset = read_new(self._log_path, offset)
            news = list(milestones(lines))
            now = time.monotonic()
            if not news and now - told_at > _NEWS_S:
                news = ["still loading"]
            for text in news:
                log.info("vLLM: %s (%.0f s)", display_text(text), now - began)
                told_at = now
        return self._loaded.result()

    async def read(
        self,
        message: Message,
        image: PageImage,
        *,
        on_taken: Callable[[], None],
        on_progress: Callable[[], None],
    ) -> Message:
        """Return the host's event that ends the page; cancelling ends the work on it.

        Args:
            message: how to read it.
            image: not needed any more once ``on_taken`` is called.
            on_taken: called when the host has its own copy of the pixels.
            on_progress: called now and then while tokens come.

        Raises:
            EngineLostError: the host or its engine is gone.
        """
        page_id = next(self._ids)
        reply: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._pages[page_id] = _Page(reply, on_taken, on_progress)
        grid = image.grid.columns, image.grid.rows
        page = {"do": "read", "id": page_id, "bytes": image.data.nbytes, "grid": grid}
        try:
            with _descriptor(image) as fd:
                self._channel.send({**message, **page}, fd)
            if self._last_words is not None:
                raise EngineLostError("vLLM has ended")
            return await reply
        finally:
            del self._pages[page_id]
            if not reply.done() or reply.cancelled():
                self._channel.send({"do": "cancel", "id": page_id})

    async def close(self) -> None:
        """Kill the process and everything that it started; harmless when repeated."""
        self._channel.close()
        await asyncio.shield(asyncio.to_thread(self._end))
        if self._last_words is not None:
            await self._last_words
        self._fail(EngineLostError("the engine was closed"))

    def _end(self) -> None:
        kill_group(self._process.pid)
        self._process.wait()

    def _hear(self, event: Message, fd: int | None) -> None:
        if fd is not None:  # the host sends none
            os.close(fd)
        match event["event"]:
            case "taken":
                if page := self._pages.get(event["id"]):
                    page.on_taken()
            case "progress":
                for page_id in event["ids"]:
                    if page := self._pages.get(page_id):
                        page.on_progress()
            case "read" | "page_error":
                page = self._pages.get(event["id"])
                if page is not None and not page.reply.done():
                    page.reply.set_result(event)
            case "dead":
                self._lose("vLLM's engine process died")
            case _:
                self._hear_of_start(event)

    def _hear_of_start(self, event: Message) -> None:
        match event["event"]:
            case "stage":
                log.info("vLLM: %s", display_text(event["text"]))
            case "loaded":
                self._loaded.set_result(event["version"])
            case "refused":
                self._loaded.set_exception(UsageError(display_text(event["reason"])))
            case "failed":
                self._loaded.set_exception(self._unusable(event["reason"]))
            case other:
                raise AssertionError(f"an unknown event {other!r}")

    def _lose(self, how: str | None = None) -> None:
        if self._last_words is None:
            self._last_words = asyncio.create_task(self._tell_end(how))

    async def _tell_end(self, how: str | None) -> None:
        # Its socket closes before it is gone; how it ends is worth a moment's wait.
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(self._process.wait, _FAREWELL_S)
        how = how or f"vLLM's host process {describe_end(self._process.returncode)}"
        size = self._log_path.stat().st_size
        said = self._root_error(max(self._log_offset, size - _LAST_WORDS_BYTES))
        cause = how if said is None else f"{how}: {said}"
        self._fail(EngineLostError(f"{cause}; its log is {self._shown_log}"))
        if not self._loaded.done():
            self._loaded.set_exception(self._unusable(how))

    def _fail(self, error: EngineLostError) -> None:
        for page in self._pages.values():
            if not page.reply.done():
                page.reply.set_exception(error)

    def _unusable(self, reason: str) -> EngineUnusable:
        cause = self._root_error(self._log_offset) or reason
        advice = next((said for name, said in _ADVICE.items() if name in cause.split(":")[0]), "")
        return EngineUnusable(
            f"vLLM does not start: {display_text(cause)[:1000]}. {advice}"
            f"Its log is {self._shown_log}."
        )

    def _root_error(self, since: int) -> str | None:
        lines, _ = read_new(self._log_path, since)
        error = root_error(lines)
        return None if error is None else display_text(error)

    @property
    def _shown_log(self) -> str:
        return display_path(self._log_path)


@contextlib.contextmanager
def _descriptor(image: PageImage) -> Iterator[int]:
    """Give the file in memory that holds an image; one for the purpose if it has none."""
    if image.fd is not None:
        yield image.fd
        return
    fd = os.memfd_create("dsocr-page", os.MFD_CLOEXEC)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(image.data)
        yield fd
    finally:
        os.close(fd)


def _look_at(future: asyncio.Future[str]) -> None:
    """Take note of how it ended, or asyncio complains where nobody waited for it."""
    if not future.cancelled():
        future.exception()
