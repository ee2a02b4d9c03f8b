"""``dsocr-batch postprocess`` and ``reprocess``: markdown anew, without reading a page."""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from dsocr_batch import app
from dsocr_batch.cli.logs import LogLevel, set_up_logging
from dsocr_batch.errors import InputMissing, UsageError
from dsocr_batch.names import display_path
from dsocr_batch.objects.records import parse_location
from dsocr_batch.pipeline.reprocess import Rebuild, Reprocessed
from dsocr_batch.postprocess.document import process_document
from dsocr_batch.progress import PLAIN_LINE_EVERY_S, SteadyConsole
from dsocr_batch.records import Mode

log = logging.getLogger("dsocr_batch")


def postprocess(
    file: Annotated[
        str, typer.Argument(metavar="FILE|-", help="Raw text of the model; - is stdin.")
    ] = "-",
    *,
    mode: Annotated[
        Mode, typer.Option(help="clean: markdown. grounded: markdown with its labelled boxes.")
    ] = Mode.CLEAN,
) -> None:
    """Turn raw model text into markdown on stdout: what `run` makes of it, without a page.

    Pages end at lines `<--- Page Split --->`, as the official scripts write them; without any, the
    text is one page. Bytes that are not UTF-8 become U+FFFD.

    **Exit status**: 0 done, 4 the file cannot be read.

    **Examples**

    `dsocr-batch postprocess paper_det.mmd > paper.md`

    `dsocr-batch postprocess --mode grounded - < page.txt`
    """
    try:
        data = sys.stdin.buffer.read() if file == "-" else _local(file).read_bytes()
    except OSError as error:
        raise InputMissing(f"{display_path(file)}: {error.strerror}") from error
    markdown = process_document(data.decode("utf-8-sig", "replace"), mode)
    sys.stdout.buffer.write(markdown.encode("utf-8"))
    sys.stdout.buffer.flush()


def reprocess(
    output_dir: Annotated[
        str, typer.Argument(metavar="OUT", help="Output directory of earlier runs.")
    ],
    *,
    log_level: Annotated[LogLevel, typer.Option(help="How much to log.")] = LogLevel.INFO,
) -> None:
    """Build every document of an output directory again from its raw text; no page is read.

    For after an upgrade that writes better markdown. Each document keeps the mode, the settings
    and the extras of its own record; its .md and .json are replaced as a whole. What would not
    change is not touched, so the command may be stopped at any moment and given again.

    Documents whose raw text was discarded (--discard-raw) stay as they are and are named. Those
    that no run has finished are left to `run`. Figures and layouts stay if their boxes are the
    same; others are removed, and `run --save-figures --save-layout` makes them anew.

    **Exit status**: 0 all done, 2 a run is at work on the directory, 3 some document could not be
    rebuilt, 4 not an output directory, 6 not writable.

    **Example**

    `dsocr-batch reprocess scans/dsocr_clean`
    """
    console = SteadyConsole(stderr=True)
    set_up_logging(console, log_level, None)
    counts: Counter[Rebuild] = Counter()
    next_line_at = time.monotonic() + PLAIN_LINE_EVERY_S

    def on_document(done: Reprocessed) -> None:
        nonlocal next_line_at
        counts[done.outcome] += 1
        if done.reason is not None:
            log.warning("%s: not rebuilt: %s", display_path(done.record_path), done.reason)
        if time.monotonic() >= next_line_at:
            next_line_at = time.monotonic() + PLAIN_LINE_EVERY_S
            log.info("%s", _rebuild_line(counts))

    status = app.reprocess(_local(output_dir), on_document=on_document)
    log.info("%s", _rebuild_line(counts))
    raise typer.Exit(status)


def _local(text: str) -> Path:
    """Return the path that was given.

    Raises:
        UsageError: it is the URL of an object store.
    """
    location = parse_location(text)
    if isinstance(location, Path):
        return location
    raise UsageError(
        f"{location}: this command works on local files. Copy what runs have written there "
        f"(`aws s3 sync {location} FOLDER`), give it the copy, and copy that back."
    )


def _rebuild_line(counts: Counter[Rebuild]) -> str:
    parts = ", ".join(f"{counts[outcome]} {outcome}" for outcome in Rebuild)
    return f"{counts.total()} documents: {parts}"
