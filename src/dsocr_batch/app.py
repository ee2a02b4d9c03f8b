"""The composition root: options → documents, engine and pipeline → a run and its report."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import shutil
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from dsocr_batch import __version__
from dsocr_batch.cluster.actor import ActorWork
from dsocr_batch.cluster.connect import connect
from dsocr_batch.cluster.engine import ClusterEngine, find_engine
from dsocr_batch.discover import (
    Discovered,
    Document,
    discover,
    refuse_collisions,
)
from dsocr_batch.engines.base import Engine
from dsocr_batch.engines.resolve import (
    AUTO,
    CPU_ENGINE,
    choose_engine,
    has_cuda_device,
    load_engine,
)
from dsocr_batch.errors import (
    DsocrError,
    ExitStatus,
    LockHeld,
    OutputNotWritable,
    UsageError,
)
from dsocr_batch.names import display_path
from dsocr_batch.objects.records import Location
from dsocr_batch.options import InputOptions, RayOptions, RunOptions
from dsocr_batch.output.lock import ShardLock
from dsocr_batch.output.paths import REPORTS_DIR
from dsocr_batch.output.write import accessing, remove_stale_temps, write_atomically
from dsocr_batch.pipeline.bottleneck import advice, held_back_by, stage_shares
from dsocr_batch.pipeline.census import LiveRun
from dsocr_batch.pipeline.local import LocalReader
from dsocr_batch.pipeline.outputs import Output, open_output
from dsocr_batch.pipeline.reader import Reader
from dsocr_batch.pipeline.report import RunReport, printable_ignored
from dsocr_batch.pipeline.reprocess import (
    Rebuild,
    Reprocessed,
    finished_documents,
    reprocess_document,
    require_output_dir,
)
from dsocr_batch.pipeline.retry import LargeLadder
from dsocr_batch.pipeline.roi import RegionChoice
from dsocr_batch.pipeline.run import Run, RunResult, StopReason
from dsocr_batch.pipeline.settings import PipelineSettings
from dsocr_batch.pipeline.tally import Snapshot
from dsocr_batch.postprocess.grounding import LABELS, base_label
from dsocr_batch.profiles import VisionMode
from dsocr_batch.records import Extra
from dsocr_batch.shard import shard_of
from dsocr_batch.spool import Sources, open_sources

log = logging.getLogger(__name__)

MIN_FREE_BYTES = 64 << 20
"""A run stops while there is still room to end in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A run that has been checked and not yet begun."""

    options: RunOptions
    engine: Engine | ClusterEngine
    discovered: Discovered
    documents: tuple[Document, ...]
    """Those of this shard, after ``--limit-docs``."""
    text_settings: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a face needs to say how a run ended."""

    exit_status: ExitStatus
    result: RunResult
    report: RunReport
    report_place: str
    """Where it lies, for people."""


def prepare(options: RunOptions) -> Job:
    """Return a run with every check done that needs no work: no document is opened.

    Nothing is written, but inputs are listed where they are, also in an object store, and with
    ``--ray`` the cluster is joined.

    Raises:
        UsageError, InputMissing, EngineUnusable, OutputNotWritable: as their names say.
    """
    if sys.platform == "win32":
        raise UsageError("dsocr-batch runs on Linux and macOS; on Windows use WSL2")
    output_dir = options.output.output_dir
    if isinstance(output_dir, Path) and output_dir.exists() and not output_dir.is_dir():
        raise OutputNotWritable(
            f"{display_path(output_dir)} is a file: name a directory with --output-dir; "
            "it need not exist"
        )
    _refuse_unknown_labels(options)
    engine = _engine(options)
    _refuse_same_again(options, engine)
    discovered = discover(options.input, output_dir)
    if options.input.spool_dir is not None and discovered.store is None:
        raise UsageError("--spool-dir has no meaning where documents are files already")
    refuse_collisions(discovered.documents, options.mode)
    shard = options.input
    documents = tuple(
        document
        for document in discovered.documents
        if shard_of(document.relative, shard.num_shards) == shard.shard_index
    )[: shard.limit_docs]
    return Job(
        options=options,
        engine=engine,
        discovered=discovered,
        documents=documents,
        text_settings=_text_settings(options, engine),
    )


def plan(job: Job) -> Iterator[tuple[Document, str]]:
    """Yield each document of the shard with what a run would do; opens no document.

    Raises:
        SettingsConflict: the output directory holds results of other settings.
    """
    options = job.options.output
    with open_output(options.output_dir) as output:
        superseded = output.check_settings(
            job.text_settings, overwrite=options.overwrite, allow_mixed=options.allow_mixed
        )
        settings = _pipeline_settings(job, output.directory, superseded)
        for document, planned in output.plans(job.documents, settings):
            if planned.done:
                yield document, "passed over" if planned.passed_over else "done"
            else:
                yield document, "read" if planned.record is None else "complete"


def run(
    job: Job,
    *,
    on_tick: Callable[[Snapshot], None],
    on_ready: Callable[[Callable[[StopReason], None]], None],
) -> Outcome:
    """Do the run, write its report and return both.

    Args:
        job: from ``prepare``.
        on_tick: called a few times a second with the state of the run.
        on_ready: called once, on the event loop before work, with the function that stops the run.

    Raises:
        DsocrError: the run could not go on; what is finished is kept and a rerun goes on.
    """
    options, shard = job.options.output, job.options.input
    _allow_many_open_files()
    with open_output(options.output_dir) as output:
        lock = output.lock(shard.shard_index, shard.num_shards)
        _refuse_full_disk(output.directory)
        with lock, open_sources(job.discovered.store, shard.spool_dir) as sources:
            superseded = output.claim_settings(
                job.text_settings, overwrite=options.overwrite, allow_mixed=options.allow_mixed
            )
            settings = _pipeline_settings(job, output.directory, superseded)

            def check() -> None:
                _refuse_full_disk(output.directory)
                if lock.lost:
                    raise _lock_lost(options.output_dir)

            return asyncio.run(
                _run(
                    job, output, settings, sources, on_tick=on_tick, on_ready=on_ready, check=check
                )
            )


async def _run(
    job: Job,
    output: Output,
    settings: PipelineSettings,
    sources: Sources,
    *,
    on_tick: Callable[[Snapshot], None],
    on_ready: Callable[[Callable[[StopReason], None]], None],
    check: Callable[[], None],
) -> Outcome:
    started_at = datetime.now(UTC)
    shard = job.options.input
    live = output.live(shard.shard_index, shard.num_shards)

    def tick(snapshot: Snapshot) -> None:
        on_tick(snapshot)
        live.tell(_live_run(shard, snapshot, live.every_s))

    reader = _reader(job, settings, sources)
    pipeline_run = Run(
        settings,
        reader,
        output.store(settings, reader.identity),
        job.documents,
        on_tick=tick,
        check=check,
    )
    on_ready(pipeline_run.stop)
    try:
        with live:
            await pipeline_run.execute()
    except DsocrError as error:
        with suppress(OutputNotWritable):  # it may be what ended the run
            result = pipeline_run.result
            await _report(job, output, settings, result, started_at=started_at, error=error)
        raise
    return await _report(job, output, settings, pipeline_run.result, started_at=started_at)


def _live_run(shard: InputOptions, snapshot: Snapshot, every_s: float) -> LiveRun:
    return LiveRun(
        written_at=datetime.now(UTC).isoformat(timespec="seconds"),
        host=socket.gethostname(),
        pid=os.getpid(),
        num_shards=shard.num_shards,
        shard_index=shard.shard_index,
        snapshot=snapshot,
        every_s=every_s,
    )


def reprocess(output_dir: Path, *, on_document: Callable[[Reprocessed], None]) -> ExitStatus:
    """Build every finished document of an output directory again; no page is read.

    Args:
        output_dir: the output directory of earlier runs.
        on_document: called with each document when it is done.

    Returns:
        OK, or SOME_FAILED if some document could not be rebuilt.

    Raises:
        InputMissing: it is not an output directory.
        LockHeld: a run is at work on it.
        OutputNotWritable: a file cannot be written.
    """
    require_output_dir(output_dir)
    status = ExitStatus.OK
    # The lock of the only shard keeps out runs with any number of shards.
    with ShardLock(output_dir, 0, 1) as lock:
        for record_path in finished_documents(output_dir):
            if lock.lost:
                raise _lock_lost(output_dir)
            try:
                done = reprocess_document(output_dir, record_path)
            except DsocrError:
                raise
            except Exception:
                # The border of a document: our own mistake in one must not hide the others.
                log.exception("%s: a bug; please report it", display_path(record_path))
                status = ExitStatus.BUG
                continue
            on_document(done)
            if done.outcome is Rebuild.NOT_REBUILT and status is ExitStatus.OK:
                status = ExitStatus.SOME_FAILED
    return status


def _lock_lost(output_dir: Location) -> LockHeld:
    return LockHeld(
        f"the lock of this run in {display_path(str(output_dir))} is gone: another run took this "
        "one for dead, or the directory was removed. What is finished is kept."
    )


def _engine(options: RunOptions) -> Engine | ClusterEngine:
    if options.ray is not None:
        return _cluster_engine(options, options.ray)
    name = choose_engine(
        options.engine_name,
        has_cuda=options.engine_name == AUTO and has_cuda_device(),
        num_shards=options.input.num_shards,
    )
    if options.engine_name == AUTO and name == CPU_ENGINE:
        log.warning(
            "No CUDA device is seen: reading with the CPU engine %s. This is not DeepSeek-OCR, "
            "and it reads neither Greek nor Cyrillic nor Arabic.",
            CPU_ENGINE,
        )
    return load_engine(name)(options.engine)


def _cluster_engine(options: RunOptions, ray: RayOptions) -> ClusterEngine:
    cluster = connect(ray.address)
    name = choose_engine(
        options.engine_name,
        has_cuda=any(node.gpus for node in cluster.nodes()),
        num_shards=1,
        is_cluster=True,
    )
    return find_engine(cluster, name, options.engine, ray.cpus)


def _reader(job: Job, settings: PipelineSettings, sources: Sources) -> Reader:
    render_workers = job.options.limits.cpu_workers
    if not isinstance(job.engine, ClusterEngine):
        return LocalReader(settings, job.engine, sources, render_workers)
    from dsocr_batch.cluster.reader import RayReader  # noqa: PLC0415 (it imports ray)

    work = ActorWork(
        settings=replace(settings, output_dir=settings.output_dir.absolute()),
        render_workers=render_workers,
        store=job.discovered.store,
        spool_dir=job.options.input.spool_dir,
    )
    return RayReader(job.engine, work, sources)


def _refuse_unknown_labels(options: RunOptions) -> None:
    """Refuse labels that no page can have: a slip would read every page twice, or nothing."""
    asked = {
        "--retry-label": options.retry.labels if options.retry else (),
        "--roi-label": options.roi.labels if options.roi else (),
    }
    for flag, labels in asked.items():
        for label in labels:
            if label not in LABELS:
                raise UsageError(f"{flag} {label!r}: the labels are {', '.join(LABELS)}")


def _refuse_same_again(options: RunOptions, engine: Engine | ClusterEngine) -> None:
    if options.retry is not None and engine.vision_mode is VisionMode.LARGE:
        raise UsageError(
            "--retry-large reads a page again in the mode large, and --vision-mode is large "
            "already: it would see the same. Leave one of them out."
        )


def _text_settings(options: RunOptions, engine: Engine | ClusterEngine) -> dict[str, Any]:
    """Return everything that can change the text of a page, for the settings digest.

    What is not asked for is not named, so that an option that comes new changes no digest.
    """
    settings: dict[str, Any] = {
        "mode": options.mode.value,
        "prompt": options.engine.effective_prompt(options.mode),
        "dpi": options.dpi,
        **asdict(engine.identity),
    }
    if options.retry is not None:
        labels = sorted(_base_labels(options.retry.labels))
        settings["retry_large"] = {"labels": labels, "cap": options.retry.cap}
    if options.roi is not None:
        settings["roi"] = {
            "labels": sorted(_base_labels(options.roi.labels)),
            "min_area": options.roi.min_area,
            "prompt": options.roi.prompt,
        }
    return settings


def _base_labels(labels: Iterable[str]) -> frozenset[str]:
    return frozenset(map(base_label, labels))


def _ladder(options: RunOptions) -> LargeLadder | None:
    if options.retry is None:
        return None
    return LargeLadder(labels=_base_labels(options.retry.labels), mode=options.mode)


def _regions(options: RunOptions) -> RegionChoice | None:
    if options.roi is None:
        return None
    return RegionChoice(labels=_base_labels(options.roi.labels), min_area=options.roi.min_area)


def _extras(options: RunOptions) -> frozenset[Extra]:
    """Return what documents are to have beside their text; it does not change a page's text."""
    asked = {
        Extra.FIGURES: options.engine.save_figures,
        Extra.LAYOUT: options.output.save_layout,
        Extra.MERGED_TABLES: options.output.merge_tables,
        Extra.MERGED_REGIONS: options.roi is not None and options.roi.merge,
    }
    return frozenset(extra for extra, is_asked in asked.items() if is_asked)


def _pipeline_settings(job: Job, output_dir: Path, superseded: frozenset[str]) -> PipelineSettings:
    options = job.options
    limits = options.limits
    return PipelineSettings(
        output_dir=output_dir,
        mode=options.mode,
        prompt=options.engine.effective_prompt(options.mode),
        dpi=options.dpi,
        pages=options.pages,
        ladder=_ladder(options),
        retry_cap=None if options.retry is None else options.retry.cap,
        regions=_regions(options),
        region_prompt="" if options.roi is None else options.roi.prompt,
        passwords=options.input.passwords,
        text_settings=job.text_settings,
        superseded=superseded,
        overwrite=options.output.overwrite,
        allow_mixed=options.output.allow_mixed,
        retry_failed=options.output.retry_failed or options.output.only_failed,
        only_failed=options.output.only_failed,
        save_images=options.output.save_images,
        extras=_extras(options),
        discard_raw=options.output.discard_raw,
        content_debug=options.content_debug,
        page_timeout_s=limits.page_timeout_s,
        engine_timeout_s=limits.engine_timeout_s,
        max_runtime_s=limits.max_runtime_s,
        max_failed_share=limits.max_failed_share,
    )


def _refuse_full_disk(output_dir: Path) -> None:
    with accessing(output_dir):
        disk = shutil.disk_usage(output_dir)
    if disk.total and disk.free < MIN_FREE_BYTES:  # some network file systems tell 0 and 0
        raise OutputNotWritable(
            f"only {disk.free >> 20} MiB are free in {display_path(output_dir)}; the run stops at "
            f"{MIN_FREE_BYTES >> 20} MiB. Make room and run the same command again to go on."
        )


def _allow_many_open_files() -> None:
    """Raise the soft limit: each document in flight holds its journal open."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # macOS refuses "unlimited"
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def exit_status(result: RunResult) -> ExitStatus:
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


async def _report(
    job: Job,
    output: Output,
    settings: PipelineSettings,
    result: RunResult,
    *,
    started_at: datetime,
    error: DsocrError | None = None,
) -> Outcome:
    status = exit_status(result) if error is None else error.exit_status
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
    shard_name = f"shard-{shard.shard_index}-of-{shard.num_shards}"
    remove_stale_temps(folder, f"*-{shard_name}-*.json")
    path = folder / f"{started_at:%Y%m%dT%H%M%SZ}-{shard_name}-{os.getpid()}.json"
    write_atomically(path, msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    place = await output.keep(path)
    return Outcome(exit_status=status, result=result, report=report, report_place=place)
