"""``dsocr-batch bench …``: argv → measurements → a table, or JSON on stdout."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from dsocr_batch.bench.engine import EngineResult, measure_engine
from dsocr_batch.bench.feed import batch_order, document_order, measure, pipeline_order
from dsocr_batch.bench.lengths import Profile
from dsocr_batch.bench.simulated import Capacity
from dsocr_batch.discover import Document, discover
from dsocr_batch.names import display_text
from dsocr_batch.options import (
    EngineOptions,
    InputOptions,
    LimitOptions,
    OutputOptions,
    PageSelection,
    RunOptions,
)
from dsocr_batch.profiles import VisionMode

if TYPE_CHECKING:
    from dsocr_batch.bench.fleet import FleetRow

bench = typer.Typer(help="Measure rendering, and how well an engine is fed.", no_args_is_help=True)

GUNDAM_LONG_SIDE_PX = 1920
"""Three tiles of 640 px: the most that DeepSeek-OCR's Gundam mode uses of a portrait page."""

SHARING_PAYS = 0.05
"""Static shards that take longer than shared work by more than this are called worse."""

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
    spread: Annotated[
        float,
        typer.Option(min=0, help="Standard deviation of the logarithm of a page's length."),
    ] = 0.5,
    cpu_workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that render.", show_default="all cores")
    ] = None,
    naive: Annotated[
        bool, typer.Option(help="Also measure the two naive orders, which take long.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Utilisation of a simulated engine by the whole pipeline, and by two naive orders.

    Utilisation is the ideal time (slot seconds / slots, or the longest request) as a share of the
    time from the first page submitted to the last record. At the end of any run some slots are
    empty while the last pages are written: beside it stands what the same pages would reach if none
    ever had to wait for rendering.
    """
    capacity = Capacity(slots=slots, pages_per_s=engine_pages_per_s, spread=spread)
    with _documents(input_dir, pages) as documents, TemporaryDirectory() as output:
        ours = pipeline_order(Path(output), cpu_workers)
        results = [measure("dsocr-batch", ours, documents, capacity, GUNDAM_LONG_SIDE_PX)]
        if naive:
            orders = {
                "render a PDF, batches of 12, wait": batch_order,
                "render a PDF, all at once, wait": document_order,
            }
            for name, order in orders.items():
                results.append(measure(name, order, documents, capacity, GUNDAM_LONG_SIDE_PX))
    _print(results, as_json=as_json)


@bench.command("engine", no_args_is_help=True)
def bench_engine(
    *,
    input_dir: Annotated[Path, typer.Option(help="PDFs to read.")],
    engine: Annotated[str, typer.Option(help="As in `run`.")] = "auto",
    model: Annotated[str | None, typer.Option(help="As in `run`.")] = None,
    base_url: Annotated[str | None, typer.Option(help="As in `run`.")] = None,
    vision_mode: Annotated[VisionMode | None, typer.Option(help="As in `run`.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="As in `run`.")] = None,
    batch_pages: Annotated[int | None, typer.Option(min=1, help="As in `run`.")] = None,
    engine_arg: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="As in `run`.")
    ] = None,
    cpu_workers: Annotated[int | None, typer.Option(min=1, help="As in `run`.")] = None,
    max_pages: Annotated[
        int | None, typer.Option(min=1, help="At most so many pages of each document.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Read a directory with a real engine: pages, tokens, waiting times, and each stage's share.

    What is read is thrown away. A number of pages well above those that the engine holds at once
    is needed for rates that mean something.

    **Example**

    `dsocr-batch bench engine --input-dir scans --engine vllm`
    """
    with TemporaryDirectory() as output:
        options = RunOptions(
            input=InputOptions(input_dir=input_dir, recursive=True),
            output=OutputOptions(output_dir=Path(output)),
            engine=EngineOptions(
                model=model,
                base_url=base_url,
                vision_mode=vision_mode,
                max_tokens=max_tokens,
                batch_pages=batch_pages,
                engine_arg=tuple(engine_arg) if engine_arg else None,
            ),
            limits=LimitOptions(cpu_workers=cpu_workers),
            engine_name=engine,
            pages=PageSelection(max_pages=max_pages),
        )
        _print_in_rows(measure_engine(options), as_json=as_json)


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
    table = Table(*(name.replace("_", "\n") for name in names))
    for row in rows:
        table.add_row(*(str(getattr(row, name)) for name in names))
    Console().print(table)


def _print_in_rows(result: EngineResult, *, as_json: bool) -> None:
    if as_json:
        _print([result], as_json=True)
        return
    table = Table("figure", "value")
    for name, value in asdict(result).items():
        table.add_row(name.replace("_", " "), display_text(str(value)))
    Console().print(table)


@bench.command("fleet")
def bench_fleet(
    *,
    profile: Annotated[Profile, typer.Option(help="How long its documents are.")] = Profile.WEB,
    mean_pages: Annotated[
        float | None, typer.Option(min=1, help="Pages a document.", show_default="the profile's")
    ] = None,
    spread: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Standard deviation of the logarithm of a document's pages.",
            show_default="the profile's",
        ),
    ] = None,
    documents: Annotated[
        list[int],
        typer.Option(
            default_factory=lambda: [1000, 10_000, 100_000, 1_000_000],
            min=1,
            help="Size of the corpus; repeatable.",
            show_default="1000 to 1000000",
        ),
    ],
    gpus: Annotated[
        list[int],
        typer.Option(
            default_factory=lambda: [1, 8, 64, 256, 1024],
            min=1,
            help="Size of the fleet; repeatable.",
            show_default="1 to 1024",
        ),
    ],
    range_pages: Annotated[
        list[int],
        typer.Option(
            default_factory=lambda: [64],
            min=1,
            help="Longest range of pages that is handed out; repeatable.",
            show_default="64",
        ),
    ],
    tokens_per_s: Annotated[
        float, typer.Option(min=1, help="Output tokens a second of one GPU.")
    ] = 2500,
    start_s: Annotated[float, typer.Option(min=0, help="Start-up of the model.")] = 120,
    reread_ms_per_page: Annotated[
        float, typer.Option(min=0, help="Time to read and hash a file, for each of its pages.")
    ] = 0.5,
    straggler: Annotated[
        float, typer.Option(min=0.01, max=1, help="Speed of one GPU, the others having 1.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Another corpus of the same kind.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Simulated fleets: how much longer than ideal static shards and shared work take.

    The columns that end in "pct" say by how many percent a way to deal out the work takes longer
    than work spread evenly over all GPUs.
    """
    from dsocr_batch.bench.fleet import Gpu, Handling, simulate  # noqa: PLC0415 (numpy)

    lengths = profile.lengths
    lengths = replace(
        lengths,
        mean_pages=lengths.mean_pages if mean_pages is None else mean_pages,
        spread=lengths.spread if spread is None else spread,
    )
    rows = simulate(
        lengths,
        documents=documents,
        gpus=gpus,
        range_pages=range_pages,
        gpu=Gpu(tokens_per_s=tokens_per_s, start_s=start_s),
        handling=Handling(reread_s_per_page=reread_ms_per_page / 1000),
        straggler=straggler,
        seed=seed,
    )
    _print(rows, as_json=as_json)
    if not as_json:
        _print_where_sharing_pays(rows)


def _print_where_sharing_pays(rows: Sequence[FleetRow]) -> None:
    from dsocr_batch.bench.fleet import first_fleet_to_share  # noqa: PLC0415 (numpy)

    for (count, pages), group in groupby(rows, lambda row: (row.documents, row.range_pages)):
        fleet = first_fleet_to_share(list(group), SHARING_PAYS)
        where = "on none of these fleets" if fleet is None else f"from {fleet:,} GPUs on"
        typer.echo(
            f"{count:,} documents: static shards take over {SHARING_PAYS:.0%} longer"
            f" than shared ranges of {pages} pages {where}."
        )
