"""``dsocr-batch run``: argv → options, signals, and how a run is shown."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TextIO

import typer
from rich.console import Console

from dsocr_batch import __version__, app
from dsocr_batch.cli.logs import LogLevel, protect_stdout, set_up_logging
from dsocr_batch.errors import ExitStatus, UsageError
from dsocr_batch.names import display_path
from dsocr_batch.options import (
    DEFAULT_DPI,
    EngineOptions,
    InputOptions,
    LimitOptions,
    OutputOptions,
    PageSelection,
    RunOptions,
    parse_config,
    parse_pages,
    read_passwords,
)
from dsocr_batch.pipeline.run import StopReason
from dsocr_batch.progress import SteadyConsole, closing_table, progress_view
from dsocr_batch.records import Mode

log = logging.getLogger("dsocr_batch")

DEFAULT_LIMITS = LimitOptions()


def _config_defaults(context: typer.Context, path: Path | None) -> Path | None:
    """Make the values of a TOML file the defaults of the options; flags on the line win."""
    if path is None:
        return None
    known = {
        parameter.name: getattr(parameter, "multiple", False)
        for parameter in context.command.params
        if parameter.name != "config"
    }
    try:
        defaults = parse_config(path.read_bytes(), known)
    except OSError as error:
        raise UsageError(f"--config {display_path(path)}: {error.strerror}") from error
    except UsageError as error:
        raise UsageError(f"--config {display_path(path)}: {error}") from error
    context.default_map = {**(context.default_map or {}), **defaults}
    return path


INPUT, OUTPUT, READING, SHARDS, LIMITS, LOGGING = (
    "What to read",
    "Where results go",
    "How pages are read",
    "Sharing the work",
    "Limits",
    "Logging",
)


def run(
    *,
    input_dir: Annotated[
        Path | None,
        typer.Option(help="Read the PDFs and images in this directory.", rich_help_panel=INPUT),
    ] = None,
    recursive: Annotated[
        bool, typer.Option("--recursive", help="Also its sub-directories.", rich_help_panel=INPUT)
    ] = False,
    pdf: Annotated[
        list[Path] | None,
        typer.Option(help="Read this file; may be repeated.", rich_help_panel=INPUT),
    ] = None,
    input_list: Annotated[
        Path | None,
        typer.Option(help="Read the files named in this file, one a line.", rich_help_panel=INPUT),
    ] = None,
    password_file: Annotated[
        Path | None,
        typer.Option(
            help="Try the passwords in this file, one a line, on every encrypted document. "
            "Documents that failed as encrypted before are tried again.",
            rich_help_panel=INPUT,
        ),
    ] = None,
    pages: Annotated[
        str,
        typer.Option(help="Only these pages of each document: 1-20,30,45-.", rich_help_panel=INPUT),
    ] = "1-",
    max_pages: Annotated[
        int | None,
        typer.Option(min=1, help="At most so many pages of each.", rich_help_panel=INPUT),
    ] = None,
    limit_docs: Annotated[
        int | None,
        typer.Option(min=1, help="Only the first so many documents.", rich_help_panel=INPUT),
    ] = None,
    output_dir: Annotated[
        Path | None,
        typer.Option(
            help="Put results here.", show_default="INPUT_DIR/dsocr_MODE", rich_help_panel=OUTPUT
        ),
    ] = None,
    mode: Annotated[
        Mode,
        typer.Option(
            help="clean: markdown. grounded: beside it, markdown with labelled boxes.",
            rich_help_panel=OUTPUT,
        ),
    ] = Mode.CLEAN,
    save_images: Annotated[
        bool,
        typer.Option("--save-images", help="Keep each page as a PNG.", rich_help_panel=OUTPUT),
    ] = False,
    save_figures: Annotated[
        bool,
        typer.Option(
            "--save-figures",
            help="Cut the pictures out of the pages and link them in the markdown. Later too: "
            "finished documents get them without being read again.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    save_layout: Annotated[
        bool,
        typer.Option(
            "--save-layout",
            help="Write the original pages with labelled boxes over them, as a PDF. Later too.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    merge_tables: Annotated[
        bool,
        typer.Option(
            "--merge-tables",
            help="Make one table of parts on successive pages: same columns, nothing between. "
            "Finished documents are written again, with it or without it, not read again.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    discard_raw: Annotated[
        bool,
        typer.Option(
            "--discard-raw",
            help="Do not keep the engine's raw text of documents that are wholly read.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Read everything again, whatever is done.", rich_help_panel=OUTPUT
        ),
    ] = False,
    skip_existing: Annotated[
        bool,
        typer.Option(
            "--skip-existing",
            help="Accepted for old scripts: finished pages are never read again anyway.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    allow_mixed: Annotated[
        bool,
        typer.Option(
            "--allow-mixed",
            help="Keep what was read with other settings, read the rest with these.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed",
            help="Try again what failed by the file's own fault (encrypted, corrupt, hanging).",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print what would be done, one document a line, and do nothing.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    engine: Annotated[
        str,
        typer.Option(
            help="auto, or the name of an engine. auto takes vllm where there is a CUDA device, "
            "else rapidocr, which runs on any CPU but is not DeepSeek-OCR.",
            rich_help_panel=READING,
        ),
    ] = "auto",
    model: Annotated[
        str | None,
        typer.Option(
            help="The model to read with.", show_default="engine", rich_help_panel=READING
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            help="Prompt, whatever the mode.", show_default="mode's", rich_help_panel=READING
        ),
    ] = None,
    clean_prompt: Annotated[
        str | None, typer.Option(help="Prompt of clean mode.", rich_help_panel=READING)
    ] = None,
    grounded_prompt: Annotated[
        str | None, typer.Option(help="Prompt of grounded mode.", rich_help_panel=READING)
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            min=1, help="Tokens a page may have.", show_default="engine", rich_help_panel=READING
        ),
    ] = None,
    batch_pages: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Pages inside the engine at once.",
            show_default="engine",
            rich_help_panel=READING,
        ),
    ] = None,
    dpi: Annotated[
        int,
        typer.Option(
            min=36,
            max=600,
            help="Resolution of a page; small pages get more.",
            rich_help_panel=READING,
        ),
    ] = DEFAULT_DPI,
    cpu_workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Processes that render.",
            show_default="the cores that the engine leaves, less one",
            rich_help_panel=READING,
        ),
    ] = None,
    num_shards: Annotated[
        int, typer.Option(help="Into how many shards the corpus is cut.", rich_help_panel=SHARDS)
    ] = 1,
    shard_index: Annotated[
        int, typer.Option(help="Which of them this run reads, from 0.", rich_help_panel=SHARDS)
    ] = 0,
    page_timeout: Annotated[
        float,
        typer.Option(min=1.0, help="Seconds to render a page.", rich_help_panel=LIMITS),
    ] = DEFAULT_LIMITS.page_timeout_s,
    engine_timeout: Annotated[
        float,
        typer.Option(
            min=1.0, help="Seconds without a sign of life from the engine.", rich_help_panel=LIMITS
        ),
    ] = DEFAULT_LIMITS.engine_timeout_s,
    max_runtime: Annotated[
        float | None,
        typer.Option(
            min=0.0, help="Seconds after which no more pages are taken.", rich_help_panel=LIMITS
        ),
    ] = None,
    max_failed_share: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Stop if more than this share of pages fails, judged after 200 pages.",
            rich_help_panel=LIMITS,
        ),
    ] = DEFAULT_LIMITS.max_failed_share,
    config: Annotated[
        Path | None,
        typer.Option(
            callback=_config_defaults,
            is_eager=True,
            help="TOML file of options; flags win over it.",
            rich_help_panel=LOGGING,
        ),
    ] = None,
    log_level: Annotated[
        LogLevel, typer.Option(help="How much to log.", rich_help_panel=LOGGING)
    ] = LogLevel.INFO,
    log_file: Annotated[
        Path | None,
        typer.Option(help="Also log into this file; it is rotated.", rich_help_panel=LOGGING),
    ] = None,
    content_debug: Annotated[
        bool,
        typer.Option(
            "--content-debug",
            help="Log how each page was read and how its text begins.",
            rich_help_panel=LOGGING,
        ),
    ] = False,
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

    `timeout 300 dsocr-batch run --input-dir scans --max-pages 2`
    """
    del config, skip_existing
    console = SteadyConsole(stderr=True)
    set_up_logging(console, log_level, log_file)
    options = RunOptions(
        input=InputOptions(
            input_dir=input_dir,
            pdfs=tuple(pdf or ()),
            input_list=input_list,
            recursive=recursive,
            limit_docs=limit_docs,
            num_shards=num_shards,
            shard_index=shard_index,
            passwords=() if password_file is None else read_passwords(password_file),
        ),
        output=OutputOptions(
            output_dir=_output_dir(output_dir, input_dir, mode),
            overwrite=overwrite,
            allow_mixed=allow_mixed,
            retry_failed=retry_failed,
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
    )
    stdout = protect_stdout()
    job = app.prepare(options)
    if dry_run:
        _print_plan(job, stdout, console)
        return
    raise typer.Exit(_run(job, console))


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
        count += action != "done"
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
        f"{shard.num_shards}, into {display_path(options.output.output_dir)}; "
        + " ".join(f"{name}={value!r}" for name, value in job.text_settings.items())
    )


def _output_dir(output_dir: Path | None, input_dir: Path | None, mode: Mode) -> Path:
    if output_dir is not None:
        return output_dir
    if input_dir is None:
        raise UsageError("--output-dir is needed where there is no --input-dir")
    return input_dir / f"dsocr_{mode}"
