"""What a real engine does on a directory: the whole pipeline, with a clock around the engine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from dsocr_batch import app
from dsocr_batch.bench.process_tree import TreeSampler, cpu_s
from dsocr_batch.cluster.engine import ClusterEngine
from dsocr_batch.engines.base import Engine, PageRequest, Reading
from dsocr_batch.options import RunOptions
from dsocr_batch.pipeline.bottleneck import Bottleneck
from dsocr_batch.pipeline.tally import Snapshot
from dsocr_batch.prepare.image import ImageSpec
from dsocr_batch.profiles import VisionMode

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineResult:
    """How an engine fared; rates count from the first page submitted to the last record."""

    engine: str
    model: str
    pages_read: int
    start_s: float
    """From the first need of the engine until it was ready."""
    pages_per_s: float
    output_tokens_per_s: float
    first_token_p50_s: float | None
    """From a page's submission to its first sign of life; None where an engine gives none.
    `vllm` tells of all pages at once, once a second."""
    first_token_p95_s: float | None
    page_p50_s: float | None
    """A page's time in the engine."""
    page_p95_s: float | None
    render_busy: float
    """Share of the render workers' time, as in a run's report; likewise below."""
    preprocess_busy: float
    engine_busy: float
    postprocess_busy: float
    writing_busy: float
    held_back_by: Bottleneck
    cpu_s_per_page: float
    """Of this process and all its children."""
    peak_pss_mb: float


def measure_engine(options: RunOptions) -> EngineResult:
    """Run with these options and return how the engine fared.

    Raises:
        DsocrError: the run could not be made.
    """
    job = app.prepare(options)
    if isinstance(job.engine, ClusterEngine):
        raise AssertionError("a bench on a cluster")  # noqa: TRY004 (it has no --ray)
    timed = TimedEngine(job.engine)
    cpu_before = cpu_s()
    with TreeSampler() as memory:
        outcome = app.run(replace(job, engine=timed), on_tick=_ignore, on_ready=_ignore)
    ended = time.monotonic()
    report, pages = outcome.report, len(timed.page_s)
    read_s = max(ended - (timed.first_submitted_at or ended), 1e-9)
    return EngineResult(
        engine=report.engine,
        model=report.model,
        pages_read=pages,
        start_s=round(timed.start_s, 2),
        pages_per_s=round(pages / read_s, 3),
        output_tokens_per_s=round(report.output_tokens / read_s, 1),
        first_token_p50_s=_quantile(timed.first_token_s, 0.5),
        first_token_p95_s=_quantile(timed.first_token_s, 0.95),
        page_p50_s=_quantile(timed.page_s, 0.5),
        page_p95_s=_quantile(timed.page_s, 0.95),
        render_busy=report.shares.render_busy,
        preprocess_busy=report.shares.preprocess_busy,
        engine_busy=report.shares.engine_busy,
        postprocess_busy=report.shares.postprocess_busy,
        writing_busy=report.shares.writing_busy,
        held_back_by=report.held_back_by,
        cpu_s_per_page=round((cpu_s() - cpu_before - memory.cpu_s) / max(1, pages), 4),
        peak_pss_mb=round(memory.peak_pss_bytes / 1e6, 1),
    )


class TimedEngine:
    """An engine that is another one, with a clock."""

    def __init__(self, engine: Engine) -> None:
        self.identity = engine.identity
        self.vision_mode = engine.vision_mode
        self.capacity = engine.capacity
        self.cpu_processes = engine.cpu_processes
        self._engine = engine
        self.start_s = 0.0
        self.first_submitted_at: float | None = None
        self.first_token_s: list[float] = []
        self.page_s: list[float] = []

    def image_spec(self, vision_mode: VisionMode | None) -> ImageSpec:
        """Return what the engine wants."""
        return self._engine.image_spec(vision_mode)

    async def start(self) -> None:
        """Start the engine and note how long it takes."""
        began = time.monotonic()
        await self._engine.start()
        self.start_s += time.monotonic() - began

    async def read(self, request: PageRequest) -> Reading:
        """Read a page and note when its first token came, and its last."""
        submitted = time.monotonic()
        if self.first_submitted_at is None:
            self.first_submitted_at = submitted
        signs: list[float] = []

        def on_progress() -> None:
            if not signs:
                signs.append(time.monotonic() - submitted)
            request.on_progress()

        reading = await self._engine.read(replace(request, on_progress=on_progress))
        self.first_token_s += signs
        self.page_s.append(time.monotonic() - submitted)
        return reading

    async def close(self) -> None:
        """Close the engine."""
        await self._engine.close()


def _quantile(seconds: list[float], share: float) -> float | None:
    if len(seconds) < 2:
        return round(seconds[0], 3) if seconds else None
    return round(
        statistics.quantiles(seconds, n=100, method="inclusive")[round(share * 100) - 1], 3
    )


def _ignore(_told: Snapshot | Callable[..., None]) -> None:
    pass
