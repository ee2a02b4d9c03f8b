"""The pictures of a finished document: figures and regions of its pages, and its layout PDF.

A picture that cannot be made costs itself, never the document: its text has no link then, and a
counter tells.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dsocr_batch.names import display_path
from dsocr_batch.pipeline.document import MAX_TIMEOUTS, OpenJob
from dsocr_batch.pipeline.draft import Draft
from dsocr_batch.pipeline.roi import is_too_small, padded
from dsocr_batch.records import Box, Extra, FailureClass, OutputFile, PageState, ReasonCode
from dsocr_batch.render.pool import CropJob, LayoutJob, RenderFailed, RenderWorker, WrittenFile
from dsocr_batch.spool import Sources

log = logging.getLogger(__name__)

FIGURES_SAVED = "figures_saved"
FIGURES_TOO_SMALL = "figures_too_small"
FIGURES_FAILED = "figures_failed"
FIGURE_COUNTERS = (FIGURES_SAVED, FIGURES_TOO_SMALL, FIGURES_FAILED)
REGION_IMAGES_FAILED = "roi_images_failed"
LAYOUTS_FAILED = "layouts_failed"
FAILED_FOR_NOW = "pictures_failed_for_now"
"""Pictures of all kinds that a rerun tries again: it was not the document's fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """The picture files of a document."""

    figures: Mapping[tuple[int, int], OutputFile] = field(default_factory=dict)
    """By page number and number of the figure on its page."""
    regions: Mapping[tuple[int, int], OutputFile] = field(default_factory=dict)
    """What was read by itself, by page number and number of the region."""
    layout: OutputFile | None = None
    counters: Mapping[str, int] = field(default_factory=dict)


async def illustrate(
    worker: RenderWorker, job: OpenJob, draft: Draft, extras: frozenset[Extra], sources: Sources
) -> Drawn:
    """Make the pictures that are asked for and return what there is of them.

    Raises:
        OutputNotWritable: a file cannot be written.
    """
    counters: Counter[str] = Counter()
    regions = await _cut(
        worker, job, _regions(job, draft), counters, REGION_IMAGES_FAILED, sources=sources
    )
    figures: dict[tuple[int, int], OutputFile] = {}
    if Extra.FIGURES in extras:
        wanted = _figures(job, draft, counters)
        figures = await _cut(worker, job, wanted, counters, FIGURES_FAILED, sources=sources)
        counters[FIGURES_SAVED] = len(figures)
    layout = None
    if Extra.LAYOUT in extras:
        layout = await _draw_layout(worker, job, draft, counters, sources)
    return Drawn(figures=figures, regions=regions, layout=layout, counters=+counters)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Picture:
    """A part of a page that is to be written as a PNG file."""

    page_number: int
    number: int
    """Among the page's pictures of its kind, from 1."""
    box: Box
    dpi: float
    path: Path


def _figures(job: OpenJob, draft: Draft, counters: Counter[str]) -> Iterator[_Picture]:
    for page, text in zip(draft.pages, draft.texts, strict=True):
        for number, figure in enumerate(text.figures, 1):
            if page.dpi is None or is_too_small(figure.box, page.width_px, page.height_px):
                counters[FIGURES_TOO_SMALL] += 1
                continue
            path = job.paths.figure(page.page_number, number)
            yield _Picture(
                page_number=page.page_number,
                number=number,
                box=figure.box,
                dpi=page.dpi,
                path=path,
            )


def _regions(job: OpenJob, draft: Draft) -> Iterator[_Picture]:
    """Yield what regions looked like when they were read."""
    for page in draft.pages:
        for region in page.roi:
            if region.dpi is None or region.state is PageState.BLANK:
                continue
            yield _Picture(
                page_number=page.page_number,
                number=region.number,
                box=region.box,
                dpi=region.dpi,
                path=job.paths.region_image(page.page_number, region.number),
            )


async def _cut(
    worker: RenderWorker,
    job: OpenJob,
    pictures: Iterable[_Picture],
    counters: Counter[str],
    failed: str,
    *,
    sources: Sources,
) -> dict[tuple[int, int], OutputFile]:
    """Write pictures and return those that are there; ``failed`` counts the others."""
    files: dict[tuple[int, int], OutputFile] = {}
    timeouts = 0
    for picture in pictures:
        if timeouts >= MAX_TIMEOUTS:
            counters[failed] += 1
            continue
        try:
            async with sources.held(job.document) as path:
                written = await worker.crop(_crop(job, picture, path))
        except RenderFailed as failure:
            name = display_path(picture.path.name)
            log.warning("%s: %s: %s", job.source.path, name, failure.reason)
            timeouts += failure.reason_code is ReasonCode.RENDER_TIMEOUT
            counters[failed] += 1
            counters[FAILED_FOR_NOW] += failure.failure_class is FailureClass.TRANSIENT
            continue
        file = _output_file(picture.path, job, written)
        files[picture.page_number, picture.number] = file
    return files


def _crop(job: OpenJob, picture: _Picture, path: Path) -> CropJob:
    return CropJob(
        path=str(path),
        source=job.source,
        page_index=picture.page_number - 1,
        dpi=picture.dpi,
        box=padded(picture.box),
        file=str(picture.path),
    )


async def _draw_layout(
    worker: RenderWorker, job: OpenJob, draft: Draft, counters: Counter[str], sources: Sources
) -> OutputFile | None:
    pages = [
        (page.page_number - 1, text.regions)
        for page, text in zip(draft.pages, draft.texts, strict=True)
        if text.regions
    ]
    try:
        async with sources.held(job.document) as path:
            layout = LayoutJob(
                path=str(path), source=job.source, pages=pages, file=str(job.paths.layout)
            )
            written = await worker.draw_layout(layout)
    except RenderFailed as failure:
        log.warning("%s: no layout: %s", job.source.path, failure.reason)
        counters[LAYOUTS_FAILED] += 1
        counters[FAILED_FOR_NOW] += failure.failure_class is FailureClass.TRANSIENT
        return None
    return _output_file(job.paths.layout, job, written)


def _output_file(path: Path, job: OpenJob, written: WrittenFile) -> OutputFile:
    relative = path.relative_to(job.paths.record.parent).as_posix()
    return OutputFile(path=display_path(relative), bytes=written.bytes, sha256=written.sha256)
