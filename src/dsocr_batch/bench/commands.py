"""``dsocr-batch bench …``: argv → measurements → a table, or JSON on stdout."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from dsocr_batch.bench.feed import batch_order, document_order, measure, pipeline_order
from dsocr_batch.bench.simulated import Capacity
from dsocr_batch.discover import Document, discover
from dsocr_batch.machine import usable_cores
from dsocr_batch.options import InputOptions

bench = typer.Typer(help="Measure rendering, and how well an engine is fed.", no_args_is_help=True)

GUNDAM_LONG_SIDE_PX = 1920
"""Three tiles of 640 px: the most that DeepSeek-OCR's Gundam mode uses of a portrait page."""

InputDir = Annotated[
    Path | None,
    typer.Option(help="PDFs to measure on.", show_default="a made corpus, half scans"),
]
Pages = Annotated[int, typer.Option(min=30, help="Pages of the made corpus.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@bench.command("render")
def bench_render(
    *, input_dir: InputDir = None, pages: Pages = 300, as_json: AsJson = False
) -> None:
    """CPU time of each render stage a page, beside bare PyMuPDF at the same pixels.

    pypdfium2 and pdftoppm are measured too where they are installed.
    """
    from dsocr_batch.bench.render import measure_stages  # noqa: PLC0415 (numpy: not for `run`)

    with _documents(input_dir, pages) as documents:
        costs = measure_stages(documents, GUNDAM_LONG_SIDE_PX)
    _print(costs, as_json=as_json)


@bench.command("feed")
def bench_feed(
    *,
    input_dir: InputDir = None,
    pages: Pages = 300,
    slots: Annotated[int, typer.Option(min=1, help="Pages that the engine reads at once.")] = 16,
    engine_pages_per_s: Annotated[
        float, typer.Option(min=0.01, help="What the engine does with all slots taken.")
    ] = 6.0,
    cpu_workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that render.", show_default="cores - 1")
    ] = None,
    naive: Annotated[
        bool, typer.Option(help="Also measure the two naive orders, which take long.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Utilisation of a simulated engine by the whole pipeline, and by two naive orders.

    Utilisation is the ideal time (slot seconds / slots, or the longest request) as a share of the
    time from the first page submitted to the last record.
    """
    capacity = Capacity(slots=slots, pages_per_s=engine_pages_per_s)
    workers = cpu_workers or max(1, usable_cores() - 1)
    with _documents(input_dir, pages) as documents, TemporaryDirectory() as output:
        ours = pipeline_order(Path(output), workers)
        results = [measure("dsocr-batch", ours, documents, capacity, GUNDAM_LONG_SIDE_PX)]
        if naive:
            orders = {
                "render a PDF, batches of 12, wait": batch_order,
                "render a PDF, all at once, wait": document_order,
            }
            for name, order in orders.items():
                results.append(measure(name, order, documents, capacity, GUNDAM_LONG_SIDE_PX))
    _print(results, as_json=as_json)


@contextmanager
def _documents(input_dir: Path | None, pages: int) -> Iterator[Sequence[Document]]:
    from dsocr_batch.bench.corpus import write_corpus  # noqa: PLC0415 (numpy: not for `run`)

    with TemporaryDirectory() as made:
        if input_dir is None:
            write_corpus(Path(made), pages, documents=max(1, pages // 10))
        options = InputOptions(input_dir=input_dir or Path(made), recursive=True)
        yield discover(options, Path(made) / "out").documents


def _print(rows: Sequence[Any], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.buffer.write(msgspec.json.encode([asdict(row) for row in rows]) + b"\n")
        return
    names = [field.name for field in fields(rows[0])]
    table = Table(*(name.replace("_", " ") for name in names))
    for row in rows:
        table.add_row(*(str(getattr(row, name)) for name in names))
    Console().print(table)
