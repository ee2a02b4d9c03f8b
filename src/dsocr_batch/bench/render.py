"""What rendering costs, stage by stage, beside the bare rasterisation that no one can undercut."""

from __future__ import annotations

import mmap
import shutil
import subprocess
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np

from dsocr_batch.bench.process_tree import cpu_s
from dsocr_batch.discover import Document
from dsocr_batch.options import DEFAULT_DPI
from dsocr_batch.prepare.image import ImageForm, ImageSpec
from dsocr_batch.render import heap


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCost:
    """CPU time of one stage, or of another renderer, over the same pages."""

    stage: str
    pages: int
    cpu_ms_per_page: float


def measure_stages(documents: Sequence[Document], max_side_px: int) -> list[StageCost]:
    """Return the cost of each of our stages, of bare PyMuPDF, and of other renderers at hand."""
    seconds, pages = _our_stages(documents, max_side_px)
    costs = [_cost(stage, pages, spent) for stage, spent in seconds.items()]
    if find_spec("pypdfium2") is not None:
        costs.append(_cost("pypdfium2 at 144 dpi", pages, _pypdfium2_s(documents)))
    if shutil.which("pdftoppm") is not None:
        costs.append(_cost("pdftoppm at 144 dpi", pages, _pdftoppm_s(documents)))
    return costs


def _our_stages(documents: Sequence[Document], max_side_px: int) -> tuple[dict[str, float], int]:
    """Return CPU seconds by stage, and the number of pages, as the render worker works."""
    # Heavy, and what a render worker imports: only who measures pays for it.
    from dsocr_batch.render.blank import is_blank  # noqa: PLC0415
    from dsocr_batch.render.page import RenderTarget, open_document, render_page  # noqa: PLC0415

    heap.keep_blocks()
    target = RenderTarget(
        dpi=DEFAULT_DPI, spec=ImageSpec(form=ImageForm.RGB, max_side_px=max_side_px)
    )
    slot = mmap.mmap(-1, 3 * max_side_px**2)
    seconds: dict[str, float] = defaultdict(float)
    pages = 0
    for document in documents:
        dpis = []
        with open_document(document.path) as opened:
            for page_index in range(opened.page_count):
                start = time.process_time()
                page = render_page(opened, page_index, target)
                rendered = time.process_time()
                rgb = np.frombuffer(page.pixels, np.uint8)
                blank = is_blank(rgb.reshape(page.height_px, page.width_px, 3), page.dpi)
                checked = time.process_time()
                if not blank:
                    slot[: len(page.pixels)] = page.pixels
                if (pages + page_index + 1) % heap.GIVE_BACK_EVERY == 0:
                    heap.give_back()
                copied = time.process_time()
                seconds["render"] += rendered - start
                seconds["blank check"] += checked - rendered
                seconds["into shared memory"] += copied - checked
                dpis.append(page.dpi)
        seconds["bare PyMuPDF, same pixels"] += _bare_s(document, dpis)
        pages += len(dpis)
    return seconds, pages


def _bare_s(document: Document, dpis: Sequence[float]) -> float:
    """Return what PyMuPDF alone takes for a document, opened anew so that nothing is cached."""
    import pymupdf  # noqa: PLC0415

    pymupdf.TOOLS.store_shrink(100)
    with pymupdf.open(document.path) as opened:
        start = time.process_time()
        for page_index, dpi in enumerate(dpis):
            matrix = pymupdf.Matrix(dpi / 72, dpi / 72)
            opened[page_index].get_pixmap(matrix=matrix, colorspace=pymupdf.csRGB, alpha=False)
        return time.process_time() - start


def _pypdfium2_s(documents: Sequence[Document]) -> float:
    import pypdfium2  # noqa: PLC0415 (only where it is installed)

    started = time.process_time()
    for document in documents:
        opened = pypdfium2.PdfDocument(document.path)
        for page in opened:
            page.render(scale=DEFAULT_DPI / 72)
        opened.close()
    return time.process_time() - started


def _pdftoppm_s(documents: Sequence[Document]) -> float:
    started = cpu_s()
    for document in documents:
        subprocess.run(  # noqa: S603
            ["pdftoppm", "-r", str(DEFAULT_DPI), document.path],  # noqa: S607
            check=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    return cpu_s() - started


def _cost(stage: str, pages: int, seconds: float) -> StageCost:
    return StageCost(
        stage=stage, pages=pages, cpu_ms_per_page=round(1000 * seconds / max(1, pages), 2)
    )
