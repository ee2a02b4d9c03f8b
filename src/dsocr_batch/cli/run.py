"""``dsocr-batch run``: argv → options, signals, and how a run is shown."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TextIO

import typer
from rich.console import Console

from dsocr_batch import __version__, app
from dsocr_batch.cli import arguments
from dsocr_batch.cli.logs import LogLevel, protect_stdout, set_up_logging
from dsocr_batch.errors import ExitStatus, UsageError
from dsocr_batch.launch import end_with_launcher
from dsocr_batch.names import display_path
from dsocr_batch.objects.records import Location, ObjectUrl, parse_location
from dsocr_batch.options import (
    DEFAULT_DPI,
    EngineOptions,
    InputOptions,
    LimitOptions,
    OutputOptions,
    PageSelection,
    RayOptions,
    RetryOptions,
    RoiOptions,
    RunOptions,
    parse_pages,
    read_passwords,
)
from dsocr_batch.pipeline.run import StopReason
from dsocr_batch.progress import SteadyConsole, closing_table, progress_view
from dsocr_batch.records import Mode
from dsocr_batch.scheduler import ShardFrom, ShardIdentity
from dsocr_batch.scheduler import shard_from as shard_from_environment

log = logging.getLogger("dsocr_batch")

DEFAULT_LIMITS = LimitOptions()
DEFAULT_RETRY = RetryOptions()


def run(
    *,
    input_dir: arguments.InputDir = None,
    recursive: arguments.Recursive = False,
    pdf: arguments.Pdf = None,
    input_list: arguments.InputList = None,
    spool_dir: arguments.SpoolDir = None,
    password_file: arguments.PasswordFile = None,
    pages: arguments.Pages = "1-",
    max_pages: arguments.MaxPages = None,
    limit_docs: arguments.LimitDocs = None,
    output_dir: arguments.OutputDir = None,
    mode: arguments.Mode = Mode.CLEAN,
    save_images: arguments.SaveImages = False,
    save_figures: arguments.SaveFigures = False,
    save_layout: arguments.SaveLayout = False,
    merge_tables: arguments.MergeTables = False,
    discard_raw: arguments.DiscardRaw = False,
    overwrite: arguments.Overwrite = False,
    skip_existing: arguments.SkipExisting = False,
    allow_mixed: arguments.AllowMixed = False,
    retry_failed: arguments.RetryFailed = False,
    only_failed: arguments.OnlyFailed = False,
    dry_run: arguments.DryRun = False,
    engine: arguments.Engine = "auto",
    model: arguments.Model = None,
    prompt: arguments.Prompt = None,
    clean_prompt: arguments.CleanPrompt = None,
    grounded_prompt: arguments.GroundedPrompt = None,
    max_tokens: arguments.MaxTokens = None,
    batch_pages: arguments.BatchPages = None,
    dpi: arguments.Dpi = DEFAULT_DPI,
    cpu_workers: arguments.CpuWorkers = None,
    vision_mode: arguments.VisionMode = None,
    ngram_size: arguments.NgramSize = None,
    ngram_window: arguments.NgramWindow = None,
    ngram_whitelist: arguments.NgramWhitelist = None,
    retry_large: arguments.RetryLarge = False,
    retry_label: arguments.RetryLabel = None,
    retry_large_cap: arguments.RetryLargeCap = None,
    roi_second_pass: arguments.RoiSecondPass = False,
    roi_label: arguments.RoiLabel = None,
    roi_min_area: arguments.RoiMinArea = None,
    roi_merge: arguments.RoiMerge = False,
    roi_prompt: arguments.RoiPrompt = None,
    base_url: arguments.BaseUrl = None,
    dtype: arguments.Dtype = None,
    no_fp8_kv: arguments.NoFp8Kv = False,
    enable_fp8_weights: arguments.EnableFp8Weights = False,
    gpu_memory_utilization: arguments.GpuMemoryUtilization = None,
    tensor_parallel_size: arguments.TensorParallelSize = None,
    mm_encoder_tp_mode: arguments.MmEncoderTpMode = None,
    engine_arg: arguments.EngineArg = None,
    num_shards: arguments.NumShards = None,
    shard_index: arguments.ShardIndex = None,
    shard_from: arguments.ShardFrom = None,
    ray: arguments.Ray = None,
    ray_cpus: arguments.RayCpus = None,
    page_timeout: arguments.PageTimeout = DEFAULT_LIMITS.page_timeout_s,
    engine_timeout: arguments.EngineTimeout = DEFAULT_LIMITS.engine_timeout_s,
    max_runtime: arguments.MaxRuntime = None,
    max_failed_share: arguments.MaxFailedShare = DEFAULT_LIMITS.max_failed_share,
    config: arguments.Config = None,
    log_level: arguments.LogLevel = LogLevel.INFO,
    log_file: arguments.LogFile = None,
    content_debug: arguments.ContentDebug = False,
    no_progress: arguments.NoProgress = False,
) -> None:
    """Read a corpus: one markdown file and one .json record for each PDF or image.

    Finished pages are never read again, so the same command after a crash, a kill or a full disk
    goes on where it stopped. An option that the engine cannot honour is refused, never ignored.

    **Exit status**: 0 all done, 2 usage or settings conflict, 3 finished but some page is failed or
    cut, 4 nothing to read, 5 engine unusable, 6 output not writable, 7 stopped by --max-runtime,
    8 too many failures, 130 Ctrl-C, 143 SIGTERM.

    **Examples**

    `dsocr-batch run --input-dir scans`

    `dsocr-batch run --input-dir corpus --recursive --output-dir out --num-shards 8 --shard-index 3`

    `dsocr-batch run --input-dir /shared/corpus --output-dir /shared/out --ray auto`

    `timeout 300 dsocr-batch run --input-dir scans --max-pages 2`
    """
    del config, skip_existing
    end_with_launcher()
    console = SteadyConsole(stderr=True)
    set_up_logging(console, log_level, log_file)
    if only_failed and overwrite:
        raise UsageError("--only-failed does not go with --overwrite, which reads everything")
    shard = _shard(num_shards, shard_index, shard_from)
    options = RunOptions(
        input=InputOptions(
            input_dir=_location(input_dir),
            pdfs=tuple(parse_location(name) for name in pdf or ()),
            input_list=_location(input_list),
            spool_dir=spool_dir,
            recursive=recursive,
            limit_docs=limit_docs,
            num_shards=shard.num_shards,
            shard_index=shard.shard_index,
            passwords=() if password_file is None else read_passwords(password_file),
        ),
        output=OutputOptions(
            output_dir=output_dir_of(output_dir, input_dir, mode),
            overwrite=overwrite,
            allow_mixed=allow_mixed,
            retry_failed=retry_failed,
            only_failed=only_failed,
            save_images=save_images,
            save_layout=save_layout,
            merge_tables=merge_tables,
            discard_raw=discard_raw,
        ),
        engine=EngineOptions(
            model=model,
            prompt=prompt,
            clean_prompt=clean_prompt,
            grounded_prompt=grounded_prompt,
            max_tokens=max_tokens,
            batch_pages=batch_pages,
            save_figures=save_figures or None,
            vision_mode=vision_mode,
            retry_large=retry_large or None,
            roi_second_pass=roi_second_pass or None,
            ngram_size=ngram_size,
            ngram_window=ngram_window,
            ngram_whitelist=_given(ngram_whitelist),
            dtype=dtype,
            no_fp8_kv=no_fp8_kv or None,
            enable_fp8_weights=enable_fp8_weights or None,
            gpu_memory_utilization=gpu_memory_utilization,
            tensor_parallel_size=tensor_parallel_size,
            mm_encoder_tp_mode=mm_encoder_tp_mode,
            engine_arg=_given(engine_arg),
            base_url=base_url,
        ),
        retry=_retry_options(retry_large, mode, retry_label, retry_large_cap),
        roi=_roi_options(
            roi_second_pass,
            mode,
            labels=roi_label,
            min_area=roi_min_area,
            merge=roi_merge or None,
            prompt=roi_prompt or clean_prompt,
        ),
        limits=LimitOptions(
            cpu_workers=cpu_workers,
            page_timeout_s=page_timeout,
            engine_timeout_s=engine_timeout,
            max_runtime_s=max_runtime,
            max_failed_share=max_failed_share,
        ),
        engine_name=engine,
        mode=mode,
        pages=PageSelection(ranges=parse_pages(pages), max_pages=max_pages),
        dpi=dpi,
        content_debug=content_debug,
        ray=_ray_options(ray, ray_cpus),
    )
    stdout = protect_stdout()
    job = app.prepare(options)
    if dry_run:
        _print_plan(job, stdout, console)
        return
    raise typer.Exit(_run(job, SteadyConsole(stderr=True, quiet=True) if no_progress else console))


def _shard(
    num_shards: int | None, shard_index: int | None, source: ShardFrom | None
) -> ShardIdentity:
    """Return the shard that the options name, or the scheduler."""
    told = ShardIdentity(
        shard_index=shard_index or 0, num_shards=1 if num_shards is None else num_shards
    )
    if source is None:
        return told
    if num_shards is not None or shard_index is not None:
        raise UsageError(
            "--shard-from does not go with --num-shards and --shard-index: say one or the others"
        )
    return shard_from_environment(source, os.environ) or told


def _location(text: str | None) -> Location | None:
    return None if text is None else parse_location(text)


def _ray_options(address: str | None, cpus: int | None) -> RayOptions | None:
    if address is None:
        _refuse_alone({"--ray-cpus": cpus}, "--ray")
        return None
    return RayOptions(address=address, cpus=cpus)


def _given(values: list[str] | None) -> tuple[str, ...] | None:
    """Return what a repeatable option was given; None if it was not given at all."""
    return tuple(values) if values else None


def _retry_options(
    is_on: bool, mode: Mode, labels: list[str] | None, cap: int | None
) -> RetryOptions | None:
    """Return what ``--retry-large`` and the options that go with it say."""
    if not is_on:
        _refuse_alone({"--retry-label": labels, "--retry-large-cap": cap}, "--retry-large")
        return None
    required = DEFAULT_RETRY.labels if not labels else tuple(set(labels) - {"none"})
    if mode is Mode.CLEAN and set(required) - {"table"}:
        raise UsageError(
            f"--retry-label {', '.join(sorted(required))}: in clean mode a table is all that can "
            "be seen in the text; say table or none, or read with --mode grounded"
        )
    return RetryOptions(labels=tuple(sorted(required)), cap=cap)


def _roi_options(
    is_on: bool,
    mode: Mode,
    *,
    labels: list[str] | None,
    min_area: float | None,
    merge: bool | None,
    prompt: str | None,
) -> RoiOptions | None:
    """Return what ``--roi-second-pass`` and the options that go with it say."""
    if not is_on:
        alone = {"--roi-label": labels, "--roi-min-area": min_area, "--roi-merge": merge}
        _refuse_alone(alone, "--roi-second-pass")
        return None
    if mode is not Mode.GROUNDED:
        raise UsageError(
            "--roi-second-pass reads the regions that grounded mode finds: say --mode grounded"
        )
    default = RoiOptions()
    return RoiOptions(
        labels=tuple(sorted(set(labels))) if labels else default.labels,
        min_area=default.min_area if min_area is None else min_area,
        merge=bool(merge),
        prompt=prompt or default.prompt,
    )


def _refuse_alone(options: Mapping[str, object], needed: str) -> None:
    """Refuse options that mean nothing without another one: none is ever ignored."""
    for name, value in options.items():
        if value is not None:
            raise UsageError(f"{name} has no meaning without {needed}")


def _run(job: app.Job, console: Console) -> ExitStatus:
    log.info("%s", _effective_options(job))
    with progress_view(console) as view:
        outcome = app.run(job, on_tick=view.show, on_ready=_stop_on_signals)
    console.print(closing_table(outcome))
    if outcome.exit_status in (ExitStatus.SIGINT, ExitStatus.SIGTERM):
        console.print("Stopped. The same command goes on from here.", highlight=False)
    return outcome.exit_status


def _stop_on_signals(stop: Callable[[StopReason], None]) -> None:
    """Let the first signal stop the run in good order, the second at once, the third kill it."""
    loop = asyncio.get_running_loop()
    reasons = {signal.SIGINT: StopReason.SIGINT, signal.SIGTERM: StopReason.SIGTERM}
    received: list[signal.Signals] = []

    def handle(received_signal: signal.Signals) -> None:
        received.append(received_signal)
        if len(received) > 1:
            for handled in reasons:
                loop.remove_signal_handler(handled)
        stop(reasons[received_signal])

    for handled in reasons:
        loop.add_signal_handler(handled, handle, handled)


def _print_plan(job: app.Job, stdout: TextIO, console: Console) -> None:
    count = 0
    for document, action in app.plan(job):
        stdout.write(f"{action}\t{display_path(document.relative)}\n")
        count += action not in {"done", "passed over"}
    stdout.flush()
    console.print(
        f"{count} of {len(job.documents)} documents would be read; "
        f"{len(job.discovered.ignored)} other inputs are ignored. Nothing was done.",
        highlight=False,
    )


def _effective_options(job: app.Job) -> str:
    options = job.options
    shard = options.input
    return (
        f"dsocr-batch {__version__}: {len(job.documents)} documents, shard {shard.shard_index} of "
        f"{shard.num_shards}, into {display_path(str(options.output.output_dir))}; "
        + " ".join(f"{name}={value!r}" for name, value in job.text_settings.items())
    )


def output_dir_of(output_dir: str | None, input_dir: str | None, mode: Mode) -> Location:
    """Return where results go, told or not."""
    if output_dir is not None:
        return parse_location(output_dir)
    match _location(input_dir):
        case Path() as directory:
            return directory / f"dsocr_{mode}"
        case ObjectUrl() as prefix:
            return prefix.child(f"dsocr_{mode}")
        case None:
            raise UsageError("--output-dir is needed where there is no --input-dir")
