"""A job → a plan, or a run and its report."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from dsocr_batch.app.job import Job
from dsocr_batch.app.report import Outcome, write_report
from dsocr_batch.app.settings import pipeline_settings
from dsocr_batch.cluster.actor import ActorWork
from dsocr_batch.cluster.engine import ClusterEngine
from dsocr_batch.discover import Document
from dsocr_batch.errors import DsocrError, OutputNotWritable
from dsocr_batch.names import display_path
from dsocr_batch.options import InputOptions
from dsocr_batch.output.holder import lock_lost
from dsocr_batch.output.write import accessing
from dsocr_batch.pipeline.census import LiveRun
from dsocr_batch.pipeline.local import LocalReader
from dsocr_batch.pipeline.outputs import Output, open_output
from dsocr_batch.pipeline.reader import Reader
from dsocr_batch.pipeline.run import Run, StopReason
from dsocr_batch.pipeline.settings import PipelineSettings
from dsocr_batch.pipeline.tally import Snapshot
from dsocr_batch.spool import Sources, open_sources

MIN_FREE_BYTES = 64 << 20
"""A run stops while there is still room to end in order."""


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
        settings = pipeline_settings(job.options, job.text_settings, output.directory, superseded)
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
            settings = pipeline_settings(
                job.options, job.text_settings, output.directory, superseded
            )

            def check() -> None:
                _refuse_full_disk(output.directory)
                if lock.lost:
                    raise lock_lost(options.output_dir)

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
            await write_report(job, output, settings, result, started_at=started_at, error=error)
        raise
    return await write_report(job, output, settings, pipeline_run.result, started_at=started_at)


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
