"""Keeps one engine alive: restarts it when it dies or falls silent, up to a limit."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

from dsocr_batch.engines.base import Engine, EngineLostError, PageRequest, Reading
from dsocr_batch.errors import EngineUnusable

log = logging.getLogger(__name__)

MAX_RESTARTS = 3
"""Restarts without ``PAGES_TO_TRUST`` pages read in between, then the engine is unusable."""

PAGES_TO_TRUST = 50


class PageInterruptedError(Exception):
    """The engine was lost while it held this page; the page must be submitted again."""


class EngineSupervisor:
    """Reads pages through an engine that may be lost at any time. Lives on the event loop."""

    def __init__(self, engine: Engine, timeout_s: float) -> None:
        self._engine = engine
        self._timeout_s = timeout_s
        self._starting: asyncio.Task[None] | None = None
        self._reads: dict[asyncio.Task[Reading], str] = {}
        self._generation = 0
        self._restarts = 0
        self._pages_since_restart = 0
        self._last_progress = 0.0

    @property
    def is_loading(self) -> bool:
        """True from the first need of the engine until it is ready."""
        return self._starting is not None and not self._starting.done()

    @property
    def in_flight(self) -> tuple[str, ...]:
        """Ids of the pages inside the engine, oldest first."""
        return tuple(self._reads.values())

    def begin(self) -> None:
        """Start loading the engine, if nobody has yet."""
        if self._starting is None:
            self._starting = asyncio.create_task(self._engine.start(), name="engine start")

    async def ready(self) -> None:
        """Wait until the engine is loaded.

        Raises:
            EngineUnusable: it cannot start, or was lost too often.
        """
        self.begin()
        if self._starting is not None:
            await asyncio.shield(self._starting)

    async def read(self, request: PageRequest) -> Reading:
        """Return the reading of one page.

        Raises:
            PageReadError: this page failed.
            PageInterruptedError: the engine was lost; submit the page again.
            EngineUnusable: the engine is beyond help.
        """
        await self.ready()
        if not self._reads:
            self._last_progress = time.monotonic()
        generation = self._generation
        task = asyncio.create_task(self._engine.read(request))
        self._reads[task] = request.page_id
        try:
            await asyncio.wait({task})
        finally:
            del self._reads[task]
            if not task.done():
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        if task.cancelled():
            raise PageInterruptedError
        error = task.exception()
        if isinstance(error, EngineLostError):
            if generation == self._generation:  # else another page has reported the loss
                self._restart(str(error))
            raise PageInterruptedError from error
        self.note_progress()
        reading = task.result()
        self._pages_since_restart += 1
        return reading

    def note_progress(self) -> None:
        """Take note that tokens arrived: the engine is alive."""
        self._last_progress = time.monotonic()

    def check_silence(self) -> None:
        """Restart an engine that holds pages and has given no token for too long."""
        silent_s = time.monotonic() - self._last_progress
        if self._reads and not self.is_loading and silent_s > self._timeout_s:
            self._restart(f"no token for {silent_s:.0f} s (--engine-timeout)")

    async def close(self) -> None:
        """Stop the engine, also while it is still loading."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        await self._engine.close()

    def _restart(self, reason: str) -> None:
        """Interrupt what is in flight and load the engine anew."""
        self._generation += 1
        if self._pages_since_restart >= PAGES_TO_TRUST:
            self._restarts = 0
        self._restarts += 1
        self._pages_since_restart = 0
        log.warning("engine lost (%s): restart %d of %d", reason, self._restarts, MAX_RESTARTS)
        self._starting = asyncio.create_task(self._start_again(reason), name="engine restart")
        for task in self._reads:
            task.cancel()

    async def _start_again(self, reason: str) -> None:
        await self._engine.close()
        if self._restarts > MAX_RESTARTS:
            raise EngineUnusable(
                f"the engine was lost {self._restarts} times in a row, last: {reason}. "
                "What is finished is kept: run the same command again to go on, "
                "with --log-level debug to see more of the engine."
            )
        await self._engine.start()
