"""The report of a run: ``.dsocr/runs/<start>-shard-<i>-of-<n>.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dsocr_batch.discover import IgnoredInput
from dsocr_batch.names import display_path
from dsocr_batch.pipeline.bottleneck import Bottleneck, StageShares
from dsocr_batch.pipeline.tally import Failure
from dsocr_batch.records import DocumentState, Flag, PageState


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
    engine_losses: int
    """How often the engine died or fell silent and was started again."""
    lanes_lost: int
    """How often a node of a cluster, or its process that read, was lost."""
    shares: StageShares
    held_back_by: Bottleneck
    advice: str
    failures: Sequence[Failure]
    ignored: Sequence[IgnoredInput]


def printable_ignored(ignored: Sequence[IgnoredInput]) -> list[IgnoredInput]:
    """Return the ignored inputs with names that JSON can hold."""
    return [IgnoredInput(path=display_path(i.path), reason=i.reason) for i in ignored]
