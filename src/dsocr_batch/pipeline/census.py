"""What an output directory holds: documents and pages by state, over all shards and runs.

Completion records are the truth on what is done, run reports on what it cost, and live files on
what is being done now.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from dsocr_batch.output.live import EVERY_S, LIVE_DIR
from dsocr_batch.output.paths import REPORTS_DIR
from dsocr_batch.output.record import DamagedError, decode_json, parse_record
from dsocr_batch.pipeline.holdings import Holdings
from dsocr_batch.pipeline.tally import Failure, Snapshot, failures_of
from dsocr_batch.records import DocumentRecord, DocumentState, Flag, PageState

T = TypeVar("T")

LIVE_FOR_S = 30.0
LIVE_FOR_TIMES = 3
"""A live file that was not renewed for so long, or so many times of its interval, belongs to a
run that is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveRun:
    """A run that is at work; the content of its live file."""

    written_at: str
    """UTC, ISO 8601."""
    host: str
    pid: int
    num_shards: int
    shard_index: int
    snapshot: Snapshot
    every_s: float = EVERY_S
    """How often it is written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedRun:
    """What the census takes of a run's report."""

    started_at: str
    num_shards: int
    shard_index: int
    exit_status: int
    documents_total: int
    pages: Mapping[PageState, int]
    """Brought to their state by this run."""
    wall_s: float
    output_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """All that an output directory tells."""

    documents: Mapping[DocumentState, int]
    pages: Mapping[PageState, int]
    flags: Mapping[Flag, int]
    damaged: int
    """Records that cannot be read; the next run does these documents again."""
    documents_total: int | None
    """Of all shards, as their newest runs say; None if some shard has not run yet."""
    shards_seen: tuple[int, ...]
    num_shards: int | None
    """Of the newest run."""
    runs: int
    pages_read: int
    """Pages that all runs together brought to a state, those read twice counted twice."""
    busy_s: float
    """Wall time of all runs together: with a GPU a run, the GPU time that was paid for."""
    live: tuple[LiveRun, ...]

    @property
    def pages_per_s(self) -> float:
        """What the live runs read together, over their last minute."""
        return sum(run.snapshot.pages_per_s for run in self.live)

    @property
    def eta_s(self) -> float | None:
        """Seconds until the last live run is done, as they see it; None if unknown."""
        known = [eta_s for run in self.live if (eta_s := run.snapshot.eta_s) is not None]
        return max(known) if known and len(known) == len(self.live) else None

    def usd_per_million_pages(self, usd_per_gpu_hour: float) -> float | None:
        """Return what a million pages cost so far; None before the first page."""
        if not self.pages_read:
            return None
        return usd_per_gpu_hour * self.busy_s / 3600 / self.pages_read * 1e6


def take_census(
    holdings: Holdings, *, on_document: Callable[[int], None] = lambda _count: None
) -> Census:
    """Return what an output directory holds; reads each record once.

    Args:
        holdings: of earlier runs, or of runs at work.
        on_document: called with the number of records read so far.

    Raises:
        InputMissing: it is no output directory.
        OutputNotWritable: a file cannot be read.
    """
    documents: Counter[DocumentState] = Counter()
    pages: Counter[PageState] = Counter()
    flags: Counter[Flag] = Counter()
    damaged = 0
    for count, record in enumerate(_records(holdings), start=1):
        if record is None:
            damaged += 1
        else:
            documents[record.state] += 1
            pages.update(page.state for page in record.pages)
            flags.update(flag for page in record.pages for flag in page.flags)
        on_document(count)
    runs = _ended_runs(holdings)
    live = live_runs(holdings)
    num_shards, totals = _shard_totals(runs, live)
    return Census(
        documents=documents,
        pages=pages,
        flags=flags,
        damaged=damaged,
        documents_total=sum(totals.values()) if len(totals) == num_shards else None,
        shards_seen=tuple(sorted(totals)),
        num_shards=num_shards,
        runs=len(runs) + len(live),
        pages_read=sum(sum(run.pages.values()) for run in runs)
        + sum(run.snapshot.pages_done for run in live),
        busy_s=sum(run.wall_s for run in runs) + sum(run.snapshot.elapsed_s for run in live),
        live=live,
    )


def failures(holdings: Holdings) -> Iterator[Failure]:
    """Yield every failed or truncated page and every document that failed as a whole.

    Raises:
        InputMissing: it is no output directory.
        OutputNotWritable: a file cannot be read.
    """
    for record in _records(holdings):
        if record is not None:
            yield from failures_of(record)


def _records(holdings: Holdings) -> Iterator[DocumentRecord | None]:
    """Yield every completion record, None for what is damaged or none of ours."""
    holdings.require()
    for data in holdings.records():
        try:
            record = parse_record(data)
        except DamagedError:
            record = None
        yield record


def _ended_runs(holdings: Holdings) -> Sequence[EndedRun]:
    """Return the reports of all runs, oldest first; damaged ones are passed over."""
    return [*_decoded(holdings, REPORTS_DIR, "*.json", EndedRun)]


def report_of(holdings: Holdings, pid: int) -> EndedRun | None:
    """Return the report of the newest run that had this process id; None if there is none."""
    reports = [*_decoded(holdings, REPORTS_DIR, f"*-{pid}.json", EndedRun)]
    return reports[-1] if reports else None


def live_runs(holdings: Holdings) -> tuple[LiveRun, ...]:
    """Return the runs that are at work on an output."""
    now = datetime.now(UTC)
    return tuple(
        run
        for run in _decoded(holdings, LIVE_DIR, "*.json", LiveRun)
        if abs((now - datetime.fromisoformat(run.written_at)).total_seconds())
        < max(LIVE_FOR_S, LIVE_FOR_TIMES * run.every_s)
    )


def _decoded(holdings: Holdings, folder: str, pattern: str, kind: type[T]) -> Iterator[T]:
    """Yield what the files of a folder hold, by their names; damaged ones are passed over."""
    for data in holdings.files(folder, pattern):
        with suppress(DamagedError):
            yield decode_json(data, kind)


def _shard_totals(
    runs: Sequence[EndedRun], live: Sequence[LiveRun]
) -> tuple[int | None, dict[int, int]]:
    """Return the number of shards of the newest run, and documents by shard as last told."""
    told = [(run.started_at, run.num_shards, run.shard_index, run.documents_total) for run in runs]
    told += [
        (run.written_at, run.num_shards, run.shard_index, run.snapshot.documents_total)
        for run in live
    ]
    if not told:
        return None, {}
    num_shards = max(told)[1]
    return num_shards, {index: total for _, n, index, total in sorted(told) if n == num_shards}
