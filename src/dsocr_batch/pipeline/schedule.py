"""Which pages are rendered next.

Documents take turns of a few pages, so that a long one does not starve the short ones, and a
worker keeps a document open over a turn. While pages remain, all workers may hold a turn of the
same document: the end of a run is not one long document rendered by one worker.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator

from dsocr_batch.discover import Document
from dsocr_batch.pipeline.document import OpenJob

TURN_PAGES = 16


class Schedule:
    """Hands out documents to open and turns of open documents. Lives on the event loop."""

    def __init__(self, documents: Iterable[Document], workers: int) -> None:
        self._names: Iterator[Document] = iter(documents)
        self._workers = workers
        self._ring: deque[OpenJob] = deque()
        self._unfinished = 0
        """Documents handed out by ``next_turn`` and not yet reported by ``settled``."""
        self._exhausted = False
        self._stopped = False
        self._changed = asyncio.Event()

    @property
    def has_work(self) -> bool:
        """True while a document is unread or unfinished."""
        return not self._exhausted or self._unfinished > 0

    async def next_turn(self) -> Document | tuple[OpenJob, list[int]] | None:
        """Return a document to open, or an open one with the pages to render; None at the end.

        A caller that gets a document must end with ``opened`` or ``settled``.
        """
        while not self._stopped:
            if len(self._ring) < 2 * self._workers and not self._exhausted:
                document = next(self._names, None)
                if document is not None:
                    self._unfinished += 1
                    return document
                self._exhausted = True
            if self._ring:
                return self._take_turn()
            if not self.has_work:
                return None
            self._changed.clear()
            await self._changed.wait()
        return None

    def opened(self, job: OpenJob) -> None:
        """Put a document with waiting pages in line."""
        self._ring.append(job)
        self._changed.set()

    def page_returned(self, job: OpenJob) -> None:
        """Note that a page of this document waits again (the engine was lost)."""
        if job not in self._ring:
            self._ring.appendleft(job)
        self._changed.set()

    def settled(self) -> None:
        """Note that one document is finished, skipped or given up."""
        self._unfinished -= 1
        self._changed.set()

    def stop(self) -> None:
        """Hand out nothing more."""
        self._stopped = True
        self._changed.set()

    def _take_turn(self) -> tuple[OpenJob, list[int]]:
        job = self._ring.popleft()
        fair_share = -(-len(job.pending) // self._workers)
        pages = job.take(min(TURN_PAGES, max(1, fair_share)))
        if job.pending:
            self._ring.append(job)
        return job, pages
