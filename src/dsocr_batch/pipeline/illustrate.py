"""The pictures of a finished document: figures cut out of its pages, and its layout PDF.

A picture that cannot be made costs itself, never the document: its text has no link then, and a
counter tells.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dsocr_batch.names import display_path
from dsocr_batch.pipeline.document import MAX_TIMEOUTS, OpenJob
from dsocr_batch.pipeline.draft import Draft
from dsocr_batch.postprocess.figures import Figure
from dsocr_batch.records import (
    GRID_MAX,
    Box,
    Extra,
    OutputFile,
    PageRecord,
    ReasonCode,
    scaled_box,
)
from dsocr_batch.render.pool import CropJob, LayoutJob, RenderFailed, RenderWorker, WrittenFile

log = logging.getLogger(__name__)

FIGURE_PADDING = 5
"""Grid units, 0.5 % of the page's side, on every side of a box: boxes are tight, and the grid
rounds their edges by up to 1.7 px of an A4 page at 144 dpi."""

MIN_FIGURE_SIDE_PX = 16
"""A box smaller than a letter is a mistake of the model, not a picture."""

FIGURES_SAVED = "figures_saved"
FIGURES_TOO_SMALL = "figures_too_small"
FIGURES_FAILED = "figures_failed"
FIGURE_COUNTERS = (FIGURES_SAVED, FIGURES_TOO_SMALL, FIGURES_FAILED)
LAYOUTS_FAILED = "layouts_failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """The picture files of a document."""

    figures: Mapping[tuple[int, int], OutputFile] = field(default_factory=dict)
    """By page number and number of the figure on its page."""
    layout: OutputFile | None = None
    counters: Mapping[str, int] = field(default_factory=dict)


async def illustrate(
    worker: RenderWorker, job: OpenJob, draft: Draft, extras: frozenset[Extra]
) -> Drawn:
    """Make the pictures that are asked for and return what there is of them.

    Raises:
        OutputNotWritable: a file cannot be written.
    """
    counters: Counter[str] = Counter()
    figures = {}
    if Extra.FIGURES in extras:
        figures = await _cut_figures(worker, job, draft, counters)
    layout = None
    if Extra.LAYOUT in extras:
        layout = await _draw_layout(worker, job, draft, counters)
    return Drawn(figures=figures, layout=layout, counters=counters)


async def _cut_figures(
    worker: RenderWorker, job: OpenJob, draft: Draft, counters: Counter[str]
) -> dict[tuple[int, int], OutputFile]:
    figures: dict[tuple[int, int], OutputFile] = {}
    timeouts = 0
    for page, number, figure in _figures(draft):
        if page.dpi is None or _is_too_small(page, figure.box):
            counters[FIGURES_TOO_SMALL] += 1
            continue
        if timeouts >= MAX_TIMEOUTS:
            counters[FIGURES_FAILED] += 1
            continue
        path = job.paths.figure(page.page_number, number)
        crop = CropJob(
            path=job.document.path,
            source=job.source,
            page_index=page.page_number - 1,
            dpi=page.dpi,
            box=padded(figure.box),
            file=str(path),
        )
        try:
            written = await worker.crop(crop)
        except RenderFailed as failure:
            log.warning("%s: figure %d: %s", job.page_id(crop.page_index), number, failure.reason)
            timeouts += failure.reason_code is ReasonCode.RENDER_TIMEOUT
            counters[FIGURES_FAILED] += 1
            continue
        figures[page.page_number, number] = _output_file(path, job, written)
        counters[FIGURES_SAVED] += 1
    return figures


async def _draw_layout(
    worker: RenderWorker, job: OpenJob, draft: Draft, counters: Counter[str]
) -> OutputFile | None:
    pages = [
        (page.page_number - 1, text.regions)
        for page, text in zip(draft.pages, draft.texts, strict=True)
        if text.regions
    ]
    layout = LayoutJob(
        path=job.document.path, source=job.source, pages=pages, file=str(job.paths.layout)
    )
    try:
        written = await worker.draw_layout(layout)
    except RenderFailed as failure:
        log.warning("%s: no layout: %s", job.source.path, failure.reason)
        counters[LAYOUTS_FAILED] += 1
        return None
    return _output_file(job.paths.layout, job, written)


def _figures(draft: Draft) -> Iterator[tuple[PageRecord, int, Figure]]:
    for page, text in zip(draft.pages, draft.texts, strict=True):
        for number, figure in enumerate(text.figures, 1):
            yield page, number, figure


def padded(box: Box) -> Box:
    """Return a box with a margin around it, within the page."""
    x1, y1, x2, y2 = box
    return (
        max(0, x1 - FIGURE_PADDING),
        max(0, y1 - FIGURE_PADDING),
        min(GRID_MAX, x2 + FIGURE_PADDING),
        min(GRID_MAX, y2 + FIGURE_PADDING),
    )


def _is_too_small(page: PageRecord, box: Box) -> bool:
    x1, y1, x2, y2 = scaled_box(box, page.width_px or 0, page.height_px or 0)
    return min(x2 - x1, y2 - y1) < MIN_FIGURE_SIDE_PX


def _output_file(path: Path, job: OpenJob, written: WrittenFile) -> OutputFile:
    relative = path.relative_to(job.paths.record.parent).as_posix()
    return OutputFile(path=display_path(relative), bytes=written.bytes, sha256=written.sha256)
