"""A document while it is being read: which pages wait, which are in flight, which are done."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from dsocr_batch.discover import Document
from dsocr_batch.output.journal import Journal
from dsocr_batch.output.paths import DocumentPaths
from dsocr_batch.pipeline.retry import Retry, RetryBudget, Step
from dsocr_batch.records import Box, JournalEntry, Region, RetryReason, Source

MAX_TIMEOUTS = 3
"""Pages of one document that may hang before its other pages are given up unrendered: a
thousand hanging pages would hold a worker for a day."""


@dataclass(slots=True, kw_only=True)
class PageWork:
    """What is known of a page that is in flight: from its first rendering to its one state."""

    attempts: list[JournalEntry] = field(default_factory=list)
    """Each as if it were the page's only one."""
    retry: Retry | None = None
    """The next attempt, once it is wanted."""
    page: JournalEntry | None = None
    """What its attempts come to, once there are to be no more."""
    regions: tuple[Region, ...] = ()
    """Those that are read by themselves."""
    readings: dict[int, JournalEntry] = field(default_factory=dict)
    """What came of them, by index, each as if it were a page."""


@dataclass(slots=True, eq=False)
class OpenJob:
    """A document whose pages are known and of which at least one is still to be read."""

    document: Document
    paths: DocumentPaths
    source: Source
    page_count: int
    journal: Journal
    entries: dict[int, JournalEntry]
    """Finished pages by page number, those too that are read again because a retry or a region of
    them failed."""
    pending: deque[int]
    """Indices (0-based) of pages that are not yet being rendered."""
    retry_budget: RetryBudget
    in_flight: dict[int, PageWork] = field(default_factory=dict)
    timeouts: int = 0

    @property
    def is_finished(self) -> bool:
        """True when every requested page has come to its state."""
        return not self.pending and not self.in_flight

    def take(self, count: int) -> list[ReadTask]:
        """Move up to ``count`` pages from waiting to in flight and return their first tasks."""
        taken = [self.pending.popleft() for _ in range(min(count, len(self.pending)))]
        self.in_flight |= {page_index: PageWork() for page_index in taken}
        return [self.task(page_index) for page_index in taken]

    def task(self, page_index: int) -> ReadTask:
        """Return the task of reading a page for the first time."""
        return ReadTask(document=self.document, source=self.source, page_index=page_index)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadTask:
    """One thing to render and to read: a page, a page once more, or a region of a page.

    It says all that a reader has to know, also in another process or on another machine.
    """

    document: Document
    source: Source
    page_index: int
    step: Step = field(default_factory=Step)
    retry_reason: RetryReason | None = None
    region: int | None = None
    """Index among the page's regions; None for the page itself."""
    box: Box | None = None
    """What of the page is rendered; None for all of it."""
    deaths: int = 0
    """How often the engine was lost while it held this."""
    lane_losses: int = 0
    """How often a lane was lost with this on it, as far as that is not held against it."""

    @property
    def is_first_of_page(self) -> bool:
        """True for what is begun with, again too if the engine was lost over it."""
        return self.region is None and self.retry_reason is None

    @property
    def is_suspect(self) -> bool:
        """True if it may be what the engine was lost over."""
        return self.deaths > 0

    @property
    def page_name(self) -> str:
        """The page as logs and views name it: ``sub/paper.pdf#12`` with its page number."""
        return f"{self.source.path}#{self.page_index + 1}"

    @property
    def name(self) -> str:
        """The task as engines and logs see it; a region is ``sub/paper.pdf#12@3``."""
        return self.page_name if self.region is None else f"{self.page_name}@{self.region + 1}"
