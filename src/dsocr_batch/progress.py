"""What a person sees of a run: a live view on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from tqdm import tqdm

from dsocr_batch.app import Outcome
from dsocr_batch.pipeline.tally import Snapshot
from dsocr_batch.records import DocumentState, Flag, PageState

PLAIN_LINE_EVERY_S = 5.0
_IN_FLIGHT_SHOWN = 4

_State = TypeVar("_State", DocumentState, PageState)

_FLAG_MEANING = {
    Flag.LOW_CONFIDENCE: "the engine does not trust what it read. Do not use this text unseen: the "
    "CPU engine cannot read Greek, Cyrillic or Arabic, and poor scans look the same",
    Flag.LOW_RESOLUTION: "a page so large that it was rendered below 72 dpi: small print is lost",
    Flag.LOOPED: "the model repeated itself for a while",
    Flag.NO_TEXT: "the page is not blank, but nothing was read on it: a picture, or a miss",
    Flag.ROTATED: "read after turning the page",
    Flag.TABLE_MENDED: "a broken table was repaired",
    Flag.RETRIED: "read more than once, the better reading was kept",
    Flag.REGIONS_LEFT_OUT: "it has more regions than are read a second time; the largest were",
    Flag.TABLE_CONTINUED: "its first rows stand at the end of an earlier page's table",
}


class SteadyConsole(Console):
    """A console that falls silent where others raise: nobody reading on must not end a run."""

    def on_broken_pipe(self) -> None:
        """Say nothing more."""
        self.quiet = True

    def print(self, *objects: Any, **options: Any) -> None:
        """Print, unless what is printed to is gone or full."""
        try:
            super().print(*objects, **options)
        except OSError:
            self.quiet = True


class ProgressView(Protocol):
    """Shows snapshots while it is entered."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def show(self, snapshot: Snapshot) -> None:
        """Bring the view up to date."""


def progress_view(console: Console) -> ProgressView:
    """Return the view that fits where ``console`` writes to."""
    return LiveView(console) if console.is_terminal else PlainView(console)


class PlainView:
    """One line every few seconds, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._next_at = time.monotonic() + PLAIN_LINE_EVERY_S

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass

    def show(self, snapshot: Snapshot) -> None:
        """Print a line if the last one is old enough."""
        if time.monotonic() >= self._next_at:
            self._next_at = time.monotonic() + PLAIN_LINE_EVERY_S
            self._console.print(progress_line(snapshot), soft_wrap=True)


class LiveView:
    """A few lines that are redrawn in place."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.stop()

    def show(self, snapshot: Snapshot) -> None:
        """Redraw."""
        with suppress(OSError):  # the terminal is gone
            self._live.update(_panel(snapshot), refresh=True)


def progress_line(snapshot: Snapshot) -> Text:
    """Return the state of a run in one line of text."""
    documents_done = sum(snapshot.documents.values()) + sum(snapshot.documents_found.values())
    parts = [
        snapshot.status,
        f"documents {documents_done}/{snapshot.documents_total}",
        f"pages {snapshot.pages_done} of about {snapshot.pages_expected:.0f}",
        f"{snapshot.pages_per_s:.2f} pages/s",
        f"time left {duration(snapshot.eta_s)}",
        *(f"{state} {count}" for state, count in snapshot.pages.items() if state != PageState.OK),
        f"in flight {len(snapshot.in_flight)}",
    ]
    return Text(" · ".join(parts))


def _panel(snapshot: Snapshot) -> RenderableType:
    # Padded: a bar alone does not end its line.
    bar = Padding(
        ProgressBar(total=max(1.0, snapshot.pages_expected), completed=snapshot.pages_done), 0
    )
    shown = snapshot.in_flight[:_IN_FLIGHT_SHOWN]
    more = len(snapshot.in_flight) - len(shown)
    in_flight = ", ".join(shown) + (f" and {more} more" if more else "")
    return Group(
        progress_line(snapshot),
        bar,
        Text(f"in the engine: {in_flight or 'nothing'}", style="dim", overflow="ellipsis", end=""),
    )


def closing_table(outcome: Outcome) -> RenderableType:
    """Return the counts of a finished run, what its flags mean, and where failures are listed."""
    snapshot = outcome.result.snapshot
    table = Table(title="What this run leaves", title_justify="left")
    for column in ("", "state", "this run", "found done"):
        table.add_column(column, justify="left" if column in ("", "state") else "right")
    _add_rows(table, "documents", DocumentState, snapshot.documents, snapshot.documents_found)
    _add_rows(table, "pages", PageState, snapshot.pages, snapshot.pages_found)
    report = outcome.report
    rate = Text(
        f"{snapshot.pages_done} pages in {duration(report.wall_s)}: {report.pages_per_s:.2f} "
        f"pages/s. Busy: rendering {report.shares.render_busy:.0%}, "
        f"engine {report.shares.engine_busy:.0%}, markdown {report.shares.postprocess_busy:.0%}, "
        f"writing {report.shares.writing_busy:.0%}. Held back by: {report.held_back_by} "
        f"({report.advice})."
    )
    flags = [
        Text(f"{flag}: {count} {'page' if count == 1 else 'pages'}: {_FLAG_MEANING[flag]}.")
        for flag, count in snapshot.flags.items()
    ]
    reasons = Counter(failure.reason_code or failure.state for failure in report.failures)
    failed = [
        Text(
            "Failed or cut short: " + ", ".join(f"{r} {n}" for r, n in reasons.most_common()) + "."
        )
    ]
    where = f"Report, with every failure and ignored input: {outcome.report_place}"
    return Group(
        table,
        rate,
        *(failed if reasons else []),
        *flags,
        Text(where, overflow="fold"),
        _counters_line(snapshot),
    )


def _add_rows(
    table: Table,
    what: str,
    states: Iterable[_State],
    now: Mapping[_State, int],
    earlier: Mapping[_State, int],
) -> None:
    counted = [state for state in states if now.get(state) or earlier.get(state)]
    for index, state in enumerate(counted):
        table.add_row(
            what if index == 0 else "",
            state.value,
            str(now.get(state, 0)),
            str(earlier.get(state, 0)),
            end_section=index == len(counted) - 1,
        )


def _counters_line(snapshot: Snapshot) -> Text:
    counts = {f"pages_{state}": count for state, count in snapshot.pages.items()}
    counts |= {"output_tokens": snapshot.output_tokens, **snapshot.counters}
    return Text(" ".join(f"{name}={count}" for name, count in counts.items()), overflow="fold")


def duration(seconds: float | None) -> str:
    """Return a time for people, such as ``1:02:03``."""
    return "unknown" if seconds is None else tqdm.format_interval(seconds)
