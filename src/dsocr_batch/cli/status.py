"""``dsocr-batch status`` and ``failures``: what an output directory holds, and what it cost."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from dsocr_batch.errors import OutputNotWritable
from dsocr_batch.names import display_path, display_text, path_from_display
from dsocr_batch.objects.records import parse_location
from dsocr_batch.pipeline.census import Census, take_census
from dsocr_batch.pipeline.census import failures as find_failures
from dsocr_batch.pipeline.holdings import Holdings, open_holdings
from dsocr_batch.pipeline.tally import Failure
from dsocr_batch.progress import SteadyConsole, duration
from dsocr_batch.records import DocumentState, PageState

WATCH_EVERY_S = 10.0
_WATCH_SHARE = 0.1  # of the time that counting may take: a million records are not read all day

OutputDir = Annotated[
    str, typer.Argument(metavar="OUT", help="Output directory of earlier runs, or its s3:// URL.")
]


def status(
    output_dir: OutputDir,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on: show it anew until Ctrl-C.")
    ] = False,
    usd_per_gpu_hour: Annotated[
        float | None,
        typer.Option(min=0.0, help="Also tell what a million pages cost, at this price."),
    ] = None,
) -> None:
    """Tell what is done, failed and being read, over all shards and runs of an output directory.

    Reads every completion record, so it takes some minutes for a million documents; it writes
    nothing and may be asked while runs are at work. The cost counts the whole time of all runs,
    one GPU each, over the pages that they read.

    **Exit status**: 0 done, 4 not an output directory.

    **Examples**

    `dsocr-batch status texts --usd-per-gpu-hour 0.8`

    `dsocr-batch status texts --watch`

    `dsocr-batch status texts --json | jq .pages.failed`
    """
    out, notes = SteadyConsole(), SteadyConsole(stderr=True)
    with open_holdings(parse_location(output_dir)) as holdings:
        while True:
            started = time.monotonic()
            census = _counted(holdings, notes)
            if as_json:
                sys.stdout.buffer.write(_as_json(census, usd_per_gpu_hour))
                sys.stdout.flush()
            else:
                out.print(_table(census, usd_per_gpu_hour))
            if not watch:
                return
            time.sleep(max(WATCH_EVERY_S, (time.monotonic() - started) / _WATCH_SHARE))


def failures(
    output_dir: OutputDir,
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a line instead.")
    ] = False,
    write_list: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also write the paths of these documents, below the input directory, one a line.",
        ),
    ] = None,
) -> None:
    """List every page that failed or was cut, and every document that failed, with the reason.

    One a line: path, page (- for the whole document), state, reason code, reason, with tabs
    between. To read them again: the same `run` command with `--only-failed`.

    **Exit status**: 0 done (also if something failed), 4 not an output directory, 6 the list
    cannot be written.

    **Examples**

    `dsocr-batch failures texts | cut -f 4 | sort | uniq -c`

    `dsocr-batch failures texts --write-list failed.txt`
    """
    documents: dict[str, None] = {}
    with open_holdings(parse_location(output_dir)) as holdings:
        for failure in find_failures(holdings):
            documents[failure.document] = None
            sys.stdout.buffer.write(_failure_line(failure, as_json=as_json))
    sys.stdout.flush()
    if write_list is not None:
        paths = "".join(f"{path_from_display(document)}\n" for document in documents)
        try:
            write_list.write_bytes(paths.encode("utf-8", "surrogateescape"))
        except OSError as error:
            raise OutputNotWritable(
                f"--write-list {display_path(write_list)}: {error.strerror}"
            ) from error


def _failure_line(failure: Failure, *, as_json: bool) -> bytes:
    if as_json:
        return msgspec.json.encode(failure) + b"\n"
    page = "-" if failure.page_number is None else str(failure.page_number)
    fields = (failure.document, page, failure.state, failure.reason_code, failure.reason)
    line = "\t".join(display_text(field or "-").replace("\t", " ") for field in fields)
    return line.encode("utf-8", "backslashreplace") + b"\n"


def _counted(holdings: Holdings, notes: Console) -> Census:
    """Return the census; a person who waits at a terminal sees it count."""
    if not notes.is_terminal:
        return take_census(holdings)
    with notes.status("reading records") as shown:
        return take_census(
            holdings, on_document=lambda count: shown.update(f"reading records: {count}")
        )


def _as_json(census: Census, usd_per_gpu_hour: float | None) -> bytes:
    told = msgspec.to_builtins(census)
    told |= {"pages_per_s": census.pages_per_s, "eta_s": census.eta_s}
    if usd_per_gpu_hour is not None:
        told["usd_per_million_pages"] = census.usd_per_million_pages(usd_per_gpu_hour)
    return msgspec.json.format(msgspec.json.encode(told), indent=2) + b"\n"


def _table(census: Census, usd_per_gpu_hour: float | None) -> RenderableType:
    table = Table()
    for column in ("", "state", "count"):
        table.add_column(column, justify="right" if column == "count" else "left")
    for state in DocumentState:
        table.add_row("documents", state.value, str(census.documents.get(state, 0)))
    table.add_row("documents", "not done", _unfinished(census), end_section=True)
    for page_state in PageState:
        table.add_row("pages", page_state.value, str(census.pages.get(page_state, 0)))
    lines = [*_live_lines(census), *_cost_lines(census, usd_per_gpu_hour)]
    if census.flags:
        flags = (f"{flag} {count}" for flag, count in census.flags.items())
        lines.append(f"Flags: {', '.join(flags)}.")
    if census.damaged:
        lines.append(f"{census.damaged} records are damaged: a run reads their documents again.")
    return Group(table, *(Text(line) for line in lines))


def _unfinished(census: Census) -> str:
    if census.documents_total is None:
        return "unknown"
    return str(max(0, census.documents_total - sum(census.documents.values())))


def _live_lines(census: Census) -> list[str]:
    lines = []
    if census.num_shards is not None and len(census.shards_seen) < census.num_shards:
        missing = sorted({*range(census.num_shards)} - {*census.shards_seen})
        shown = ", ".join(map(str, missing[:10])) + (" …" if len(missing) > 10 else "")
        lines.append(f"No run yet of shards {shown} of {census.num_shards}.")
    if not census.live:
        return [*lines, "No run is at work."]
    lines.append(
        f"{len(census.live)} at work: {census.pages_per_s:.2f} pages/s, "
        f"time left {duration(census.eta_s)}."
    )
    for run in census.live:
        snapshot = run.snapshot
        lines.append(
            display_text(
                f"  shard {run.shard_index} of {run.num_shards} on {run.host} (process {run.pid}): "
                f"{snapshot.status}, {snapshot.pages_done} pages, {snapshot.pages_per_s:.2f} "
                f"pages/s, {len(snapshot.in_flight)} in flight"
            )
        )
    return lines


def _cost_lines(census: Census, usd_per_gpu_hour: float | None) -> list[str]:
    lines = [
        f"{census.pages_read} pages in {census.runs} runs of {duration(census.busy_s)} together."
    ]
    if usd_per_gpu_hour is not None:
        usd = census.usd_per_million_pages(usd_per_gpu_hour)
        told = "unknown before the first page" if usd is None else f"${usd:,.2f}"
        lines.append(f"Cost of a million pages at ${usd_per_gpu_hour:g} an hour: {told}.")
    return lines
