"""How a run ended: its exit status, and its report, which is written into the output."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from dsocr_batch import __version__
from dsocr_batch.app.job import Job
from dsocr_batch.errors import DsocrError, ExitStatus
from dsocr_batch.output.paths import REPORTS_DIR, shard_name
from dsocr_batch.output.write import remove_stale_temps, write_atomically
from dsocr_batch.pipeline.bottleneck import advice, held_back_by, stage_shares
from dsocr_batch.pipeline.outputs import Output
from dsocr_batch.pipeline.report import RunReport, printable_ignored
from dsocr_batch.pipeline.run import RunResult, StopReason
from dsocr_batch.pipeline.settings import PipelineSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a face needs to say how a run ended."""

    exit_status: ExitStatus
    result: RunResult
    report: RunReport
    report_place: str
    """Where it lies, for people."""


def _exit_status(result: RunResult) -> ExitStatus:
    """Return how a run that came to an orderly end is told to the shell."""
    if result.tally.documents_broken:
        return ExitStatus.BUG
    if result.work_left:
        match result.stopped_by:
            case StopReason.SIGINT:
                return ExitStatus.SIGINT
            case StopReason.SIGTERM:
                return ExitStatus.SIGTERM
            case StopReason.MAX_RUNTIME:
                return ExitStatus.STOPPED_BY_MAX_RUNTIME
            case None:
                raise AssertionError("a run that was not stopped has left work")
    return ExitStatus.SOME_FAILED if result.tally.has_failures else ExitStatus.OK


async def write_report(
    job: Job,
    output: Output,
    settings: PipelineSettings,
    result: RunResult,
    *,
    started_at: datetime,
    error: DsocrError | None = None,
) -> Outcome:
    """Write the report of a run and return how it ended.

    Args:
        job: what was to be done.
        output: where the report goes, for good.
        settings: as the run had them.
        result: of the run.
        started_at: when it began; part of the report's name.
        error: what ended it; None for an orderly end.

    Raises:
        OutputNotWritable: the report cannot be written.
    """
    status = _exit_status(result) if error is None else error.exit_status
    identity = job.engine.identity
    shard = job.options.input
    snapshot = result.snapshot
    vitals = result.vitals
    shares = stage_shares(result.stages, snapshot.elapsed_s, vitals.render_workers, vitals.capacity)
    report = RunReport(
        started_at=started_at.isoformat(timespec="seconds"),
        ended_at=datetime.now(UTC).isoformat(timespec="seconds"),
        exit_status=status,
        stopped_by=result.stopped_by,
        error=str(error) if error else None,
        dsocr_batch=__version__,
        engine=identity.engine,
        model=identity.model,
        model_revision=identity.model_revision,
        settings_digest=settings.digest,
        settings=settings.text_settings,
        num_shards=shard.num_shards,
        shard_index=shard.shard_index,
        documents_total=snapshot.documents_total,
        documents=snapshot.documents,
        documents_found=snapshot.documents_found,
        pages=snapshot.pages,
        pages_found=snapshot.pages_found,
        flags=snapshot.flags,
        counters=snapshot.counters,
        wall_s=round(snapshot.elapsed_s, 3),
        pages_per_s=round(snapshot.pages_done / max(snapshot.elapsed_s, 1e-9), 4),
        output_tokens=snapshot.output_tokens,
        engine_losses=vitals.engine_losses,
        lanes_lost=vitals.lanes_lost,
        shares=shares,
        held_back_by=held_back_by(shares),
        advice=advice(shares, spare_cores=vitals.spare_cores),
        failures=result.tally.failures,
        ignored=printable_ignored(job.discovered.ignored),
    )
    folder = settings.output_dir / REPORTS_DIR
    name = shard_name(shard.shard_index, shard.num_shards)
    remove_stale_temps(folder, f"*-{name}-*.json")
    path = folder / f"{started_at:%Y%m%dT%H%M%SZ}-{name}-{os.getpid()}.json"
    write_atomically(path, msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    place = await output.keep(path)
    return Outcome(exit_status=status, result=result, report=report, report_place=place)
