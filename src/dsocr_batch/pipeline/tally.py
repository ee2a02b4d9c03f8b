"""What a run has done so far: counts for the live view, the report and the exit status."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from dsocr_batch.records import (
    DocumentRecord,
    DocumentState,
    FailureClass,
    Flag,
    PageRecord,
    PageState,
)

_RATE_WINDOW_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The state of a run at one moment, for people."""

    elapsed_s: float
    documents_total: int
    documents: Mapping[DocumentState, int]
    """Finished in this run, by state."""
    documents_found: Mapping[DocumentState, int]
    """Finished by earlier runs, by state."""
    pages: Mapping[PageState, int]
    """Finished in this run, by state."""
    pages_found: Mapping[PageState, int]
    """In the documents that earlier runs finished, by state."""
    flags: Mapping[Flag, int]
    counters: Mapping[str, int]
    pages_done: int
    pages_expected: float
    """Pages of this run, estimated from the documents opened so far."""
    pages_per_s: float
    """Over the last minute."""
    eta_s: float | None
    in_flight: tuple[str, ...]
    """Pages inside the engine, oldest first."""
    output_tokens: int
    status: str
    """What the run as a whole is doing: ``reading``, ``loading the engine``, ``stopping``…"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A page that is failed or truncated, or a document that failed as a whole."""

    document: str
    page_number: int | None
    """None where the whole document failed."""
    state: str
    reason_code: str | None
    reason: str | None
    failure_class: str | None


@dataclass(slots=True)
class Tally:
    """Counts what happens; lives on the event loop."""

    documents_total: int
    started: float = field(default_factory=time.monotonic)
    documents_opened: int = 0
    pages_expected: int = 0
    documents: Counter[DocumentState] = field(default_factory=Counter)
    documents_found: Counter[DocumentState] = field(default_factory=Counter)
    pages: Counter[PageState] = field(default_factory=Counter)
    pages_found: Counter[PageState] = field(default_factory=Counter)
    documents_broken: int = 0
    """Documents that our own mistake kept from being written."""
    transient_failures: int = 0
    failures: list[Failure] = field(default_factory=list)
    flags: Counter[Flag] = field(default_factory=Counter)
    counters: Counter[str] = field(default_factory=Counter)
    output_tokens: int = 0
    render_s: float = 0.0
    prepare_s: float = 0.0
    """Part of ``render_s``."""
    engine_s: float = 0.0
    _finish_times: deque[float] = field(default_factory=deque)

    def document_passed_over(self) -> None:
        """Leave a document out of the count that this run has nothing to do with."""
        self.documents_total -= 1

    def document_opened(self, pages_to_read: int) -> None:
        """Count a document whose pages are now known."""
        self.documents_opened += 1
        self.pages_expected += pages_to_read

    def page_finished(self, page: PageRecord) -> None:
        """Count a page that this run has brought to its state."""
        self.pages[page.state] += 1
        self.transient_failures += page.failure_class is FailureClass.TRANSIENT
        self.output_tokens += sum(attempt.output_tokens for attempt in page.attempts)
        self.output_tokens += sum(region.output_tokens for region in page.roi)
        self.render_s += page.timing.render_s
        self.prepare_s += page.timing.prepare_s
        self.engine_s += page.timing.engine_s
        self._finish_times.append(time.monotonic())

    def document_finished(self, record: DocumentRecord) -> None:
        """Count a document that this run has written."""
        self.documents[record.state] += 1
        self._describe(record)

    def document_found(self, record: DocumentRecord) -> None:
        """Count a document that an earlier run has finished."""
        self.documents_found[record.state] += 1
        self.pages_found.update(page.state for page in record.pages)
        self._describe(record)

    def _describe(self, record: DocumentRecord) -> None:
        self.flags.update(flag for page in record.pages for flag in page.flags)
        self.counters.update(record.counters)
        self.failures.extend(failures_of(record))

    @property
    def has_failures(self) -> bool:
        """True if a page is failed or truncated or a document failed, now or earlier."""
        return bool(self.failures)

    @property
    def pages_done(self) -> int:
        """Pages finished in this run, in whatever state."""
        return self.pages.total()

    @property
    def transient_failure_share(self) -> float:
        """Share of this run's pages that failed by the circumstances: what a setting can do."""
        return self.transient_failures / max(1, self.pages_done)

    def snapshot(self, in_flight: tuple[str, ...], status: str) -> Snapshot:
        """Return the counts as they stand, with rate and time left."""
        now = time.monotonic()
        while self._finish_times and self._finish_times[0] < now - _RATE_WINDOW_S:
            self._finish_times.popleft()
        window_s = min(_RATE_WINDOW_S, now - self.started)
        pages_per_s = len(self._finish_times) / window_s if window_s > 0 else 0.0
        unopened = self.documents_total - self.documents_found.total() - self.documents_opened
        mean_pages = self.pages_expected / self.documents_opened if self.documents_opened else 0.0
        expected = self.pages_expected + max(0, unopened) * mean_pages
        left = max(0.0, expected - self.pages_done)
        return Snapshot(
            elapsed_s=now - self.started,
            documents_total=self.documents_total,
            documents=dict(self.documents),
            documents_found=dict(self.documents_found),
            pages=dict(self.pages),
            pages_found=dict(self.pages_found),
            flags=dict(self.flags),
            counters=dict(self.counters),
            pages_done=self.pages_done,
            pages_expected=expected,
            pages_per_s=pages_per_s,
            eta_s=left / pages_per_s if pages_per_s > 0 else None,
            in_flight=in_flight,
            output_tokens=self.output_tokens,
            status=status,
        )


def failures_of(record: DocumentRecord) -> Iterator[Failure]:
    """Yield what of a document is failed or truncated."""
    path = record.source.path
    if record.state is DocumentState.FAILED and not record.pages:
        yield Failure(
            document=path,
            page_number=None,
            state=record.state,
            reason_code=record.reason_code,
            reason=record.reason,
            failure_class=record.failure_class,
        )
    for page in record.pages:
        if page.state in (PageState.FAILED, PageState.TRUNCATED):
            yield Failure(
                document=path,
                page_number=page.page_number,
                state=page.state,
                reason_code=page.reason_code,
                reason=page.reason,
                failure_class=page.failure_class,
            )
