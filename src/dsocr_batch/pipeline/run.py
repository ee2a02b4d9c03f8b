"""One run: render workers, engine and writer, all at work at once.

Each render worker has a lane, which takes tasks from the schedule and renders pages into
slots. A rendered page becomes a task of its own: it waits for a place in the engine and is read.
What that gave, ``page.Course`` takes in: the page goes back to the lanes to be rendered and read
again, or it is journaled, and the last page of a document finishes that document. Nothing waits
for a batch.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from dsocr_batch.discover import Document
from dsocr_batch.engines.base import Engine, PageReadError, PageRequest, Reading
from dsocr_batch.errors import DsocrError, TooManyFailures
from dsocr_batch.names import display_path
from dsocr_batch.pipeline.document import MAX_TIMEOUTS, OpenJob, ReadTask
from dsocr_batch.pipeline.draft import Draft
from dsocr_batch.pipeline.entries import (
    begun,
    blank,
    failed_render,
    quarantined,
    read_page,
    rendered_page,
)
from dsocr_batch.pipeline.illustrate import Drawn, illustrate
from dsocr_batch.pipeline.page import Course
from dsocr_batch.pipeline.schedule import Schedule
from dsocr_batch.pipeline.settings import PipelineSettings
from dsocr_batch.pipeline.store import DocumentStore, Work
from dsocr_batch.pipeline.supervise import EngineSupervisor, PageInterruptedError
from dsocr_batch.pipeline.tally import Snapshot, Tally
from dsocr_batch.prepare.image import PageImage
from dsocr_batch.profiles import VisionMode
from dsocr_batch.records import (
    DocumentRecord,
    FailureClass,
    JournalEntry,
    PageRecord,
    PageState,
    ReasonCode,
)
from dsocr_batch.render.pool import PageJob, RenderedPage, RenderFailed, RenderWorker
from dsocr_batch.render.slots import Slot, SlotPool

log = logging.getLogger(__name__)

RUN_AHEAD_BYTES = 128 << 20
"""Rendered pages that wait for the engine may take this much memory."""

TICK_S = 0.25
CHECK_S = 1.0
SYNC_S = 1.0
STOP_GRACE_S = 5.0
"""After a signal, pages inside the engine get this long to finish."""

MIN_PAGES_TO_JUDGE = 200
"""``--max-failed-share`` is judged from this many pages on."""

QUARANTINE_AFTER = 2
"""A page that was in the engine this often when the engine was lost is not tried again."""


class StopReason(StrEnum):
    """Why a run ended before its work was done."""

    SIGINT = "SIGINT"
    SIGTERM = "SIGTERM"
    MAX_RUNTIME = "--max-runtime"


class _GraceOver(Exception):
    """The time that a stopped run gives its pages is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """How a run ended."""

    stopped_by: StopReason | None
    """None if the run came to its end."""
    work_left: bool
    tally: Tally
    snapshot: Snapshot
    stages: StageSeconds
    engine_losses: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSeconds:
    """Time that each stage spent at work, all its workers and places together."""

    loading: float
    render: float
    prepare: float
    """Part of ``render``: making of pixels what the engine wants."""
    render_held_up: float
    """Render workers that waited, because the engine had pages enough."""
    engine: float
    postprocess: float
    writing: float


class Run:
    """Reads documents through an engine; use once, from one event loop."""

    def __init__(
        self,
        settings: PipelineSettings,
        engine: Engine,
        documents: Iterable[Document],
        documents_total: int,
        *,
        on_tick: Callable[[Snapshot], None],
        check: Callable[[], None],
    ) -> None:
        """Prepare a run.

        Args:
            settings: how documents are read, resumed and written.
            engine: not started; it is, when the first page needs it.
            documents: what to read, in this order.
            documents_total: their number, for progress.
            on_tick: called a few times a second with the state of the run.
            check: called once a second; raises to end the run (disk full, lock lost).
        """
        self._settings = settings
        self._engine = engine
        self._on_tick = on_tick
        self._check = check
        self._tally = Tally(documents_total)
        self._schedule = Schedule(documents, settings.render_workers)
        self._supervisor = EngineSupervisor(engine, settings.engine_timeout_s)
        self._store = DocumentStore(settings, engine.identity)
        self._course = Course(ladder=settings.ladder, regions=settings.regions)
        modes = {engine.vision_mode, *(settings.ladder.vision_modes if settings.ladder else ())}
        page_bytes = max(engine.image_spec(mode).max_bytes for mode in modes)
        slot_count = max(settings.render_workers + 1, RUN_AHEAD_BYTES // page_bytes)
        self._slots = SlotPool(slot_count)
        self._workers = [
            RenderWorker(self._slots.fds, settings.page_timeout_s, settings.passwords)
            for _ in range(settings.render_workers)
        ]
        # Documents end while every lane's worker is busy with pages. It starts when first needed.
        self._artist = RenderWorker((), settings.page_timeout_s, settings.passwords)
        self._artist_is_free = asyncio.Lock()
        self._engine_places = asyncio.Semaphore(engine.capacity)
        # Journaling lags a little behind; this keeps it from lagging without bound.
        self._tasks_under_way = asyncio.Semaphore(engine.capacity + 2 * slot_count)
        self._tasks: asyncio.TaskGroup | None = None
        self._stop_reason: StopReason | None = None
        self._grace_ends = float("inf")

    def stop(self, reason: StopReason) -> None:
        """Take no more pages and let those inside the engine finish.

        After a signal they have a few seconds for it, after a second signal none.
        """
        is_second = self._stop_reason not in (None, StopReason.MAX_RUNTIME)
        if is_second or self._supervisor.is_loading:  # then no page is inside it
            self._grace_ends = time.monotonic()
        elif reason is not StopReason.MAX_RUNTIME:
            self._grace_ends = time.monotonic() + STOP_GRACE_S
        if self._stop_reason is None or reason is not StopReason.MAX_RUNTIME:
            self._stop_reason = reason
        self._schedule.stop()

    @property
    def result(self) -> RunResult:
        """How the run stands, or ended."""
        return RunResult(
            stopped_by=self._stop_reason,
            work_left=self._schedule.has_work,
            tally=self._tally,
            snapshot=self._tally.snapshot((), "finished"),
            engine_losses=self._supervisor.losses,
            stages=StageSeconds(
                loading=self._supervisor.loading_s,
                render=self._tally.render_s,
                prepare=self._tally.prepare_s,
                render_held_up=self._tally.slot_wait_s,
                engine=self._tally.engine_s,
                postprocess=self._store.busy_s[Work.POSTPROCESS],
                writing=self._store.busy_s[Work.WRITING],
            ),
        )

    async def execute(self) -> None:
        """Read everything; ``result`` tells how it ended.

        Raises:
            DsocrError: the run cannot go on; what is finished is kept.
        """
        try:
            async with asyncio.TaskGroup() as outer:
                clocks = [outer.create_task(self._tick()), outer.create_task(self._sync())]
                async with asyncio.TaskGroup() as self._tasks:
                    for index, worker in enumerate(self._workers):
                        self._tasks.create_task(self._lane(index, worker))
                for clock in clocks:
                    clock.cancel()
        except BaseExceptionGroup as group:
            error = _decisive(group)
            if not isinstance(error, _GraceOver):
                raise error from group
            log.info("pages in flight are left for the next run")
        finally:
            await self._close()

    async def _close(self) -> None:
        async with AsyncExitStack() as closing:  # last in, first out; each in any case
            closing.push_async_callback(self._store.close)
            closing.callback(self._slots.close)
            closing.push_async_callback(self._supervisor.close)
            for worker in (*self._workers, self._artist):
                closing.push_async_callback(worker.close)

    # ---- lanes: one for each render worker -------------------------------------------------

    async def _lane(self, index: int, worker: RenderWorker) -> None:
        while (work := await self._schedule.next_work(index)) is not None:
            if isinstance(work, Document):
                await self._open(worker, work)
            else:
                await self._render(worker, work)

    async def _open(self, worker: RenderWorker, document: Document) -> None:
        plan = await self._store.plan(document)
        if plan.passed_over:
            self._tally.document_passed_over()
            self._schedule.settled()
            return
        if plan.done and plan.record is not None:
            self._tally.document_found(plan.record)
            self._schedule.settled()
            return
        try:
            opened = await worker.open(document.path, display_path(document.relative), plan.size)
        except RenderFailed as failure:
            log.warning("%s: %s", display_path(document.relative), failure.reason)
            record = await self._store.unreadable(document, plan, failure)
            self._tally.document_opened(0)
            self._settle_document(record)
            return
        renewed = await self._store.renew(document, plan, opened)
        if renewed is not None:
            self._tally.document_found(renewed)
            self._schedule.settled()
            return
        job = await self._store.begin(document, opened)
        self._tally.document_opened(len(job.pending))
        if job.is_finished:
            await self._finish(job, worker)
            return
        self._supervisor.begin()
        self._schedule.opened(job)

    async def _render(self, worker: RenderWorker, task: ReadTask) -> None:
        await self._tasks_under_way.acquire()
        waiting_since = time.monotonic()
        slot = await self._slots.acquire()
        started = time.monotonic()
        self._tally.slot_wait_s += started - waiting_since
        record = begun(task, self._vision_mode(task))
        try:
            page = await self._rendered(worker, task, slot)
        except RenderFailed as failure:
            self._slots.release(slot)
            task.job.timeouts += (
                failure.reason_code is ReasonCode.RENDER_TIMEOUT
                and failure.failure_class is FailureClass.INPUT
            )
            entry = failed_render(record, failure, time.monotonic() - started)
            self._spawn(self._conclude(task, entry))
            return
        record = rendered_page(record, page)
        if page.image is None:
            self._slots.release(slot)
            self._spawn(self._conclude(task, blank(record)))
            return
        self._spawn(self._read(task, record, page.image, slot))

    async def _rendered(self, worker: RenderWorker, task: ReadTask, slot: Slot) -> RenderedPage:
        job = task.job
        if job.timeouts >= MAX_TIMEOUTS:
            raise RenderFailed(
                ReasonCode.DOCUMENT_HANGS,
                f"not tried: {MAX_TIMEOUTS} other pages of this document took too long to render",
                FailureClass.INPUT,
            )
        save_png = None
        if self._settings.save_images and task.is_first_of_page:
            save_png = str(job.paths.assets_dir / f"page-{task.page_index + 1:04d}.png")
        page_job = PageJob(
            path=job.document.path,
            source=job.source,
            page_index=task.page_index,
            dpi=task.step.dpi or self._settings.dpi,
            spec=self._engine.image_spec(self._vision_mode(task)),
            box=task.box,
            quarter_turns=task.step.quarter_turns,
            save_png=save_png,
        )
        return await worker.render(page_job, slot)

    def _vision_mode(self, task: ReadTask) -> VisionMode | None:
        return task.step.vision_mode or self._engine.vision_mode

    # ---- what was rendered: a task of the event loop each ----------------------------------

    async def _read(self, task: ReadTask, record: PageRecord, image: PageImage, slot: Slot) -> None:
        lent = [slot]

        def release_image() -> None:
            if lent:
                self._slots.release(lent.pop())

        rendered_at = time.monotonic()
        try:
            async with self._engine_places:
                await self._supervisor.ready()
                if self._stop_reason is not None:
                    self._tasks_under_way.release()
                    return
                submitted_at = time.monotonic()
                outcome = await self._attempt(task, image, release_image)
        finally:
            release_image()
        timing = replace(
            record.timing,
            wait_s=round(submitted_at - rendered_at, 6),
            engine_s=round(time.monotonic() - submitted_at, 6),
        )
        if isinstance(outcome, PageInterruptedError):
            await self._interrupted(task, record)
            return
        entry = read_page(replace(record, timing=timing), outcome)
        if self._settings.content_debug:
            log.info("%s: %s %r", task.name, entry.page.attempts, entry.raw_text[:200])
        await self._conclude(task, entry)

    async def _attempt(
        self, task: ReadTask, image: PageImage, release_image: Callable[[], None]
    ) -> Reading | PageReadError | PageInterruptedError:
        settings = self._settings
        request = PageRequest(
            page_id=task.name,
            image=image,
            prompt=settings.prompt if task.region is None else settings.region_prompt,
            vision_mode=self._vision_mode(task),
            temperature=task.step.temperature,
            release_image=release_image,
            on_progress=self._supervisor.note_progress,
        )
        try:
            return await self._supervisor.read(request)
        except (PageReadError, PageInterruptedError) as error:
            return error

    async def _interrupted(self, task: ReadTask, record: PageRecord) -> None:
        """Submit a task again after the engine was lost, unless it may be its page's fault."""
        suspect = replace(task, deaths=task.deaths + 1)
        if suspect.deaths >= QUARANTINE_AFTER:
            self._supervisor.forgive()
            await self._conclude(task, quarantined(record, suspect.deaths))
            return
        self._schedule.add(suspect)
        self._tasks_under_way.release()

    async def _conclude(self, task: ReadTask, entry: JournalEntry) -> None:
        """Take in what came of a task; it may finish its page, and others that waited for it."""
        if task.is_suspect:
            self._schedule.cleared()
        following = self._course.advance(task, entry)
        for next_task in following.tasks:
            self._schedule.add(next_task)
        for page in following.finished:
            await self._settle_page(task.job, page)
        # Only now, so that pages wait where documents cannot be written as fast as they are read.
        self._tasks_under_way.release()

    async def _settle_page(self, job: OpenJob, entry: JournalEntry) -> None:
        """Bring a page to its one state; the last page of a document finishes it."""
        known = job.entries.get(entry.page.page_number)
        if known is not None and entry.page.state is PageState.FAILED:
            entry = known  # what an earlier run read of it is better than nothing
        else:
            await self._store.append(job, entry)
        page = entry.page
        del job.in_flight[page.page_number - 1]
        self._tally.page_finished(page)
        if page.state in (PageState.FAILED, PageState.TRUNCATED):
            log.warning("%s#%d: %s: %s", job.source.path, page.page_number, page.state, page.reason)
        self._refuse_mass_failure()
        if job.is_finished:
            await self._finish(job)

    async def _finish(self, job: OpenJob, worker: RenderWorker | None = None) -> None:
        """Write a document; ``worker`` is one that is free to make its pictures."""
        try:
            draft = await self._store.compose(job)
            drawn = await self._illustrate(job, draft, worker)
            self._settle_document(await self._store.finish(job, draft, drawn))
        except DsocrError:
            raise
        except Exception:
            # The border of a document: our own mistake in one must not stop a corpus. Its pages
            # are in the journal, so mending the mistake costs no page.
            log.exception("%s: a bug; please report it", job.source.path)
            self._tally.documents_broken += 1
            self._store.forget(job)
            self._schedule.settled()

    async def _illustrate(self, job: OpenJob, draft: Draft, worker: RenderWorker | None) -> Drawn:
        extras = self._settings.extras
        if worker is not None:
            return await illustrate(worker, job, draft, extras)
        async with self._artist_is_free:
            return await illustrate(self._artist, job, draft, extras)

    def _settle_document(self, record: DocumentRecord) -> None:
        self._tally.document_finished(record)
        self._schedule.settled()

    def _spawn(self, page: Coroutine[Any, Any, None]) -> None:
        if self._tasks is None:
            raise AssertionError("a page outside of execute()")
        self._tasks.create_task(page)

    # ---- the clock -------------------------------------------------------------------------

    async def _tick(self) -> None:
        """Show progress and watch over limits, a few times a second."""
        checked_at = time.monotonic()
        while True:
            await asyncio.sleep(TICK_S)
            self._on_tick(self._tally.snapshot(self._supervisor.in_flight, self._status()))
            now = time.monotonic()
            if now >= self._grace_ends:
                raise _GraceOver
            if now - checked_at < CHECK_S:
                continue
            checked_at = now
            self._check()
            self._supervisor.check_silence()
            limit_s = self._settings.max_runtime_s
            if limit_s is not None and now - self._tally.started > limit_s:
                self.stop(StopReason.MAX_RUNTIME)

    async def _sync(self) -> None:
        """Make the journals durable once a second; apart, for a disk may hang."""
        while True:
            await asyncio.sleep(SYNC_S)
            await self._store.sync()

    def _status(self) -> str:
        if self._stop_reason is not None:
            return f"stopping ({self._stop_reason}): pages in flight are being finished"
        return "loading the engine" if self._supervisor.is_loading else "reading"

    def _refuse_mass_failure(self) -> None:
        share = self._tally.transient_failure_share
        if self._tally.pages_done >= MIN_PAGES_TO_JUDGE and share > self._settings.max_failed_share:
            raise TooManyFailures(
                f"{share:.0%} of {self._tally.pages_done} pages failed, and not by their files' "
                f"fault: more than --max-failed-share {self._settings.max_failed_share:g}. The "
                "newest reasons are above; mend the cause and run the same command again."
            )


def _decisive(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the error that ended a run: a bug before a known error before the end of grace."""
    leaves = [
        _decisive(error) if isinstance(error, BaseExceptionGroup) else error
        for error in group.exceptions
    ]
    return min(leaves, key=lambda e: (isinstance(e, _GraceOver), isinstance(e, DsocrError)))
