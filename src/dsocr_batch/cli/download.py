"""``dsocr-batch download``: options → the Hub → a path on stdout."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    TaskProgressColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Bar

from dsocr_batch import hub
from dsocr_batch.cli.logs import LogLevel, protect_stdout, set_up_logging
from dsocr_batch.errors import ExitStatus
from dsocr_batch.names import display_path
from dsocr_batch.progress import PLAIN_LINE_EVERY_S, SteadyConsole
from dsocr_batch.weights import DEFAULT_MODEL, DEFAULT_REVISION, parse_hub_model

log = logging.getLogger("dsocr_batch")


def download(
    *,
    model: Annotated[
        str, typer.Option(help="Name on the Hub; NAME@REVISION is understood.")
    ] = DEFAULT_MODEL,
    revision: Annotated[
        str | None,
        typer.Option(
            help="Commit, branch or tag.",
            show_default=f"{DEFAULT_REVISION[:12]} for the default model, main for others",
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--dir",
            help="Put the files into this folder, to be copied to other machines and named with "
            "--model FOLDER.",
            show_default="the Hub's cache",
        ),
    ] = None,
    log_level: Annotated[LogLevel, typer.Option(help="How much to log.")] = LogLevel.INFO,
) -> None:
    """Fetch the weights of DeepSeek-OCR, 6.7 GB, and print the folder they are in.

    The revision is pinned, and every file is compared with the checksum on the Hub. What is there
    is not fetched again, so the same command goes on after Ctrl-C or a lost connection, and given
    once more it is a check. Only weights, configuration and tokenizer are fetched, no code.

    HF_TOKEN, HF_HOME, HF_ENDPOINT and the usual proxy variables are honoured. Where the Hub cannot
    be reached, files that are complete by size pass with a warning.

    **Exit status**: 0 all there, 2 no such model or revision or no permission to read it, 5 the
    Hub cannot be reached or gives something else, 6 folder not writable or disk full, 130 Ctrl-C.

    **Examples**

    `dsocr-batch download`

    `dsocr-batch download --dir /srv/deepseek-ocr`
    """
    console = SteadyConsole(stderr=True)
    set_up_logging(console, log_level, None)
    _tame_libraries()
    stdout = protect_stdout()
    hub_model = parse_hub_model(model, revision)
    try:
        with _shown(console) as on_progress:
            path = hub.download(hub_model, folder, on_progress)
    except KeyboardInterrupt:
        console.print("Stopped. The same command goes on from here.", highlight=False)
        raise typer.Exit(ExitStatus.SIGINT) from None
    stdout.write(f"{display_path(path)}\n")
    stdout.flush()


@contextmanager
def _shown(console: Console) -> Iterator[Callable[[hub.Progress], None]]:
    """Show progress as a bar on a terminal, as a line now and then elsewhere."""
    if not console.is_terminal:
        yield _lines()
        return
    columns = (TaskProgressColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Bar(BarColumn(bar_width=None), *columns, console=console) as bar:
        task = bar.add_task("", total=None, start=False)

        def draw(progress: hub.Progress) -> None:
            if bar.tasks[task].total is None:
                bar.start_task(task)
            bar.update(task, completed=progress.done_bytes, total=progress.total_bytes)

        yield draw


def _lines() -> Callable[[hub.Progress], None]:
    next_line_at = time.monotonic() + PLAIN_LINE_EVERY_S

    def write(progress: hub.Progress) -> None:
        nonlocal next_line_at
        if time.monotonic() >= next_line_at:
            next_line_at = time.monotonic() + PLAIN_LINE_EVERY_S
            done, total = progress.done_bytes / 1e9, progress.total_bytes / 1e9
            log.info("%.2f of %.2f GB", done, total)

    return write


def _tame_libraries() -> None:
    """Let huggingface_hub report to nobody, and write through our log only."""
    # Read when it is imported. It would tell the Hub of torch, and ask it whether we are an agent.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import logging as _  # noqa: F401, PLC0415 (sets its handler; takes 0.2 s)
    from huggingface_hub.utils import disable_progress_bars  # noqa: PLC0415

    disable_progress_bars()
    library = logging.getLogger("huggingface_hub")
    library.handlers.clear()
    library.propagate = True
    for name in ("httpx", "httpx2"):  # a line for each request
        logging.getLogger(name).setLevel(logging.WARNING)
