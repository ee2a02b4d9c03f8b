"""One run: a reader and a writer, both at work at once.

The lanes of the reader take tasks from the schedule and render pages. A rendered page becomes a
task of the event loop, which waits until it is read. What that gave, ``page.Course`` takes in:
the page goes back to the lanes to be rendered and read again, or it is journaled, and the last
page of a document finishes that document. Nothing waits for a batch.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from dsocr_batch.discover import Document
from dsocr_batch.errors import DsocrError, TooManyFailures
from dsocr_batch.names import display_path
from dsocr_batch.pipeline.ahead import Ahead
from dsocr_batch.pipeline.document import MAX_TIMEOUTS, OpenJob, ReadTask
from dsocr_batch.pipeline.draft import Draft
from dsocr_batch.pipeline.entries import given_up, quarantined
from dsocr_batch.pipeline.illustrate import Drawn, illustrate
from dsocr_batch.pipeline.page import Course
from dsocr_batch.pipeline.reader import (
    Lane,
    LaneLostError,
    Outcome,
    Read,
    Reader,
    Unread,
    Vitals,
    WhyUnread,
)
from dsocr_batch.pipeline.resume import Plan
from dsocr_batch.pipeline.schedule import Schedule
from dsocr_batch.pipeline.settings import PipelineSettings
from dsocr_batch.pipeline.store import DocumentStore, Work
from dsocr_batch.pipeline.tally import Snapshot, Tally
from dsocr_batch.records import (
    FailureClass,
    JournalEntry,
    PageState,
    ReasonCode,
)
from dsocr_batch.render.pool import RenderFailed, RenderWorker

log = logging.getLogger(__name__)

TICK_S = 0.25
CHECK_S = 1.0
SYNC_S = 1.0
STOP_GRACE_S = 5.0
"""After a signal, pages inside the engine get this long to finish."""

MIN_PAGES_TO_JUDGE = 200
"""``--max-failed-share`` is judged from this many pages on."""

QUARANTINE_AFTER = 2
"""A page that was in the engine this often when the engine was lost is not tried again."""

LANE_LOSSES_FORGIVEN = 2
"""Machines come and go, and what they hold is not to blame. Each further loss of a lane counts as
one of the engine, so that a page which takes its machine with it cannot take a whole cluster."""


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
    vitals: Vitals


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
        reader: Reader,
        store: DocumentStore,
        documents: Sequence[Document],
        *,
        on_tick: Callable[[Snapshot], None],
        check: Callable[[], None],
    ) -> None:
        """Prepare a run.

        Args:
            settings: how documents are read, resumed and written.
            reader: reads the pages; closed at the end.
            store: plans, journals and finishes documents; closed at the end.
            documents: what to read, in this order.
            on_tick: called a few times a second with the state of the run.
            check: called once a second; raises to end the run (disk full, lock lost).
        """
        self._settings = settings
        self._reader = reader
        self._on_tick = on_tick
        self._check = check
        self._tally = Tally(len(documents))
        self._schedule = Schedule(documents)
        self._store = store
        self._plans = Ahead(documents, self._planned)
        self._course = Course(ladder=settings.ladder, regions=settings.regions)
        self._jobs: dict[str, OpenJob] = {}
        """Open documents, by their path below the input root."""
        # Documents end while every lane is busy with pages. It starts when first needed.
        self._artist = RenderWorker((), settings.page_timeout_s, settings.passwords)
        self._artist_is_free = asyncio.Lock()
        self._tasks: asyncio.TaskGroup | None = None
        self._hiring: asyncio.Task[None] | None = None
        self._stop_reason: StopReason | None = None
        self._grace_ends = float("inf")

    def stop(self, reason: StopReason) -> None:
        """Take no more pages and let those inside the engine finish.

        After a signal they have a few seconds for it, after a second signal none.
        """
        is_second = self._stop_reason not in (None, StopReason.MAX_RUNTIME)
        if is_second or self._reader.vitals.is_loading:  # then no page is inside it
            self._grace_ends = time.monotonic()
        elif reason is not StopReason.MAX_RUNTIME:
            self._grace_ends = time.monotonic() + STOP_GRACE_S
        if self._stop_reason is None or reason is not StopReason.MAX_RUNTIME:
            self._stop_reason = reason
        self._reader.stop()
        self._schedule.stop()
        self._hire_no_more()

    @property
    def result(self) -> RunResult:
        """How the run stands, or ended."""
        vitals = self._reader.vitals
        return RunResult(
            stopped_by=self._stop_reason,
            work_left=self._schedule.has_work,
            tally=self._tally,
            snapshot=self._tally.snapshot((), "finished"),
            vitals=vitals,
            stages=StageSeconds(
                loading=vitals.loading_s,
                render=self._tally.render_s,
                prepare=self._tally.prepare_s,
                render_held_up=vitals.held_up_s,
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
                    self._hiring = self._tasks.create_task(self._hire())
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
            closing.push_async_callback(self._reader.close)
            closing.push_async_callback(self._artist.close)
            closing.push_async_callback(self._plans.close)

    # ---- lanes -----------------------------------------------------------------------------

    async def _hire(self) -> None:
        """Put every lane of the reader to work, also those that come later."""
        async for lane in self._reader.lanes():
            self._spawn(self._work(lane, self._schedule.join()))

    def _hire_no_more(self) -> None:
        if self._hiring is not None:
            self._hiring.cancel()

    async def _work(self, lane: Lane, number: int) -> None:
        try:
            while (work := await self._schedule.next_work(number)) is not None:
                if isinstance(work, Document):
                    await self._open(lane, work)
                else:
                    await self._render(lane, work)
            self._hire_no_more()
        except LaneLostError as error:
            log.warning("%s: what it was reading goes on elsewhere", error)
        finally:
            self._schedule.leave(number)

    async def _planned(self, document: Document) -> Plan:
        plan = await self._store.plan(document)
        if not plan.done:
            self._reader.sources.expect(document)
        return plan

    async def _open(self, lane: Lane, document: Document) -> None:
        plan = await self._plans.plan(document)
        if plan.passed_over:
            self._tally.document_passed_over()
            self._settled(document)
            return
        if plan.done and plan.record is not None:
            self._tally.document_found(plan.record)
            self._settled(document)
            return
        try:
            opened = await lane.open(document, plan.size)
        except LaneLostError:
            self._schedule.give_back(document)
            raise
        except RenderFailed as failure:
            log.warning("%s: %s", display_path(document.relative), failure.reason)
            record = await self._store.unreadable(document, plan, failure)
            self._tally.document_opened(0)
            self._tally.document_finished(record)
            self._settled(document)
            return
        renewed = await self._store.renew(document, plan, opened)
        if renewed is not None:
            self._tally.document_found(renewed)
            self._settled(document)
            return
        job = await self._store.begin(document, opened)
        self._jobs[document.relative] = job
        self._tally.document_opened(len(job.pending))
        if job.is_finished:
            await self._finish(job, lane.artist)
            return
        self._reader.warm_up()
        self._schedule.opened(job)

    async def _render(self, lane: Lane, task: ReadTask) -> None:
        await lane.places.acquire()
        if self._job(task).timeouts >= MAX_TIMEOUTS:
            entry = given_up(task, self._reader.vision_mode)
            self._spawn(self._take_in(lane, task, entry))
            return
        try:
            rendered = await lane.render(task)
        except LaneLostError:
            lane.places.release()
            self._again(task)
            raise
        if isinstance(rendered, JournalEntry):
            self._count_timeout(rendered, task)
            self._spawn(self._take_in(lane, task, rendered))
        else:
            self._spawn(self._read(lane, task, rendered))

    async def _read(self, lane: Lane, task: ReadTask, read: Read) -> None:
        outcome = await read()
        if isinstance(outcome, JournalEntry):
            self._count_timeout(outcome, task)
            if self._settings.content_debug:
                log.info("%s: %s %r", task.name, outcome.page.attempts, outcome.raw_text[:200])
        await self._take_in(lane, task, outcome)

    async def _take_in(self, lane: Lane, task: ReadTask, outcome: Outcome) -> None:
        if isinstance(outcome, JournalEntry):
            await self._conclude(task, outcome)
        else:
            await self._unread(lane, task, outcome)
        # Only now, so that pages wait where documents cannot be written as fast as they are read.
        lane.places.release()

    async def _unread(self, lane: Lane, task: ReadTask, outcome: Unread) -> None:
        """Do a task again that came to nothing, unless it may be its page's fault."""
        match outcome.why:
            case WhyUnread.STOPPED:
                pass
            case WhyUnread.LANE_LOST if task.lane_losses < LANE_LOSSES_FORGIVEN:
                self._again(replace(task, lane_losses=task.lane_losses + 1))
            case WhyUnread.LANE_LOST | WhyUnread.ENGINE_LOST:
                suspect = replace(task, deaths=task.deaths + 1)
                if suspect.deaths >= QUARANTINE_AFTER:
                    lane.forgive()
                    losses = suspect.deaths + suspect.lane_losses
                    await self._conclude(task, quarantined(outcome.record, losses))
                else:
                    self._schedule.add(suspect)

    def _again(self, task: ReadTask) -> None:
        if task.is_suspect:
            self._schedule.cleared()
        self._schedule.add(task)

    async def _conclude(self, task: ReadTask, entry: JournalEntry) -> None:
        """Take in what came of a task; it may finish its page, and others that waited for it."""
        if task.is_suspect:
            self._schedule.cleared()
        job = self._job(task)
        following = self._course.advance(job, task, entry)
        for next_task in following.tasks:
            self._schedule.add(next_task)
        for page in following.finished:
            await self._settle_page(job, page)

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
            self._tally.document_finished(await self._store.finish(job, draft, drawn))
        except DsocrError:
            raise
        except Exception:
            # The border of a document: our own mistake in one must not stop a corpus. Its pages
            # are in the journal, so mending the mistake costs no page.
            log.exception("%s: a bug; please report it", job.source.path)
            self._tally.documents_broken += 1
            self._store.forget(job)
        finally:
            del self._jobs[job.document.relative]
        self._settled(job.document)

    async def _illustrate(self, job: OpenJob, draft: Draft, worker: RenderWorker | None) -> Drawn:
        extras = self._settings.extras
        if worker is not None:
            return await illustrate(worker, job, draft, extras, self._reader.sources)
        async with self._artist_is_free:
            return await illustrate(self._artist, job, draft, extras, self._reader.sources)

    def _job(self, task: ReadTask) -> OpenJob:
        return self._jobs[task.document.relative]

    def _count_timeout(self, entry: JournalEntry, task: ReadTask) -> None:
        page = entry.page
        self._job(task).timeouts += (
            page.reason_code is ReasonCode.RENDER_TIMEOUT
            and page.failure_class is FailureClass.INPUT
        )

    def _settled(self, document: Document) -> None:
        self._reader.sources.drop(document)
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
            self._on_tick(self._tally.snapshot(self._reader.vitals.in_flight, self._status()))
            now = time.monotonic()
            if now >= self._grace_ends:
                raise _GraceOver
            if now - checked_at < CHECK_S:
                continue
            checked_at = now
            self._check()
            self._reader.check()
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
        return "loading the engine" if self._reader.vitals.is_loading else "reading"

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
