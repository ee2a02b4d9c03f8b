"""Reading on this machine: render workers, one engine, and the slots in between.

Each render worker is a lane and renders pages into slots. A rendered page waits for a place in
the engine and is read; nothing waits for a batch.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

from dsocr_batch.discover import Document
from dsocr_batch.engines.base import Engine, PageReadError, PageRequest, Reading
from dsocr_batch.machine import usable_cores
from dsocr_batch.names import display_path
from dsocr_batch.output.paths import document_paths
from dsocr_batch.pipeline.document import ReadTask
from dsocr_batch.pipeline.entries import begun, blank, failed_render, read_page, rendered_page
from dsocr_batch.pipeline.reader import Lane, Outcome, Read, Unread, Vitals, WhyUnread
from dsocr_batch.pipeline.settings import PipelineSettings
from dsocr_batch.pipeline.supervise import EngineSupervisor, PageInterruptedError
from dsocr_batch.prepare.image import PageImage
from dsocr_batch.profiles import VisionMode
from dsocr_batch.records import JournalEntry, PageRecord
from dsocr_batch.render.pool import OpenedDocument, PageJob, RenderFailed, RenderWorker
from dsocr_batch.render.slots import Slot, SlotPool
from dsocr_batch.spool import Disk, Sources

RUN_AHEAD_BYTES = 128 << 20
"""Rendered pages that wait for the engine may take this much memory."""


class LocalReader:
    """Reads with the cores and the engine of this machine."""

    def __init__(
        self,
        settings: PipelineSettings,
        engine: Engine,
        sources: Sources | None = None,
        render_workers: int | None = None,
    ) -> None:
        """Start nothing yet.

        Args:
            settings: how pages are rendered and read.
            engine: not started; it is, when the first page needs it.
            sources: where documents are found; closed at the end. None if they are files.
            render_workers: None for as many as the engine leaves cores, at least one.
        """
        # No core is set aside for this process: it takes a small part of what rendering takes.
        free_cores = usable_cores() - engine.cpu_processes
        workers = render_workers or max(1, free_cores)
        self.identity = engine.identity
        self.vision_mode = engine.vision_mode
        self.sources = sources or Disk()
        self._settings = settings
        self._engine = engine
        self._supervisor = EngineSupervisor(engine, settings.engine_timeout_s)
        modes = {engine.vision_mode, *(settings.ladder.vision_modes if settings.ladder else ())}
        page_bytes = max(engine.image_spec(mode).max_bytes for mode in modes)
        slot_count = max(workers + 1, RUN_AHEAD_BYTES // page_bytes)
        self.slots = SlotPool(slot_count)
        # Journaling lags a little behind; this keeps it from lagging without bound.
        places = asyncio.Semaphore(engine.capacity + 2 * slot_count)
        self._lanes = [LocalLane(self, settings, places) for _ in range(workers)]
        self._engine_places = asyncio.Semaphore(engine.capacity)
        self._spare_cores = free_cores - workers
        self._is_stopped = False

    @property
    def vitals(self) -> Vitals:
        """How the engine and the workers are."""
        return Vitals(
            render_workers=len(self._lanes),
            capacity=self._engine.capacity,
            in_flight=self._supervisor.in_flight,
            is_loading=self._supervisor.is_loading,
            loading_s=self._supervisor.loading_s,
            held_up_s=sum(lane.held_up_s for lane in self._lanes),
            engine_losses=self._supervisor.losses,
            spare_cores=self._spare_cores,
        )

    async def lanes(self) -> AsyncIterator[Lane]:
        """Yield a lane for each render worker; all are there from the start."""
        for lane in self._lanes:
            yield lane

    def warm_up(self) -> None:
        """Start loading the engine, if nobody has yet."""
        self._supervisor.begin()

    def check(self) -> None:
        """Restart an engine that has fallen silent."""
        self._supervisor.check_silence()

    def stop(self) -> None:
        """Give no further page to the engine."""
        self._is_stopped = True

    def forgive(self) -> None:
        """Do not blame the engine for a page that was put into quarantine."""
        self._supervisor.forgive()

    def mode_of(self, task: ReadTask) -> VisionMode | None:
        """Return the vision mode that a task is read in."""
        return task.step.vision_mode or self.vision_mode

    def page_job(self, task: ReadTask, path: Path) -> PageJob:
        """Return how a task's page is rendered from its document's file."""
        settings = self._settings
        save_png = None
        if settings.save_images and task.is_first_of_page:
            paths = document_paths(settings.output_dir, task.document.relative)
            save_png = str(paths.assets_dir / f"page-{task.page_index + 1:04d}.png")
        return PageJob(
            path=str(path),
            source=task.source,
            page_index=task.page_index,
            dpi=task.step.dpi or settings.dpi,
            spec=self._engine.image_spec(self.mode_of(task)),
            box=task.box,
            quarter_turns=task.step.quarter_turns,
            save_png=save_png,
        )

    async def read(
        self, task: ReadTask, record: PageRecord, image: PageImage, slot: Slot
    ) -> Outcome:
        """Read a rendered page as soon as the engine has a place for it, and free its slot."""
        lent = [slot]

        def release_image() -> None:
            if lent:
                self.slots.release(lent.pop())

        rendered_at = time.monotonic()
        try:
            async with self._engine_places:
                await self._supervisor.ready()
                if self._is_stopped:
                    return Unread(why=WhyUnread.STOPPED, record=record)
                submitted_at = time.monotonic()
                outcome = await self._attempt(task, image, release_image)
        except PageInterruptedError:
            return Unread(why=WhyUnread.ENGINE_LOST, record=record)
        finally:
            release_image()
        timing = replace(
            record.timing,
            wait_s=round(submitted_at - rendered_at, 6),
            engine_s=round(time.monotonic() - submitted_at, 6),
        )
        return read_page(replace(record, timing=timing), outcome)

    async def _attempt(
        self, task: ReadTask, image: PageImage, release_image: Callable[[], None]
    ) -> Reading | PageReadError:
        settings = self._settings
        request = PageRequest(
            page_id=task.name,
            image=image,
            prompt=settings.prompt if task.region is None else settings.region_prompt,
            vision_mode=self.mode_of(task),
            temperature=task.step.temperature,
            release_image=release_image,
            on_progress=self._supervisor.note_progress,
        )
        try:
            return await self._supervisor.read(request)
        except PageReadError as error:
            return error

    async def close(self) -> None:
        """Stop the engine and the workers, and free the slots."""
        async with AsyncExitStack() as closing:  # last in, first out; each in any case
            closing.callback(self.slots.close)
            closing.push_async_callback(self._supervisor.close)
            for lane in self._lanes:
                closing.push_async_callback(lane.close)
            closing.push_async_callback(self.sources.close)


class LocalLane:
    """One render worker."""

    def __init__(
        self, reader: LocalReader, settings: PipelineSettings, places: asyncio.Semaphore
    ) -> None:
        """Start nothing yet; all lanes of a reader share their ``places``."""
        self.places = places
        self.held_up_s = 0.0
        """Time that the worker stood still because no slot was free."""
        self._reader = reader
        self._worker = RenderWorker(reader.slots.fds, settings.page_timeout_s, settings.passwords)

    @property
    def artist(self) -> RenderWorker:
        """The worker itself."""
        return self._worker

    async def open(self, document: Document, size: int) -> OpenedDocument:
        """Open a document in the worker; see ``reader.Lane``."""
        async with self._reader.sources.held(document) as path:
            return await self._worker.open(str(path), display_path(document.relative), size)

    async def render(self, task: ReadTask) -> JournalEntry | Read:
        """Render a task's page into a slot; see ``reader.Lane``."""
        waiting_since = time.monotonic()
        slot = await self._reader.slots.acquire()
        started = time.monotonic()
        self.held_up_s += started - waiting_since
        record = begun(task, self._reader.mode_of(task))
        try:
            async with self._reader.sources.held(task.document) as path:
                page = await self._worker.render(self._reader.page_job(task, path), slot)
        except RenderFailed as failure:
            self._reader.slots.release(slot)
            return failed_render(record, failure, time.monotonic() - started)
        record = rendered_page(record, page)
        if page.image is None:
            self._reader.slots.release(slot)
            return blank(record)
        return partial(self._reader.read, task, record, page.image, slot)

    def forgive(self) -> None:
        """Do not blame the engine."""
        self._reader.forgive()

    async def close(self) -> None:
        """Kill the worker."""
        await self._worker.close()
