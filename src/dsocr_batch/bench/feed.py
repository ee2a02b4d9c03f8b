"""How much of an engine's known capacity each order of work uses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsocr_batch.bench.process_tree import TreeSampler, cpu_s
from dsocr_batch.bench.simulated import Capacity, SimulatedEngine
from dsocr_batch.discover import Document
from dsocr_batch.options import DEFAULT_DPI, PageSelection
from dsocr_batch.pipeline.local import LocalReader
from dsocr_batch.pipeline.run import Run
from dsocr_batch.pipeline.settings import PipelineSettings
from dsocr_batch.pipeline.store import DocumentStore
from dsocr_batch.records import Mode

SEED_BATCH_PAGES = 12
"""The seed runner's ``--batch-pages`` (NOTES.md, "Knowledge of the seed runner")."""

Order = Callable[[Sequence[Document], SimulatedEngine], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedResult:
    """What one order made of the engine."""

    order: str
    pages: int
    """Of the corpus, blank ones too."""
    wall_s: float
    """From start to last record, as a person waits for it."""
    pages_per_s: float
    utilisation: float
    """Ideal time / time from the first page submitted to the last record, 0-1."""
    utilisation_if_never_waiting: float
    """The same with every page there from the start: the tail of the last pages remains."""
    cpu_s_per_page: float
    """Of this process and all its children."""
    peak_pss_mb: float


def measure(
    name: str, order: Order, documents: Sequence[Document], capacity: Capacity, max_side_px: int
) -> FeedResult:
    """Run one order over the documents and return how it fared."""
    pages = sum(map(_page_count, documents))
    engine = SimulatedEngine(capacity, max_side_px=max_side_px)
    cpu_before, started = cpu_s(), time.monotonic()
    with TreeSampler() as memory:
        asyncio.run(order(documents, engine))
    ended = time.monotonic()
    return FeedResult(
        order=name,
        pages=pages,
        wall_s=round(ended - started, 2),
        pages_per_s=round(pages / (ended - started), 2),
        utilisation=round(engine.utilisation(ended), 4),
        utilisation_if_never_waiting=round(engine.utilisation_if_never_waiting, 4),
        cpu_s_per_page=round((cpu_s() - cpu_before - memory.cpu_s) / max(1, pages), 4),
        peak_pss_mb=round(memory.peak_pss_bytes / 1e6, 1),
    )


def _page_count(document: Document) -> int:
    import pymupdf  # noqa: PLC0415 (heavy: only who measures pays for it)

    with pymupdf.open(document.path) as opened:
        return len(opened)


def pipeline_order(output_dir: Path, render_workers: int | None) -> Order:
    """Return our order: the whole pipeline, from files to records; None for as in a run."""

    async def read(documents: Sequence[Document], engine: SimulatedEngine) -> None:
        settings = PipelineSettings(
            output_dir=output_dir,
            mode=Mode.CLEAN,
            prompt="",
            dpi=DEFAULT_DPI,
            pages=PageSelection(),
            text_settings={"engine": "simulated"},
        )
        run = Run(
            settings,
            LocalReader(settings, engine, render_workers=render_workers),
            DocumentStore(settings, engine.identity),
            documents,
            on_tick=lambda _snapshot: None,
            check=lambda: None,
        )
        await run.execute()

    return read


async def batch_order(documents: Sequence[Document], engine: SimulatedEngine) -> None:
    """Do as the seed runner did: render a PDF, submit batches of 12, wait for each."""
    for document in documents:
        pages = _render_all(document)
        for start in range(0, len(pages), SEED_BATCH_PAGES):
            batch = pages[start : start + SEED_BATCH_PAGES]
            await asyncio.gather(*(engine.hold(engine.tokens(page_id)) for page_id, _ in batch))


async def document_order(documents: Sequence[Document], engine: SimulatedEngine) -> None:
    """Do as the official script does: render a PDF through PNG, submit it all, wait."""
    for document in documents:
        pages = _render_all(document, through_png=True)
        await asyncio.gather(*(engine.hold(engine.tokens(page_id)) for page_id, _ in pages))


def _render_all(document: Document, *, through_png: bool = False) -> list[tuple[str, object]]:
    """Return each page's id and picture, held all at once as those scripts hold them."""
    import pymupdf  # noqa: PLC0415 (heavy: only who measures pays for it)

    pages: list[tuple[str, object]] = []
    with pymupdf.open(document.path) as opened:
        for page in opened:
            pixmap = page.get_pixmap(dpi=DEFAULT_DPI)
            picture = pixmap.tobytes("png") if through_png else pixmap.samples
            pages.append((f"{document.relative}#{page.number + 1}", picture))
    return pages
