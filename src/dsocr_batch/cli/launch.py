"""``dsocr-batch launch``: one run for each GPU of a machine, shown as one."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dsocr_batch.cli.logs import LogLevel, set_up_logging
from dsocr_batch.cli.run import output_dir_of, run
from dsocr_batch.errors import ExitStatus, UsageError
from dsocr_batch.launch import Launch, Seat, Shard, gpu_seats, worker_seats
from dsocr_batch.names import display_text
from dsocr_batch.pipeline.census import EndedRun, LiveRun, live_runs, report_of
from dsocr_batch.pipeline.holdings import Holdings, open_holdings
from dsocr_batch.progress import PLAIN_LINE_EVERY_S, SteadyConsole, duration
from dsocr_batch.records import PageState

REFRESH_S = 1.0
TAKES_RUN_OPTIONS = {"allow_extra_args": True, "ignore_unknown_options": True}
_OURS = ("num_shards", "shard_index", "shard_from")


def launch(
    context: typer.Context,
    *,
    gpus: Annotated[
        str | None,
        typer.Option(help="One run for each of these GPUs: all, or a list such as 0,1,3."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="So many runs, without asking for GPUs.")
    ] = None,
) -> None:
    """Read a corpus with every GPU of this machine: one `run` for each, shown as one.

    Takes every option of `run` but `--num-shards` and `--shard-index`, which it sets. Each run
    has its own GPU, shard of the documents, and cores. One that dies is started again and goes on
    where it stopped, up to three times in a row; the table at the end names those given up.

    Static shards: a run that is done with its documents does not help the others.

    **Exit status**: the worst of the runs, in this order: 0, 7, 3, 4, 130, 143, 8, 5, 6, 2, 1.
    A run that was given up counts as 1.

    **Examples**

    `dsocr-batch launch --gpus all --input-dir corpus --recursive --output-dir texts`

    `dsocr-batch launch --workers 2 --engine rapidocr --input-dir scans`
    """
    console = SteadyConsole(stderr=True)
    given = _run_options(context.args)
    set_up_logging(console, LogLevel(given["log_level"]), None)
    seats = _seats(gpus, workers)
    output_dir = output_dir_of(given["output_dir"], given["input_dir"], given["mode"])
    arguments = ["--no-progress", *context.args]
    with open_holdings(output_dir) as holdings:
        view = _View(console, holdings)
        job = Launch(
            seats,
            arguments,
            restart_arguments=[a for a in arguments if a != "--overwrite"],
            on_line=view.show_line,
        )
        status = asyncio.run(_tend(job, view))
        console.print(_closing_table(job.shards, holdings))
        console.print(f"All of it: dsocr-batch status {output_dir}", markup=False, soft_wrap=True)
    if status in (ExitStatus.SIGINT, ExitStatus.SIGTERM):
        console.print("Stopped. The same command goes on from here.", highlight=False)
    raise typer.Exit(status)


def _run_options(arguments: Sequence[str]) -> dict[str, Any]:
    """Return what the options of ``run`` say, so that a wrong one is told once and at once."""
    app = typer.Typer(context_settings={"help_option_names": ["-h", "--help"]})
    app.command(no_args_is_help=True)(run)
    command = typer.main.get_command(app)
    run_context = command.make_context("dsocr-batch launch", list(arguments))
    for name in _OURS:
        source = run_context.get_parameter_source(name)
        if source is not None and source.name != "DEFAULT":
            raise UsageError(f"--{name.replace('_', '-')} is set by launch: leave it out")
    if run_context.params["ray"] is not None:
        raise UsageError("--ray: say it to `dsocr-batch run`, which then uses every GPU there is")
    if run_context.params["dry_run"]:
        raise UsageError("--dry-run: say it to `dsocr-batch run`, which reads the same corpus")
    return run_context.params


def _seats(gpus: str | None, workers: int | None) -> list[Seat]:
    if gpus is not None and workers is not None:
        raise UsageError("--gpus does not go with --workers: say one of them")
    return worker_seats(workers) if workers is not None else gpu_seats(gpus or "all")


async def _tend(job: Launch, view: _View) -> ExitStatus:
    loop = asyncio.get_running_loop()
    for passed_on in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(passed_on, job.stop, passed_on)
    with view:
        showing = asyncio.create_task(view.show_on(job.shards))
        try:
            return await job.run()
        finally:
            showing.cancel()


class _View:
    """All runs in one table on a terminal, in one line now and then elsewhere."""

    def __init__(self, console: Console, holdings: Holdings) -> None:
        self._console = console
        self._holdings = holdings
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> None:
        if self._console.is_terminal:
            self._live.start()

    def __exit__(self, *_error: object) -> None:
        self._live.stop()

    def show_line(self, shard: Shard, line: str) -> None:
        """Print what a run logs, with its shard in front."""
        self._console.print(
            f"{shard.index} | {display_text(line)}", markup=False, highlight=False, soft_wrap=True
        )

    async def show_on(self, shards: Sequence[Shard]) -> None:
        """Keep the view up to date."""
        next_line_at = time.monotonic() + PLAIN_LINE_EVERY_S
        next_reading_at = 0.0
        by_pid: dict[int, LiveRun] = {}
        while True:
            await asyncio.sleep(REFRESH_S)
            if time.monotonic() >= next_reading_at:
                next_reading_at = time.monotonic() + self._holdings.live_every_s
                live = await asyncio.to_thread(live_runs, self._holdings)
                by_pid = {run.pid: run for run in live}
            if self._console.is_terminal:
                self._live.update(_live_table(shards, by_pid), refresh=True)
            elif time.monotonic() >= next_line_at:
                next_line_at = time.monotonic() + PLAIN_LINE_EVERY_S
                self._console.print(_live_line(shards, by_pid), highlight=False, soft_wrap=True)


def _live_line(shards: Sequence[Shard], live: dict[int, LiveRun]) -> str:
    at_work = [live[shard.pid].snapshot for shard in shards if shard.pid in live]
    left = [snapshot.eta_s for snapshot in at_work if snapshot.eta_s is not None]
    return (
        f"{sum(shard.status is None for shard in shards)} of {len(shards)} runs at work · "
        f"pages {sum(s.pages_done for s in at_work)} of about "
        f"{sum(s.pages_expected for s in at_work):.0f} · "
        f"{sum(s.pages_per_s for s in at_work):.2f} pages/s · "
        f"time left {duration(max(left, default=None))}"
    )


def _live_table(shards: Sequence[Shard], live: dict[int, LiveRun]) -> RenderableType:
    table = Table(box=None)
    for column in ("shard", "on", "pages", "pages/s", "in flight", "restarts", ""):
        table.add_column(column, justify="left" if column in {"on", ""} else "right")
    for shard in shards:
        run = live.get(shard.pid or 0)
        told = ("", "", "", "starting" if shard.status is None else _ending(shard))
        if run is not None and shard.status is None:
            snapshot = run.snapshot
            told = (
                f"{snapshot.pages_done}/{snapshot.pages_expected:.0f}",
                f"{snapshot.pages_per_s:.2f}",
                str(len(snapshot.in_flight)),
                display_text(snapshot.status),
            )
        *numbers, state = told
        table.add_row(str(shard.index), shard.seat.name, *numbers, str(shard.restarts), Text(state))
    return Group(table, Text(_live_line(shards, live)))


def _closing_table(shards: Sequence[Shard], holdings: Holdings) -> RenderableType:
    """Return what each run did; `dsocr-batch status` counts what the output holds."""
    table = Table(title="What these runs leave", title_justify="left")
    for column in ("shard", "on", "documents", "pages", "failed", "pages/s", "restarts", "ended"):
        table.add_column(column, justify="left" if column in {"on", "ended"} else "right")
    for shard in shards:
        report = None if shard.pid is None else report_of(holdings, shard.pid)
        table.add_row(
            *(str(shard.index), shard.seat.name, *_numbers(report), str(shard.restarts)),
            Text(_ending(shard)),
        )
    return table


def _numbers(report: EndedRun | None) -> tuple[str, str, str, str]:
    if report is None:
        return ("", "", "", "")
    pages = sum(report.pages.values())
    return (
        str(report.documents_total),
        str(pages),
        str(report.pages.get(PageState.FAILED, 0)),
        f"{pages / max(report.wall_s, 1e-9):.2f}",
    )


def _ending(shard: Shard) -> str:
    if shard.given_up:
        return f"given up after {shard.restarts + 1} deaths"
    return "at work" if shard.status is None else f"status {shard.status}"
