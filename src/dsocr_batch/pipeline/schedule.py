"""What is opened, rendered and read next.

Documents take turns of a few pages, so that a long one does not starve the short ones, and a
lane keeps a document open over a turn. While pages remain, all lanes may hold a turn of the same
document: the end of a run is not one long document rendered by one worker.

What a page needs after its first reading comes before pages that were not begun: else documents
would be finished only at the end of a corpus. Pages that may be what the engine was lost over are
handed out one at a time, so that the next loss tells which of them it was.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, count

from dsocr_batch.discover import Document
from dsocr_batch.pipeline.document import OpenJob, ReadTask

TURN_PAGES = 16


class Schedule:
    """Hands out documents to open and tasks of open documents. Lives on the event loop."""

    def __init__(self, documents: Iterable[Document]) -> None:
        self._names: Iterator[Document] = iter(documents)
        self._turns: dict[int, deque[ReadTask]] = {}
        self._lane_numbers = count()
        self._ring: deque[OpenJob] = deque()
        self._again: deque[ReadTask] = deque()
        self._suspects: deque[ReadTask] = deque()
        self._suspect_is_out = False
        self._unfinished = 0
        """Documents handed out by ``next_work`` and not yet reported by ``settled``."""
        self._exhausted = False
        self._stopped = False
        self._changed = asyncio.Event()

    @property
    def has_work(self) -> bool:
        """True while a document is unread or unfinished."""
        return not self._exhausted or self._unfinished > 0

    def join(self) -> int:
        """Let one more lane take part and return its number."""
        number = next(self._lane_numbers)
        self._turns[number] = deque()
        return number

    def leave(self, lane: int) -> None:
        """Let a lane take part no more; others do what it still had before it."""
        self._again.extend(self._turns.pop(lane))
        self._changed.set()

    async def next_work(self, lane: int) -> Document | ReadTask | None:
        """Return what a lane, by its number, is to open or to render; None at the end.

        A caller that gets a document must end with ``opened``, ``settled`` or ``give_back``, one
        that gets a suspect with ``cleared``.
        """
        while not self._stopped:
            work = self._begun() or self._next_of_turn(lane) or self._next_document()
            work = work or self._next_turn(lane)
            if work is not None:
                return work
            if not self.has_work:
                return None
            self._changed.clear()
            await self._changed.wait()
        return None

    def opened(self, job: OpenJob) -> None:
        """Put a document with waiting pages in line."""
        self._ring.append(job)
        self._changed.set()

    def give_back(self, document: Document) -> None:
        """Put a document in line again that was handed out and could not be opened by its lane."""
        self._names = chain([document], self._names)
        self._exhausted = False
        self._unfinished -= 1
        self._changed.set()

    def add(self, task: ReadTask) -> None:
        """Put in line what is to be done for a page that was begun."""
        (self._suspects if task.is_suspect else self._again).append(task)
        self._changed.set()

    def cleared(self) -> None:
        """Note that it is known what becomes of the suspect that is out."""
        self._suspect_is_out = False
        self._changed.set()

    def settled(self) -> None:
        """Note that one document is finished, skipped or given up."""
        self._unfinished -= 1
        self._changed.set()

    def stop(self) -> None:
        """Hand out nothing more."""
        self._stopped = True
        self._changed.set()

    def _begun(self) -> ReadTask | None:
        if self._suspects and not self._suspect_is_out:
            self._suspect_is_out = True
            return self._suspects.popleft()
        return self._again.popleft() if self._again else None

    def _next_of_turn(self, lane: int) -> ReadTask | None:
        turn = self._turns[lane]
        return turn.popleft() if turn else None

    def _next_document(self) -> Document | None:
        if self._exhausted or len(self._ring) >= 2 * len(self._turns):
            return None
        document = next(self._names, None)
        if document is None:
            self._exhausted = True
        else:
            self._unfinished += 1
        return document

    def _next_turn(self, lane: int) -> ReadTask | None:
        if not self._ring:
            return None
        job = self._ring.popleft()
        fair_share = -(-len(job.pending) // len(self._turns))
        self._turns[lane].extend(job.take(min(TURN_PAGES, max(1, fair_share))))
        if job.pending:
            self._ring.append(job)
        return self._next_of_turn(lane)
