"""The report of a run: ``.dsocr/runs/<start>-shard-<i>-of-<n>.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dsocr_batch.discover import IgnoredInput
from dsocr_batch.names import display_path
from dsocr_batch.pipeline.run import RunResult
from dsocr_batch.pipeline.tally import Failure
from dsocr_batch.records import DocumentState, Flag, PageState


@dataclass(frozen=True, slots=True, kw_only=True)
class StageShares:
    """How busy each stage was, 0-1 of the run's wall time."""

    render_busy: float
    """Mean share of the render workers' time spent rendering."""
    render_held_up: float
    """Mean share of their time spent waiting because the engine had pages enough."""
    engine_busy: float
    """Mean share of the engine's places that held a page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """What one run did, found and passed over."""

    schema_version: int = 1
    started_at: str
    ended_at: str
    exit_status: int
    stopped_by: str | None
    """The signal or option that stopped the run before its end."""
    error: str | None
    """Why the run could not go on."""
    dsocr_batch: str
    engine: str
    model: str
    model_revision: str
    settings_digest: str
    settings: Mapping[str, Any]
    num_shards: int
    shard_index: int
    documents_total: int
    documents: Mapping[DocumentState, int]
    """Finished in this run, by state."""
    documents_found: Mapping[DocumentState, int]
    """Finished by earlier runs, by state."""
    pages: Mapping[PageState, int]
    pages_found: Mapping[PageState, int]
    flags: Mapping[Flag, int]
    counters: Mapping[str, int]
    wall_s: float
    pages_per_s: float
    output_tokens: int
    shares: StageShares
    held_back_by: str
    """The stage that was busiest: ``render`` or ``engine``."""
    failures: Sequence[Failure]
    ignored: Sequence[IgnoredInput]


def stage_shares(result: RunResult, render_workers: int, engine_capacity: int) -> StageShares:
    """Return how busy the stages were."""
    wall_s = max(result.snapshot.elapsed_s, 1e-9)
    tally = result.tally
    return StageShares(
        render_busy=round(tally.render_s / (wall_s * render_workers), 4),
        render_held_up=round(tally.slot_wait_s / (wall_s * render_workers), 4),
        engine_busy=round(tally.engine_s / (wall_s * engine_capacity), 4),
    )


def printable_ignored(ignored: Sequence[IgnoredInput]) -> list[IgnoredInput]:
    """Return the ignored inputs with names that JSON can hold."""
    return [IgnoredInput(path=display_path(i.path), reason=i.reason) for i in ignored]
