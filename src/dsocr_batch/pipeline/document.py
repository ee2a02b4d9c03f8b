"""A document while it is being read: which pages wait, which are in flight, which are done."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from dsocr_batch.discover import Document
from dsocr_batch.output.journal import Journal
from dsocr_batch.output.paths import DocumentPaths
from dsocr_batch.records import JournalEntry, Source

MAX_TIMEOUTS = 3
"""Pages of one document that may hang before its other pages are given up unrendered: a
thousand hanging pages would hold a worker for a day."""


@dataclass(slots=True, eq=False)
class OpenJob:
    """A document whose pages are known and of which at least one is still to be read."""

    document: Document
    paths: DocumentPaths
    source: Source
    page_count: int
    journal: Journal
    entries: dict[int, JournalEntry]
    """Finished pages by page number."""
    pending: deque[int]
    """Indices (0-based) of pages that are not yet being rendered."""
    in_flight: set[int] = field(default_factory=set)
    crashes: Counter[int] = field(default_factory=Counter)
    """How often the engine was lost while it held a page, by page index."""
    timeouts: int = 0

    @property
    def is_finished(self) -> bool:
        """True when every requested page has come to its state."""
        return not self.pending and not self.in_flight

    def take(self, count: int) -> list[int]:
        """Move up to ``count`` pages from waiting to in flight and return their indices."""
        taken = [self.pending.popleft() for _ in range(min(count, len(self.pending)))]
        self.in_flight.update(taken)
        return taken

    def put_back(self, page_index: int) -> None:
        """Let a page wait again, before the others."""
        self.in_flight.discard(page_index)
        self.pending.appendleft(page_index)

    def page_id(self, page_index: int) -> str:
        """Name a page for logs and views, as ``sub/paper.pdf#12`` with its page number."""
        return f"{self.source.path}#{page_index + 1}"
