"""Keeps one engine alive: restarts it when it dies or falls silent, up to a limit."""

from __future__ import annotations

import asyncio
import logging
import time

from dsocr_batch.engines.base import Engine, EngineLostError, PageRequest, Reading
from dsocr_batch.errors import EngineUnusable

log = logging.getLogger(__name__)

MAX_RESTARTS = 3
"""Restarts without ``PAGES_TO_TRUST`` pages read in between, then the engine is unusable."""

PAGES_TO_TRUST = 50

FIRST_PAUSE_S = 0.5
"""Before the first restart, doubled for each further one: a server may be away for a moment."""

START_TIMEOUT_S = 1800.0
"""Loading a model from a cold disk and compiling it takes minutes, not half an hour."""


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
        self._pages_since_quarantine = 0
        self._restarts = 0
        self._pages_since_restart = 0
        self._last_progress = 0.0
        self.loading_s = 0.0
        """Time that the engine took to start, restarts included."""
        self.losses = 0
        """How often the engine was lost in all."""

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
            self._starting = asyncio.create_task(self._start(), name="engine start")

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
                await asyncio.wait({task})
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
        self._pages_since_quarantine += 1
        return reading

    def note_progress(self) -> None:
        """Take note that tokens arrived: the engine is alive."""
        self._last_progress = time.monotonic()

    def forgive(self) -> None:
        """Take a page that was put into quarantine, and not the engine, for what was wrong.

        Only if the engine has read another page since the last time: one that dies on every
        page is beyond help.
        """
        if self._pages_since_quarantine:
            self._restarts = 0
        self._pages_since_quarantine = 0

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
        self.losses += 1
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
        await asyncio.sleep(FIRST_PAUSE_S * 2 ** (self._restarts - 1))
        await self._start()
        self.note_progress()

    async def _start(self) -> None:
        began = time.monotonic()
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await self._engine.start()
        except TimeoutError as error:
            raise EngineUnusable(
                f"the engine was not ready after {START_TIMEOUT_S / 60:.0f} minutes. Run again "
                "with --log-level debug to see how far it comes."
            ) from error
        finally:
            self.loading_s += time.monotonic() - began
