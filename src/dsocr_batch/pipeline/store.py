"""Everything on disk, done in one writer thread so that the event loop never waits for a disk."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from enum import StrEnum
from typing import TypeVar

from dsocr_batch.discover import Document
from dsocr_batch.engines.base import EngineIdentity
from dsocr_batch.names import display_path
from dsocr_batch.output.journal import Journal, load_journal
from dsocr_batch.output.paths import DocumentPaths, document_paths
from dsocr_batch.output.record import write_record
from dsocr_batch.output.write import remove_output, remove_page_images
from dsocr_batch.pipeline.document import OpenJob
from dsocr_batch.pipeline.draft import Draft, compose
from dsocr_batch.pipeline.finish import (
    Finished,
    Provenance,
    finish_document,
    unreadable_record,
    write_document,
    write_unreadable,
)
from dsocr_batch.pipeline.illustrate import Drawn
from dsocr_batch.pipeline.resume import Plan, is_done, pages_to_read, plan_document, usable_entries
from dsocr_batch.pipeline.retry import RetryBudget, is_retried
from dsocr_batch.pipeline.settings import PipelineSettings
from dsocr_batch.records import (
    DocumentRecord,
    DocumentState,
    FailureClass,
    JournalEntry,
    JournalHeader,
    PageState,
    Source,
)
from dsocr_batch.render.pool import OpenedDocument, RenderFailed

_T = TypeVar("_T")


class Work(StrEnum):
    """What the writer thread does."""

    POSTPROCESS = "postprocess"
    """Raw text to markdown."""
    WRITING = "writing"
    """All that touches the disk, reading it included."""


class DocumentStore:
    """Plans, journals and finishes documents; every method may raise OutputNotWritable."""

    def __init__(self, settings: PipelineSettings, identity: EngineIdentity) -> None:
        self._settings = settings
        self._provenance = Provenance(
            settings_digest=settings.digest,
            identity=identity,
            mode=settings.mode,
            extras=settings.extras,
        )
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="writer")
        self._jobs: set[OpenJob] = set()
        self.busy_s = dict.fromkeys(Work, 0.0)
        """What the writer thread spent, by kind of work."""

    async def plan(self, document: Document) -> Plan:
        """Return what earlier runs left of a document (see ``resume.plan_document``)."""
        return await self._run(lambda: self._plan(document))

    async def renew(
        self, document: Document, plan: Plan, opened: OpenedDocument
    ) -> DocumentRecord | None:
        """Return the record of a document of which only the source's time stamp has changed.

        The record is written anew with it; None if there is more to do.
        """
        return await self._run(lambda: self._renew(document, plan, opened))

    async def begin(self, document: Document, opened: OpenedDocument) -> OpenJob:
        """Return the job of reading a document; it is finished if nothing is left to read."""
        job = await self._run(lambda: self._begin(document, opened))
        self._jobs.add(job)
        return job

    async def append(self, job: OpenJob, entry: JournalEntry) -> None:
        """Put a finished page into the journal."""
        await self._run(lambda: job.journal.append(entry))
        job.entries[entry.page.page_number] = entry

    async def compose(self, job: OpenJob) -> Draft:
        """Return the pages of a document all of whose requested pages are done."""
        settings = self._settings
        return await self._run(
            lambda: compose(job.page_count, job.entries, settings.mode, settings.extras),
            Work.POSTPROCESS,
        )

    async def finish(self, job: OpenJob, draft: Draft, drawn: Drawn) -> DocumentRecord:
        """Write a document and return its record."""
        finished = await self._run(
            lambda: finish_document(job.paths, job.source, draft, drawn, self._provenance),
            Work.POSTPROCESS,
        )
        record = await self._run(lambda: self._write(job, finished))
        self._jobs.discard(job)
        return record

    async def unreadable(
        self, document: Document, plan: Plan, failure: RenderFailed
    ) -> DocumentRecord:
        """Record a document that cannot be opened.

        What an earlier run read of it stays if the failure may pass by itself.
        """
        return await self._run(lambda: self._unreadable(document, plan, failure))

    def forget(self, job: OpenJob) -> None:
        """Give up a document; its journal stays for a later run."""
        self._jobs.discard(job)

    async def sync(self) -> None:
        """Make the journals safe against a power cut."""
        jobs = tuple(self._jobs)
        await self._run(lambda: _each(jobs, Journal.sync))

    async def close(self) -> None:
        """Close the journals of unfinished documents; a later run takes them up."""
        jobs = tuple(self._jobs)
        try:
            await self._run(lambda: _each(jobs, Journal.close))
        finally:
            self._thread.shutdown()

    async def _run(self, action: Callable[[], _T], work: Work = Work.WRITING) -> _T:
        def timed() -> _T:
            began = time.perf_counter()
            try:
                return action()
            finally:
                self.busy_s[work] += time.perf_counter() - began

        return await asyncio.get_running_loop().run_in_executor(self._thread, timed)

    def _paths(self, document: Document) -> DocumentPaths:
        return document_paths(self._settings.output_dir, document.relative)

    def _plan(self, document: Document) -> Plan:
        paths = self._paths(document)
        plan = plan_document(document, paths, self._settings)
        if plan.done and plan.record is not None:
            self._discard_raw(plan.record, paths)
        return plan

    def _renew(
        self, document: Document, plan: Plan, opened: OpenedDocument
    ) -> DocumentRecord | None:
        paths, record = self._paths(document), plan.record
        if record is None or record.source.sha256 != opened.source.sha256:
            return None
        if not is_done(record, paths, self._settings):
            return None
        renewed = replace(record, source=opened.source)
        write_record(paths.record, renewed)
        return renewed

    def _begin(self, document: Document, opened: OpenedDocument) -> OpenJob:
        paths = self._paths(document)
        journal = load_journal(paths.journal)
        if journal is not None and journal.header.source.sha256 != opened.source.sha256:
            remove_page_images(paths.assets_dir)  # they show pages of another file
        entries = usable_entries(journal, opened.source, opened.page_count, self._settings)
        pages = {number: entry.page for number, entry in entries.items()}
        pending = pages_to_read(opened.page_count, pages, self._settings)
        for page_index in pending:
            if page_index + 1 in pages and pages[page_index + 1].state is PageState.FAILED:
                del entries[page_index + 1]
        waiting = set(pending)
        settled = [entry for number, entry in entries.items() if number - 1 not in waiting]
        header = JournalHeader(
            source=opened.source,
            settings_digest=self._settings.digest,
            page_count=opened.page_count,
        )
        return OpenJob(
            document=document,
            paths=paths,
            source=opened.source,
            page_count=opened.page_count,
            journal=Journal.start(paths.journal, header, entries.values()),
            entries=entries,
            pending=deque(pending),
            retry_budget=RetryBudget(pending, self._retries_left(settled)),
        )

    def _retries_left(self, entries: Iterable[JournalEntry]) -> int | None:
        """Return how many more pages of a document may be retried, None for any number."""
        cap = self._settings.retry_cap
        if cap is None:
            return None
        return max(0, cap - sum(is_retried(entry) for entry in entries))

    def _write(self, job: OpenJob, finished: Finished) -> DocumentRecord:
        job.journal.close()
        write_document(job.paths, finished)
        record = finished.record
        self._discard_raw(record, job.paths)
        return record

    def _discard_raw(self, record: DocumentRecord, paths: DocumentPaths) -> None:
        """Remove the raw text, if asked to, of a document of which no rerun wants anything."""
        if not self._settings.discard_raw or record.state is not DocumentState.OK:
            return
        if is_done(record, paths, self._settings):
            remove_output(paths.journal)

    def _unreadable(self, document: Document, plan: Plan, failure: RenderFailed) -> DocumentRecord:
        source = failure.source or Source(
            path=display_path(document.relative),
            bytes=plan.size,
            mtime_ns=plan.mtime_ns,
            sha256=None,
        )
        record = unreadable_record(
            source, failure.reason_code, failure.reason, failure.failure_class, self._provenance
        )
        if not _was_readable(plan.record, failure):
            write_unreadable(self._paths(document), record)
        return record


def _was_readable(record: DocumentRecord | None, failure: RenderFailed) -> bool:
    """Return whether an earlier run has read what cannot be opened now, as far as we know."""
    if record is None or not record.outputs:
        return False
    same_bytes = failure.source is None or failure.source.sha256 == record.source.sha256
    return failure.failure_class is FailureClass.TRANSIENT or same_bytes


def _each(jobs: Iterable[OpenJob], action: Callable[[Journal], None]) -> None:
    for job in jobs:
        action(job.journal)
