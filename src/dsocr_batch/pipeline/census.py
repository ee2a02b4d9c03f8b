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
from pathlib import Path
from typing import TypeVar

from dsocr_batch.output.live import live_folder
from dsocr_batch.output.paths import reports_folder
from dsocr_batch.output.record import DamagedError, decode_json, read_if_exists, read_record
from dsocr_batch.pipeline.reprocess import finished_documents, require_output_dir
from dsocr_batch.pipeline.tally import Failure, Snapshot, failures_of
from dsocr_batch.records import DocumentRecord, DocumentState, Flag, PageState

T = TypeVar("T")

LIVE_FOR_S = 30.0
"""A live file that was not renewed for so long belongs to a run that is gone."""


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
    output_dir: Path, *, on_document: Callable[[int], None] = lambda _count: None
) -> Census:
    """Return what an output directory holds; reads each record once.

    Args:
        output_dir: of earlier runs, or of runs at work.
        on_document: called with the number of records read so far.

    Raises:
        InputMissing: it is no output directory.
        OutputNotWritable: a file cannot be read.
    """
    documents: Counter[DocumentState] = Counter()
    pages: Counter[PageState] = Counter()
    flags: Counter[Flag] = Counter()
    damaged = 0
    for count, record in enumerate(_records(output_dir), start=1):
        if record is None:
            damaged += 1
        else:
            documents[record.state] += 1
            pages.update(page.state for page in record.pages)
            flags.update(flag for page in record.pages for flag in page.flags)
        on_document(count)
    runs = _ended_runs(output_dir)
    live = live_runs(output_dir)
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


def failures(output_dir: Path) -> Iterator[Failure]:
    """Yield every failed or truncated page and every document that failed as a whole.

    Raises:
        InputMissing: it is no output directory.
        OutputNotWritable: a file cannot be read.
    """
    for record in _records(output_dir):
        if record is not None:
            yield from failures_of(record)


def _records(output_dir: Path) -> Iterator[DocumentRecord | None]:
    """Yield every completion record, None for what is damaged or none of ours."""
    require_output_dir(output_dir)
    for path in finished_documents(output_dir):
        try:
            record = read_record(path)
        except DamagedError:
            record = None
        yield record


def _ended_runs(output_dir: Path) -> Sequence[EndedRun]:
    """Return the reports of all runs, oldest first; damaged ones are passed over."""
    reports = sorted(reports_folder(output_dir).glob("*.json"))
    return [run for path in reports if (run := _read(path, EndedRun)) is not None]


def report_of(output_dir: Path, pid: int) -> EndedRun | None:
    """Return the report of the newest run that had this process id; None if there is none."""
    reports = reports_folder(output_dir).glob(f"*-{pid}.json")
    newest = max(reports, default=None)
    return None if newest is None else _read(newest, EndedRun)


def live_runs(output_dir: Path) -> tuple[LiveRun, ...]:
    """Return the runs that are at work on an output directory."""
    now = datetime.now(UTC)
    runs = (_read(path, LiveRun) for path in sorted(live_folder(output_dir).glob("*.json")))
    return tuple(
        run
        for run in runs
        if run is not None
        and abs((now - datetime.fromisoformat(run.written_at)).total_seconds()) < LIVE_FOR_S
    )


def _read(path: Path, kind: type[T]) -> T | None:
    data = read_if_exists(path)
    if data is None:
        return None
    with suppress(DamagedError):
        return decode_json(data, kind)
    return None


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
